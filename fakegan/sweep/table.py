"""jobs.csv, a row for each job of a sweep, kept up to date while it runs; the table that is shown at its end."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fakegan.errors import FakeganError
from fakegan.runs.folder import JOBS_FILE, LOG_FILE, METRICS_FILE
from fakegan.runs.results import TABLE_WIDTH, read_metrics, shortened
from fakegan.sweep.command import CONTROL_CHARACTERS, differing_overrides, short
from fakegan.system.columns import in_columns, width
from fakegan.system.files import csv_table, read_csv, replacing
from fakegan.system.shell import local_path

_MAX_BYTES = 64 * 2**20  # a job takes some hundred
_LEAST_NAME = 12  # columns
OBJECTIVE = "objective: AUROC, or PSNR in dB of an autoencoder alone, on validation faces"


@dataclass(frozen=True)
class Row:
    """One job of a sweep. Its fields are the columns of jobs.csv."""

    job: int
    words: str  # its overrides, for a shell
    state: str  # finished, failed, stopped, repeats NUMBER; while the sweep runs also waiting and running
    objective: float | None = None  # its selection score, once it has finished
    seconds: float | None = None  # that it ran, over all starts that its sweep saw the end of; None: none
    folder: str = ""  # in the sweep's folder; empty: it never had one
    reason: str = ""  # why it has not finished

    @property
    def repeats(self) -> bool:
        """Whether it would be the same run as another job, and so has no folder of its own."""
        return self.state.startswith("repeats ")


def clock(seconds: float) -> str:
    """0:07, 12:34, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def objective_of(run_dir: Path) -> float | None:
    """A run's selection score; None where it has not finished. Raises a FakeganError: its metrics.json is damaged."""
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
        csv_table(building, [f.name for f in fields(Row)], errors="backslashreplace") as lines,
    ):
        for row in rows:
            seconds = None if row.seconds is None else round(row.seconds, 1)
            lines.writerow((asdict(row) | {"seconds": seconds}).values())


def read_rows(folder: Path) -> list[Row]:
    """The rows of jobs.csv, which may come from elsewhere; none where there is no such file, or it is not ours."""
    rows = []
    try:
        if (folder / JOBS_FILE).stat().st_size > _MAX_BYTES:
            return []
        for line in read_csv(folder / JOBS_FILE, errors="replace"):
            texts = {k: CONTROL_CHARACTERS.sub(" ", line[k]) for k in ("words", "state", "folder", "reason")}
            shlex.split(texts["words"])  # a ValueError where a quotation does not end
            objective, seconds = (float(line[k]) if line[k] else None for k in ("objective", "seconds"))
            if not math.isfinite(seconds or 0):
                return []
            rows.append(Row(int(line["job"]), objective=objective, seconds=seconds, **texts))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return rows


def as_text(rows: Sequence[Row], folder: Path) -> str:
    """The table: how the jobs differ, how they ended, how good they were, and where they are.

    Where that is too wide for a terminal of 80 columns, folders are left to jobs.csv, and names are shortened.
    """
    differing = differing_overrides({i: shlex.split(row.words) for i, row in enumerate(rows)})
    names = list(differing.values())
    cells = [("job", "state", "objective", "time", "folder")]
    for row in rows:
        objective = "" if row.objective is None else f"{row.objective:.4f}"
        time = "" if row.seconds is None else clock(row.seconds)
        cells.append((str(row.job), row.state, objective, time, row.folder))
    lines = _with_names(cells, names)
    if max(map(width, lines)) > TABLE_WIDTH:
        narrow = [row[:-1] for row in cells]
        room = max(TABLE_WIDTH - max(map(width, in_columns(narrow))) - 2, _LEAST_NAME)
        lines = _with_names(narrow, shortened(map(short, names), [room] * len(names)))
    for row in rows:
        if row.state == "failed":
            log = folder / row.folder / LOG_FILE
            where = f" ({local_path(log)})" if row.folder and log.is_file() else ""
            lines.append(f"job {row.job} failed: {row.reason or 'see its log'}{where}")
    return "\n".join([*lines, f"jobs: {local_path(folder / JOBS_FILE)}", OBJECTIVE])


def _with_names(cells: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """The table with the jobs' names as its second column."""
    rows = [(job, name, *others) for (job, *others), name in zip(cells, ["", *names], strict=True)]
    return in_columns(rows, right={0, 3, 4})
