"""What several test files share: made-up pictures, settings of a run, what a folder holds, and small trainings."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fakegan.config.overrides import to_hydra
from fakegan.data.store import FaceStore
from fakegan.labels import REAL
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.runs.compose import register_resolvers, settings_of
from fakegan.runs.settings import RunSettings
from fakegan.system.places import CONF
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.datamodules import RealFacesDataModule, RealFakeDataModule
from fakegan.views import VIEWS


def smooth_faces(count: int, rng: np.random.Generator, checkerboard: float = 0.0) -> npt.NDArray[np.uint8]:
    """Smooth random colour fields (count, 64, 64, 3); fakes get a checkerboard of that amplitude."""
    coarse = rng.uniform(60, 190, (count, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    board = checkerboard * (2 * (np.indices((64, 64)).sum(axis=0) % 2) - 1)
    noise = rng.normal(0, 2, (count, 64, 64, 3))
    return np.clip(coarse + board[..., None] + noise, 0, 255).astype(np.uint8)


def encode(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    picture.save(content, format, **options)
    return content.getvalue()


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compose_run(*overrides: str) -> RunSettings:
    """The settings that `python train.py` makes of these words, but for the run's folder, if they do not name it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(map(to_hydra, overrides)))
    return settings_of(RunSettings, cfg, overrides)


def asked(arguments: str) -> list[str]:
    """The overrides of trainer arguments, as in "max_steps=7 min_steps=5"; a key with a dot stands for itself."""
    return [word if "." in word.partition("=")[0] else f"trainer.{word}" for word in arguments.split()]


def adam(lr: float = 2e-4) -> Callable[..., Optimizer]:
    return partial(Adam, lr=lr, betas=(0.8, 0.9), fused=True)


def autoencoder(width: int = 4, kind: type[AdversarialAutoencoder] = AdversarialAutoencoder, **options: Any) -> Any:
    """A small adversarial autoencoder, of the class `kind`."""
    networks = {"net": AutoGAN(1, width), "discriminator": PatchDiscriminator(width), "optimizer": adam()}
    return kind(**{**networks, **options})


def fit(module: pl.LightningModule, data: Any, epochs: int = 1, **options: Any) -> pl.Trainer:
    """The Trainer that has fitted a module on a CPU: quiet, without checkpoints; `options` are Lightning's."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    fixed: dict[str, Any] = {"accelerator": "cpu", "max_epochs": epochs, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(**{**fixed, **dict.fromkeys(quiet, False), **options})
    trainer.fit(module, data)
    return trainer


def faces_of_five_steps(store: FaceStore) -> RealFacesDataModule:
    """40 real faces, five steps an epoch, and 10 to validate on."""
    rows = np.flatnonzero(store.labels == REAL)
    return RealFacesDataModule(store.images, store.labels, rows[:40], rows[40:50], 8, seed=1, workers=0)


def real_and_fake(store: FaceStore, batch_size: int = 20) -> RealFakeDataModule:
    """200 faces of both classes as pixels, and the other 120 to validate on."""
    rows = np.random.default_rng(0).permutation(len(store))
    options: Any = {"seed": 0, "ratio": "balanced", "workers": 0, "batch_key": "budget.classifier.batch_size"}
    images = {"image": store.images}
    return RealFakeDataModule(images, store.labels, VIEWS["pixels"], rows[:200], rows[200:], batch_size, **options)


class PlainNet(nn.Module):
    """A user's net: its Dropout and BatchNorm1d are torch's; AlphaDropout draws noise that is not dealt."""

    def __init__(
        self,
        in_channels: int = 3,
        dropout: float = 0.4,  # share of the features that are left out in training
        alpha: bool = False,  # by torch's AlphaDropout
    ) -> None:
        super().__init__()
        kind = nn.AlphaDropout if alpha else nn.Dropout
        self.features = nn.Sequential(nn.Conv2d(in_channels, 4, 8, stride=8), nn.ReLU(), nn.Flatten(), kind(dropout))
        self.head = nn.Sequential(nn.Linear(256, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 64, 64) -> (B, 2)
        logits: Tensor = self.head(self.features(x))
        return logits


class StopsOnce(pl.Callback):
    """A user's callback that asks to stop after a step of one epoch, as a signal would; what is saved then is whole."""

    signal = 15
    armed = False  # by a test

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if StopsOnce.armed and (trainer.current_epoch, batch_idx) == self.at:
            StopsOnce.armed = False
            stop = next(c for c in trainer.callbacks if type(c).__name__ == "SaveAndStop")  # type: ignore[attr-defined]
            stop.note(self.signal, None)
