"""The canvas of the built-in faces: colour and height on a grid of twice the final size; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.floating[Any]]  # float32 (H, W), one number per canvas pixel
Colour = NDArray[np.floating[Any]]  # float32 (3,) or (3, H, W), linear light

_WARM_SHADOW = np.array([[[0.82]], [[1.0]], [[1.06]]], np.float32)  # how much of each colour a shadow takes


@dataclass(frozen=True)
class Canvas:
    """The picture as painted so far.

    x, y are head coordinates in the picture plane (eyes at y = 0, chin at y = 1, y downwards); u, v are the
    same after undoing the head's turn, so that features painted at fixed (u, v) move and foreshorten with it.
    """

    x: Field
    y: Field
    u: Field
    v: Field
    pixel: float  # width of a canvas pixel in head units
    turn: float  # yaw in radians; positive turns the face to the right of the picture
    albedo: NDArray[np.float32]  # (3, H, W), linear light
    relief: Field  # height towards the camera, head units
    gloss: Field  # strength of the highlight
    lit: Field  # 0 where the key light does not fall: the background

    def part(self, rows: slice, columns: slice) -> Canvas:
        """A window of the canvas; strokes in it land on the whole."""
        layers = ("x", "y", "u", "v", "albedo", "relief", "gloss", "lit")
        return replace(self, **{name: getattr(self, name)[..., rows, columns] for name in layers})

    def near(self, cu: float, cv: float, ru: float, rv: float) -> Canvas:
        """The window that holds every pixel within ru, rv of the point cu, cv on the face."""
        wanted = (np.abs(self.u - cu) < ru) & (np.abs(self.v - cv) < rv)
        rows, columns = np.flatnonzero(wanted.any(1)), np.flatnonzero(wanted.any(0))
        return self.part(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))

    def paint(self, alpha: Field, colour: Colour, gloss: float | None = None) -> None:
        """Lay a colour over the picture where alpha is 1."""
        colour = np.asarray(colour, np.float32)
        self.albedo[...] += alpha * ((colour[:, None, None] if colour.ndim == 1 else colour) - self.albedo)
        if gloss is not None:
            self.gloss[...] += alpha * (gloss - self.gloss)

    def shape(self, alpha: Field, height: Field) -> None:
        """Replace the relief where alpha is 1, and let light fall there."""
        self.relief[...] += alpha * (height - self.relief)
        np.maximum(self.lit, alpha, out=self.lit)

    def shade(self, amount: Field) -> None:
        """Darken towards a warm shadow by amount (0 to 1)."""
        self.albedo[...] *= 1 - amount * _WARM_SHADOW

    def inside(self, distance: Field, soft: float = 0.0) -> Field:
        """Coverage, 0 to 1, of the area where distance (head units) is negative; antialiased."""
        coverage: Field = np.clip(0.5 - distance / (1.5 * self.pixel + soft), 0, 1)
        return coverage

    def blob(self, cu: float, cv: float, ru: float, rv: float) -> Field:
        """A Gaussian hill on the face, 1 at its top."""
        hill: Field = np.exp(-(((self.u - cu) / ru) ** 2) - ((self.v - cv) / rv) ** 2)
        return hill

    def noise(self, rng: Generator, rows: int, columns: int) -> Field:
        """Smooth standard normal noise with that many knots down and across."""
        height, width = self.x.shape
        knots = rng.standard_normal((rows, columns), np.float32)
        wide = np.einsum("rc,cw->rw", knots, _knot_weights(columns, width))
        field: Field = np.einsum("rh,rw->hw", _knot_weights(rows, height), wide)  # no BLAS: no threads of its own
        return field


@cache
def _knot_weights(knots: int, size: int) -> NDArray[np.float32]:
    """(knots, size): Gaussian bumps about evenly spaced knots, scaled so that noise keeps its variance."""
    away = np.linspace(0, knots - 1, size) - np.arange(knots)[:, None]
    weights = np.exp(-(away**2)).astype(np.float32)
    weights /= np.sqrt((weights**2).sum(0))
    return weights


def linear(srgb: ArrayLike) -> Colour:
    """sRGB 0 to 255 to linear light 0 to 1 (gamma 2.2)."""
    return ((np.asarray(srgb, np.float32) / 255) ** 2.2).astype(np.float32)


def between(rng: Generator, palette: str, low: float = 0.0, high: float = 1.0) -> Colour:
    """A colour from `low` to `high` along the line through the palette, hexadecimal sRGB; slightly tinted."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in palette.split()], np.float32)
    at = rng.uniform(low, high) * (len(anchors) - 1)
    colour = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return linear(np.clip(np.asarray(colour) * rng.normal(1, 0.03, 3), 4, 250))


def tint(rng: Generator, value: float, saturation: float) -> Colour:
    """A colour of any hue; value and saturation 0 to 1."""
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2])
    return linear(255 * value * (1 - saturation * (0.5 + 0.5 * np.cos(hue))))
