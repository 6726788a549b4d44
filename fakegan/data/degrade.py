"""What happens to pictures in the world before somebody asks whether they are real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from fakegan.checks import a_probability
from fakegan.data.augment import moved
from fakegan.data.draws import Draws
from fakegan.data.pixels import to_uint8, to_unit

Change = Callable[[Tensor, Tensor, Draws], Tensor]
_GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision weighs them


class Degrade(nn.Module):
    """Edits a share of the faces, makes them worse, and saves them as JPEG, in the order of the options.

    Each change meets each face by a probability of its own, with a strength drawn evenly from its range.
    """

    def __init__(
        self,
        probability: float = 0.3,  # of each change, for each face
        brightness: tuple[float, float] | None = None,  # [from, to], factors; null: none, as for each of these changes
        contrast: tuple[float, float] | None = None,  # [from, to], factors of the distance from the face's mean grey
        blur: tuple[float, float] | None = None,  # [from, to], standard deviations of a Gaussian, in pixels
        resize: tuple[float, float] | None = None,  # [from, to], shares of the side: so small, and back again
        noise: tuple[float, float] | None = None,  # [from, to], standard deviations of noise, in levels of 255
        jpeg: tuple[float, float] | None = None,  # [from, to], qualities of a JPEG, from 1 to 100
    ) -> None:
        super().__init__()
        a_probability(probability=probability)
        self.probability = probability
        _in_order(0, 100, brightness=brightness, contrast=contrast, blur=blur, noise=noise)
        _in_order(0.01, 1, resize=resize)
        _in_order(1, 100, jpeg=jpeg)
        every: list[tuple[Change, tuple[float, float] | None]]
        every = [(_brighter, brightness), (_contrasted, contrast), (_blurred, blur), (_resized, resize)]
        every += [(_noisy, noise), (_as_jpeg, jpeg)]
        self.changes = [(change, *strengths) for change, strengths in every if strengths is not None]

    def forward(self, faces: Tensor, draws: Draws) -> Tensor:  # (B, 3, H, W) in [-1, 1] -> the same
        """The faces, some of them degraded."""
        faces = faces.clone()
        for change, low, high in self.changes:
            is_changed, strengths = draws.uniform() < self.probability, draws.between(low, high)
            chosen = is_changed.nonzero()[:, 0]
            own, strength = draws.of(chosen), strengths[chosen].to(faces.dtype).view(-1, 1, 1, 1)
            if len(chosen):  # what a face draws next must not depend on it
                faces[chosen] = change(faces[chosen], strength, own).clamp(-1, 1)
        return faces


def _in_order(least: float, most: float, **ranges: tuple[float, float] | None) -> None:
    for name, strengths in ranges.items():
        if strengths is not None and not (len(strengths) == 2 and least <= strengths[0] <= strengths[1] <= most):
            raise ValueError(f"{name}={list(strengths)} must be two numbers from {least} to {most}, the smaller first")


# Each takes faces (F, 3, H, W) in [-1, 1], their strengths (F, 1, 1, 1) and their draws.


def _brighter(faces: Tensor, factor: Tensor, draws: Draws) -> Tensor:
    return (faces + 1) * factor - 1


def _contrasted(faces: Tensor, factor: Tensor, draws: Draws) -> Tensor:
    weights = torch.tensor(_GREY, dtype=faces.dtype, device=faces.device).view(3, 1, 1)
    grey = (faces * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    return grey + factor * (faces - grey)


def _blurred(faces: Tensor, deviation: Tensor, draws: Draws) -> Tensor:
    """A Gaussian of all pixels of a line; at a border, of the pixels that there are."""

    def weights(side: int) -> Tensor:  # (F, 1, side, side), from the second to the first
        at = torch.arange(side, device=faces.device)
        return (-0.5 * ((at[:, None] - at) / deviation.clamp(min=1e-3)).square()).softmax(dim=3)

    return _by_lines(faces, weights(faces.shape[2]), weights(faces.shape[3]))


def _resized(faces: Tensor, share: Tensor, draws: Draws) -> Tensor:
    """Down with antialiasing and up again, bilinear: what torch's `interpolate` does twice."""

    def there_and_back(side: int) -> Tensor:  # (F, 1, side, side)
        at = torch.arange(side, device=faces.device)
        small = (share * side).round().clamp(min=1)
        step = side / small  # pixels of the face to a pixel of the small one
        down = (1 - ((at[:, None] + 0.5) - (at + 0.5) / step).abs()).clamp(min=0)
        down = down / down.sum(dim=3, keepdim=True).clamp(min=1e-6)  # (F, 1, small, side), and lines that nobody reads
        place = ((at + 0.5) / step - 0.5).clamp(min=0).minimum(small - 1)  # (F, 1, 1, side)
        up = (1 - (place.mT - at).abs()).clamp(min=0)  # (F, 1, side, small)
        return up @ down

    return _by_lines(faces, there_and_back(faces.shape[2]), there_and_back(faces.shape[3]))


def _by_lines(faces: Tensor, columns: Tensor, lines: Tensor) -> Tensor:
    """Faces whose columns, and then lines, are multiplied by a matrix for each face, (F, 1, H, H) and (F, 1, W, W)."""
    return columns.to(faces.dtype) @ faces @ lines.to(faces.dtype).mT


def _noisy(faces: Tensor, deviation: Tensor, draws: Draws) -> Tensor:
    return faces + draws.normal(*faces.shape[1:]) * (deviation / 127.5)


def _as_jpeg(faces: Tensor, quality: Tensor, draws: Draws) -> Tensor:
    """Saved and opened again by torchvision's libjpeg, on the CPU: 0.2 ms for a face of 64x64, 2 ms for 256x256.

    A JPEG of tensor operations would stay on the GPU, but have other rounding and colours than the files of the world.
    """
    pixels = to_uint8(faces).permute(0, 3, 1, 2).cpu()
    saved = [tv.jpeg(face, quality=int(q)) for face, q in zip(pixels, quality.flatten().round().tolist(), strict=True)]
    return to_unit(torch.stack(saved).permute(0, 2, 3, 1).to(faces.device)).to(faces.dtype)


def _cropped(faces: Tensor, share: Tensor, draws: Draws) -> Tensor:
    """The middle of each face, enlarged to all of it."""
    return moved(faces, torch.zeros(len(faces), 2, device=faces.device), 1 / share.flatten())


def _shifted(faces: Tensor, share: Tensor, draws: Draws) -> Tensor:
    """By so many whole pixels to the left or right and up or down, as each face draws; the border is reflected."""
    pixels = (share.view(-1, 1) * faces.shape[3]).round()  # (F, 1)
    return moved(
        faces, torch.where(draws.uniform(2) < 0.5, -pixels, pixels), torch.ones(len(faces), device=faces.device)
    )


def _mirrored(faces: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    return faces.flip(3)


@dataclass(frozen=True)
class Kind:
    """A change with the strengths that a test of robustness takes."""

    change: Change
    strengths: tuple[float, ...]
    unit: str  # of a strength, in words
    none: float  # the strength that changes nothing

    def __call__(self, pixels: Tensor, strength: float, keys: Tensor) -> Tensor:
        """Faces so changed, uint8 (B, H, W, 3) to the same; what is drawn, as noise, is a function of the keys (B,)."""
        strengths = torch.full((len(pixels), 1, 1, 1), float(strength), device=pixels.device)
        return to_uint8(self.change(to_unit(pixels), strengths, Draws(keys)).clamp(-1, 1))


KINDS = {
    "jpeg": Kind(_as_jpeg, (95, 80, 65, 50, 30), "quality; 100: not saved", 100),
    "resize": Kind(_resized, (0.9, 0.75, 0.6, 0.5, 0.35), "share of the side, and back", 1),
    "blur": Kind(_blurred, (0.5, 0.75, 1, 1.5, 2), "standard deviation, pixels", 0),
    "noise": Kind(_noisy, (2, 4, 8, 12, 16), "standard deviation, levels", 0),
    "brightness": Kind(_brighter, (0.5, 0.75, 1.25, 1.5, 2), "factor", 1),
    "contrast": Kind(_contrasted, (0.5, 0.75, 1.25, 1.5, 2), "factor", 1),
    "crop": Kind(_cropped, (0.95, 0.9, 0.85, 0.8, 0.7), "share of the side kept", 1),
    "shift": Kind(_shifted, (0.02, 0.04, 0.06, 0.09, 0.12), "share of the side", 0),
    "mirror": Kind(_mirrored, (1,), "1: mirrored", 0),
}
