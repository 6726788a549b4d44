"""`python -m tests.recorded RUN_DIR OUT [double]`: go on with a run and write down every step's means.

Started as several processes, the first writes: the means over all of them.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from fakegan.data import batches
from fakegan.data.batches import DealtStoreOrder, StoreOrder
from fakegan.data.pixels import to_unit
from fakegan.runs import config_file as runs
from fakegan.stages import train_autoencoder, train_classifier
from fakegan.stages.run import run
from fakegan.system import log, processes, ranks
from fakegan.training.fitting import fit
from fakegan.training.modules import EpochMeans

steps: list[dict[str, float]] = []


update = EpochMeans.update


def remembered(means: EpochMeans, values: dict[str, torch.Tensor], weight: int) -> None:
    """In place of EpochMeans.update."""
    update(means, values, weight)
    if len(values) > 1 and "psnr" not in values:  # a training step
        steps.append({name: float(ranks.mean(value.double())) for name, value in values.items()})


def in_small_batches(order: DealtStoreOrder, rows: Any, batch_size: int) -> None:
    """In place of DealtStoreOrder.__init__: validation in several batches, so that two processes have some each."""
    StoreOrder.__init__(order, rows, batch_size=min(batch_size, 10))


class Done(BaseException):
    """The network has been fitted."""


def in_double() -> None:
    """Fit in double precision, and end there.

    Adam turns the rounding of a gradient near zero into a whole step: single precision would hide a real difference.
    """
    torch.set_default_dtype(torch.float64)
    batches.to_unit = lambda pixels: to_unit(pixels).double()

    def fit_only(*arguments: Any, **options: Any) -> None:
        fit(*arguments, **options)
        raise Done

    train_autoencoder.fit = train_classifier.fit = fit_only


def main(run_dir: str, out: str, *modes: str) -> None:
    torch.set_num_threads(1)
    log.begin()
    processes.end_with_parent()
    processes.unblock_signals()
    ranks.connect()
    EpochMeans.update = remembered  # type: ignore[method-assign]
    DealtStoreOrder.__init__ = in_small_batches  # type: ignore[method-assign]
    if "double" in modes:
        in_double()
    with contextlib.suppress(Done):
        run(runs.read_run(run_dir))
    if ranks.is_rank_zero():
        Path(out).write_text(json.dumps(steps))
    ranks.disconnect()  # else the process that ends last may be aborted


if __name__ == "__main__":
    main(*sys.argv[1:])
