"""Layers that see more than one face, or draw noise, where a batch is dealt to several processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fakegan.nets.dropout import Dropout
from fakegan.system import ranks


class _Shared(_BatchNorm):
    """BatchNorm whose batch is that of all processes, on any device; torch.nn.SyncBatchNorm knows GPUs only.

    Each process must have the same number of faces, as training batches are dealt. Gradients flow through the
    statistics into every process. In eval mode, and with one process, it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, ...) -> the same, normalised
        """The normalised batch; in train mode the running statistics move."""
        if not self.training or ranks.count() == 1:
            return super().forward(x)
        places, shape = [i for i in range(x.dim()) if i != 1], [-1, *[1] * (x.dim() - 2)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = all_reduce(wide.mean(dim=places)) / ranks.count()  # type: ignore[no-untyped-call]
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().mean(dim=places)) / ranks.count()  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), faces=x.numel() // x.shape[1] * ranks.count())
        scale = (variance + self.eps).rsqrt()
        normalised: Tensor = centred * (scale if self.weight is None else scale * self.weight).view(shape)
        return (normalised if self.bias is None else normalised + self.bias.view(shape)).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, faces: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * faces / (faces - 1), momentum)


class SharedBatchNorm1d(_Shared, nn.BatchNorm1d):
    """Of features, (B, C) or (B, C, L)."""


class SharedBatchNorm2d(_Shared, nn.BatchNorm2d):
    """Of maps, (B, C, H, W)."""


class SharedBatchNorm3d(_Shared, nn.BatchNorm3d):
    """Of volumes, (B, C, D, H, W)."""


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
    nn.BatchNorm3d: SharedBatchNorm3d,
}


def share_statistics(module: nn.Module) -> None:
    """Make every BatchNorm of a module a shared one, in place; names, weights and statistics stay."""
    for part in module.modules():
        part.__class__ = _SHARED.get(type(part), type(part))


def said_of_several(modules: Iterable[nn.Module]) -> list[str]:
    """With several processes: which layers make their number count for what is learnt."""
    if ranks.count() == 1:
        return []
    parts = [part for module in modules for part in module.modules()]
    noisy = [part for part in parts if _draws(part)]
    norms = [part for part in parts if isinstance(part, _BatchNorm) and type(part) not in {*_SHARED, *_SHARED.values()}]
    lines = []
    if noisy:
        lines.append(
            f"{_names(noisy)}: each process draws noise of its own, so what is learnt depends on how many there are; "
            "with fakegan.nets.dropout.Dropout it does not"
        )
    if norms:
        lines.append(
            f"{_names(norms)}: each process normalises by its own faces, so what is learnt depends on how many there "
            "are; with nn.BatchNorm1d, 2d or 3d it does not"
        )
    return lines


def _draws(part: nn.Module) -> bool:
    """Whether a layer draws noise in training, and not the whole batch's."""
    if isinstance(part, Dropout):
        return False
    if isinstance(part, nn.MultiheadAttention | nn.RNNBase):
        return part.dropout > 0
    drops = isinstance(part, _DropoutNd) or "Drop" in type(part).__name__  # torchvision's and timm's, too
    chance = getattr(part, "p", getattr(part, "drop_prob", 1))
    return (drops and chance != 0) or isinstance(part, nn.RReLU | nn.FractionalMaxPool2d)


def _names(parts: Iterable[nn.Module]) -> str:
    return ", ".join(sorted({type(part).__name__ for part in parts}))
