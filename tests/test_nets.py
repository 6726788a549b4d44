"""Networks and losses: shapes, ranges, how weights start, and values worked out by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet

from fakegan.errors import FakeganError
from fakegan.labels import FAKE, REAL
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.losses import (
    autoencoder_loss,
    dcgan_discriminator_loss,
    dcgan_generator_loss,
    l1_loss,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
)
from fakegan.nets.recon_error import ERROR_NORMS, ReconError
from fakegan.nets.simple_cnn import SimpleCNN


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize(("code_channels", "channels"), [(None, 16), (3, 3)])
def test_autogan_keeps_the_size_and_stays_in_range(
    depth: int, norm: Any, code_channels: int | None, channels: int
) -> None:
    net = AutoGAN(depth, 4, norm, code_channels)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    assert net.encoder(image).shape == (2, channels, 16, 16)
    recon = net(image)
    assert recon.shape == image.shape
    assert recon.abs().max() <= 1


def test_the_patch_discriminator_gives_a_4x4_map_and_one_batch_equals_two_calls() -> None:
    net = PatchDiscriminator(width=4)
    real, recon = torch.rand(2, 3, 3, 64, 64)
    score = net(torch.cat([real, recon]))
    assert score.shape == (6, 1, 4, 4)
    torch.testing.assert_close(score, torch.cat([net(real), net(recon)]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [3, 9])
def test_classifiers_give_two_logits_and_the_generator_pictures(channels: int) -> None:
    generator = DCGANGenerator(latent=5, width=4, out_channels=channels)
    assert generator.features[:3](torch.randn(2, 5, 1, 1)).shape == (2, 32, 4, 4)
    samples = generator(100 * torch.randn(2, 5))
    assert samples.shape == (2, channels, 64, 64)
    assert samples.abs().max() <= 1
    for net, shape in (
        (SimpleCNN(channels), (16, 27, 27)),
        (AlexNet(channels, width=4, hidden=8), (16, 2, 2)),
        (DCGANDiscriminator(channels, width=4), (32, 4, 4)),
    ):
        assert net(samples).shape == (2, 2)
        assert net.features(samples).shape == (2, *shape)
    norms = [m for m in SimpleCNN().modules() if isinstance(m, nn.BatchNorm2d)]
    assert len({id(m) for m in norms}) == 2  # the study's notebook used one twice


@pytest.mark.parametrize(("size", "cnn", "alex", "layers"), [(64, 27, 2, 4), (128, 59, 6, 5), (256, 123, 6, 6)])
def test_networks_fit_faces_of_every_size(size: int, cnn: int, alex: int, layers: int) -> None:
    generator, discriminator = DCGANGenerator(5, 4, size=size), DCGANDiscriminator(width=4, size=size)
    samples = generator(torch.randn(2, 5))
    assert samples.shape == (2, 3, size, size)
    for net, shape in (
        (SimpleCNN(size=size), (16, cnn, cnn)),
        (AlexNet(width=4, hidden=8, size=size), (16, alex, alex)),
        (discriminator, (32, 4, 4)),
    ):
        assert net(samples).shape == (2, 2)
        assert net.features(samples).shape == (2, *shape)
        # Its gradient has no deterministic form on a GPU (trainer.deterministic=true).
        assert not any(isinstance(module, nn.AdaptiveAvgPool2d) for module in net.modules())
    for net, kind in ((generator, nn.ConvTranspose2d), (discriminator, nn.Conv2d)):
        channels = [module.out_channels for module in net.modules() if isinstance(module, kind)]
        assert len(channels) == layers + 1  # one more for each doubling
    score = PatchDiscriminator(4)(samples)
    assert score.shape == (2, 1, size // 16, size // 16)
    assert AutoGAN(1, 4).encoder(samples).shape == (2, 16, size // 4, size // 4)


@pytest.mark.parametrize(
    ("make", "count"),
    [(SimpleCNN, 28_082), (AlexNet, 4_570_946), (DCGANDiscriminator, 2_773_826), (DCGANGenerator, 3_576_707)],
)
def test_the_smallest_faces_have_the_networks_that_they_always_had(make: type[nn.Module], count: int) -> None:
    assert sum(weights.numel() for weights in make().parameters()) == count


def test_a_narrow_alexnet_keeps_torchvisions_proportions() -> None:
    shapes = [tuple(m.weight.shape[:2]) for m in AlexNet(width=16, hidden=8).features if isinstance(m, nn.Conv2d)]
    assert shapes == [(16, 3), (48, 16), (96, 48), (64, 96), (64, 64)]  # a quarter of torchvision's


def test_alexnet_starts_with_torchvisions_weights_and_no_layer_at_zero() -> None:
    torch.manual_seed(7)
    net = AlexNet(hidden=8)
    torch.manual_seed(7)
    torch.testing.assert_close(net.features.state_dict(), alexnet(weights=None).features.state_dict(), rtol=0, atol=0)
    assert all(weights.abs().max() > 0 for weights in net.head.parameters())


@pytest.mark.parametrize("kind", [DCGANGenerator, DCGANDiscriminator])
def test_dcgans_weights_start_as_in_the_paper(kind: type[nn.Module]) -> None:
    net = kind(width=16)  # within the test, whose seed is fixed
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            tolerance = 4 * 0.02 / math.sqrt(module.weight.numel())  # four standard errors of a mean
            assert abs(module.weight.mean().item()) < tolerance
            assert module.weight.std().item() == pytest.approx(0.02, abs=tolerance)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.03)
            assert 0.008 < module.weight.std().item() < 0.04  # 16 numbers at least
    assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (AutoGAN, {"depth": 0}, "depth"),
        (AutoGAN, {"norm": "layer"}, "norm"),
        (AlexNet, {"width": 0}, "width=0 must be 1 or more"),
        (AlexNet, {"hidden": 0}, "hidden=0 must be 1 or more"),
        (AlexNet, {"in_channels": 0}, "in_channels=0 must be 1 or more"),
        (AlexNet, {"dropout": 1.0}, "dropout=1.0 must be from 0 to below 1"),
        (AlexNet, {"dropout": -0.1}, "dropout=-0.1 must be"),
        (AlexNet, {"imagenet": True, "width": 16}, "set width=64, not 16"),
        (AlexNet, {"imagenet": True, "in_channels": 9}, "takes RGB, not a view of 9 channels"),
        (ReconError, {"norm": "l3"}, "l1, l2, linf, local_detail"),
        (SimpleCNN, {"size": 100}, "size=100 must be one of 64, 128, 256"),
        (AlexNet, {"size": 32}, "size=32 must be one of"),
        (DCGANGenerator, {"size": 512}, "size=512 must be one of"),
        (DCGANDiscriminator, {"size": "64"}, "size='64' must be one of"),
    ],
)
def test_an_option_out_of_range_is_refused(make: Callable[..., nn.Module], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**options)


def test_imagenet_weights_reach_the_convolutions_or_are_missed_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    weights = {k: torch.full_like(v, 0.25) for k, v in alexnet(weights=None).state_dict().items()}
    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", offline)
    net = AlexNet(hidden=8, imagenet=True)  # building it needs no network
    with pytest.raises(FakeganError, match=r"no network.*imagenet=false"):
        net.load_imagenet()
    monkeypatch.setattr(AlexNet_Weights, "get_state_dict", lambda *_, **__: weights)
    net.load_imagenet()
    assert all((p == 0.25).all() for p in net.features.parameters())


def test_losses_of_the_autoencoder_by_hand() -> None:
    score = torch.tensor([1.0, 0.0, 3.0])
    assert lsgan_generator_loss(score).item() == pytest.approx((0 + 1 + 4) / 3)
    real, recon = torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5])
    assert lsgan_discriminator_loss(real, recon).item() == pytest.approx(0.5 * (0.125 + 0.125))
    assert lsgan_discriminator_loss(torch.tensor(0.5), torch.tensor(0.5)).item() == pytest.approx(0.25)
    assert l1_loss(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 0.5])).item() == pytest.approx(1.25)
    assert autoencoder_loss(torch.tensor(1.0), torch.tensor(0.5), 0.8).item() == pytest.approx(1.4 / 1.8)


def test_losses_of_dcgan_by_hand() -> None:
    guess, sure = math.log(2), math.log(1 + math.exp(-2.0))  # the right logit 0, or 2 above the other
    wrong = sure + 2
    level, label = torch.zeros(2, 2), torch.tensor([REAL, FAKE])
    says_real, says_fake = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    both = torch.cat([says_real, says_real])  # right about the first, wrong about the second
    many = says_real.repeat(7, 1)  # seven samples weigh as much as two faces
    assert dcgan_discriminator_loss(level, label, level).item() == pytest.approx(guess)
    assert dcgan_discriminator_loss(both, label, says_fake).item() == pytest.approx(((sure + wrong) / 2 + sure) / 2)
    assert dcgan_discriminator_loss(both, label, many).item() == pytest.approx(((sure + wrong) / 2 + wrong) / 2)
    assert dcgan_generator_loss(says_real).item() == pytest.approx(sure)
    assert dcgan_generator_loss(torch.cat([says_fake, says_real])).item() == pytest.approx((wrong + sure) / 2)


def flat(value: float) -> Tensor:
    return torch.full((1, 3, 64, 64), value)


def test_error_norms_by_hand() -> None:
    """Half of a face's values differ by 0.4, in whole rows of planes; the others by nothing."""
    difference = flat(0.0)
    difference[:, :, :32] = 0.4
    edge = 2 * (0.4 / 3) ** 2 / 64  # a 3x3 mean takes a third of 0.4 away on both sides of the edge, in 2 of 64 rows
    by_hand = {"l1": 0.2, "l2": math.sqrt(0.16 / 2), "linf": 0.4, "local_detail": math.sqrt(edge)}
    for sign in (1, -1):
        assert {name: norm(sign * difference).item() for name, norm in ERROR_NORMS.items()} == pytest.approx(by_hand)
    assert ERROR_NORMS["local_detail"](flat(0.7)).item() == pytest.approx(0, abs=1e-6)


def log_odds(net: ReconError, value: float) -> float:
    logits = net(flat(value))[0]
    return float(logits[1] - logits[0])


def test_the_log_odds_are_standard_deviations_above_real_faces() -> None:
    net = ReconError(norm="l1")
    net.learn(torch.tensor([math.log(0.1), math.log(0.2)]))  # mean log sqrt(0.02), spread log(2) / 2
    assert log_odds(net, 0.2) == pytest.approx(1.0, abs=1e-4)
    assert log_odds(net, 0.4) > log_odds(net, 0.2) > log_odds(net, 0.1)
    net.learn(torch.full((5,), -2.0))
    assert math.isfinite(log_odds(net, 0.0))  # a perfect copy, among equal errors


def test_the_midpoint_lies_between_the_classes() -> None:
    net = ReconError()
    net.learn(torch.tensor([-1.0, 1.0]))  # mean 0, spread 1
    net.place_between(torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([1.0, 2.0, 3.0]))
    assert log_odds(net, math.e) == pytest.approx(0.0, abs=1e-5)  # a log error of 1: between the medians 0 and 2
