"""BatchNorm over a batch that is dealt to several processes: the statistics are those of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from fakegan import ranks


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch is that of all processes, on any device; torch.nn.SyncBatchNorm knows GPUs only.

    Each process must have the same number of faces, as training batches are dealt. Gradients flow through the
    statistics into every process. In eval mode, and with one process, it is a BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> the same, normalised
        """The normalised batch; in train mode the running statistics move."""
        if not self.training or ranks.count() == 1:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = all_reduce(wide.mean(dim=(0, 2, 3))) / ranks.count()  # type: ignore[no-untyped-call]
        centred = wide - mean.view(1, -1, 1, 1)
        variance = all_reduce(centred.square().mean(dim=(0, 2, 3))) / ranks.count()  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), faces=x.numel() // x.shape[1] * ranks.count())
        scale = (variance + self.eps).rsqrt() * self.weight
        normalised: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalised.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, faces: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * faces / (faces - 1), momentum)


def share_statistics(module: nn.Module) -> None:
    """Make every BatchNorm2d of a module a SharedBatchNorm2d, in place; names, weights and statistics stay."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm2d
