"""Rows on explanations: removing what a map marks moves the score more than removing as much at random."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import fakegan
from fakegan.data.demo import demo_faces
from fakegan.detector import Detector
from fakegan.evaluation.occlusion import Face, LogOdds, occlusion
from tests.benchmarks.results import Bound, NotMeasured, Result

REMOVED = 0.1  # share of the face
DRAWS = 8  # of the same shape elsewhere
AT_MOST = 0.5  # what chance moves, as a share of what the marked places move
WHAT = "log odds moved without a tenth of a face at random, as a share of those without what the explanation marks"


def rows(quick: bool) -> Iterator[Result]:
    """A simple CNN, trained on the built-in faces as train.py does it, explains others of them."""
    if quick:
        yield NotMeasured(WHAT, "takes a training")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        places = [f"paths.data_dir={folder}/data", f"hydra.run.dir={folder}/run"]
        run = fakegan.train("pipeline=classify", "classifier=simple_cnn", *places)
        faces = np.stack([face.pixels for face in demo_faces(40, seed=77, workers=1)])
        yield bound(fakegan.load(run.folder), faces, "simple CNN, built-in faces")


def bound(
    detector: Detector,
    faces: npt.NDArray[np.uint8],  # (N, size, size, 3), not of training
    name: str,
) -> Bound:
    """The deletion test of a detector on these faces."""
    rng = np.random.default_rng(0)
    moved = np.array([deletion(lambda x: detector.margins(x) / detector.temperature, face, rng) for face in faces])
    marked, chance = moved.mean(axis=0)
    more = f"{(moved[:, 0] > moved[:, 1]).mean():.0%} of {len(faces)} faces: marked places move more than chance"
    return Bound(f"{name}: {WHAT}", "", (chance / marked,), AT_MOST, f"{chance:.2f} of {marked:.2f}; {more}")


def deletion(log_odds: LogOdds, face: Face, rng: np.random.Generator) -> tuple[float, float]:
    """How far the log odds move: to the other side without what the map marks, either way without as much elsewhere.

    Removed is where the map speaks most for the side that the score is on (Samek et al. 2015, arXiv:1509.06321);
    elsewhere is the same shape, moved by chance and over the edges, the mean of several draws. What is removed becomes
    grey, unlike the blur that the map was made with.
    """
    before = log_odds(face[None])[0]
    side = 1.0 if before >= 0 else -1.0
    found = side * occlusion(log_odds, face)
    marked = found >= np.quantile(found, 1 - REMOVED)
    masks = [marked, *(np.roll(marked, shift, (0, 1)) for shift in rng.integers(0, len(face), (DRAWS, 2)))]
    moved = side * (before - log_odds(np.stack([np.where(mask[..., None], np.uint8(127), face) for mask in masks])))
    return float(moved[0]), float(abs(moved[1:]).mean())
