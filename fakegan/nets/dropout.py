"""Dropout that treats a face alike however many processes share the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fakegan.system import ranks


class Dropout(nn.Dropout):
    """torch's Dropout (Srivastava et al. 2014) with the mask drawn for the whole batch and dealt as its faces are."""

    def forward(self, x: Tensor) -> Tensor:  # (B, ...) -> the same shape
        if not self.training or self.p == 0:
            return x
        kept = ranks.draw(lambda faces: torch.rand(faces, *x.shape[1:], device=x.device), len(x)) >= self.p
        return x * kept / max(1 - self.p, 1e-12)
