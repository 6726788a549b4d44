"""What the training pictures were like: by this, `predict` warns of pictures that a run knows nothing about.

Learnt once beside the detector, from uint8 faces and what the store says about their files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fakegan.data.images import grey

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]  # (N, 64, 64, 3)

CELLS = 8  # a side: what a face looks like is told by 8x8 cells
FAINT = 8.0  # levels; less contrast than this is not stretched
LEAST_SPREAD = 0.05  # of a number in training: one that never varied is not held against a picture at once
PERCENTILE = 99  # of the validation faces' distances: the limit, before its slack
ASPECT_SLACK = 1.1  # width / height may leave the range of training by this factor
SIDE_SLACK = 2.0  # and a picture be this many times smaller
BATCH = 1024  # faces at a time

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
        free = cls(mean, spread, whitening, np.inf)
        limit = np.percentile(free.distance(held_out), PERCENTILE) * (1.05 + 1 / np.sqrt(len(held_out)))
        return cls(mean, spread, whitening, float(limit))

    def distance(self, numbers: Floats) -> Floats:
        """Mahalanobis distance of each row of (N, K), divided by sqrt(K): (N,)."""
        independent = (numbers - self.mean) / self.spread @ self.whitening
        distance: Floats = np.sqrt(np.square(independent).mean(axis=1))
        return distance

    def to_arrays(self, prefix: str) -> dict[str, Tensor]:  # noqa: D102 - see Familiarity
        numbers = {"mean": self.mean, "spread": self.spread, "whitening": self.whitening, "limit": self.limit}
        return {f"{prefix}.{name}": torch.as_tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], prefix: str) -> Normal:  # noqa: D102
        mean, spread, whitening, limit = (
            np.asarray(arrays[f"{prefix}.{name}"], dtype=np.float64)
            for name in ("mean", "spread", "whitening", "limit")
        )
        return cls(mean, spread, whitening, float(limit))


@dataclass(frozen=True)
class Familiarity:
    """How far a picture is from those of training: in where it is light and coloured, in where it has edges, in size.

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
        """From the faces of the store that the classifier learns from: real ones only where its fakes are made of them.

        Raises:
            ValueError: no face to learn from, or none held out.
        """
        if not len(train_rows) or not len(val_rows):
            raise ValueError("familiarity is learnt from training faces and limited by validation faces: some are none")
        colours, edges = (
            Normal.learn(
                *(np.concatenate([numbers(b) for b in _batches(images, rows)]) for rows in (train_rows, val_rows))
            )
            for numbers in (_colours, _edges)
        )
        width, height = widths[train_rows], heights[train_rows]
        narrowest, widest = np.percentile(width / height, (1, 99)).tolist()
        return cls(colours, edges, (narrowest, widest), float(np.percentile(np.minimum(width, height), 1)))

    def warnings(
        self,
        pixels: Pixels,
        widths: npt.NDArray[np.int64],  # (N,), of the original pictures
        heights: npt.NDArray[np.int64],
    ) -> list[list[str]]:
        """What is unusual about each picture, in short sentences; mostly nothing."""
        unlike = self.strangeness(pixels) > 1
        found = []
        for strange, width, height in zip(unlike.tolist(), widths.tolist(), heights.tolist(), strict=True):
            sentences = [UNLIKE] if strange else []
            found.append(sentences + self._file_warnings(width, height))
        return found

    def strangeness(self, pixels: Pixels) -> Floats:
        """The larger of the two distances as a share of its limit, (N,): above 1 for about one face in a hundred."""
        parts = [
            np.maximum(
                self.colours.distance(_colours(batch)) / self.colours.limit,
                self.edges.distance(_edges(batch)) / self.edges.limit,
            )
            for batch in _batches(pixels, np.arange(len(pixels)))
        ]
        return np.concatenate([np.zeros(0), *parts])

    def _file_warnings(self, width: int, height: int) -> list[str]:
        found = []
        narrowest, widest = self.aspects
        if not narrowest / ASPECT_SLACK <= width / height <= widest * ASPECT_SLACK:
            square = narrowest > 1 / 1.01 and widest < 1.01
            usual = "square" if square else f"{narrowest:.2f} to {widest:.2f} times as wide as high"
            found.append(f"{width}x{height}: training pictures were {usual}; crop to the face first")
        if min(width, height) * SIDE_SLACK < self.shortest:
            found.append(f"{width}x{height}: training pictures had {self.shortest:.0f} pixels or more on a side")
        return found

    def to_arrays(self) -> dict[str, Tensor]:
        """All of it as tensors, which a checkpoint can hold."""
        numbers = {"aspects": self.aspects, "shortest": self.shortest}
        files = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
        return self.colours.to_arrays("colours") | self.edges.to_arrays("edges") | files

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Any],  # tensors or NumPy arrays
    ) -> Familiarity:
        """What `to_arrays` gave."""
        narrowest, widest = (float(value) for value in arrays["aspects"])
        colours, edges = (Normal.from_arrays(arrays, name) for name in ("colours", "edges"))
        return cls(colours, edges, (narrowest, widest), float(arrays["shortest"]))


def _batches(images: Pixels, rows: Rows) -> Iterator[Pixels]:
    for start in range(0, len(rows), BATCH):
        yield np.asarray(images[rows[start : start + BATCH]])


def _cells(values: npt.NDArray[Any]) -> Floats:  # (N, 64, 64, C) -> means of the cells, (N, 8, 8, C)
    count, height, width, channels = values.shape
    means: Floats = values.reshape(count, CELLS, height // CELLS, CELLS, width // CELLS, channels).mean(axis=(2, 4))
    return means


def _colours(pixels: Pixels) -> Floats:
    """Colours of the cells without the picture's own brightness and contrast, (N, 192)."""
    cells = _cells(pixels)
    level, contrast = cells.mean(axis=(1, 2, 3), keepdims=True), cells.std(axis=(1, 2, 3), keepdims=True)
    return np.asarray(((cells - level) / np.maximum(contrast, FAINT)).reshape(len(pixels), -1))


def _edges(pixels: Pixels) -> Floats:
    """Logarithm of the mean step in brightness to the right and down, in each cell, (N, 128)."""
    brightness = grey(pixels) / 1000  # (N, 64, 64)
    across = np.abs(np.diff(brightness, axis=2, append=brightness[:, :, -1:]))
    down = np.abs(np.diff(brightness, axis=1, append=brightness[:, -1:]))
    return np.log1p(_cells(np.stack([across, down], axis=-1))).reshape(len(pixels), -1)
