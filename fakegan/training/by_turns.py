"""Networks that learn by turns, each with an optimizer of its own: what Lightning leaves to such a module."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from fakegan.training.schedules import MakeOptimizer, MakeSchedule, follow, move


class ByTurns(pl.LightningModule):
    """Manual optimization: one step of an optimizer for each network."""

    monitor: str
    make_optimizer: MakeOptimizer
    make_schedule: MakeSchedule | None

    def optimized(self, *networks: Any) -> tuple[list[Any], list[Any]]:
        """What `configure_optimizers` returns: one optimizer for each network, all on the same schedule."""
        optimizers = [self.make_optimizer(network.parameters()) for network in networks]
        return optimizers, [follow(self.make_schedule, optimizer, self) for optimizer in optimizers]

    def learn(
        self,
        optimizer: LightningOptimizer,
        loss: Tensor,
        resting: Tensor | None = None,  # bool, (): whether its network leaves this step out
    ) -> None:
        """One step down the gradient of a loss."""
        inner = optimizer.optimizer
        optimizer.zero_grad()
        self.manual_backward(loss)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if resting is not None and scaler is None and inner.defaults.get("fused"):
            # A fused optimizer leaves weights and moments alone where found_inf is 1; decided on the device.
            inner.found_inf = resting.float()  # type: ignore[attr-defined]
        elif resting is not None and bool(resting):
            return
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        """Move schedules that move with epochs."""
        move(self, "epoch")
