"""`python -m tests.recorded RUN_DIR OUT [double|counted]`: go on with a run and write down every step's means.

Started as several processes, the first writes: the means over all of them, or how often they meet in a step.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fakegan.data import batches
from fakegan.data.batches import DealtStoreOrder, StoreOrder
from fakegan.data.pixels import to_unit
from fakegan.runs import config_file as runs
from fakegan.stages import train_autoencoder, train_classifier
from fakegan.stages.run import run
from fakegan.system import log, processes, ranks
from fakegan.training import stopping
from fakegan.training.callbacks import StepSeed
from fakegan.training.fitting import fit
from fakegan.training.modules import EpochMeans

steps: list[Mapping[str, float]] = []


update = EpochMeans.update
seed_step = StepSeed.on_train_batch_start
COUNTED = 15  # steps; a process that ends within a profile crashes
running: list[profile] = []  # or none


def remembered(means: EpochMeans, values: dict[str, torch.Tensor], weight: int) -> None:
    """In place of EpochMeans.update."""
    update(means, values, weight)
    if len(values) > 1 and "psnr" not in values:  # a training step
        steps.append({name: float(ranks.mean(value.double())) for name, value in values.items()})


def counted(seed: StepSeed, *step: Any) -> None:
    """In place of StepSeed.on_train_batch_start: of each of the first steps the collectives until the next, by name."""
    for past in running:
        past.__exit__(None, None, None)
        names = [event.name for event in past.events() or ()]
        steps.append(Counter(name for name in names if name.startswith("c10d::")))
    running[:] = [profile(activities=[ProfilerActivity.CPU])] if len(steps) < COUNTED else []
    for now in running:
        now.__enter__()
    seed_step(seed, *step)


def in_small_batches(order: DealtStoreOrder, rows: Any, batch_size: int) -> None:
    """In place of DealtStoreOrder.__init__: validation in several batches, so that two processes have some each."""
    StoreOrder.__init__(order, rows, batch_size=min(batch_size, 10))


class Done(BaseException):
    """The network has been fitted."""


def in_double() -> None:
    """Fit in double precision.

    Adam turns the rounding of a gradient near zero into a whole step: single precision would hide a real difference.
    """
    torch.set_default_dtype(torch.float64)
    batches.to_unit = lambda pixels: to_unit(pixels).double()


def fit_only(*arguments: Any, **options: Any) -> None:
    """In place of `fit`: end there."""
    fit(*arguments, **options)
    raise Done


def main(run_dir: str, out: str, *modes: str) -> None:
    torch.set_num_threads(1)
    log.begin()
    processes.end_with_parent()
    processes.unblock_signals()
    ranks.connect()
    if "counted" not in modes:
        EpochMeans.update = remembered  # type: ignore[method-assign]
    DealtStoreOrder.__init__ = in_small_batches  # type: ignore[method-assign]
    if "double" in modes:
        in_double()
    if "counted" in modes:
        stopping._UNHEARD = math.inf  # they agree after so many steps, however quick these are
        StepSeed.on_train_batch_start = counted  # type: ignore[assignment, method-assign]
    if modes:
        train_autoencoder.fit = train_classifier.fit = fit_only
    with contextlib.suppress(Done):
        run(runs.read_run(run_dir))
    if ranks.is_rank_zero():
        Path(out).write_text(json.dumps(steps))
    ranks.disconnect()  # else the process that ends last may be aborted


if __name__ == "__main__":
    main(*sys.argv[1:])
