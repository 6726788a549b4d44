"""Rows on the adversarial autoencoder's step, through Lightning's Trainer, against the step as the study wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from fakegan.modules.autoencoder import AdversarialAutoencoder
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from tests.benchmarks.baselines import StudyStep
from tests.benchmarks.harness import Row, interleave_with_trainer

# The study's settings of the module, so that both sides compute the same.
STUDY: dict[str, Any] = {
    "norm": "instance",
    "reconstruction_weight": 0.8,
    "learning_rate": 2e-4,
    "schedule": "constant",
    "discriminator_floor": 0.0,
}


class Case(NamedTuple):
    """One width and depth, and how long to measure it."""

    width: int
    depth: int
    rounds: int
    steps: int  # a round
    aim: float | None = None
    batch: int = 50


FULL = (Case(64, 1, 3, 1, 2.0), Case(64, 4, 3, 1, 2.3), Case(16, 1, 5, 1), Case(16, 4, 5, 1))
QUICK = (Case(2, 1, 2, 2, batch=4),)


def rows(quick: bool) -> Iterator[Row]:
    """Steps on the same batch in memory, the study's norm and weight of L1 on both sides."""
    for width, depth, rounds, steps, aim, batch in QUICK if quick else FULL:
        real = torch.rand(batch, 3, 64, 64) * 2 - 1
        module = AdversarialAutoencoder(depth, width, **STUDY)
        batches = DataLoader([{"image": real}] * ((rounds + 1) * steps), batch_size=None)
        step = StudyStep(AutoGAN(depth, width, "instance"), PatchDiscriminator(width))

        def study(count: int, step: StudyStep = step, real: torch.Tensor = real) -> None:
            for _ in range(count):
                step(real)

        times = interleave_with_trainer(module, batches, study, rounds, steps)
        what = f"autoencoder step, depth {depth}, width {width}, batch {batch}"
        yield Row(what, "the study's step", "step", *times, bar=1.5, aim=aim)
