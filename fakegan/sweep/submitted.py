"""A job that submitit has put somewhere: what it does there, how long it has run, whether it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fakegan.runs.folder import LOG_FILE
from fakegan.sweep.jobs import Running, last_lines
from fakegan.sweep.queue import Queue

CODE = "ended with exit code "  # the closing line in a job's log
_CLOSING = 200  # last lines of a log, among which the closing line is: a trace may come after it


@dataclass(frozen=True, kw_only=True)
class Submitted(Running):
    """A job on this machine."""

    handle: Any  # submitit's

    def closed(self) -> int | None:
        """The exit code in its log's closing line; None where it has not said one."""
        codes = [line.removeprefix(CODE) for line in self.tail() if line.startswith(CODE)]
        return int(codes[-1]) if codes and codes[-1].isdecimal() else None

    def tail(self) -> list[str]:
        """The end of its log."""
        return last_lines(self.job.folder / LOG_FILE, 0, _CLOSING)

    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return bool(self.handle.done())

    def state(self) -> str:
        """What it is called where it was submitted."""
        return str(self.handle.state)


@dataclass(frozen=True, kw_only=True)
class Queued(Submitted):
    """A job of SLURM's."""

    queue: Queue

    @property
    def seconds(self) -> float:
        """That it has run; none of them in the queue."""
        return self.queue.seconds(self.handle.job_id)

    def doing(self) -> str:
        """Where SLURM has it, or its stage and epoch."""
        begun = self.handle.paths.stdout.exists()
        return self.queue.doing(self.handle.job_id) or (super().doing() if begun else "starting")

    def is_over(self) -> bool:
        """Whether its log or SLURM says so."""
        return self.closed() is not None or self.queue.is_over(self.handle.job_id)

    def state(self) -> str:
        """SLURM's word."""
        return self.queue.states[self.handle.job_id]
