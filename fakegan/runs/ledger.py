"""The ledger of a run: when its test faces were scored, and by which command.

A test split that is scored again and again, with something changed in between, is no longer unseen.
"""

from __future__ import annotations

import csv
import os
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from fakegan.config.overrides import with_absolute_paths
from fakegan.errors import FakeganError
from fakegan.runs.folder import LEDGER_FILE
from fakegan.system.files import csv_table

COMMAND_VARIABLE = "FAKEGAN_COMMAND"  # set for a process that another one starts: a sweep's job, a rank of a run


class Entry(NamedTuple):
    """One line: test faces were scored."""

    time: str  # UTC, ISO 8601
    command: str
    faces: str  # how many
    fingerprint: str  # of their store


def record(run_dir: Path, faces: int, fingerprint: str) -> None:
    """Add a line: test faces are scored now, by this process's command."""
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with csv_table(run_dir / LEDGER_FILE, Entry._fields, errors="backslashreplace", append=True) as rows:
        rows.writerow(Entry(time, command(), str(faces), fingerprint))


def read_ledger(run_dir: Path) -> list[Entry]:
    """Every line, oldest first, and none for a run that has not been tested; a FakeganError for a damaged file."""
    path = run_dir / LEDGER_FILE
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.reader(file))[1:]
    except csv.Error as error:
        raise FakeganError(
            f"{path} is damaged or of another version: put it aside, and note by hand how often the run was tested"
        ) from error
    return [Entry(*row) for row in rows if len(row) == len(Entry._fields)]


def command() -> str:
    """The command that starts this process's run by itself: without the interpreter, with absolute paths."""
    script, *typed = sys.argv
    return os.environ.get(COMMAND_VARIABLE) or shlex.join([Path(script).name, *with_absolute_paths(typed)])
