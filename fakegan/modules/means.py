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
        self.add_state("totals", torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")
        self.totals: Tensor
        self.weight: Tensor

    def update(self, values: dict[str, Tensor], weight: int) -> None:
        """Add one batch: scalar means of `weight` faces each, one for every name."""
        stacked = torch.stack([values[name].detach().float() for name in self.names])
        self.totals += stacked * weight
        self.weight += weight

    def compute(self) -> dict[str, Tensor]:
        """The means so far, by name."""
        means = self.totals / self.weight.clamp(min=1)
        return dict(zip(self.names, means, strict=True))
