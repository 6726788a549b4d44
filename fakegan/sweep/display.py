"""What a sweep says while it runs: on a terminal a block that is redrawn in place, in a log a line for each change."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence

from fakegan.runs.folder import LOG_FILE
from fakegan.sweep import command as words
from fakegan.sweep.jobs import Ending, Job, Running
from fakegan.system.shell import here

_REDRAW = 0.5  # seconds
_UP_AND_CLEAR = "\x1b[{}F\x1b[J"  # to the beginning of the line so many lines up, and clear from there


def clock(seconds: float) -> str:
    """0:07, 12:34, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Display:
    """Events as lines that stay, and, on a terminal, what runs now below them."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.counts = {"finished": 0, "failed": 0, "stopped": 0}
        self.total = 0
        self.shown: dict[int, str] = {}  # by job, what it was last said to do
        self.drawn = 0  # lines of the block on the screen
        self.drawn_at = 0.0

    def expect(self, jobs: int, finished: int) -> None:
        """So many more jobs are to have a result, and so many of them have one."""
        self.total += jobs
        self.counts["finished"] += finished

    def say(self, text: str) -> None:
        """Lines that stay."""
        _put(f"{self._erased()}{text}\n")
        self.drawn_at = 0.0

    def started(self, running: Running) -> None:
        """In a log, a line."""
        if not self.terminal:
            job = running.job
            where = f" on GPU {','.join(running.gpus)}" if running.gpus else ""
            self.say(f"job {job.number} starts{where}: {job.name or job.folder.name}")

    def going(self, running: Sequence[Running], waiting: int) -> None:
        """On a terminal, the block; in a log, a line for each job that entered another stage."""
        if time.monotonic() - self.drawn_at < _REDRAW:
            return
        self.drawn_at = time.monotonic()
        if self.terminal:
            self._draw(running, waiting)
            return
        for one in running:
            stage = one.doing().split(" epoch ")[0]
            if stage not in {"starting", self.shown.get(one.job.number)}:
                self.shown[one.job.number] = stage
                self.say(f"job {one.job.number}: {stage} ({clock(one.seconds)})")

    def stopping(self, reason: str) -> None:
        """What happens now, and how not to wait for it."""
        self.say(f"{reason}: the jobs that run save and end; Ctrl-C once more ends them at once")

    def ended(self, job: Job, ending: Ending) -> None:
        """A line, and the last lines of its log where it failed."""
        self.counts[ending.state] += 1
        if ending.state == "stopped" and not ending.seconds:
            return  # it never started
        after = {"finished": "finished after", "failed": "failed after", "stopped": "stopped after"}[ending.state]
        reason = f": {ending.reason}" if ending.reason else ""
        name = f" ({job.name})" if job.name else ""
        self.say(f"job {job.number}{name} {after} {clock(ending.seconds)}{reason}; {self._progress()}")
        if ending.tail:
            self.say("\n".join([f"  the end of {here(job.folder / LOG_FILE)}:", *(f"  | {x}" for x in ending.tail)]))

    def refused(self, number: int, reason: str) -> None:
        """A job that cannot start."""
        self.counts["failed"] += 1
        self.say(f"job {number} failed: {reason}")

    def close(self) -> None:
        """Remove the block."""
        _put(self._erased())

    def _progress(self) -> str:
        failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
        return f"{self.counts['finished']} of {self.total} done{failed}"

    def _erased(self) -> str:
        erased = _UP_AND_CLEAR.format(self.drawn) if self.drawn else ""
        self.drawn = 0
        return erased

    def _draw(self, running: Sequence[Running], waiting: int) -> None:
        width, height = shutil.get_terminal_size()
        room = max(height - 3, 1)
        names = [words.short(one.job.name) or one.job.folder.name for one in running[:room]]
        longest = max(map(len, names), default=0)
        lines = [_line(one, name.ljust(longest)) for one, name in zip(running, names, strict=False)]
        lines += [f"  and {len(running) - room} more"] if len(running) > room else []
        lines.append(f"{self._progress()}, {len(running)} running, {waiting} to come")
        text = "\n".join(line[: width - 1] for line in lines)  # one that wraps could not be erased
        _put(f"{self._erased()}{text}\n")
        self.drawn = len(lines)


def _put(text: str) -> None:
    """Write at once; where nobody listens any more (`| head`) or the disk is full, the jobs go on without words."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it fails again at this process's end
    except OSError:
        pass


def _line(running: Running, name: str) -> str:
    """What is swept comes first: a narrow terminal cuts the rest."""
    return (
        f"  job {running.job.number:<2} {clock(running.seconds):>6}  {name}  {running.doing().replace(' epoch ', ' ')}"
    )
