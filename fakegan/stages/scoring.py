"""Faces to scores to the files people read; the test stage and evaluate.py both go through here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fakegan.data.arrays import RowArray, Rows
from fakegan.data.store import FaceStore
from fakegan.detector import Detector
from fakegan.evaluation import plots
from fakegan.evaluation.calibration import probability
from fakegan.evaluation.intervals import Floats
from fakegan.evaluation.metrics import measures
from fakegan.labels import LABEL_CONVENTION
from fakegan.runs.folder import SCORES_FILE
from fakegan.runs.results import FaceScores, write_scores
from fakegan.stages.examples import RECONSTRUCTED
from fakegan.stages.stage import Examples
from fakegan.system.log import quiet
from fakegan.system.places import install

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredFaces:
    """Faces with their scores, before and after calibration."""

    faces: FaceScores
    uncalibrated: Floats  # (N,), P(fake) at temperature 1
    threshold: float
    learnt_from: frozenset[str] | None = None  # sources that took part in training, where that matters

    def measures(self) -> dict[str, Any]:
        """The part of metrics.json that describes one split."""
        f = self.faces
        faces = (f.scores, f.labels, f.sources, f.groups, self.threshold)
        return measures(*faces, uncalibrated=self.uncalibrated, learnt_from=self.learnt_from, verdicts=f.verdicts)

    def pictures(self) -> dict[str, Any]:
        """Figures by name: ROC, confusion, histogram, reliability."""
        f = self.faces
        return plots.pictures(f.scores, f.labels, f.sources, self.threshold, self.uncalibrated, self.learnt_from)

    def write(self, folder: Path, pictures: str = ".") -> None:
        """scores.csv into the folder, and the pictures into its folder `pictures`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder / SCORES_FILE, self.faces)
        if not plots.available():
            log.info("no pictures: they need matplotlib, %s", install("plots"))
            return
        (folder / pictures).mkdir(exist_ok=True)
        for name, figure in self.pictures().items():
            figure.savefig(folder / pictures / f"{name}.png")


def score(detector: Detector, store: FaceStore, rows: Rows, what: str) -> ScoredFaces:
    """Some faces of a store, as they are."""
    columns = (store.files[rows], store.sources[rows], store.labels[rows], store.groups[rows])
    return _scored(detector, store.images, rows, what, *columns)


def score_examples(detector: Detector, examples: Examples, rows: Rows) -> ScoredFaces:
    """Some of the examples a classifier learns from; they have no file names."""
    columns = (rows.astype(np.str_), examples.sources[rows], examples.labels[rows], examples.groups[rows])
    return _scored(detector, examples.arrays["image"], rows, "validation faces", *columns)


def score_reconstructed(
    detector: Detector, store: FaceStore, recon: RowArray, rows: Rows, real: ScoredFaces
) -> ScoredFaces:
    """Real faces, scored already, and beside them their own reconstructions as fakes."""
    files = np.char.add(store.files[rows], f" ({RECONSTRUCTED})")
    sources, labels = np.full(len(rows), RECONSTRUCTED), np.ones(len(rows), dtype=np.int64)
    what = "reconstructions of test faces"
    return joined([real, _scored(detector, recon, rows, what, files, sources, labels, store.groups[rows])])


def _scored(
    detector: Detector, images: RowArray, rows: Rows, what: str, files: Any, sources: Any, labels: Any, groups: Any
) -> ScoredFaces:
    with tqdm(total=len(rows), desc=f"scoring {what}", mininterval=0.5, disable=quiet() or None) as bar:
        margins, strangeness = detector.margins_and_strangeness(images, rows, bar.update)
    scores = probability(margins, detector.temperature)
    said = scores >= detector.threshold, detector.verdicts(scores, strangeness)
    faces = FaceScores(files, sources, labels, groups, scores, *said)
    return ScoredFaces(faces, probability(margins, 1.0), detector.threshold)


def joined(parts: Sequence[ScoredFaces]) -> ScoredFaces:
    """The faces of several parts, in one."""
    columns = {f.name: np.concatenate([getattr(part.faces, f.name) for part in parts]) for f in fields(FaceScores)}
    return ScoredFaces(FaceScores(**columns), np.concatenate([part.uncalibrated for part in parts]), parts[0].threshold)


def chosen(scored: ScoredFaces, keep: Any) -> ScoredFaces:  # bool (N,)
    """Some of the faces."""
    return ScoredFaces(scored.faces.kept(keep), scored.uncalibrated[keep], scored.threshold)


def detector_values(detector: Detector, store: FaceStore) -> dict[str, Any]:
    """The part of metrics.json that describes the detector and its faces."""
    return {
        "threshold": detector.threshold,
        "temperature": detector.temperature,
        "band": list(detector.band),
        "flip_average": detector.flip_average,
        "label_convention": LABEL_CONVENTION,
        "data_fingerprint": store.fingerprint,
    }
