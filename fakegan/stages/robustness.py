"""Test faces through what happens to pictures in the world, and scored again by the finished detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from fakegan.config.typed import from_mapping
from fakegan.data.arrays import Rows, at_once
from fakegan.data.degrade import KINDS, Kind
from fakegan.data.draws import face_keys
from fakegan.data.given import read_given
from fakegan.data.images import Face, Geometry
from fakegan.data.originals import Originals
from fakegan.data.store import FaceStore
from fakegan.detector import Detector
from fakegan.evaluation.intervals import Floats
from fakegan.evaluation.metrics import seen_and_unseen
from fakegan.evaluation.robustness import robustness
from fakegan.evaluation.strength_plots import strength_curves
from fakegan.judge import BATCH
from fakegan.runs.folder import ROBUSTNESS_FILE
from fakegan.runs.results import write_metrics
from fakegan.runs.robustness import ALL, MEASURES, RIGHT, SIDES, Estimate, Part, Robustness
from fakegan.stages.scoring import ScoredFaces
from fakegan.system.log import quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Subject = tuple[Any, Rows]  # what gives pictures by store row (`degraded` says which), and which rows are degraded
SEED = 0  # of noise and shifts: the same for all runs, so that they are compared on the same pictures
SETTINGS = [(kind, strength) for kind in KINDS for strength in KINDS[kind].strengths]


def subject(store: FaceStore, rows: Rows, originals: bool) -> Subject:
    """The store's pixels, or the original files; a UsageError where one of these is no longer there."""
    return (Originals(store, rows) if originals else store.images), rows


def degraded_scores(detector: Detector, subjects: Sequence[Subject]) -> Floats:  # -> (K, N), by SETTINGS
    """P(fake) of the faces of all subjects, in order, in each setting; a batch of them is in memory at a time."""
    length = at_once(BATCH, detector.geometry.size)
    batches = [(pictures, rows[i : i + length]) for pictures, rows in subjects for i in range(0, len(rows), length)]
    total = len(SETTINGS) * sum(len(rows) for _, rows in batches)
    with tqdm(total=total, desc="scoring degraded faces", mininterval=0.5, disable=quiet() or None) as bar:
        return np.concatenate([_of_batch(detector, pictures[rows], rows, bar) for pictures, rows in batches], axis=1)


def _of_batch(detector: Detector, pictures: Any, rows: Rows, bar: tqdm[Any]) -> Floats:  # -> (K, B)
    keys = face_keys(rows, SEED, epoch=0).to(detector.device)
    faces = (degraded(KINDS[kind], strength, pictures, keys, detector.geometry) for kind, strength in SETTINGS)
    return np.stack([detector.scores(each, progress=bar.update) for each in faces])


def degraded(
    kind: Kind,
    strength: float,
    pictures: Any,  # faces (B, size, size, 3), or a list of originals
    keys: torch.Tensor,  # (B,)
    geometry: Geometry,
) -> npt.NDArray[np.uint8]:
    """Faces at once; originals one by one, each then brought to the size as `predict` brings a picture."""
    if isinstance(pictures, np.ndarray):
        changed: npt.NDArray[np.uint8] = kind(torch.tensor(pictures, device=keys.device), strength, keys).cpu().numpy()
        return changed
    every = [degraded(kind, strength, p[None], keys[i : i + 1], geometry)[0] for i, p in enumerate(pictures)]
    return np.stack([face.pixels for _, face in read_given(every, geometry) if isinstance(face, Face)])


def robust(detector: Detector, subjects: Sequence[Subject], scored: ScoredFaces) -> dict[str, Any]:
    """The content of robustness.json: measures of all faces, or those of seen and of unseen generators."""
    faces, scores = scored.faces, degraded_scores(detector, subjects)
    parts = seen_and_unseen(faces.labels, faces.sources, scored.learnt_from)
    found = {}
    for name, among in (parts or {ALL: np.ones(len(faces), dtype=bool)}).items():
        own = faces.kept(among)
        given = (own.scores, scores[:, among], SETTINGS, own.labels, own.groups, scored.threshold)
        found[name] = {"generators": np.unique(own.sources[own.labels == 1]).tolist(), **robustness(*given)}
    return {"originals": any(isinstance(pictures, Originals) for pictures, _ in subjects), "parts": found}


def write_robustness(folder: Path, content: Mapping[str, Any]) -> Robustness:
    """Write robustness.json into a folder."""
    write_metrics(folder / ROBUSTNESS_FILE, dict(content))
    return from_mapping(Robustness, content)


def curves(parts: Mapping[str, tuple[Part, str]], title: str) -> Figure:
    """A line for each part of a file and one of its measures, by name."""
    by_name = {}
    for name, (part, of) in parts.items():
        points: dict[str, list[tuple[float, Estimate]]] = {}
        for kind, (clean, *settings) in part.kinds().items():
            none = KINDS[kind].none if kind in KINDS else 0.0
            points[kind] = [(none, clean.measures[of]), *((s.strength, s.measures[of]) for s in settings)]
        by_name[name] = {kind: [(at, e.value, e.low, e.high) for at, e in own] for kind, own in points.items()}
    return strength_curves(by_name, {name: kind.unit for name, kind in KINDS.items()}, title)


def figures(parts: Mapping[str, Part], where: str = "") -> dict[str, tuple[str, Figure]]:
    """Titles and figures of parts of the same faces, by name: one figure a measure, a line for each part.

    Of a single part AUROCs share a figure, and so do right calls: a line for each measure.
    """
    lines = {of: (words, {name: (part, of) for name, part in parts.items()}) for of, words in MEASURES.items()}
    if len(parts) == 1:
        (part,) = parts.values()
        aurocs = {f"{words} degraded": (part, side) for side, words in SIDES.items()}
        right = {words: (part, of) for of, words in RIGHT.items()}
        lines = {"auroc": (f"AUROC{where}", aurocs), "right": (f"Calls{where}", right)}
    return {name: (title, curves(given, title)) for name, (title, given) in lines.items()}


def figures_of_run(found: Robustness) -> dict[str, Figure]:
    """The figures of each part of one run, by file name."""
    shown: dict[str, Figure] = {}
    for name, part in found.parts.items():
        end, where = ("", "") if name == ALL else (f"_{name}", f", {name} generators")
        shown |= {f"robustness{end}_{of}": figure for of, (_, figure) in figures({name: part}, where).items()}
    return shown
