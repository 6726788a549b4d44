"""Learning-rate schedules, as config nodes name them, and how a module follows one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from fakegan.checks import at_least

MakeOptimizer = Callable[..., Optimizer]  # of parameters
MakeSchedule = Callable[..., Any]  # of an optimizer, and of total_steps and epochs where it has such parameters


def constant(optimizer: Optimizer) -> LambdaLR:
    """The learning rate that the optimizer has."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(
    optimizer: Optimizer,
    total_steps: int,  # of the whole fit
    warmup: float = 0.05,  # share of the steps that it climbs before it falls
) -> LambdaLR:
    """Up in a line, then down along half a cosine to nothing (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    at_least(0, warmup=warmup)
    climb = max(warmup * total_steps, 1)
    return LambdaLR(
        optimizer,
        lambda step: min((step + 1) / climb, 0.5 * (1 + math.cos(math.pi * min(step / total_steps, 1)))),
    )


def falling(
    optimizer: Optimizer,
    total_steps: int,  # of the whole fit
    epochs: int,  # of the whole fit
    step_epochs: int = 30,  # epochs between two falls
    factor: float = 0.1,  # of each fall
) -> LambdaLR:
    """Falls every so many epochs, to a tenth each time."""
    at_least(1, step_epochs=step_epochs)
    at_least(0, factor=factor)
    steps_per_epoch = max(total_steps / epochs, 1)
    return LambdaLR(optimizer, lambda step: factor ** int(step / steps_per_epoch / step_epochs))


def training_steps(trainer: pl.Trainer) -> int:
    """Optimizer steps of the whole fit.

    Lightning's estimate would make the loader's iterator here and now, before a resumed fit is told where it stands.
    """
    data = cast("Any", trainer).datamodule
    if data is None:  # loaders alone, which cannot be resumed in the middle of an epoch
        return int(trainer.estimated_stepping_batches)
    batches = limited(len(data.train_dataloader()), trainer.limit_train_batches)
    return (trainer.max_epochs or 1) * math.ceil(batches / trainer.accumulate_grad_batches)


def limited(
    batches: int,
    limit: int | float | None,  # as Lightning's limit_train_batches: a number, or a share
) -> int:
    """Of so many batches of an epoch, those that are taken."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def follow(
    schedule: MakeSchedule | None,  # None: constant
    optimizer: Optimizer,
    module: pl.LightningModule,
) -> dict[str, Any]:
    """Lightning's description of the schedule of an optimizer.

    A schedule that asks for `total_steps` moves with each step, another with each epoch.
    """
    make = schedule or constant
    known = inspect.signature(make).parameters
    bound = getattr(make, "keywords", {})
    offered = {"total_steps": training_steps(module.trainer), "epochs": module.trainer.max_epochs or 1}
    given = {name: value for name, value in offered.items() if name in known and name not in bound}
    interval = "step" if "total_steps" in known else "epoch"
    return {"scheduler": make(optimizer, **given), "interval": interval, "monitor": module.monitor}


def move(module: pl.LightningModule, interval: str) -> None:
    """Move the schedules of a module that optimizes by hand, after a "step" or an "epoch"."""
    for config in module.trainer.lr_scheduler_configs:
        if config.interval != interval:
            continue
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step(module.trainer.callback_metrics[str(config.monitor)])
        else:
            config.scheduler.step()
