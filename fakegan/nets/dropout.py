"""Dropout and stochastic depth that treat a face alike however many processes share the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision import ops

from fakegan.system import ranks


class Dropout(nn.Dropout):
    """torch's Dropout (Srivastava et al. 2014) with the mask drawn for the whole batch and dealt as its faces are."""

    def forward(self, x: Tensor) -> Tensor:  # (B, ...) -> the same shape
        if not self.training or self.p == 0:
            return x
        kept = ranks.draw(lambda faces: torch.rand(faces, *x.shape[1:], device=x.device), len(x)) >= self.p
        return x * kept / max(1 - self.p, 1e-12)


class StochasticDepth(ops.StochasticDepth):  # type: ignore[misc]  # torchvision has no types
    """torchvision's StochasticDepth (Huang et al. 2016, arXiv:1603.09382) by rows: one draw for each face, dealt so."""

    def forward(self, input: Tensor) -> Tensor:  # (B, ...) -> the same shape
        if not self.training or self.p == 0:
            return input
        kept = ranks.draw(lambda faces: torch.rand(faces, device=input.device), len(input)) >= self.p
        scaled: Tensor = input * kept.view(-1, *[1] * (input.dim() - 1)) / max(1 - self.p, 1e-12)
        return scaled


def deal_noise(module: nn.Module) -> None:
    """Make every plain Dropout and StochasticDepth of a module one of the classes above, in place."""
    for layer in module.modules():
        if type(layer) is nn.Dropout:
            layer.__class__ = Dropout
        elif type(layer) is ops.StochasticDepth and layer.mode == "row":
            layer.__class__ = StochasticDepth
