"""Faces to scores to the files people read; the test stage and evaluate.py both go through here."""

from __future__ import annotations

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
from fakegan.stages.examples import RECONSTRUCTED, Examples
from fakegan.system.places import install


@dataclass(frozen=True)
class ScoredFaces:
    """Faces with their scores, before and after calibration."""

    faces: FaceScores
    uncalibrated: Floats  # (N,), P(fake) at temperature 1
    threshold: float
    learnt_from: frozenset[str] | None = None  # sources that took part in training, where that matters

    def measures(self) -> dict[str, Any]:
        """Everything that metrics.json says of one split."""
        f = self.faces
        faces = (f.scores, f.labels, f.sources, f.groups, self.threshold)
        return measures(*faces, uncalibrated=self.uncalibrated, learnt_from=self.learnt_from)

    def write(self, folder: Path, pictures: str = ".") -> None:
        """scores.csv into the folder, and ROC, confusion, histogram, reliability into the folder `pictures` of it."""
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder / SCORES_FILE, self.faces)
        if not plots.available():
            print(f"no pictures: they need matplotlib, {install('plots')}", flush=True)
            return
        (folder / pictures).mkdir(exist_ok=True)
        for name, figure in self.pictures().items():
            figure.savefig(folder / pictures / f"{name}.png")

    def pictures(self) -> dict[str, Any]:
        """Figures by name."""
        f = self.faces
        return plots.pictures(f.scores, f.labels, f.sources, self.threshold, self.uncalibrated, self.learnt_from)


def score(detector: Detector, store: FaceStore, rows: Rows, what: str) -> ScoredFaces:
    """Some faces of a store, as they are."""
    margins = _margins(detector, store.images, rows, what)
    return _scored(detector, margins, store.files[rows], store.sources[rows], store.labels[rows], store.groups[rows])


def score_examples(detector: Detector, examples: Examples, rows: Rows) -> ScoredFaces:
    """Some of the examples a classifier learns from; they have no file names."""
    margins = _margins(detector, examples.arrays["image"], rows, "validation faces")
    numbers = rows.astype(np.str_)
    return _scored(detector, margins, numbers, examples.sources[rows], examples.labels[rows], examples.groups[rows])


def score_reconstructed(
    detector: Detector, store: FaceStore, recon: RowArray, rows: Rows, real: ScoredFaces
) -> ScoredFaces:
    """Real faces, scored already, and beside them their own reconstructions as fakes."""
    margins = _margins(detector, recon, rows, "reconstructions of test faces")
    files = np.char.add(store.files[rows], f" ({RECONSTRUCTED})")
    sources, labels = np.full(len(rows), RECONSTRUCTED), np.ones(len(rows), dtype=np.int64)
    return together([real, _scored(detector, margins, files, sources, labels, store.groups[rows])])


def together(parts: Sequence[ScoredFaces]) -> ScoredFaces:
    """Several lots of faces as one."""
    columns = {f.name: np.concatenate([getattr(part.faces, f.name) for part in parts]) for f in fields(FaceScores)}
    return ScoredFaces(FaceScores(**columns), np.concatenate([part.uncalibrated for part in parts]), parts[0].threshold)


def chosen(scored: ScoredFaces, keep: Any) -> ScoredFaces:  # bool (N,)
    """Some of the faces."""
    return ScoredFaces(scored.faces.kept(keep), scored.uncalibrated[keep], scored.threshold)


def decisions(detector: Detector, store: FaceStore) -> dict[str, Any]:
    """What metrics.json says besides the splits."""
    return {
        "threshold": detector.threshold,
        "temperature": detector.temperature,
        "band": list(detector.band),
        "label_convention": LABEL_CONVENTION,
        "data_fingerprint": store.fingerprint,
    }


def _margins(detector: Detector, images: RowArray, rows: Rows, what: str) -> Floats:
    with tqdm(total=len(rows), desc=f"scoring {what}", mininterval=0.5, disable=None) as bar:
        return detector.margins(images, rows, bar.update)


def _scored(detector: Detector, margins: Floats, files: Any, sources: Any, labels: Any, groups: Any) -> ScoredFaces:
    scores = probability(margins, detector.temperature)
    faces = FaceScores(files, sources, labels, groups, scores, scores >= detector.threshold)
    return ScoredFaces(faces, probability(margins, 1.0), detector.threshold)
