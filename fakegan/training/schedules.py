"""Learning-rate schedules, as config nodes name them, and how a module follows a schedule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from fakegan.checks import at_least
from fakegan.data.batches import limited
from fakegan.training.callbacks import EndAfter

MakeOptimizer = Callable[..., Optimizer]  # of parameters
MakeSchedule = Callable[..., Any]  # of an optimizer, and of total_steps and steps_per_epoch if it has such parameters


def constant(optimizer: Optimizer) -> LambdaLR:
    """The learning rate that the optimizer has."""
    return LambdaLR(optimizer, lambda step: 1.0)


def cosine(
    optimizer: Optimizer,
    total_steps: int,  # of the whole fit
    warmup: float = 0.05,  # share of the steps in which it climbs; then it falls
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
    steps_per_epoch: int,
    step_epochs: int = 30,  # epochs between two falls
    factor: float = 0.1,  # of each fall
) -> LambdaLR:
    """Falls every so many epochs, to a tenth each time."""
    at_least(1, step_epochs=step_epochs)
    at_least(0, factor=factor)
    return LambdaLR(optimizer, lambda step: factor ** (step // steps_per_epoch // step_epochs))


def scheduled(make: MakeSchedule, optimizer: Optimizer, total_steps: int, steps_per_epoch: int, mode: str) -> Any:
    """The schedule of an optimizer, given the options that it has; `mode` is the better direction, min or max.

    A ValueError for a schedule that sets one learning rate where the optimizer has two.
    """
    offered: dict[str, Any] = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    if getattr(make, "func", make) is ReduceLROnPlateau:
        offered["mode"] = mode
    known, bound = inspect.signature(make).parameters, getattr(make, "keywords", {})
    before = [group["lr"] for group in optimizer.param_groups]
    made = make(optimizer, **{name: value for name, value in offered.items() if name in known and name not in bound})
    after = [group["lr"] for group in optimizer.param_groups]
    if any(not math.isclose(new * before[0], after[0] * old) for old, new in zip(before, after, strict=True)):
        raise ValueError(
            "it sets one learning rate, but body_lr asks for two: give it two, head and body, or body_lr=1"
        )
    return made


def follow(
    schedule: MakeSchedule | None,  # None: constant
    optimizer: Optimizer,
    module: pl.LightningModule,
) -> dict[str, Any]:
    """Lightning's description of the schedule of an optimizer.

    A schedule with an option `total_steps` or `steps_per_epoch` moves with each step, any other with each epoch.
    ReduceLROnPlateau follows the module's `monitor`, in the direction of its `mode`.
    """
    make, trainer = schedule or constant, module.trainer
    epochs, data = trainer.max_epochs or 1, getattr(trainer, "datamodule", None)
    if data is None:  # loaders alone, which cannot be resumed in the middle of an epoch
        total = int(trainer.estimated_stepping_batches)
        of_an_epoch = max(total // epochs, 1)
    else:  # Lightning's estimate would make the loader's iterator before a resumed fit is told where it stands
        batches = limited(len(data.train_dataloader()), trainer.limit_train_batches)
        of_an_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        total = min([epochs * of_an_epoch, *(c.steps for c in callbacks if isinstance(c, EndAfter))])
    scheduler = scheduled(make, optimizer, total, of_an_epoch, str(module.mode))
    by_step = {"total_steps", "steps_per_epoch"} & set(inspect.signature(make).parameters)
    return {"scheduler": scheduler, "interval": "step" if by_step else "epoch", "monitor": module.monitor}


def move(module: pl.LightningModule, interval: str) -> None:
    """Move the schedules of a module that optimizes by hand, after a "step" or an "epoch"."""
    for config in module.trainer.lr_scheduler_configs:
        if config.interval != interval:
            continue
        if not isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step()
        elif (value := module.trainer.callback_metrics.get(str(config.monitor))) is not None:
            config.scheduler.step(value)  # there is none before the first validation
