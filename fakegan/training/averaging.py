"""Weight averaging: the mean of a classifier's past weights takes its net's place where that is judged and kept."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fakegan.errors import FakeganError

AVERAGE = "average"  # in a checkpoint: the averaged tensors by their names in state_dict, which holds the last weights


class WeightAverage(pl.Callback):
    """An exponential moving average of a module's `net` (Polyak and Juditsky 1992), which validation sees in its place.

    After step t, from 0, average = d average + (1 - d) weights, where d = min(decay, (1 + t) / (10 + t)): the random
    start is soon forgotten. BatchNorm's running statistics are averaged alike, and whole numbers are the last ones.
    Lightning's WeightAveraging would average a module's sums of the epoch as well, which are no weights.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}  # by name in the net's state dict; empty before the first step
        self.updates, self.step = 0, 0  # so far; the trainer's step of the last one

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin, or go on with what a checkpoint held; a FakeganError where that is another net's."""
        own = _net(module).state_dict()
        if (self.average or self.updates) and {k: v.shape for k, v in self.average.items()} != {
            k: v.shape for k, v in own.items()
        }:
            raise FakeganError("last.ckpt holds averaged weights of another network: start a new run")
        source = self.average or own
        self.average = {name: torch.empty_like(value).copy_(source[name]) for name, value in own.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Move the average, if the optimizer has made a step."""
        if trainer.global_step == self.step:
            return
        move = get_ema_multi_avg_fn(min(self.decay, (1 + self.updates) / (10 + self.updates)))  # type: ignore[no-untyped-call]
        self.updates, self.step = self.updates + 1, trainer.global_step
        own = _net(module).state_dict()
        floats: dict[torch.dtype, list[str]] = {}
        for name, value in own.items():
            if value.is_floating_point():
                floats.setdefault(value.dtype, []).append(name)
            else:
                self.average[name].copy_(value)
        for names in floats.values():
            move([self.average[name] for name in names], [own[name] for name in names], 0)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Put the average in the net's place; before the first step, trainer.num_sanity_val_steps, there is none."""
        if not trainer.sanity_checking:
            self._swap(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Put the weights back."""
        if not trainer.sanity_checking:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        for name, value in _net(module).state_dict().items():
            kept = value.clone()
            value.copy_(self.average[name])
            self.average[name].copy_(kept)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Beside the weights, from which a fit goes on, the average, which a detector is made of."""
        checkpoint[AVERAGE] = {f"net.{name}": value for name, value in self.average.items()}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average of a checkpoint."""
        self.average = {name.removeprefix("net."): value for name, value in checkpoint.get(AVERAGE, {}).items()}

    def state_dict(self) -> dict[str, int]:
        """How far it is."""
        return {"updates": self.updates, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the values of `state_dict`."""
        self.updates, self.step = int(state_dict["updates"]), int(state_dict["step"])


def _net(module: pl.LightningModule) -> nn.Module:
    return module.get_submodule("net")
