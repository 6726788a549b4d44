"""BatchNorm over a batch that is dealt to several processes: the statistics are those of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from fakegan import ranks


class _Shared(_BatchNorm):
    """BatchNorm whose batch is that of all processes, on any device; torch.nn.SyncBatchNorm knows GPUs only.

    Each process must have the same number of faces, as training batches are dealt. Gradients flow through the
    statistics into every process. In eval mode, and with one process, it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, ...) -> the same, normalised
        """The normalised batch; in train mode the running statistics move."""
        if not self.training or ranks.count() == 1:
            plain: Tensor = super().forward(x)
            return plain
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        others, channel = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        mean = all_reduce(wide.mean(dim=others)) / ranks.count()  # type: ignore[no-untyped-call]
        centred = wide - mean.view(channel)
        variance = all_reduce(centred.square().mean(dim=others)) / ranks.count()  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), faces=x.numel() // x.shape[1] * ranks.count())
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale.view(channel)).to(x.dtype)
        normalised: Tensor = centred * (scale * self.weight).view(channel) + self.bias.view(channel)
        return normalised.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, faces: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * faces / (faces - 1), momentum)


class SharedBatchNorm1d(_Shared, nn.BatchNorm1d):
    """Of vectors, or of (B, C, L)."""


class SharedBatchNorm2d(_Shared, nn.BatchNorm2d):
    """Of pictures."""


SHARED = (SharedBatchNorm1d, SharedBatchNorm2d)


def share_statistics(module: nn.Module) -> None:
    """Make every BatchNorm1d and 2d of a module a shared one, in place; names, weights and statistics stay."""
    for part in module.modules():
        for plain, shared in ((nn.BatchNorm1d, SharedBatchNorm1d), (nn.BatchNorm2d, SharedBatchNorm2d)):
            if type(part) is plain:
                part.__class__ = shared
