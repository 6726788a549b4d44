"""The look and size of the training pictures: `predict` warns of a picture that is unlike them.

Learnt once beside the detector, from uint8 faces and the sizes of their files that the store holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import Rows, at_once
from fakegan.data.images import grey

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]  # (N, size, size, 3)

CELLS = 8  # a side: a face's colours and edges are means over 8x8 cells
FAINT = 8.0  # levels; less contrast than this is not stretched, and no face has so little: of 16,000 photographs and
# fakes of 64 pixels the faintest had 17
LEAST_SPREAD = 0.05  # of a number in training: a number that never varied does not reject a picture at once
PERCENTILE = 99  # of the validation faces' distances: the limit, before its slack
ASPECT_SLACK = 1.1  # width / height may leave the range of training by this factor
SIDE_SLACK = 2.0  # and a picture be this many times smaller
BATCH = 1024  # faces of the smallest size at a time, fewer of larger ones

UNLIKE = "unlike the faces of training: no face in it, or another crop?"


@dataclass(frozen=True)
class Normal:
    """A normal distribution of K numbers, each scaled by its spread, and how far from it a picture may lie."""

    mean: Floats  # (K,)
    spread: Floats  # (K,), standard deviations
    whitening: Floats  # (K, K): scaled numbers times this are independent
    limit: float

    @classmethod
    def learn(
        cls,
        train: Floats,  # (N, K)
        held_out: Floats,  # (M, K), which sets the limit: faces that were learnt from lie too near
    ) -> Normal:
        """Mean and covariance, shrunk to independence by K / (N + K), so that few faces are enough.

        The limit is the held-out faces' 99th percentile, times 1.05 + 1 / sqrt(M): the fewer they are, the less
        is known of their percentile.
        """
        mean, spread = train.mean(axis=0), np.maximum(train.std(axis=0), LEAST_SPREAD)
        scaled = (train - mean) / spread
        count, numbers = train.shape
        shrinkage = numbers / (count + numbers)
        covariance = (1 - shrinkage) * (scaled.T @ scaled) / count + shrinkage * np.eye(numbers)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
        distances = cls(mean, spread, whitening, np.inf).distance(held_out)
        limit = np.percentile(distances, PERCENTILE) * (1.05 + 1 / np.sqrt(len(held_out)))
        return cls(mean, spread, whitening, float(limit))

    def distance(self, numbers: Floats) -> Floats:
        """Mahalanobis distance of each row of (N, K), divided by sqrt(K): (N,)."""
        independent = (numbers - self.mean) / self.spread @ self.whitening
        distance: Floats = np.sqrt(np.square(independent).mean(axis=1))
        return distance


@dataclass(frozen=True)
class Familiarity:
    """How far a picture is from the training pictures: in brightness and colours by place, in edges by place, in size.

    Of several simple distances these two together told most pictures without a face from held-out faces. They find
    noise, plain and drawn pictures, text and most landscapes, and faces much too small; a face cropped a little
    tighter or wider than in training passes.
    """

    colours: Normal
    edges: Normal
    aspects: tuple[float, float]  # width / height of the training pictures, 1st and 99th percentile
    shortest: float  # pixels of their shorter side, 1st percentile

    @classmethod
    def learn(
        cls,
        images: Pixels,  # may be a memory map
        widths: npt.NDArray[np.int64],  # (N,), of the original pictures
        heights: npt.NDArray[np.int64],
        train_rows: Rows,
        val_rows: Rows,  # faces that no net has learnt from
    ) -> Familiarity:
        """From the store's faces that the classifier learns from: real faces only, where its fakes are made from them.

        Raises:
            ValueError: no face to learn from, or none held out.
        """
        if not len(train_rows) or not len(val_rows):
            raise ValueError("familiarity is learnt from training faces and limited by validation faces: some are none")
        colours, edges = (
            Normal.learn(*(_by_batch(numbers, images, rows) for rows in (train_rows, val_rows)))
            for numbers in (_colours, _edges)
        )
        width, height = widths[train_rows], heights[train_rows]
        narrowest, widest = np.percentile(width / height, (1, 99)).tolist()
        return cls(colours, edges, (narrowest, widest), float(np.percentile(np.minimum(width, height), 1)))

    def warnings(
        self,
        strangeness: Floats,  # (N,), as the method of that name gives it
        widths: npt.NDArray[np.int64],  # (N,), of the original pictures
        heights: npt.NDArray[np.int64],
    ) -> list[list[str]]:
        """Short sentences about each picture where it is unusual; mostly none."""
        found: list[list[str]] = [[UNLIKE] if strange else [] for strange in strangeness > 1]
        narrowest, widest = self.aspects
        square = narrowest > 1 / 1.01 and widest < 1.01
        usual = "square" if square else f"{narrowest:.2f} to {widest:.2f} times as wide as high"
        for sentences, width, height in zip(found, widths.tolist(), heights.tolist(), strict=True):
            if not narrowest / ASPECT_SLACK <= width / height <= widest * ASPECT_SLACK:
                sentences.append(f"{width}x{height}: training pictures were {usual}; crop to the face first")
            if min(width, height) * SIDE_SLACK < self.shortest:
                sentences.append(
                    f"{width}x{height}: training pictures had {self.shortest:.0f} pixels or more on a side"
                )
        return found

    def strangeness(self, pixels: Pixels) -> Floats:
        """How unlike the faces of training each is, (N,): above 1 for about one face in a hundred.

        The largest of three: the distances of colours and of edges as shares of their limits, and `FAINT` as a share of
        the cells' contrast, at least 1 level. Cells that are all alike, as those of fine noise, lie near every mean.
        """

        def of_batch(batch: Pixels) -> Floats:
            colours = self.colours.distance(_colours(batch)) / self.colours.limit
            edges = self.edges.distance(_edges(batch)) / self.edges.limit
            contrast = _cells(batch).std(axis=(1, 2)).mean(axis=1)  # (N,), of a channel
            return np.asarray(np.maximum.reduce([colours, edges, FAINT / np.maximum(contrast, 1)]))

        return _by_batch(of_batch, pixels, np.arange(len(pixels)))

    def to_arrays(self) -> dict[str, Floats]:
        """All numbers as arrays, which a file can hold."""
        numbers: dict[str, Any] = {}
        for name, normal in (("colours", self.colours), ("edges", self.edges)):
            numbers |= {f"{name}.{field.name}": getattr(normal, field.name) for field in fields(normal)}
        numbers |= {"aspects": self.aspects, "shortest": self.shortest}
        return {name: np.asarray(value, dtype=np.float64) for name, value in numbers.items()}

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Any],  # tensors or NumPy arrays
    ) -> Familiarity:
        """The Familiarity of which `to_arrays` gave these."""

        def normal(name: str) -> Normal:
            mean, spread, whitening = (
                np.asarray(arrays[f"{name}.{part}"], dtype=np.float64) for part in ("mean", "spread", "whitening")
            )
            return Normal(mean, spread, whitening, float(arrays[f"{name}.limit"]))

        narrowest, widest = (float(value) for value in arrays["aspects"])
        return cls(normal("colours"), normal("edges"), (narrowest, widest), float(arrays["shortest"]))


def _by_batch(numbers: Callable[[Pixels], Floats], images: Pixels, rows: Rows) -> Floats:
    length = at_once(BATCH, images.shape[1])
    starts = range(0, max(len(rows), 1), length)
    return np.concatenate([numbers(np.asarray(images[rows[start : start + length]])) for start in starts])


def _cells(values: npt.NDArray[Any]) -> Floats:  # (N, size, size, C) -> means of the cells, (N, 8, 8, C)
    count, height, width, channels = values.shape
    means: Floats = values.reshape(count, CELLS, height // CELLS, CELLS, width // CELLS, channels).mean(axis=(2, 4))
    return means


def _colours(pixels: Pixels) -> Floats:
    """Colours of the cells without the picture's own brightness and contrast, (N, 192)."""
    cells = _cells(pixels)
    level, contrast = cells.mean(axis=(1, 2, 3), keepdims=True), cells.std(axis=(1, 2, 3), keepdims=True)
    return np.asarray(((cells - level) / np.maximum(contrast, FAINT)).reshape(len(pixels), 3 * CELLS**2))


def _edges(pixels: Pixels) -> Floats:
    """Logarithm of the mean step in brightness to the right and down, in each cell, (N, 128)."""
    brightness = grey(pixels) / 1000  # (N, size, size)
    across = np.abs(np.diff(brightness, axis=2, append=brightness[:, :, -1:]))
    down = np.abs(np.diff(brightness, axis=1, append=brightness[:, -1:]))
    return np.log1p(_cells(np.stack([across, down], axis=-1))).reshape(len(pixels), 2 * CELLS**2)
