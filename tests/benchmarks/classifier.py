"""Rows on the classifiers: stored reconstructions against making them in every batch, and what Lightning costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs.artifacts import Reconstructions
from fakegan.views import VIEWS
from tests.benchmarks import machine, modules, study
from tests.benchmarks.harness import Side, Turns, repeating, take_turns
from tests.benchmarks.results import Result, Row
from tests.benchmarks.trainer import fit_in_turns

MOST = 1 / 1.15  # a step through Lightning may take 15% more than in a bare loop, and can at best equal it


def steps_through_lightning(turns: Turns, batch: int) -> None:
    """A side: a unit is one step of the simple CNN with all that the module and Lightning add."""
    example = {"x": torch.rand(batch, 3, 64, 64) * 2 - 1, "label": torch.arange(batch) % 2}
    fit_in_turns(turns, modules.simple_cnn(modules.SGD), DataLoader([example] * 1000, batch_size=None))


def bare_steps(turns: Turns, batch: int) -> None:
    """A side: the same net and optimizer in a bare loop; the same allocator too, so that only Lightning differs."""
    x, label = torch.rand(batch, 3, 64, 64) * 2 - 1, torch.arange(batch) % 2
    net = SimpleCNN()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=5e-4, fused=True)
    turns.serve(repeating(lambda: study.classifier_step(net, optimizer, x, label)))


def step_rows(quick: bool) -> Iterator[Result]:
    """The simple CNN's step against the study's, and what Lightning costs."""
    batch, rounds, steps, size = (8, 2, 2, 64) if quick else (50, 9, 10, machine.PRODUCT)
    sides = [
        Side(steps_through_lightning, (batch,)),
        Side(study.classifier_steps, (batch,)),
        Side(bare_steps, (batch,)),
        Side(machine.multiply, (size,)),
    ]
    ours, theirs, bare, products = take_turns(sides, rounds, (steps, steps, steps, 2), apart=not quick)
    what = f"simple-CNN step through Lightning, batch {batch}"
    yield Row(what, "the study's step in a bare loop", "step", ours, theirs, MOST)
    yield Row(what, "a bare loop with FakeGAN's net and optimizer", "step", ours, bare, MOST)
    flops = study.classifier_step_flops(batch)
    yield machine.arithmetic_share(what, "step", ours, flops, products, size)


def epochs_on_stored(turns: Turns, folder: Path, batch: int) -> None:
    """A side: a unit is one step of the simple CNN on stored reconstructions, an epoch's end counted with its last."""
    stored = Reconstructions(folder)
    rows = np.arange(len(stored))
    data = modules.real_and_fake({"recon": stored}, rows % 2, VIEWS["reconstruction"], rows, batch)
    fit_in_turns(turns, modules.simple_cnn(modules.SGD), data)


def epochs_on_the_fly(turns: Turns, folder: Path, batch: int, depth: int, width: int) -> None:
    """A side: the same steps, each on faces that FakeGAN's autoencoder of the study's settings reconstructs then."""
    images = np.load(folder / "images.npy")
    rows, net = np.arange(len(images)), AutoGAN(depth, width, "instance").eval().requires_grad_(False)
    data = modules.real_and_fake({"image": images}, rows % 2, lambda arrays: net(arrays["image"]), rows, batch)
    fit_in_turns(turns, modules.simple_cnn(modules.SGD), data)


def epoch_rows(quick: bool) -> Iterator[Result]:
    """An epoch of the simple CNN on reconstructions; what the pictures show does not change the time."""
    faces, batch, width, depth, rounds = (24, 8, 2, 1, 2) if quick else (200, 50, 64, 4, 5)
    images = np.random.default_rng(0).integers(0, 256, (faces, 64, 64, 3), dtype=np.uint8)
    steps = faces // batch
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        np.save(folder / "images.npy", images)
        np.save(folder / "rows.npy", np.arange(faces))
        sides = [
            Side(epochs_on_stored, (folder, batch)),
            Side(study.classifier_epochs_on_the_fly, (faces, batch, depth, width)),
            Side(epochs_on_the_fly, (folder, batch, depth, width)),
        ]
        warm_up = units = (steps, 1, steps)
        step, theirs, our_step = take_turns(sides, rounds, units, warm_up, apart=not quick)
    ours, on_the_fly = (tuple(steps * seconds for seconds in side) for side in (step, our_step))
    what = f"simple-CNN epoch on stored reconstructions, {faces} faces"
    against = f"reconstructing in every batch, depth {depth}, width {width}"
    yield Row(what, f"{against}, with the study's nets in a bare loop", "epoch", ours, theirs, bar=30)
    yield Row(what, f"{against}, with FakeGAN's nets through Lightning", "epoch", ours, on_the_fly)
