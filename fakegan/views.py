"""The classifier's inputs: pure functions of a face and its reconstruction.

A user's own view is a View in a module of the user's, named by its path: pipeline.view=my_package.my_view.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fakegan.errors import UsageError, one_line

if TYPE_CHECKING:  # settings name views, and are checked before the seconds that torch takes
    from torch import Tensor


@dataclass(frozen=True)
class View:
    """A named input of the classifier."""

    channels: int
    arrays: tuple[str, ...]  # that it is made from: "image", "recon"
    function: Callable[..., Tensor]  # takes these arrays, each float (B, 3, size, size) in [-1, 1]
    trains: bool = True  # whether a classifier learns from it; False: its size is the score (nets/recon_error.py)

    @property
    def needs_recon(self) -> bool:
        """Whether an autoencoder must come first."""
        return "recon" in self.arrays

    def __call__(self, arrays: dict[str, Tensor]) -> Tensor:  # -> (B, channels, size, size)
        """The classifier's input from a batch of arrays by name."""
        return self.function(*(arrays[name] for name in self.arrays))


def residual(image: Tensor, recon: Tensor) -> Tensor:
    """min(4 |x - x_hat|, 2) - 1, in [-1, 1]: -1 is a perfect copy, and a difference of 0.5 or more is 1.

    At its true size a good reconstruction's residual would be all black.
    """
    return ((image - recon).abs() * 4).clamp(max=2) - 1


def stack(image: Tensor, recon: Tensor) -> Tensor:
    """Face, reconstruction and residual as nine channels."""
    import torch

    return torch.cat([image, recon, residual(image, recon)], dim=1)


def spectrum(image: Tensor) -> Tensor:
    """Log magnitude of each channel's 2-D Fourier transform, centred (Zhang et al. 2019, arXiv:1907.06515).

    With s = ln(|F(x)| + 0.001), F orthonormal, and with p5 and p95 as the 5th and 95th percentile of s over the
    frequencies of one channel of one face: 2 (s - p5) / max(p95 - p5, 1) - 1, clamped to [-1, 1]. Frequency zero is at
    (H // 2, W // 2). Their published code scales so, but for the 1, which keeps a plain picture a number, and which no
    photograph reaches; it adds the 0.001 before it normalises F, and does not centre.
    """
    import torch

    log = (torch.fft.fft2(image, norm="ortho").abs() + 1e-3).log()  # below what rounding to uint8 leaves, 0.002
    low, high = torch.quantile(log.flatten(2), log.new_tensor([0.05, 0.95]), dim=2)[..., None, None]  # (B, 3, 1, 1)
    scaled = 2 * (log - low) / (high - low).clamp(min=1) - 1
    centred: Tensor = torch.fft.fftshift(scaled.clamp(-1, 1), dim=(2, 3))
    return centred


def npr(image: Tensor) -> Tensor:
    """Neighbouring pixel relationships: 1.5 (x - x_00), clamped to [-1, 1] (Tan et al. 2024, arXiv:2312.10461).

    x_00 is the upper left pixel of each 2x2 block, at all four places: the face at half its size, and enlarged again by
    repeating pixels. Height and width are even. Their published code takes 2/3 of the difference after ImageNet's
    normalisation, which comes to a factor of 1.5, and does not clamp.
    """
    from torch.nn.functional import interpolate

    return ((image - interpolate(image[..., ::2, ::2], scale_factor=2, mode="nearest")) * 1.5).clamp(-1, 1)


VIEWS: dict[str, View] = {
    "pixels": View(3, ("image",), lambda image: image),  # the study's approach 1
    "reconstruction": View(3, ("recon",), lambda recon: recon),  # the study's approach 2
    "residual": View(3, ("image", "recon"), residual),
    "stack": View(9, ("image", "recon"), stack),
    "spectrum": View(3, ("image",), spectrum),
    "npr": View(3, ("image",), npr),
    # With its sign, in [-2, 2]: a reconstruction error is measured on it.
    "difference": View(3, ("image", "recon"), lambda image, recon: recon - image, trains=False),
}


def view(name: str) -> View:
    """The view of a name, or the user's own at a dotted path, whose module is imported.

    A path that stands in a file must be one of a package that the user trusts: ask `trust.trusted_object` first.

    Raises:
        UsageError: there is none.
    """
    if name in VIEWS:
        return VIEWS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UsageError(
            f"view {name!r:.80} does not exist: choose {', '.join(VIEWS)}, or package.module.name of your own"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a module of the user's own raises
        raise UsageError(f"view={name:.80} cannot be imported: {one_line(error)}") from error
    if not isinstance(found, View):
        raise UsageError(f"view={name:.80} is a {type(found).__name__}: it must be a fakegan.views.View")
    return found
