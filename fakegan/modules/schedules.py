"""Optimizers and learning-rate schedules by the names the config uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytorch_lightning as pl
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fakegan.errors import UsageError

WARMUP = 0.05  # share of the steps that the cosine schedule climbs before it falls
SCHEDULES = ("constant", "cosine", "step")
OPTIMIZERS = ("sgd", "adam", "adamw")


def training_steps(trainer: pl.Trainer) -> int:
    """Batches of the whole fit.

    Lightning's estimate would make the loader's iterator here and now, before a resumed fit is told where it stands.
    """
    data = cast("Any", trainer).datamodule
    if data is None:  # loaders alone, which cannot be resumed in the middle of an epoch
        return int(trainer.estimated_stepping_batches)
    return (trainer.max_epochs or 1) * len(data.train_dataloader())


def optimizer(
    name: str,  # one of OPTIMIZERS
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),  # Adam's
    momentum: float = 0.0,  # SGD's
    weight_decay: float = 0.0,
) -> Optimizer:
    """A fused optimizer: same mathematics, one kernel for all parameters."""
    if name == "sgd":
        return SGD(parameters, learning_rate, momentum=momentum, weight_decay=weight_decay, fused=True)
    if name in {"adam", "adamw"}:
        kind = Adam if name == "adam" else AdamW
        return kind(parameters, learning_rate, betas=betas, weight_decay=weight_decay, fused=True)
    raise UsageError(f"optimizer {name!r} does not exist: choose {', '.join(OPTIMIZERS)}")


def learning_rate_factor(
    name: str,  # one of SCHEDULES
    total_steps: int,  # optimizer steps of the whole fit
    max_epochs: int,
    step_epochs: int = 30,  # "step": epochs between two falls to a tenth
) -> Callable[[int], float]:
    """The factor on the learning rate as a function of the step, for LambdaLR stepped every batch."""
    if name == "constant":
        return lambda step: 1.0
    if name == "step":
        steps_per_epoch = max(total_steps / max_epochs, 1)
        return lambda step: 0.1 ** int(step / steps_per_epoch / step_epochs)
    if name == "cosine":
        warmup = max(WARMUP * total_steps, 1)
        return lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(step / total_steps, 1))))
    raise UsageError(f"schedule {name!r} does not exist: choose {', '.join(SCHEDULES)}")
