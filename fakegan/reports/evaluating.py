"""Scoring finished runs again: their own test split, another store, or some sources; adds files, overwrites none."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
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
from fakegan.evaluation import plots
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.reports.write import write_report
from fakegan.runs.began import fingerprint_at_start
from fakegan.runs.finished import (
    LEARNT_FROM,
    SCORED,
    FinishedRun,
    exported_learnt_from,
    hold_out_alone,
    learnt_from,
    same_faces,
)
from fakegan.runs.folder import EVALUATIONS_FOLDER, LEDGER_FILE, METRICS_FILE, PORTABLE, REPORTS_FOLDER
from fakegan.runs.ledger import command, record
from fakegan.runs.portable import is_portable, load_portable
from fakegan.runs.results import TABLE_WIDTH, read_metrics, table, write_metrics
from fakegan.runs.robustness import read_robustness
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.stages.examples import own_faces
from fakegan.stages.robustness import figures_of_run, robust, subject, write_robustness
from fakegan.stages.scoring import detector_values, joined, score
from fakegan.system.devices import use_device
from fakegan.system.files import entries, new_folder, why_not_writable

log = logging.getLogger(__name__)


def evaluate(settings: EvaluateSettings, trained: RunSettings) -> str:
    """Score one run, write the results into a new folder in it or into `out`, return the table."""
    _refuse_taken(settings.out)
    result = _score_again(settings, trained)
    scored = textwrap.fill(result.scored, TABLE_WIDTH)
    robustness = read_robustness(result.folder)
    shown = [table(result.metrics["test"]), *([] if robustness is None else robustness.lines())]
    return "\n".join([f"{trained.paths.run_dir}:", scored, *shown, f"results: {result.folder}"])


def evaluate_file(settings: EvaluateSettings, file: Path) -> str:
    """Score the faces of a store by an exported detector; write the results into `out` or a new folder.

    The file knows neither its run's faces nor how often they were scored: both classes must be in the store.

    Raises:
        UsageError: no store, or one without reals or fakes; a file that has scores alone.
    """
    if not is_portable(file):
        raise UsageError(f"run={file}: evaluate.py takes a run's folder or a {PORTABLE} file; predict takes this one")
    if settings.data is None:
        raise UsageError(f"run={file} has no faces of its own: add data=faces data.root=DIR")
    _refuse_taken(settings.out)
    detector = Detector.load(file, use_device(settings.device), settings.trust)
    detector.decide_at(settings.threshold, settings.max_false_alarms)
    learnt = _learnt_by(file)
    store = open_faces(settings.data, settings.data_dir, needs={}).store
    rows = _of_sources(settings.sources, store, np.arange(len(store)))
    rows, notes = _rows_to_score(detector, store, rows, own=False)
    for label, name in CLASS_NAMES.items():
        if not (store.labels[rows] == label).any():
            raise UsageError(f"{store.path} holds no {name} faces to score: an exported detector needs both classes")
    scored = replace(joined([score(detector, store, rows, f"faces of {store.path.name}")]), learnt_from=learnt)
    degraded = None
    if settings.robustness:
        degraded = robust(detector, [subject(store, rows, settings.originals)], scored)
    folder = settings.out or new_folder(Path(EVALUATIONS_FOLDER) / f"{file.stem}_{store.path.name}")
    folder.mkdir(parents=True, exist_ok=True)
    scored.write(folder)
    if degraded is not None:
        write_robustness(folder, degraded)
    metrics, words = scored.measures(), "; ".join([f"faces of {store.path.name}", *notes])
    values = {**detector_values(detector, store), LEARNT_FROM: sorted(learnt), SCORED: words}
    write_metrics(folder / METRICS_FILE, {"test": metrics, **values, "run": str(file), "command": command()})
    robustness = read_robustness(folder)
    shown = [table(metrics), *([] if robustness is None else robustness.lines())]
    return "\n".join([f"{file}:", textwrap.fill(words, TABLE_WIDTH), *shown, f"results: {folder}"])


def _learnt_by(file: Path) -> frozenset[str]:
    """The sources that an exported detector has learnt from, without which all would count as unseen."""
    names = exported_learnt_from(load_portable(file))
    if not names:
        raise FakeganError(f"{file} does not say which sources it has learnt from: export the run again")
    return frozenset(names)


def compare(settings: EvaluateSettings, trained: Sequence[RunSettings]) -> str:
    """Several runs side by side on the same faces: their own test split as it was scored, or other faces, scored now.

    Raises:
        UsageError: none of them has finished, or `out` is there already.
        FakeganError: they were scored on different faces.
    """
    _refuse_taken(settings.out)
    finished = []
    for run in trained:
        path = run.paths.run_dir / METRICS_FILE
        if not path.is_file():
            log.info(f"{run.paths.run_dir} is left out: it has not finished")
        elif "test" not in read_metrics(path):
            log.info(f"{run.paths.run_dir} is left out: it trained an autoencoder only")
        else:
            finished.append(run)
    if not finished:
        raise UsageError("none of these runs has scored faces: name finished ones")
    as_scored = replace(settings, data=None, sources=(), threshold=None, max_false_alarms=None)
    if settings == as_scored and not settings.robustness:
        results = [FinishedRun(run, run.paths.run_dir) for run in finished]
    else:
        results = [_score_again(settings, run) for run in finished]
    if not hold_out_alone(results):  # each group of runs with the same faces gets its own chapters
        same_faces(results)
    out = settings.out or new_folder(Path(REPORTS_FOLDER) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    return write_report(results, out)


def _refuse_taken(out: Path | None) -> None:
    if out is not None and out.exists() and not (out.is_dir() and not entries(out)):
        raise UsageError(f"out={out} is there already: name a new folder")


def _score_again(settings: EvaluateSettings, trained: RunSettings) -> FinishedRun:
    with _places(settings, trained.paths.run_dir) as (ledger, results):
        return _scored_into(ledger, results, settings, trained)


def _scored_into(ledger: Path, results: Path | None, settings: EvaluateSettings, trained: RunSettings) -> FinishedRun:
    run_dir = trained.paths.run_dir
    trained_with = read_metrics(run_dir / METRICS_FILE)
    detector = Detector.load(run_dir, use_device(settings.device), settings.trust)
    own_threshold = detector.threshold
    try:
        detector.decide_at(settings.threshold, settings.max_false_alarms)
    except FakeganError as error:
        raise type(error)(f"{run_dir}: {error}") from error
    log.info(f"device: {detector.described_device()}")
    faces, own = _faces(settings, trained)
    store = faces.store
    rows = faces.splits.test if own else np.arange(len(store))
    rows, notes = _rows_to_score(detector, store, _of_sources(settings.sources, store, rows), own)
    subjects = [subject(store, rows, settings.originals)]
    own_test_faces = len(rows) if own else _own_test_faces(trained, store, rows)
    if own_test_faces:
        record(ledger, own_test_faces, store.fingerprint)
    if not len(rows):
        raise FakeganError(f"{store.path} holds no face that {run_dir} has not seen in training")
    parts = [score(detector, store, rows, f"faces of {store.path.name}")]
    lacking = [label for label in (REAL, FAKE) if not (store.labels[rows] == label).any()]
    if lacking and not own:  # the run's own test faces of the other class: one class alone makes no test
        mine, name = own_faces(trained, {}), CLASS_NAMES[lacking[0]]
        other = mine.splits.test[mine.store.labels[mine.splits.test] == lacking[0]]
        other, _ = _rows_to_score(detector, mine.store, other, own=True)
        subjects.append(subject(mine.store, other, settings.originals))
        record(ledger, len(other), mine.store.fingerprint)
        parts.append(score(detector, mine.store, other, f"own {name} test faces"))
        notes.append(f"no {name} faces to score there: the run's own {len(other)} {name} test faces stand in")
    scored = replace(joined(parts), learnt_from=learnt_from(trained_with))
    metrics = scored.measures()
    degraded = robust(detector, subjects, scored) if settings.robustness else None  # an original may have changed
    folder = results or new_folder(ledger / EVALUATIONS_FOLDER / store.path.name)
    scored.write(folder)
    if degraded is not None:
        found = write_robustness(folder, degraded)
        for name, figure in (figures_of_run(found) if plots.available() else {}).items():
            figure.savefig(folder / f"{name}.png")
    described = ["test split" if own else f"faces of {store.path.name}"]
    described += [f"only {', '.join(settings.sources)}"] if settings.sources else []
    if detector.threshold != own_threshold:
        described.append(f"called fake from {told_apart(detector.threshold, own_threshold)} on")
    content: dict[str, Any] = {
        "test": metrics,
        **{key: trained_with[key] for key in ("objective", "autoencoder") if key in trained_with},  # on validation
        **detector_values(detector, store),
        LEARNT_FROM: sorted(scored.learnt_from or ()),
        SCORED: "; ".join([*described, *notes]),
        "run": str(run_dir),
        "store": str(store.path),
        "command": command(),
    }
    write_metrics(folder / METRICS_FILE, content)
    path = ledger / LEDGER_FILE
    if ledger != run_dir and path.is_file():
        log.warning(
            f"{run_dir} cannot be written: add the lines of {path} to its {LEDGER_FILE}, test faces were scored"
        )
    return FinishedRun(trained, folder)


def told_apart(new: float, old: float) -> str:
    """Two thresholds with as many digits as tell them apart, three or more: 0.5143, not from 0.5138."""
    digits = next((n for n in range(3, 17) if f"{new:.{n}g}" != f"{old:.{n}g}"), 17)
    return f"{new:.{digits}g}, not from {old:.{digits}g}"


@contextmanager
def _places(settings: EvaluateSettings, run_dir: Path) -> Iterator[tuple[Path, Path | None]]:
    """The folder of the run's ledger, its own where that can be written, and of the results; None: a new one there.

    A folder that is made here, and is empty after an error, is removed.

    Raises:
        UsageError: the run cannot be written, and no other place is named.
        FakeganError: the other place cannot be made.
    """
    why, out = why_not_writable(run_dir), settings.out
    if why and out is None:
        raise UsageError(f"{run_dir} cannot be written ({why}): name a folder for the results with out=DIR")
    if out is None or (settings.run is None and not why):
        yield run_dir, None
        return
    results = out if settings.run is not None else out / EVALUATIONS_FOLDER / run_dir.name
    made = [folder for folder in (results, *results.parents) if not folder.exists()]
    try:
        if settings.run is None:
            results = new_folder(results)
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FakeganError(f"out={out} cannot be made ({error.strerror}): name another folder") from error
    try:
        yield (results, None) if settings.run is None else (results if why else run_dir, results)
    except BaseException:
        for folder in made:
            with suppress(OSError):  # it holds something by now
                folder.rmdir()
        raise


def _rows_to_score(detector: Detector, store: FaceStore, rows: Rows, own: bool) -> tuple[Rows, list[str]]:
    """The rows that took no part in training, and notes on the others."""
    if store.geometry.shape() != detector.geometry.shape():
        raise UsageError(
            f"{store.path} was prepared with {store.geometry.options()}, but the faces of the run with "
            f"{detector.geometry.options()}: prepare them again with the run's options"
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
    """How many of these faces of another store are test faces of the run; 0, with a note, if its own store is gone."""
    try:
        own = own_faces(trained, {})
    except FakeganError as error:
        log.info(f"not in the ledger: which of these faces are test faces of the run is not known ({error})")
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


def _faces(settings: EvaluateSettings, trained: RunSettings) -> tuple[Faces, bool]:
    """The faces to score, and whether they are the run's own: then its test split counts, else every face."""
    if settings.data is None:
        return own_faces(trained, {}), True
    faces = open_faces(settings.data, settings.data_dir, needs={})
    if fingerprint_at_start(trained.paths.run_dir) != faces.store.fingerprint:
        return faces, False
    own = replace(trained.data, root=faces.store.path)  # the same store, perhaps moved: with the run's own splits
    return open_faces(own, trained.paths.data_dir, needs={}), True


def _of_sources(wanted: tuple[str, ...], store: FaceStore, rows: Rows) -> Rows:
    """The rows of the wanted sources; all rows where none is named."""
    sources: npt.NDArray[np.str_] = store.sources[rows]
    for name in wanted:
        if name not in sources:
            raise UsageError(f"sources: there is no {name!r} to score; there are {', '.join(np.unique(sources))}")
    return rows[np.isin(sources, wanted)] if wanted else rows
