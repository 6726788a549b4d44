"""Where a score comes from: the log odds of fake that are lost when a part of a face is blurred, for any detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.intervals import Floats

Face = npt.NDArray[np.uint8]  # (size, size, 3)
LogOdds = Callable[[npt.NDArray[np.uint8]], Floats]  # of fake: uint8 faces (N, size, size, 3) -> (N,)

PATCHES = 12  # in a row: finer patches mark more, and cost more scores
BLUR = 1 / 8  # standard deviation, as a share of the face's side


def occlusion(
    log_odds: LogOdds,
    face: Face,
    patches: int = PATCHES,
    replaced: Callable[[Face], Floats] | None = None,  # what patches show instead, (size, size, 3); default: blurred
) -> Floats:  # (size, size)
    """How much the log odds of fake fall when the surroundings of a pixel are blurred; above 0 they speak for fake.

    Occlusion by a sliding patch (Zeiler & Fergus 2014, arXiv:1311.2901). The patches' edges are soft: the weight of a
    patch falls linearly from 1 in its centre to 0 in the centre of the next, so that a net sees no new edge. A pixel's
    value is the mean fall of the patches over it, by their weights. Costs patches^2 + 1 scores.
    """
    weights = patch_weights(face.shape[0], patches).astype(np.float32)  # (P, size)
    change = ((replaced or blurred)(face) - face).astype(np.float32)
    columns = weights[:, None, :, None]  # (P, 1, size, 1)
    covered = [(face + row[:, None, None] * columns * change).round().astype(np.uint8) for row in weights]
    scores = log_odds(np.concatenate([face[None], *covered]))  # P times (P, size, size, 3) after the face as it is
    falls = (scores[0] - scores[1:]).reshape(patches, patches)
    found: Floats = weights.T @ falls @ weights
    return found


def patch_weights(size: int, patches: int) -> Floats:  # (patches, size)
    """How much each patch of a row covers each pixel, 0 to 1; the weights of a pixel add up to 1."""
    place = (np.arange(size) + 0.5) * patches / size - 0.5  # of a pixel, in patches from the centre of the first
    distance = abs(place.clip(0, patches - 1) - np.arange(patches)[:, None])
    weights: Floats = (1 - distance).clip(min=0)
    return weights


def blurred(face: Face) -> Floats:  # (size, size, 3)
    """The face after a Gaussian blur that leaves colours alone, 0 to 255."""
    place = np.arange(face.shape[0]) / (BLUR * face.shape[0])
    kernel = np.exp(-0.5 * (place - place[:, None]) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    smooth: Floats = np.einsum("yi,xj,ijc->yxc", kernel, kernel, face, optimize=True)
    return smooth
