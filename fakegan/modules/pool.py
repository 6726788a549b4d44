"""The pool of past reconstructions that keeps the discriminator from chasing only the newest ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ReconstructionPool(nn.Module):
    """Up to `size` past reconstructions (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3).

    It fills first. Then each new reconstruction is, with probability 1/2, exchanged for a past one: the past one
    is shown, the new one takes its place. The slots of one batch are distinct, so the exchange is one gather and
    one scatter on the device. Draws come from torch's CPU generator; pictures and count go into the checkpoint.
    """

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.filled = 0
        self.register_buffer("images", torch.zeros(size, 3, 64, 64))
        self.images: Tensor

    def forward(self, recon: Tensor) -> Tensor:  # (B, 3, 64, 64) detached -> the same shape, some of them older
        """Exchange some of `recon` for past reconstructions."""
        batch = len(recon)
        fresh = min(self.size - self.filled, batch)  # these fill empty slots and are shown as they are
        candidates = torch.nonzero(torch.rand(batch - fresh) < 0.5).flatten() + fresh
        candidates = candidates[: self.filled]
        slots = torch.randperm(self.filled)[: len(candidates)]
        shown = recon
        if len(candidates):
            taken, place = candidates.to(recon.device), slots.to(recon.device)
            shown = recon.clone()
            shown[taken] = self.images[place].to(recon.dtype)
            self.images[place] = recon[taken].to(self.images.dtype)
        if fresh:
            self.images[self.filled : self.filled + fresh] = recon[:fresh].to(self.images.dtype)
            self.filled += fresh
        return shown

    def get_extra_state(self) -> dict[str, Any]:
        """How many slots are filled: part of the state dict."""
        return {"filled": self.filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.filled = int(state["filled"])
