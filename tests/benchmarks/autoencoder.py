"""Rows on the adversarial autoencoder's step, against the study's and against the machine's arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from fakegan.modules.autoencoder import AdversarialAutoencoder
from tests.benchmarks import machine, study
from tests.benchmarks.harness import Side, SideError, Turns, take_turns
from tests.benchmarks.results import NotMeasured, Result, Row
from tests.benchmarks.trainer import PRECISION, fit_in_turns

# The study's settings of the module, so that both sides compute the same.
STUDY: dict[str, Any] = {
    "norm": "instance",
    "reconstruction_weight": 0.8,
    "learning_rate": 2e-4,
    "schedule": "constant",
    "discriminator_floor": 0.0,
}

FLOAT32 = "float32 (convolutions in TF32, torch's default)"
ON_THE_GPU = "autoencoder step on the GPU, the study's settings (InstanceNorm)"


class Case(NamedTuple):
    """One width and depth, how long to measure it, and what it should reach."""

    width: int
    depth: int
    rounds: int
    steps: int  # a round
    bar: float | None = None
    share: float | None = None  # of the matrix-product rate
    batch: int = 50
    norm: bool = True  # the study's settings, InstanceNorm among them; False: FakeGAN's default settings


FULL = (
    Case(64, 1, 5, 1, 2.0),
    Case(64, 4, 5, 1, 2.3, 0.7),
    Case(16, 1, 5, 2, 1.5),
    Case(16, 4, 5, 2, 1.5),
    Case(16, 4, 5, 2, norm=False),
)
QUICK = (Case(2, 1, 2, 2, batch=4), Case(2, 1, 2, 2, batch=4, norm=False))
ON_GPU = (Case(64, 4, 5, 10, 4.0, batch=50), Case(64, 4, 5, 4, 8.0, batch=512))


def ours(
    turns: Turns,
    case: Case,
    accelerator: str = "cpu",
    precision: str | None = None,  # None: that of trainer=cpu or trainer=gpu
) -> None:
    """A side: a unit is one step through Lightning's Trainer on the same batch in memory."""
    real = torch.rand(case.batch, 3, 64, 64) * 2 - 1
    if accelerator == "gpu":
        real = real.cuda()
    batches = DataLoader([{"image": real}] * 1000, batch_size=None)
    module = AdversarialAutoencoder(case.depth, case.width, **(STUDY if case.norm else {}))
    fit_in_turns(turns, module, batches, accelerator, precision)


def theirs(turns: Turns, case: Case, device: str = "cpu") -> None:
    """A side: a unit is one step as the study wrote it, in float32."""
    study.autoencoder_steps(turns, case.depth, case.width, case.batch, case.norm, device)


def rows(quick: bool) -> Iterator[Result]:
    """Steps on the same batch in memory, at the study's settings and at the default ones."""
    for case in QUICK if quick else FULL:
        yield from _on_cpu(case, apart=not quick)


def _on_cpu(case: Case, apart: bool) -> Iterator[Result]:
    size = machine.PRODUCT if apart else 64
    sides = [Side(ours, (case,)), Side(theirs, (case,)), Side(machine.multiply, (size,))]
    our_times, their_times, products = take_turns(sides, case.rounds, (case.steps, case.steps, 5), apart=apart)
    settings = "the study's settings (InstanceNorm)" if case.norm else "the default settings (no norm)"
    what = f"autoencoder step, {settings}, depth {case.depth}, width {case.width}, batch {case.batch}"
    against = "the study's step" if case.norm else "the study's step on an autoencoder without norm"
    yield Row(what, against, "step", our_times, their_times, case.bar)
    flops = study.autoencoder_step_flops(case.depth, case.width, case.batch)  # a norm has no convolutions
    yield machine.arithmetic_share(what, "step", our_times, flops, products, size, case.share)


def gpu_rows(quick: bool) -> Iterator[Result]:
    """The same step on a GPU, in the precision of trainer=gpu and, without a bar, in the study's float32."""
    if not torch.cuda.is_available():
        yield NotMeasured(f"{ON_THE_GPU}, depth 4, width 64, batch 50 and 512", "no GPU")
        return
    for case in QUICK[:1] if quick else ON_GPU:
        sides = [
            Side(ours, (case, "gpu"), sees_gpus=True),
            Side(theirs, (case, "cuda"), sees_gpus=True),
            Side(ours, (case, "gpu", "32-true"), sees_gpus=True),
        ]
        what = f"{ON_THE_GPU}, depth {case.depth}, width {case.width}, batch {case.batch}"
        try:
            # The first steps load kernels and fill the allocator.
            times = take_turns(sides, case.rounds, (case.steps,) * 3, warm_up=5, apart=not quick)
        except SideError as error:
            if not error.out_of_memory:
                raise
            yield NotMeasured(what, f"the GPU has too little free memory ({error})")
            continue
        against = f"the study's step, {FLOAT32}"
        yield Row(f"{what}, {PRECISION['gpu']} as with trainer=gpu", against, "step", times[0], times[1], case.bar)
        yield Row(f"{what}, {FLOAT32}", against, "step", times[2], times[1])
