"""What the LightningModules share: means of an epoch that any number of processes can resume, and learning by turns."""

from __future__ import annotations

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from fakegan.system import ranks
from fakegan.training.schedules import MakeOptimizer, MakeSchedule, follow, move


class EpochMeans(Metric):
    """Weighted means of named scalars over an epoch, kept on the device and exact over the processes."""

    full_state_update = False

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        # Sums in double: the mean comes out the same in whatever order batches and processes are added.
        kind = torch.float32 if torch.backends.mps.is_available() else torch.float64  # which MPS does not have
        self.add_state("totals", torch.zeros(len(names), dtype=kind), dist_reduce_fx="sum", persistent=True)
        self.add_state("weight", torch.zeros((), dtype=kind), dist_reduce_fx="sum", persistent=True)
        self.totals: Tensor
        self.weight: Tensor

    def update(self, values: dict[str, Tensor], weight: int) -> None:
        """Add one batch: scalar means of `weight` faces, one for every name."""
        stacked = torch.stack([values[name].detach() for name in self.names])
        self.totals += stacked.to(self.totals.dtype) * weight
        self.weight += weight

    def here(self) -> dict[str, Tensor]:
        """The means of this process so far; empty before its first batch. Waits for the device."""
        weight = float(self.weight)
        return dict(zip(self.names, self.totals / weight, strict=True)) if weight else {}

    def compute(self) -> dict[str, Tensor]:
        """The means so far, by name."""
        means = (self.totals / self.weight.clamp(min=1)).float()
        return dict(zip(self.names, means, strict=True))


class EpochModule(pl.LightningModule):
    """Logs its metrics at the end of an epoch.

    A checkpoint holds the sums of all processes, so that any number of processes can resume within an epoch.
    """

    monitor: str  # the validation metric that chooses the best epoch
    mode: str  # its better direction, min or max
    train_logged: ClassVar[tuple[str, ...]] = ("train_means",)  # attributes that are metrics
    val_logged: ClassVar[tuple[str, ...]] = ("val_means",)

    def on_train_epoch_end(self) -> None:
        """Log the training metrics."""
        self._log_epoch("train", self.train_logged)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, of which `monitor` chooses the best epoch."""
        self._log_epoch("val", self.val_logged)

    def _log_epoch(self, split: str, names: tuple[str, ...]) -> None:
        metrics: list[EpochMeans | MetricCollection] = [getattr(self, name) for name in names]
        values = {f"{split}/{name}": value for metric in metrics for name, value in metric.compute().items()}
        for metric in metrics:
            metric.reset()
        self.log_dict({**values, "step": float(self.current_epoch)})  # "step": TensorBoard's axis is the epoch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """In every process: replace its training sums by the sums over all processes."""
        state = checkpoint["state_dict"]
        state |= {name: ranks.total(state[name]) for name in _training_sums(state)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """In every process: rank 0 keeps the training sums, the others begin at zero."""
        state = checkpoint["state_dict"]
        if not ranks.is_rank_zero():
            state |= {name: torch.zeros_like(state[name]) for name in _training_sums(state)}


def _training_sums(state: dict[str, Any]) -> list[str]:
    prefixes = ("train_means.", "train_metrics.")
    return [name for name, value in state.items() if name.startswith(prefixes) and isinstance(value, Tensor)]


class ByTurns(EpochModule):
    """Networks that learn by turns, each with its own optimizer: Lightning's manual optimization."""

    networks: ClassVar[tuple[str, ...]]  # their attributes, in the order in which they learn
    make_optimizer: MakeOptimizer
    make_schedule: MakeSchedule | None

    def configure_optimizers(self) -> Any:
        """One optimizer for each network, all on the same schedule."""
        optimizers = [self.make_optimizer(getattr(self, name).parameters()) for name in self.networks]
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
        if resting is not None and scaler is None and inner.defaults.get("fused") and loss.device.type != "mps":
            # A fused optimizer leaves weights and moments alone where found_inf is 1; decided on the device. On MPS
            # it did not look at found_inf before the middle of 2026.
            inner.found_inf = resting.float()  # type: ignore[attr-defined]
        elif resting is not None and bool(resting):
            return
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        """Move the schedules that move with epochs, and log."""
        move(self, "epoch")
        super().on_train_epoch_end()
