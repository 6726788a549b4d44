"""Scoring a finished run again: its own test split, another store, or some sources; adds files, overwrites none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fakegan.data.datamodule import Rows
from fakegan.data.faces import Faces, open_faces
from fakegan.data.store import LABEL_CONVENTION
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.metrics import measures
from fakegan.evaluation.results import METRICS_FILE, SCORES_FILE, read_metrics, table, write_metrics, write_scores
from fakegan.pipeline.fitting import pick_device
from fakegan.pipeline.settings import FACES_FILE, EvaluateSettings, RunSettings
from fakegan.pipeline.summary import write_pictures


def evaluate(settings: EvaluateSettings, trained: RunSettings) -> str:
    """Score, write into a new folder of the run, return the table."""
    run_dir = trained.paths.run_dir
    detector = Detector.load(run_dir, pick_device(settings.device))
    faces, own = _faces(settings, trained)
    if faces.store.geometry.shape() != detector.geometry.shape():
        raise UsageError(
            f"{faces.store.path} was prepared with {faces.store.geometry}, but {run_dir} with {detector.geometry}: "
            "prepare the faces again in the same way"
        )
    rows = faces.splits.test if own else np.arange(len(faces.store))
    if settings.sources:
        rows = _of_sources(settings.sources, faces.store.sources, rows)
    known = detector.knows(faces.store.sha256[rows])
    if own and known.any():
        raise FakeganError(f"{known.sum()} test faces took part in training: {faces.store.path} has changed since")
    rows = rows[~known]
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
        "objective": read_metrics(run_dir / METRICS_FILE)["objective"],  # the run's own: it selected on validation
        "run": str(run_dir),
        "store": str(store.path),
    }
    write_metrics(folder / METRICS_FILE, content)
    notes = [f"{known.sum()} faces took part in training and are left out"] if known.any() else []
    return "\n".join([f"{run_dir} on {store.path}", table(metrics), *notes, f"results: {folder}"])


def _faces(settings: EvaluateSettings, trained: RunSettings) -> tuple[Faces, bool]:
    """The faces asked for, and whether they are the run's own: then its test split counts, else every face."""
    if settings.data is None:
        return open_faces(trained.data, trained.paths.data_dir, needs={}), True
    faces = open_faces(settings.data, settings.data_dir, needs={})
    began_with = trained.paths.run_dir / FACES_FILE
    if not began_with.is_file() or began_with.read_text().strip() != faces.store.fingerprint:
        return faces, False
    own = replace(trained.data, root=faces.store.path)  # the same store, perhaps moved: with the run's own splits
    return open_faces(own, trained.paths.data_dir, needs={}), True


def _of_sources(wanted: tuple[str, ...], sources: npt.NDArray[np.str_], rows: Rows) -> Rows:
    """Those of the rows that are from the wanted sources."""
    available = np.unique(sources[rows])
    for name in wanted:
        if name not in available:
            raise UsageError(f"sources: there is no {name!r} to score; there are {', '.join(available)}")
    return rows[np.isin(sources[rows], wanted)]


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
