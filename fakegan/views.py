"""What the classifier sees: pure functions of a face and its reconstruction.

Another view is one function and one entry in VIEWS here, and one YAML in conf/pipeline/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class View:
    """A named input of the classifier."""

    channels: int
    arrays: tuple[str, ...]  # what it is made from: "image", "recon"
    function: Callable[..., Tensor]  # takes those arrays, each float (B, 3, 64, 64) in [-1, 1]

    @property
    def needs_recon(self) -> bool:
        """Whether an autoencoder must come first."""
        return "recon" in self.arrays

    def __call__(self, arrays: dict[str, Tensor]) -> Tensor:  # -> (B, channels, 64, 64)
        """The classifier's input from a batch of arrays by name."""
        return self.function(*(arrays[name] for name in self.arrays))


def pixels(image: Tensor) -> Tensor:
    """The face itself: approach 1."""
    return image


def reconstruction(recon: Tensor) -> Tensor:
    """What the autoencoder made of the face: approach 2."""
    return recon


VIEWS: dict[str, View] = {
    "pixels": View(3, ("image",), pixels),
    "reconstruction": View(3, ("recon",), reconstruction),
}
