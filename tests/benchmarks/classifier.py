"""Rows on the classifiers: stored reconstructions against making them in every batch, and what Lightning costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from fakegan.data.datamodule import RealFakeDataModule, RowArray
from fakegan.modules.classifier import Classifier
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.pipeline.artifacts import Reconstructions
from fakegan.views import VIEWS
from tests.benchmarks.baselines import classifier_step
from tests.benchmarks.harness import Row, interleave_with_trainer


def epoch_rows(quick: bool) -> Iterator[Row]:
    """An epoch of the simple CNN on reconstructions; what the pictures show does not change the time."""
    faces, batch_size, width, depth, rounds = (24, 8, 2, 1, 2) if quick else (200, 50, 64, 4, 3)
    images = np.random.default_rng(0).integers(0, 256, (faces, 64, 64, 3), dtype=np.uint8)
    autoencoder = AutoGAN(depth, width, "instance").eval()
    net = SimpleCNN()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    on_the_fly = _data({"image": images}, "pixels", batch_size)
    batches = chain.from_iterable(repeat(on_the_fly.train_dataloader()))

    def reconstruct_and_learn(count: int) -> None:
        for raw in islice(batches, count):
            batch = on_the_fly.on_after_batch_transfer(raw, 0)
            with torch.no_grad():
                recon = autoencoder(batch["x"])
            classifier_step(net, optimizer, recon, batch["label"])

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        np.save(folder / "images.npy", images)
        np.save(folder / "rows.npy", np.arange(faces))
        stored = _data({"recon": Reconstructions(folder)}, "reconstruction", batch_size)
        steps = len(stored.train_order)
        times = interleave_with_trainer(Classifier("simple_cnn"), stored, reconstruct_and_learn, rounds, steps)
    ours, theirs = (tuple(steps * seconds for seconds in side) for side in times)
    what = f"simple-CNN epoch on stored reconstructions, {faces} faces"
    against = f"reconstructing in every batch, depth {depth}, width {width}"
    yield Row(what, against, "epoch", ours, theirs, bar=10, aim=30)


def lightning_rows(quick: bool) -> Iterator[Row]:
    """The simple CNN's step with all that the module and Lightning add, against a bare loop."""
    batch_size, rounds, steps = (8, 2, 2) if quick else (50, 9, 10)
    x = torch.rand(batch_size, 3, 64, 64) * 2 - 1
    label = torch.arange(batch_size) % 2
    net = SimpleCNN()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)

    def bare(count: int) -> None:
        for _ in range(count):
            classifier_step(net, optimizer, x, label)

    batches = DataLoader([{"x": x, "label": label}] * ((rounds + 1) * steps), batch_size=None)
    times = interleave_with_trainer(Classifier("simple_cnn"), batches, bare, rounds, steps)
    what = f"simple-CNN step through Lightning, batch {batch_size}"
    yield Row(what, "a bare loop, the same net and optimizer", "step", *times, aim=1 / 1.15)


def _data(arrays: dict[str, RowArray], view: str, batch_size: int) -> RealFakeDataModule:
    (array,) = arrays.values()
    rows = np.arange(len(array))  # type: ignore[arg-type]  # both kinds of array have a length
    labels = rows % 2
    return RealFakeDataModule(arrays, labels, VIEWS[view], rows, rows[:0], batch_size, seed=0)
