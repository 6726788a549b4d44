"""Scoring a finished run again: its own test split, another store, or some sources; adds files, overwrites none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fakegan.data.datamodule import Rows
from fakegan.data.faces import Faces, open_faces
from fakegan.data.store import LABEL_CONVENTION
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.metrics import measures
from fakegan.evaluation.results import METRICS_FILE, SCORES_FILE, table, write_metrics, write_scores
from fakegan.pipeline.fitting import pick_device
from fakegan.pipeline.settings import EvaluateSettings, RunSettings
from fakegan.pipeline.summary import write_pictures


def evaluate(settings: EvaluateSettings, trained: RunSettings) -> str:
    """Score, write into a new folder of the run, return the table."""
    run_dir = trained.paths.run_dir
    detector = Detector.load(run_dir, pick_device(settings.device))
    data = settings.data or trained.data
    faces = open_faces(data, settings.data_dir if settings.data else trained.paths.data_dir, needs={})
    if faces.store.geometry != detector.geometry:
        print(f"warning: {faces.store.path} was prepared with {faces.store.geometry}, the run with {detector.geometry}")
    rows, left_out = _rows(settings, faces, detector)
    store = faces.store
    scores = detector.scores(store.images, rows)
    labels, sources = store.labels[rows], store.sources[rows]
    metrics = measures(scores, labels, sources, detector.threshold)
    folder = _new_folder(run_dir / "evaluations", store.path.name)
    write_scores(folder / SCORES_FILE, store.files[rows], sources, labels, scores, detector.threshold)
    write_pictures(folder, scores, labels, sources, detector.threshold)
    content = {
        "test": metrics,
        "threshold": detector.threshold,
        "label_convention": LABEL_CONVENTION,
        "data_fingerprint": store.fingerprint,
        "objective": metrics["auroc"]["value"],
        "run": str(run_dir),
        "store": str(store.path),
    }
    write_metrics(folder / METRICS_FILE, content)
    notes = [f"{left_out} faces took part in training and are left out"] if left_out else []
    return "\n".join([f"{run_dir} on {store.path}", table(metrics), *notes, f"results: {folder}"])


def _rows(settings: EvaluateSettings, faces: Faces, detector: Detector) -> tuple[Rows, int]:
    """The rows to score, and how many were left out because training has seen the same file.

    The run's own store: its test split. Any other store: all of it.
    """
    store = faces.store
    rows: Rows = faces.splits.test if settings.data is None else np.arange(len(store))
    if settings.sources:
        rows = rows[_of_sources(settings.sources, store.sources, store.sources[rows])[rows]]
    known = detector.knows(store.sha256[rows])
    if settings.data is None and known.any():
        raise FakeganError(f"{known.sum()} test faces took part in training: {store.path} has changed since the run")
    return rows[~known], int(known.sum())


def _of_sources(
    wanted: tuple[str, ...], sources: npt.NDArray[np.str_], available: npt.NDArray[np.str_]
) -> npt.NDArray[np.bool_]:
    for name in wanted:
        if name not in available:
            raise UsageError(f"sources: there is no {name!r} to score; there are {', '.join(np.unique(available))}")
    return np.isin(sources, wanted)


def _new_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `parent/name-2` and so on: the first that is not there yet."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
