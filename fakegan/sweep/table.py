"""jobs.csv, a row for each job of a sweep, kept up to date while it runs; the table people see at its end."""

from __future__ import annotations

import csv
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from fakegan.errors import FakeganError
from fakegan.runs.folder import JOBS_FILE, LOG_FILE, METRICS_FILE
from fakegan.runs.results import read_metrics
from fakegan.sweep import command as words
from fakegan.sweep.display import clock
from fakegan.system.columns import in_columns
from fakegan.system.files import replacing
from fakegan.system.shell import here

_MAX_BYTES = 64 * 2**20  # of a job it takes some hundred
OBJECTIVE = "objective: AUROC, or PSNR in dB of an autoencoder alone, on validation faces"


@dataclass(frozen=True)
class Row:
    """One job of a sweep."""

    job: int
    words: str  # that it was given, for a shell
    state: str  # finished, failed, stopped, repeats NUMBER; while the sweep runs also waiting and running
    objective: float | None = None  # its selection score, once it has finished
    seconds: float | None = None  # that it ran, over all starts that its sweep saw the end of; None: none
    folder: str = ""  # in the sweep's folder; empty: it never had one
    reason: str = ""  # why it has not finished


def objective_of(run_dir: Path) -> float | None:
    """A finished run's selection score; None where it has not finished.

    Raises:
        FakeganError: metrics.json is damaged; says what to do.
    """
    path = run_dir / METRICS_FILE
    if not path.is_file():
        return None
    try:
        return float(read_metrics(path)["objective"])
    except (KeyError, TypeError, ValueError) as error:
        raise FakeganError(f"{path} is damaged: it holds no objective; delete it, and go on") from error


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Replace the sweep's jobs.csv."""
    with (
        replacing(folder / JOBS_FILE) as building,
        building.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "seconds": _rounded(row.seconds)} for row in rows)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def read_rows(folder: Path) -> list[Row]:
    """The rows of jobs.csv; none where there is no such file, or it is not ours."""
    try:
        with (folder / JOBS_FILE).open(newline="", encoding="utf-8", errors="replace") as file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                return []
            return [_row(values) for values in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


def _row(values: Mapping[str, str]) -> Row:
    """A line of a file that may come from elsewhere.

    Raises:
        ValueError, KeyError, TypeError: it is none of ours.
    """
    texts = {name: words.ACTS_ON_A_TERMINAL.sub(" ", values[name]) for name in ("words", "state", "folder", "reason")}
    shlex.split(texts["words"])
    seconds = float(values["seconds"]) if values["seconds"] else None
    if not math.isfinite(seconds or 0):
        raise ValueError("no time")
    objective = float(values["objective"]) if values["objective"] else None
    return Row(job=int(values["job"]), objective=objective, seconds=seconds, **texts)


def rows_of_folders(runs: Sequence[Path]) -> list[Row]:
    """What the folders of a sweep tell of its jobs, where another launcher ran them."""
    rows = []
    for number, run_dir in enumerate(runs):
        row = Row(number, "", "failed", folder=run_dir.name)
        try:
            objective = objective_of(run_dir)
            if objective is not None:
                given = str(read_metrics(run_dir / METRICS_FILE).get("command", "")).partition(" ")[2]
                row = replace(row, words=given, state="finished", objective=objective)
        except FakeganError as error:
            row = replace(row, reason=str(error))
        rows.append(row)
    return rows


def as_text(rows: Sequence[Row], folder: Path) -> str:
    """The table: what tells the jobs apart, how they ended, how good they were, and where they are."""
    names = words.telling({i: shlex.split(row.words) for i, row in enumerate(rows)})
    cells = [("job", "", "state", "objective", "time", "folder")]
    for i, row in enumerate(rows):
        objective = "" if row.objective is None else f"{row.objective:.4f}"
        time = "" if row.seconds is None else clock(row.seconds)
        cells.append((str(row.job), names[i], row.state, objective, time, row.folder))
    lines = in_columns(cells, right={0, 3, 4})
    failed = [row for row in rows if row.state == "failed"]
    lines += [f"job {row.job} failed: {row.reason or 'see its log'}{_log(row, folder)}" for row in failed]
    return "\n".join([*lines, f"jobs: {here(folder / JOBS_FILE)}; {OBJECTIVE}"])


def _log(row: Row, folder: Path) -> str:
    log = folder / row.folder / LOG_FILE
    return f" ({here(log)})" if row.folder and log.is_file() else ""
