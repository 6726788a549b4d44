"""The reconstruction error as a score: no network learns; the errors of real faces say which errors are usual."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from fakegan.checks import one_of

_SMALLEST = 1e-6  # the least error and spread: logarithm and quotient stay finite


def l2(difference: Tensor) -> Tensor:  # (B, 3, size, size) -> (B,)
    """Root of the mean squared difference."""
    return difference.square().mean(dim=(1, 2, 3)).sqrt()


def local_detail(difference: Tensor) -> Tensor:  # (B, 3, size, size) -> (B,)
    """Root mean square of the difference from its 3x3 mean: fine detail that was lost, or invented."""
    return l2(difference - avg_pool2d(difference, 3, stride=1, padding=1, count_include_pad=False))


ERROR_NORMS: dict[str, Callable[[Tensor], Tensor]] = {  # (B, 3, size, size) in [-2, 2] -> (B,), 0 or more
    "l1": lambda difference: difference.abs().mean(dim=(1, 2, 3)),
    "l2": l2,
    "linf": lambda difference: difference.abs().amax(dim=(1, 2, 3)),
    "local_detail": local_detail,
}


class ReconError(nn.Module):
    """Log odds of fake = by how many standard deviations of real faces the log error lies above the midpoint.

    The midpoint is the mean of real faces until `place_between` moves it to where neither class is likelier.
    """

    def __init__(
        self,
        in_channels: int = 3,  # of the view `difference`
        norm: str = "l1",  # a name in ERROR_NORMS
    ) -> None:
        super().__init__()
        one_of(ERROR_NORMS, norm=norm)
        self.norm = norm
        self.register_buffer("mean", torch.zeros(()))  # of the log errors of real faces
        self.register_buffer("std", torch.ones(()))
        self.register_buffer("midpoint", torch.zeros(()))  # in standard deviations from the mean
        self.mean: Tensor
        self.std: Tensor
        self.midpoint: Tensor

    def log_error(self, difference: Tensor) -> Tensor:  # (B, 3, size, size) -> (B,)
        """The natural logarithm of the error: errors are skewed, their logarithms nearly normal."""
        return ERROR_NORMS[self.norm](difference).clamp(min=_SMALLEST).log()

    def learn(self, log_errors: Tensor) -> None:  # (N,) of real faces
        """Take over their mean and spread."""
        self.mean.copy_(log_errors.mean())
        self.std.copy_(log_errors.std(unbiased=False).clamp(min=_SMALLEST))

    def place_between(self, real: Tensor, fake: Tensor) -> None:  # log errors of validation faces, (N,) and (M,)
        """Put the midpoint half way between the classes' medians: a temperature alone cannot move it."""
        middle = (real.median() + fake.median()) / 2
        self.midpoint.copy_((middle - self.mean) / self.std)

    def forward(self, difference: Tensor) -> Tensor:  # (B, 3, size, size) in [-2, 2] -> (B, 2) logits
        z = (self.log_error(difference) - self.mean) / self.std - self.midpoint
        return torch.stack([-z / 2, z / 2], dim=1)
