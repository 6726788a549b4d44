"""Rows on the adversarial autoencoder's step, against the study's and against the machine's arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from fakegan.modules.autoencoder import AdversarialAutoencoder
from tests.benchmarks import machine, study
from tests.benchmarks.harness import Side, Turns, take_turns
from tests.benchmarks.results import NotMeasured, Result, Row, Share
from tests.benchmarks.trainer import fit_in_turns, start_as_the_commands_do

# The study's settings of the module, so that both sides compute the same.
STUDY: dict[str, Any] = {
    "norm": "instance",
    "reconstruction_weight": 0.8,
    "learning_rate": 2e-4,
    "schedule": "constant",
    "discriminator_floor": 0.0,
}


class Case(NamedTuple):
    """One width and depth, how long to measure it, and what it should reach."""

    width: int
    depth: int
    rounds: int
    steps: int  # a round
    bar: float | None = None
    share: float | None = None  # of the matrix-product rate
    batch: int = 50


FULL = (Case(64, 1, 5, 1, 2.0), Case(64, 4, 5, 1, 2.3, 0.7), Case(16, 1, 5, 2, 1.5), Case(16, 4, 5, 2, 1.5))
QUICK = (Case(2, 1, 2, 2, batch=4),)
ON_GPU = (Case(64, 4, 5, 10, 4.0, batch=50), Case(64, 4, 5, 4, 8.0, batch=512))


def ours(
    turns: Turns, depth: int, width: int, batch: int, accelerator: str = "cpu", precision: str = "32-true"
) -> None:
    """A side: a unit is one step through Lightning's Trainer on the same batch in memory."""
    start_as_the_commands_do(accelerator)
    real = torch.rand(batch, 3, 64, 64) * 2 - 1
    if accelerator == "gpu":
        real = real.cuda()
    batches = DataLoader([{"image": real}] * 1000, batch_size=None)
    module = AdversarialAutoencoder(depth, width, **STUDY)
    fit_in_turns(turns, module, batches, accelerator, precision)


def rows(quick: bool) -> Iterator[Result]:
    """Steps on the same batch in memory, the study's norm and weight of L1 on both sides."""
    for case in QUICK if quick else FULL:
        yield from _on_cpu(case, apart=not quick)


def _on_cpu(case: Case, apart: bool) -> Iterator[Result]:
    options = (case.depth, case.width, case.batch)
    size = machine.PRODUCT if apart else 64
    sides = [Side(ours, options), Side(study.autoencoder_steps, options), Side(machine.multiply, (size,))]
    our_times, their_times, products = take_turns(sides, case.rounds, (case.steps, case.steps, 5), apart=apart)
    what = f"autoencoder step, depth {case.depth}, width {case.width}, batch {case.batch}"
    yield Row(what, "the study's step", "step", our_times, their_times, case.bar)
    flops = study.autoencoder_step_flops(*options)
    limits = tuple(flops * seconds / (2 * size**3) for seconds in products)
    limit = f"its {flops / 1e9:.3g} GFLOP at the rate of float32 matrix products"
    yield Share(what, limit, "step", our_times, limits, case.share)


def gpu_rows(quick: bool) -> Iterator[Result]:
    """The same step on a GPU, in float32 and, without a bar, in the precision of trainer=gpu."""
    if not torch.cuda.is_available():
        yield NotMeasured("autoencoder step, depth 4, width 64, batch 50 and 512, on a GPU", "no GPU")
        return
    for case in QUICK if quick else ON_GPU:
        options = (case.depth, case.width, case.batch)
        sides = [
            Side(ours, (*options, "gpu")),
            Side(study.autoencoder_steps, (*options, "cuda")),
            Side(ours, (*options, "gpu", "bf16-mixed")),
        ]
        # cuDNN looks for its algorithms in the first steps.
        times = take_turns(sides, case.rounds, (case.steps,) * 3, warm_up=5, apart=not quick)
        what = f"autoencoder step on the GPU, depth {case.depth}, width {case.width}, batch {case.batch}"
        yield Row(f"{what}, float32", "the study's step, float32", "step", times[0], times[1], case.bar)
        yield Row(f"{what}, bf16 as with trainer=gpu", "the study's step, float32", "step", times[2], times[1])
