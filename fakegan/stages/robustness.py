"""Test faces through what happens to pictures in the world, and scored again by the finished detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from fakegan.data.arrays import Rows, at_once
from fakegan.data.degrade import KINDS, Kind
from fakegan.data.draws import face_keys
from fakegan.data.given import read_given
from fakegan.data.images import Face
from fakegan.data.originals import Originals
from fakegan.data.store import FaceStore
from fakegan.detector import BATCH, Detector
from fakegan.evaluation import plots
from fakegan.evaluation.intervals import Floats
from fakegan.evaluation.metrics import seen_and_unseen
from fakegan.evaluation.robustness import robustness
from fakegan.evaluation.strength_plots import Curve, strength_curves
from fakegan.runs.robustness import ALL, MEASURES, WORDS, Part, Robustness, measure, read_robustness
from fakegan.stages.scoring import ScoredFaces
from fakegan.system.log import quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 0  # of noise and shifts: the same for all runs, so that they are compared on the same pictures
SETTINGS = [(kind, strength) for kind in KINDS for strength in KINDS[kind].strengths]


class Pictures(Protocol):
    """Faces of one size by store row, or originals of sizes of their own."""

    def __getitem__(self, rows: Any, /) -> Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Subject:
    """Faces of one store to degrade, and where their pixels come from."""

    store: FaceStore
    rows: Rows
    pictures: Pictures

    @classmethod
    def of(cls, store: FaceStore, rows: Rows, originals: bool) -> Subject:
        """The store's pixels, or the original files; a UsageError where one of these is no longer there."""
        return cls(store, rows, Originals(store, rows) if originals else store.images)


def degraded_scores(detector: Detector, subjects: Sequence[Subject]) -> Floats:  # -> (K, N), by SETTINGS
    """P(fake) of the faces of all subjects, in order, in each setting; a batch of them is in memory at a time."""
    length = at_once(BATCH, detector.geometry.size)
    batches = [(s, s.rows[i : i + length]) for s in subjects for i in range(0, len(s.rows), length)]
    total = len(SETTINGS) * sum(len(rows) for _, rows in batches)
    with tqdm(total=total, desc="scoring degraded faces", mininterval=0.5, disable=quiet() or None) as bar:
        return np.concatenate([_of_batch(detector, subject, rows, bar) for subject, rows in batches], axis=1)


def _of_batch(detector: Detector, subject: Subject, rows: Rows, bar: tqdm[Any]) -> Floats:  # -> (K, B)
    pictures = subject.pictures[rows]
    keys = face_keys(rows, SEED, epoch=0).to(detector.device)
    scores = []
    for kind, strength in SETTINGS:
        faces = _degraded(KINDS[kind], strength, pictures, keys, detector)
        scores.append(detector.scores(faces, progress=bar.update))
    return np.stack(scores)


def _degraded(
    kind: Kind, strength: float, pictures: Any, keys: torch.Tensor, detector: Detector
) -> npt.NDArray[np.uint8]:  # (B, size, size, 3)
    """Faces at once; originals one by one, each then brought to the size as `predict` brings a picture."""
    if isinstance(pictures, np.ndarray):
        return _changed(kind, strength, pictures, keys)
    changed = [_changed(kind, strength, p[None], keys[i : i + 1])[0] for i, p in enumerate(pictures)]
    faces = [face for _, face in read_given(changed, detector.geometry)]
    return np.stack([face.pixels for face in faces if isinstance(face, Face)])


def _changed(kind: Kind, strength: float, pixels: Any, keys: torch.Tensor) -> npt.NDArray[np.uint8]:
    on_device = torch.tensor(pixels, device=keys.device)
    changed: npt.NDArray[np.uint8] = kind(on_device, strength, keys).cpu().numpy()
    return changed


def robust(detector: Detector, subjects: Sequence[Subject], scored: ScoredFaces) -> dict[str, Any]:
    """The content of robustness.json: measures of the faces, or of seen and unseen generators each."""
    faces, degraded = scored.faces, degraded_scores(detector, subjects)
    parts = seen_and_unseen(faces.labels, faces.sources, scored.learnt_from)
    found = {}
    for name, among in (parts or {ALL: np.ones(len(faces), dtype=bool)}).items():
        own = faces.kept(among)
        given = (own.scores, degraded[:, among], SETTINGS, own.labels, own.groups, scored.threshold)
        found[name] = {"generators": np.unique(own.sources[own.labels == 1]).tolist(), **robustness(*given)}
    return {"originals": any(isinstance(s.pictures, Originals) for s in subjects), "parts": found}


def curve(part: Part, name: str) -> Curve:
    """One of MEASURES by the strength of each kind, beginning with the faces as they are."""
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    for kind, settings in part.kinds().items():
        none = KINDS[kind].none if kind in KINDS else 0.0
        found = [(none, measure(part.clean, name)), *((s.strength, measure(s, name)) for s in settings)]
        points[kind] = [(strength, e.value, e.low, e.high) for strength, e in found]
    return points


def curves(by_name: Mapping[str, Curve], title: str) -> Figure:
    """Curves of one picture, with the units of the strengths."""
    return strength_curves(by_name, {name: kind.unit for name, kind in KINDS.items()}, title)


def figures(found: Robustness) -> dict[str, Figure]:
    """Figures of one run by name: AUROC and right verdicts against strength, for each of its parts."""
    shown = {}
    for name, part in found.parts.items():
        end, where = ("", "") if name == ALL else (f"_{name}", f", {name} generators")
        aurocs = {f"{words} degraded": curve(part, side) for side, words in WORDS.items()}
        right = {MEASURES[of]: curve(part, of) for of in MEASURES if of not in WORDS}
        shown[f"robustness{end}_auroc"] = curves(aurocs, f"AUROC{where}")
        shown[f"robustness{end}_right"] = curves(right, f"Right verdicts{where}")
    return shown


def draw(folder: Path) -> None:
    """The figures of the robustness.json in a folder, beside it."""
    found = read_robustness(folder)
    if found is not None and plots.available():
        for name, figure in figures(found).items():
            figure.savefig(folder / f"{name}.png")
