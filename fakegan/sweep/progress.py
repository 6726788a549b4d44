"""How the jobs of a sweep go: kept in jobs.csv, and shown while they run.

On a terminal what runs now stands in a block that is redrawn in place; in a log there is a line for each change.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakegan.errors import FakeganError
from fakegan.runs.folder import LOG_FILE
from fakegan.sweep.command import short
from fakegan.sweep.jobs import Ending, Job, Running
from fakegan.sweep.table import Row, clock, objective_of, write_rows
from fakegan.system import log
from fakegan.system.shell import local_path

_REDRAW = 0.5  # seconds
_UP_AND_CLEAR = "\x1b[{}F\x1b[J"  # to the beginning of the line so many lines up, and clear from there


class Progress:
    """The rows of jobs.csv, and what is shown of them. The runner of the jobs says when one has changed.

    Lines are printed rather than logged, since they replace the block that was shown before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[int, Row] = {}  # of this command's jobs, by number
        self.earlier: dict[str, Row] = {}  # of earlier commands' jobs, by folder
        self.refused: set[int] = set()  # jobs whose settings cannot be
        self.terminal = sys.stdout.isatty()
        self.stages: dict[int, str] = {}  # the last stage that was shown, by job
        self.block = 0  # lines of the block on the screen
        self.drawn = 0.0  # when it was drawn

    def update(self, number: int, **changes: Any) -> None:
        """Change a job's row, and write jobs.csv."""
        self.rows[number] = replace(self.rows[number], **changes)
        self.write()

    def write(self) -> None:
        """Write jobs.csv: this command's jobs, then jobs that earlier commands have left finished in the folder."""
        folders = {row.folder for row in self.rows.values()}
        others = [row for row in self.earlier.values() if row.state == "finished" and row.folder not in folders]
        with contextlib.suppress(OSError):  # a full disk: the jobs are worth more than the table of them
            write_rows(self.folder, [*self.rows.values(), *others])

    def started(self, running: Running) -> None:
        """A job has started."""
        job = running.job
        self.update(job.number, state="running")
        if not self.terminal:
            where = f" on GPU {','.join(running.gpus)}" if running.gpus else ""
            self.note(f"job {job.number} starts{where}: {job.name or job.folder.name}")

    def going(self, jobs: Sequence[Running]) -> None:
        """Show what runs now; called several times a second."""
        if log.quiet() or time.monotonic() - self.drawn < _REDRAW:
            return
        self.drawn = time.monotonic()
        if self.terminal:
            self._draw(jobs)
            return
        for running in jobs:
            stage = running.doing().split(" epoch ")[0]
            if stage not in {"starting", self.stages.get(running.job.number)}:
                self.stages[running.job.number] = stage
                self.note(f"job {running.job.number}: {stage} ({clock(running.seconds)})")

    def stopping(self, reason: str) -> None:
        """The jobs that run have been asked to save and end; the others will not start."""
        self.say(f"{reason}: the jobs that run save and end; Ctrl-C once more ends them at once")

    def ended(self, job: Job, ending: Ending) -> None:
        """A job has ended, or will not start any more."""
        objective = None
        try:
            objective = objective_of(job.folder) if ending.state == "finished" else None
        except FakeganError as error:
            ending = Ending("failed", ending.seconds, str(error))
        if ending.refused:
            self.refused.add(job.number)
        before = self.rows[job.number].seconds
        seconds = (before or 0) + ending.seconds if ending.seconds or before is not None else None
        self.update(job.number, state=ending.state, objective=objective, seconds=seconds, reason=ending.reason)
        if ending.state == "stopped" and not ending.seconds:
            return  # it never started
        reason = f": {ending.reason}" if ending.reason else ""
        name = f" ({job.name})" if job.name else ""
        tell = self.note if ending.state == "finished" else self.say
        tell(f"job {job.number}{name} {ending.state} after {clock(ending.seconds)}{reason}; {self._done()}")
        if ending.tail:
            self.say(
                "\n".join([f"  the end of {local_path(job.folder / LOG_FILE)}:", *(f"  | {x}" for x in ending.tail)])
            )

    def note(self, text: str) -> None:
        """Print lines about what goes as it should; -q leaves them out."""
        if not log.quiet():
            self.say(text)

    def say(self, text: str) -> None:
        """Print lines that stay; the block is drawn anew below them."""
        self._print(f"{text}\n")
        self.drawn = 0.0

    def close(self) -> None:
        """Remove the block."""
        self._print("")

    def _done(self) -> str:
        states = [row.state for row in self.rows.values() if not row.repeats]
        failed = f", {states.count('failed')} failed" if "failed" in states else ""
        return f"{states.count('finished')} of {len(states)} done{failed}"

    def _draw(self, jobs: Sequence[Running]) -> None:
        width, height = shutil.get_terminal_size()
        room = max(height - 3, 1)
        names = [short(running.job.name) or running.job.folder.name for running in jobs[:room]]
        longest = max(map(len, names), default=0)
        lines = []
        for running, name in zip(jobs, names, strict=False):  # a narrow terminal cuts the end of a line
            doing = running.doing().replace(" epoch ", " ")
            lines.append(f"  job {running.job.number:<2} {clock(running.seconds):>6}  {name.ljust(longest)}  {doing}")
        if len(jobs) > room:
            lines.append(f"  and {len(jobs) - room} more")
        waiting = sum(row.state == "waiting" for row in self.rows.values())
        lines.append(f"{self._done()}, {len(jobs)} running, {waiting} to come")
        self._print("".join(f"{line[: width - 1]}\n" for line in lines))  # a line that wraps could not be erased
        self.block = len(lines)

    def _print(self, text: str) -> None:
        """Write in place of the block, at once. Without a reader (`| head`) or disk space the jobs go on silently."""
        erasing = _UP_AND_CLEAR.format(self.block) if self.block else ""
        self.block = 0
        try:
            sys.stdout.write(erasing + text)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it fails again at this process's end
        except OSError:
            pass
