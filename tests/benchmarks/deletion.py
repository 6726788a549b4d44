"""Whether an explanation is right: removing what it marks moves the score more than removing as much at random.

On runs of your own: `python -m tests.benchmarks.deletion --run RUN PICTURES ...` (Samek et al. 2015, arXiv:1509.06321).
"""

from __future__ import annotations

import numpy as np

from fakegan.evaluation.occlusion import Face, LogOdds, occlusion

REMOVED = 0.1  # share of the face
DRAWS = 8  # of the same shape elsewhere


def deletion(log_odds: LogOdds, face: Face, rng: np.random.Generator) -> tuple[float, float]:
    """How far the log odds move towards the other class: without what the map marks, and without as much elsewhere.

    Removed is a tenth of the face, where the map speaks most for the side that the score is on; elsewhere is the same
    shape, moved by chance and turned over the edges, the mean of 8 draws. What is removed becomes grey, which is not
    what the map was made with.
    """
    before = log_odds(face[None])[0]
    side = 1.0 if before >= 0 else -1.0
    found = side * occlusion(log_odds, face)
    marked = found >= np.quantile(found, 1 - REMOVED)
    shifts = rng.integers(0, len(face), (DRAWS, 2))
    masks = [marked, *(np.roll(marked, shift, (0, 1)) for shift in shifts)]
    moved = side * (before - log_odds(np.stack([np.where(mask[..., None], np.uint8(127), face) for mask in masks])))
    return float(moved[0]), float(moved[1:].mean())
