"""Means over an epoch, kept on the device: one small update a step, one transfer an epoch, exact over ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class EpochMeans(Metric):
    """Weighted means of a fixed set of named scalars."""

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
        """Add one batch: scalar means of `weight` faces each, one for every name."""
        stacked = torch.stack([values[name].detach().to(self.totals.dtype) for name in self.names])
        self.totals += stacked * weight
        self.weight += weight

    def here(self) -> dict[str, Tensor]:
        """The means of this process so far, by name; empty before its first batch. Waits for the device."""
        weight = float(self.weight)
        return dict(zip(self.names, self.totals / weight, strict=True)) if weight else {}

    def compute(self) -> dict[str, Tensor]:
        """The means so far, by name."""
        means = (self.totals / self.weight.clamp(min=1)).float()
        return dict(zip(self.names, means, strict=True))
