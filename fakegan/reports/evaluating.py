"""Scoring finished runs again: their own test split, another store, or some sources; adds files, overwrites none."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import Rows
from fakegan.data.faces import Faces, open_faces
from fakegan.data.store import FaceStore
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.reports.write import write_report
from fakegan.runs.finished import LEARNT_FROM, SCORED, FinishedRun, learnt_from, same_faces
from fakegan.runs.folder import LEDGER_FILE, METRICS_FILE
from fakegan.runs.ledger import command, record
from fakegan.runs.results import TABLE_WIDTH, read_metrics, table, write_metrics
from fakegan.runs.settings import EvaluateSettings, RunSettings, began_with
from fakegan.stages.examples import own_faces
from fakegan.stages.scoring import ScoredFaces, decisions, score, together
from fakegan.system.devices import use_device
from fakegan.system.files import entries, new_folder, why_not_writable


def evaluate(settings: EvaluateSettings, trained: RunSettings) -> str:
    """Score one run, write into a new folder of it or into `out`, return the table."""
    _refuse_taken(settings)
    result = _score_again(settings, trained)
    lines = [
        f"{trained.paths.run_dir}:",
        textwrap.fill(result.scored, TABLE_WIDTH),
        table(result.metrics["test"]),
        f"results: {result.folder}",
    ]
    return "\n".join(lines)


def compare(settings: EvaluateSettings, trained: Sequence[RunSettings]) -> str:
    """Several runs side by side on the same faces: their own test split as it was scored, or other faces, scored now.

    Raises:
        UsageError: none of them has finished, or `out` is there already.
        FakeganError: they were scored on different faces.
    """
    _refuse_taken(settings)
    finished = []
    for run in trained:
        why = _cannot_be_compared(run)
        if why is None:
            finished.append(run)
        else:
            print(f"{run.paths.run_dir} is left out: {why}", flush=True)
    if not finished:
        raise UsageError("none of these runs has scored faces: name finished ones")
    if settings.data is None and not settings.sources:
        results = [FinishedRun(run, run.paths.run_dir) for run in finished]
    else:
        results = [_score_again(settings, run) for run in finished]
    same_faces(results)
    out = settings.out or new_folder(Path("reports") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    return write_report(results, out, command())


def _refuse_taken(settings: EvaluateSettings) -> None:
    out = settings.out
    if out is not None and out.exists() and not (out.is_dir() and not entries(out)):
        raise UsageError(f"out={out} is there already: name a new folder")


def _cannot_be_compared(run: RunSettings) -> str | None:
    """Why, in a few words; None where it can."""
    path = run.paths.run_dir / METRICS_FILE
    if not path.is_file():
        return "it has not finished"
    return None if "test" in read_metrics(path) else "it trained an autoencoder only"


def _score_again(settings: EvaluateSettings, trained: RunSettings) -> FinishedRun:
    run_dir = trained.paths.run_dir
    place = _place(settings, run_dir)
    trained_with = read_metrics(run_dir / METRICS_FILE)
    detector = Detector.load(run_dir, use_device(settings.device), settings.trust)
    print(f"device: {detector.described_device()}", flush=True)
    faces, own = _faces(settings, trained)
    store = faces.store
    rows = faces.splits.test if own else np.arange(len(store))
    if settings.sources:
        rows = _of_sources(settings.sources, store.sources, rows)
    rows, notes = _rows_to_score(detector, store, rows, own)
    parts = []
    again = len(rows) if own else _own_test_faces(trained, store, rows)
    if again:
        record(place.ledger, again, store.fingerprint)
    if len(rows):
        parts.append(score(detector, store, rows, f"faces of {store.path.name}"))
    if not own:
        lacking = [label for label in (REAL, FAKE) if not (store.labels[rows] == label).any()]
        if len(lacking) == 1 and len(rows):
            part, note = _stand_in(trained, detector, lacking[0], place)
            parts.append(part)
            notes.append(note)
    if not parts:
        raise FakeganError(f"{store.path} holds no face that {run_dir} has not seen in training")
    scored = replace(together(parts), learnt_from=learnt_from(trained_with))
    metrics = scored.measures()
    folder = place.results or new_folder(place.ledger / "evaluations" / store.path.name)
    scored.write(folder)
    content: dict[str, Any] = {
        "test": metrics,
        **{key: trained_with[key] for key in ("objective", "autoencoder") if key in trained_with},  # on validation
        **decisions(detector, store),
        LEARNT_FROM: sorted(scored.learnt_from or ()),
        SCORED: _described(settings.sources, None if own else store.path.name, notes),
        "run": str(run_dir),
        "store": str(store.path),
        "command": command(),
    }
    write_metrics(folder / METRICS_FILE, content)
    _tell_of_another_ledger(place.ledger, run_dir)
    return FinishedRun(trained, folder)


@dataclass(frozen=True)
class _Place:
    """Where what is found out about a run goes."""

    ledger: Path  # the folder of its ledger: the run's, where that can be written
    results: Path | None  # None: a new folder under `ledger`


def _place(settings: EvaluateSettings, run_dir: Path) -> _Place:
    """Asked before anything is scored.

    Raises:
        UsageError: the run cannot be written, and no other place is named.
        FakeganError: the other place cannot be made.
    """
    why, out = why_not_writable(run_dir), settings.out
    if why and out is None:
        raise UsageError(f"{run_dir} cannot be written ({why}): name a folder for the results with out=DIR")
    if out is None or (settings.run is None and not why):
        return _Place(run_dir, None)
    try:
        if settings.run is None:
            return _Place(new_folder(out / "evaluations" / run_dir.name), None)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FakeganError(f"out={out} cannot be made ({error.strerror}): name another folder") from error
    return _Place(out if why else run_dir, out)


def _tell_of_another_ledger(ledger: Path, run_dir: Path) -> None:
    """Say where the test ledger of a run that cannot be written is."""
    path = ledger / LEDGER_FILE
    if ledger != run_dir and path.is_file():
        print(f"{run_dir} cannot be written: add the lines of {path} to its {LEDGER_FILE}, test faces were scored")


def _described(sources: Sequence[str], store: str | None, notes: Sequence[str]) -> str:
    """Which faces these are, for a report."""
    words = ["test split" if store is None else f"faces of {store}"]
    words += [f"only {', '.join(sources)}"] if sources else []
    return "; ".join([*words, *notes])


def _rows_to_score(detector: Detector, store: FaceStore, rows: Rows, own: bool) -> tuple[Rows, list[str]]:
    """The rows that took no part in training, and what to say about the others."""
    if store.geometry.shape() != detector.geometry.shape():
        raise UsageError(
            f"{store.path} was prepared with {store.geometry}, but the run with {detector.geometry}: "
            "prepare the faces again in the same way"
        )
    _refuse_swapped(detector.contradicts(store.sha256, store.labels), store)
    known = detector.knows(store.sha256[rows])
    if own and known.any():
        raise FakeganError(f"{known.sum()} test faces took part in training: {store.path} has changed since")
    notes = [f"{known.sum()} faces took part in training and are left out"] if known.any() else []
    if store.geometry.to_srgb != detector.geometry.to_srgb:
        done = {True: "converted to sRGB by their colour profiles", False: "taken without their colour profiles"}
        notes.append(
            f"these faces were {done[store.geometry.to_srgb]}, those of training {done[detector.geometry.to_srgb]}: "
            "where pictures have profiles, scores differ by that; prepare both alike (--ignore-profiles)"
        )
    return rows[~known], notes


def _own_test_faces(trained: RunSettings, store: FaceStore, rows: Rows) -> int:
    """How many of these faces of another store are test faces of the run; 0, and said, where its own store is gone.

    Raises:
        FakeganError: some have the other label there.
    """
    try:
        own = own_faces(trained, {})
    except FakeganError as error:
        print(f"not in the ledger: which of these faces are test faces of the run is not known ({error})", flush=True)
        return 0
    label_of = dict(zip(own.store.sha256.tolist(), own.store.labels.tolist(), strict=True))
    here = zip(store.sha256.tolist(), store.labels.tolist(), strict=True)
    _refuse_swapped(sum(label_of.get(sha256, label) != label for sha256, label in here), store)
    return int(np.isin(store.sha256[rows], own.store.sha256[own.splits.test]).sum())


def _refuse_swapped(faces: int, store: FaceStore) -> None:
    if faces:
        raise FakeganError(
            f"{faces} faces of {store.path} have the other label than the run knows them by: "
            "real and fake are swapped in one of the two; prepare it again"
        )


def _stand_in(trained: RunSettings, detector: Detector, label: int, place: _Place) -> tuple[ScoredFaces, str]:
    """The run's own test faces of a class that the named store lacks: one generator alone makes no test."""
    own = own_faces(trained, {})
    rows = own.splits.test[own.store.labels[own.splits.test] == label]
    rows, _ = _rows_to_score(detector, own.store, rows, own=True)
    record(place.ledger, len(rows), own.store.fingerprint)
    name = CLASS_NAMES[label]
    note = f"no {name} faces to score there: the run's own {len(rows)} {name} test faces stand in"
    return score(detector, own.store, rows, f"own {name} test faces"), note


def _faces(settings: EvaluateSettings, trained: RunSettings) -> tuple[Faces, bool]:
    """The faces asked for, and whether they are the run's own: then its test split counts, else every face."""
    if settings.data is None:
        return own_faces(trained, {}), True
    faces = open_faces(settings.data, settings.data_dir, needs={})
    if began_with(trained.paths.run_dir) != faces.store.fingerprint:
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
