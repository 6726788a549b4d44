import pytest
import torch
from fakegan.nets.registry import NETS
from torch import nn
from torchvision.models import AlexNet_Weights, alexnet

from fakegan.errors import FakeganError
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.losses import autoencoder_loss, l1_loss, lsgan_discriminator_loss, lsgan_generator_loss
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.pipeline import settings


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_autogan_keeps_the_size_and_stays_in_range(depth: int, norm: str) -> None:
    net = AutoGAN(depth, width=4, norm=norm)  # type: ignore[arg-type]
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    assert net.encoder(image).shape == (2, 16, 16, 16)
    recon = net(image)
    assert recon.shape == image.shape
    assert recon.abs().max() <= 1


def test_autogan_at_the_studys_width_has_the_studys_parameters() -> None:
    """Counted by hand from the layer list, convolutions without the biases that InstanceNorm would remove."""
    down = 3 * 64 * 49 + 64 * 128 * 9 + 128 * 256 * 9
    block = 2 * 256 * 256 * 9
    up = 256 * 128 * 9 + 128 * 64 * 9 + (64 * 3 * 49 + 3)
    for depth in (1, 4):
        net = AutoGAN(depth, width=64, norm="instance")
        assert sum(p.numel() for p in net.parameters()) == down + depth * block + up


def test_a_narrow_code_has_the_asked_for_channels() -> None:
    net = AutoGAN(1, width=4, code_channels=3)
    image = torch.zeros(1, 3, 64, 64)
    assert net.encoder(image).shape == (1, 3, 16, 16)
    assert net(image).shape == image.shape


def test_depth_zero_and_an_unknown_norm_are_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        AutoGAN(0)
    with pytest.raises(ValueError, match="norm"):
        AutoGAN(1, norm="layer")  # type: ignore[arg-type]


def test_discriminator_gives_a_4x4_map_and_one_batch_equals_two_calls() -> None:
    net = PatchDiscriminator(width=4)
    real, recon = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    together = net(torch.cat([real, recon]))
    assert together.shape == (6, 1, 4, 4)
    torch.testing.assert_close(together, torch.cat([net(real), net(recon)]), rtol=0, atol=1e-6)


def test_losses_by_hand() -> None:
    score = torch.tensor([1.0, 0.0, 3.0])
    assert lsgan_generator_loss(score).item() == pytest.approx((0 + 1 + 4) / 3)
    real, recon = torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5])
    assert lsgan_discriminator_loss(real, recon).item() == pytest.approx(0.5 * (0.125 + 0.125))
    assert lsgan_discriminator_loss(torch.tensor(0.5), torch.tensor(0.5)).item() == pytest.approx(0.25)
    assert l1_loss(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 0.5])).item() == pytest.approx(1.25)
    assert autoencoder_loss(torch.tensor(1.0), torch.tensor(0.5), 0.8).item() == pytest.approx(1.4 / 1.8)


@pytest.mark.parametrize("channels", [3, 9])
def test_classifiers_give_two_logits(channels: int) -> None:
    x = torch.zeros(2, channels, 64, 64)
    assert SimpleCNN(channels)(x).shape == (2, 2)
    assert AlexNet(channels, hidden=8)(x).shape == (2, 2)


def test_simple_cnn_is_the_papers() -> None:
    net = SimpleCNN()
    assert net.features(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 27, 27)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len({id(m) for m in norms}) == 2  # the study's notebook used one twice


def test_alexnet_leaves_a_2x2_map_and_keeps_torchvisions_convolutions() -> None:
    net = AlexNet(hidden=8)
    assert net.features(torch.zeros(1, 3, 64, 64)).shape == (1, 256, 2, 2)
    shapes = [tuple(m.weight.shape[:2]) for m in net.features if isinstance(m, nn.Conv2d)]
    assert shapes == [(64, 3), (192, 64), (384, 192), (256, 384), (256, 256)]


def test_imagenet_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    net = AlexNet(hidden=8, imagenet=True)  # building it needs no network
    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", offline)
    with pytest.raises(FakeganError, match=r"no network.*imagenet=false"):
        net.load_imagenet()
    with pytest.raises(FakeganError, match="RGB"):
        AlexNet(9, hidden=8, imagenet=True).load_imagenet()


def test_imagenet_weights_reach_the_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {k: torch.full_like(v, 0.25) for k, v in alexnet(weights=None).state_dict().items()}
    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", lambda *_, **__: weights)
    net = AlexNet(hidden=8, imagenet=True)
    net.load_imagenet()
    assert all((p == 0.25).all() for p in net.features.parameters())


def test_settings_know_the_nets_that_learn() -> None:
    assert set(settings.NETS) == set(NETS) - {"recon_error"}
