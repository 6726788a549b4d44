"""Layers that see more than one face, or draw noise, where several processes share a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fakegan.nets.dropout import Dropout, StochasticDepth
from fakegan.system import ranks


class _Shared(_BatchNorm):
    """BatchNorm over the faces of all processes, on any device; torch.nn.SyncBatchNorm is for GPUs only.

    Each process must have the same number of faces. Gradients flow through the statistics into every process. In eval
    mode, and with one process, it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, ...) -> the same, normalised
        """The normalised batch; in train mode the running statistics move."""
        if not self.training or ranks.count() == 1:
            return super().forward(x)
        places, shape = [i for i in range(x.dim()) if i != 1], [-1, *[1] * (x.dim() - 2)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.stack(torch.var_mean(wide, dim=places, correction=0))[None]  # (1, 2, C)
        others = (0, 0, 0, 0, ranks.rank(), ranks.count() - 1 - ranks.rank())
        # Zeros in the others' places: one sum, forward and backward, gathers the statistics of P processes.
        variances, means = all_reduce(F.pad(own, others)).unbind(1)  # type: ignore[no-untyped-call]  # (P, C) each
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        centred = wide - mean.view(shape)
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            numbers = x.numel() // x.shape[1] * ranks.count()
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * numbers / (numbers - 1), momentum)
        scale = (variance + self.eps).rsqrt()
        normalised: Tensor = centred * (scale if self.weight is None else scale * self.weight).view(shape)
        return (normalised if self.bias is None else normalised + self.bias.view(shape)).to(x.dtype)


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Shared{kind.__name__}", (_Shared, kind), {})
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}


def share_statistics(module: nn.Module) -> None:
    """Make every BatchNorm of a module a shared one, in place; names, weights and statistics stay."""
    for layer in module.modules():
        layer.__class__ = _SHARED.get(type(layer), type(layer))


def notes_on_ranks(modules: Iterable[nn.Module]) -> list[str]:
    """With several processes: the layers for which the number of processes changes what is learnt."""
    if ranks.count() == 1:
        return []
    layers = [layer for module in modules for layer in module.modules()]
    known = {*_SHARED, *_SHARED.values()}
    noisy = {type(layer).__name__ for layer in layers if _draws(layer)}
    norms = {type(layer).__name__ for layer in layers if isinstance(layer, _BatchNorm) and type(layer) not in known}
    lines = []
    if noisy:
        lines.append(
            f"{', '.join(sorted(noisy))}: each process draws noise of its own, so what is learnt depends on how many "
            "there are; with fakegan.nets.dropout.Dropout it does not"
        )
    if norms:
        lines.append(
            f"{', '.join(sorted(norms))}: each process normalises by its own faces, so what is learnt depends on how "
            "many there are; with nn.BatchNorm1d, 2d or 3d it does not"
        )
    return lines


def _draws(layer: nn.Module) -> bool:
    """Whether a layer draws noise in training that is not drawn for the whole batch."""
    if isinstance(layer, Dropout | StochasticDepth):
        return False
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
        return layer.dropout > 0
    drops = isinstance(layer, _DropoutNd) or "Drop" in type(layer).__name__  # torchvision's and timm's, too
    chance = getattr(layer, "p", getattr(layer, "drop_prob", 1))
    return (drops and chance != 0) or isinstance(layer, nn.RReLU | nn.FractionalMaxPool2d)
