"""Classifiers: which label is fake, what is logged; of DCGAN also what each phase moves and what is drawn."""

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader

from fakegan.data.store import FaceStore
from fakegan.labels import FAKE, REAL
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training import parts
from fakegan.training.callbacks import GeneratedSamples
from fakegan.training.classifier import Classifier, fake_probability
from fakegan.training.datamodules import RealFakeDataModule
from fakegan.training.dcgan import DCGANClassifier, running_statistics_kept
from tests.conftest import Compose
from tests.helpers import changed, fit, real_and_fake, record_phases


def test_score_is_the_probability_of_fake() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])  # (real, fake)
    expected = [0.5, 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))]
    assert fake_probability(logits).tolist() == pytest.approx(expected)


def validation_scores(module: Classifier, data: RealFakeDataModule) -> tuple[Tensor, Tensor]:
    """P(fake) of the first validation batch: of its real faces, and of its fakes."""
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    with torch.no_grad():
        scores = fake_probability(module.eval()(batch["x"]))
    return scores[batch["label"] == REAL], scores[batch["label"] == FAKE]


def test_a_classifier_learns_which_class_is_fake_and_validates_in_eval_mode(store: FaceStore) -> None:
    data = real_and_fake(store)
    module = Classifier(SimpleCNN(), partial(AdamW, lr=1e-3, fused=True))
    modes: list[bool] = []
    module.net.register_forward_hook(lambda net, *_: modes.append(net.training))
    trainer = fit(module, data, epochs=3)
    assert trainer.callback_metrics["val/auroc"] > 0.95
    steps, val_batches = len(data.train_dataloader()), len(data.val_dataloader())
    assert modes == ([True] * steps + [False] * val_batches) * 3
    real, fake = validation_scores(module, data)
    assert fake.mean() > real.mean() + 0.3


def networks(channels: int = 3, width: int = 4, latent: int = 5, lr: float = 2e-4) -> dict[str, Any]:
    """What a DCGANClassifier is made of, small."""
    return {
        "net": DCGANDiscriminator(channels, width=width),
        "generator": DCGANGenerator(latent=latent, width=width, out_channels=channels),
        "optimizer": partial(Adam, lr=lr, betas=(0.5, 0.999), fused=True),
    }


def passed_through(module: DCGANClassifier) -> tuple[list[Tensor], list[Tensor]]:
    """What the generator makes, and what the discriminator sees, in the fit that follows."""
    sampled: list[Tensor] = []
    seen: list[Tensor] = []
    module.generator.register_forward_hook(lambda _, __, samples: sampled.append(samples.detach().clone()))
    module.net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return sampled, seen


def test_each_phase_moves_its_own_network_only_and_samples_once(store: FaceStore) -> None:
    module = DCGANClassifier(**networks())
    phases, (sampled, seen) = record_phases(module, "generator", "net"), passed_through(module)
    fit(module, real_and_fake(store), limit_train_batches=2, limit_val_batches=0)
    everything = {"weights", "statistics"}
    assert phases == [(everything, set()), (set(), everything)] * 2  # generator, then discriminator
    assert len(sampled) == 2  # one forward a step, for both phases
    for step, samples in enumerate(sampled):
        by_generator, labelled, by_discriminator = seen[3 * step : 3 * step + 3]
        assert torch.equal(by_generator, samples)
        assert torch.equal(by_discriminator, samples)
        assert labelled.shape == samples.shape
        assert not torch.equal(labelled, samples)


def test_the_discriminators_running_statistics_are_those_of_labelled_faces(store: FaceStore) -> None:
    """They are what its eval mode rests on, and it is faces that it is asked about."""
    module = DCGANClassifier(**networks())
    first = copy.deepcopy(module.net.features[:3])  # to the first BatchNorm's input
    _, seen = passed_through(module)
    fit(module, real_and_fake(store), limit_train_batches=1, limit_val_batches=0)
    expected = 0.1 * first(seen[1]).mean(dim=(0, 2, 3))  # momentum 0.1, from 0
    torch.testing.assert_close(module.net.features[3].running_mean, expected)


@pytest.mark.parametrize(("kind", "sides"), [(nn.BatchNorm1d, ()), (nn.BatchNorm2d, (3, 3))])
def test_keeping_statistics_still_normalises_by_the_batch_and_ends(kind: Any, sides: tuple[int, ...]) -> None:
    net = nn.Sequential(kind(2), kind(2, track_running_stats=False)).train()
    x = 5 + torch.randn(8, 2, *sides)
    before = copy.deepcopy(net.state_dict())
    with running_statistics_kept(net):
        assert abs(net(x).mean().item()) < 1e-5
    assert not changed(before, net)
    net(x)
    assert changed(before, net) == {"statistics"}
    assert not net[1].track_running_stats


def test_dcgan_learns_which_class_is_fake(store: FaceStore) -> None:
    data = real_and_fake(store)
    module = DCGANClassifier(**networks(width=8, latent=16, lr=1e-3))
    metrics = fit(module, data, epochs=4).callback_metrics
    assert metrics["val/auroc"] > 0.9
    both = ["loss", "accuracy", "accuracy_real", "accuracy_fake", "accuracy_generated"]
    named = {split: {name.removeprefix(f"{split}/") for name in metrics} for split in ("train", "val")}
    assert named["val"] >= {*both, "auroc", "average_precision"}
    assert named["train"] >= {*both, "discriminator_loss", "generator_loss"}
    real, fake = validation_scores(module, data)
    assert (fake[:, None] > real).float().mean() > 0.9  # of all pairs: P(fake), not P(real)


class _Brightness(nn.Module):
    """Calls dark pictures fake; the weight, which changes nothing, gives the optimizer something to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.mean(dim=(1, 2, 3))
        return torch.stack([brightness, -brightness], dim=1) + 0 * self.weight


def _rigged(generated: float) -> DCGANClassifier:
    """Samples of one brightness, -1 to 1, against a discriminator that goes by brightness."""
    module = DCGANClassifier(**{**networks(), "optimizer": partial(SGD, lr=0.0)})
    module.net = _Brightness()
    nn.init.zeros_(module.generator.to_image.weight)
    nn.init.constant_(module.generator.to_image.bias, generated)
    return module


class _Given(pl.LightningDataModule):
    """Two training batches and one for validation, of pictures with a given brightness."""

    def __init__(self, faces: list[tuple[float, int]]) -> None:
        super().__init__()
        x = torch.stack([torch.full((3, 64, 64), brightness) for brightness, _ in faces])
        self.batch = {"x": x, "label": torch.tensor([label for _, label in faces])}

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        first = {name: value[:1] for name, value in self.batch.items()}
        return DataLoader([self.batch, first], batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader([self.batch], batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("generated", "recognised"), [(-0.5, 1.0), (0.5, 0.0)])
def test_three_accuracies_on_a_rigged_discriminator(generated: float, recognised: float) -> None:
    faces = [(0.2, REAL), (0.4, REAL), (-0.3, REAL), (0.1, REAL), (0.3, FAKE), (-0.1, FAKE)]
    metrics = {name: value.item() for name, value in fit(_rigged(generated), _Given(faces)).callback_metrics.items()}
    val = {"accuracy_real": 3 / 4, "accuracy_fake": 1 / 2, "accuracy_generated": recognised}
    assert {name: metrics[f"val/{name}"] for name in val} == pytest.approx(val)
    train = val | {"accuracy_real": 4 / 5, "accuracy": 5 / 7}  # the second batch is one more real face
    assert {name: metrics[f"train/{name}"] for name in train} == pytest.approx(train)
    right = math.log(1 + math.exp(-2 * math.tanh(0.5)))  # cross entropy where the logits differ by 2 tanh 0.5
    expected = right + 2 * math.tanh(0.5) * recognised  # the generator loses where it is recognised
    assert metrics["train/generator_loss"] == pytest.approx(expected, rel=1e-5)


def test_an_epoch_without_one_class_has_finite_metrics() -> None:
    metrics = fit(_rigged(-0.5), _Given([(0.2, REAL), (-0.4, REAL)]), limit_val_batches=0).callback_metrics
    assert metrics["train/accuracy_real"].item() == pytest.approx(2 / 3)
    assert metrics["train/accuracy_fake"].item() == 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_samples_of_the_fixed_noise_are_drawn_every_few_epochs_and_at_the_last(
    store: FaceStore, tmp_path: Path
) -> None:
    module = DCGANClassifier(**networks(channels=9))
    data = real_and_fake(store, batch_size=100)
    data.view = lambda arrays: arrays["image"].repeat(1, 3, 1, 1)
    grid = GeneratedSamples(tmp_path / "classifier", every=2, faces=3)
    fit(module, data, epochs=4, limit_train_batches=1, callbacks=[grid])
    names = [f"samples_{epoch:03d}.png" for epoch in (0, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "classifier").iterdir()) == names
    drawn = np.asarray(Image.open(tmp_path / "classifier" / names[-1]))
    with torch.no_grad():
        samples = module.eval().generator(module.fixed_noise)
    assert drawn.shape == (68, 3 * 66 + 2, 3)
    expected = ((samples[1, :3] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.array_equal(drawn[2:66, 68:132], expected)


def test_the_shipped_networks_have_the_studys_sizes(compose_settings: Compose) -> None:
    module: Any = parts.classifier(compose_settings("classifier=dcgan", "budget.width=64"))
    assert (module.net.features[0].out_channels, module.generator.latent) == (64, 100)
