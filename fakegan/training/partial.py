"""State that each process has a part of: whole in a checkpoint, so that any number of processes can go on with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryPrecisionRecallCurve

from fakegan.system import ranks


def make_whole(checkpoint: dict[str, Any], *prefixes: str) -> None:
    """On saving, in every process: replace the states whose names begin so by their sums over the processes."""
    state = checkpoint["state_dict"]
    for name in _names(state, prefixes):
        state[name] = ranks.total(state[name])


def take_part(checkpoint: dict[str, Any], *prefixes: str) -> None:
    """On loading, in every process: the first has the sums, the others begin at zero."""
    state = checkpoint["state_dict"]
    if not ranks.is_rank_zero():
        for name in _names(state, prefixes):
            state[name] = torch.zeros_like(state[name])


def take_in_nothing(metrics: MetricCollection) -> None:
    """Where a process has no faces: empty scores and labels, of the type that it will gather from the others."""
    for metric in metrics.values():
        if isinstance(metric, BinaryPrecisionRecallCurve):  # AUROC and average precision are such
            metric.preds.append(torch.zeros(0, device=metric.device))
            metric.target.append(torch.zeros(0, dtype=torch.int64, device=metric.device))


def _names(state: dict[str, Any], prefixes: tuple[str, ...]) -> list[str]:
    return [name for name, value in state.items() if name.startswith(prefixes) and isinstance(value, Tensor)]
