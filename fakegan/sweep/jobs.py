"""Jobs as fresh processes, some of them side by side: started, watched, stopped. Knows nothing of what they do.

A job has finished when its result file is there, whatever its process says. Its words go into a log in its folder,
from which only the last lines are ever read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import LOG_FILE, METRICS_FILE, STATUS_FILE
from fakegan.runs.status import read_status
from fakegan.sweep.machine import environment_of
from fakegan.system.processes import end_session, record_signals, send_signal, start_child

TAIL = 15  # lines of a failed job's log that are shown
_TAIL_BYTES = 16384
_WIDEST = 300  # characters of a shown line
_POLL = 0.2  # seconds
_GRACE = 120.0  # seconds to save and end, before a job that was asked to stop is killed
_WAITING = "; waiting for it"  # in the log of a run that another keeps waiting

State = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True)
class Job:
    """What is to be run."""

    number: int
    name: str  # the words that tell it from the others
    folder: Path  # where its result and log are to be
    command: tuple[str, ...]
    environment: Mapping[str, str]
    gpus: int = 0  # that it needs for itself; 0: it computes on the CPU
    prepare: Callable[[], None] = lambda: None  # just before it starts; makes the folder


@dataclass(frozen=True)
class Ending:
    """What became of a job."""

    state: State
    seconds: float  # that it ran this time
    reason: str = ""  # why it has not finished
    tail: tuple[str, ...] = ()  # the last lines of its log, where it failed
    refused: bool = False  # it failed because what it was asked cannot be


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job that runs."""

    job: Job
    gpus: tuple[str, ...] = ()  # its own
    log_from: int  # bytes of the log that are an earlier process's
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.monotonic() - self.started

    def doing(self) -> str:
        """Its stage and epoch, or that it waits."""
        last = last_lines(self.job.folder / LOG_FILE, self.log_from, 1)
        if last and _WAITING in last[0]:
            return "waiting for another run"
        return str(read_status(self.job.folder) or "starting")


@dataclass(frozen=True, kw_only=True)
class _Process(Running):
    process: subprocess.Popen[bytes]


class Watcher(Protocol):
    """Whoever wants to know how it goes."""

    def started(self, running: Running) -> None:
        """A job has started."""

    def going(self, running: Sequence[Running], waiting: int) -> None:
        """Some run, others have not started; called several times a second."""

    def stopping(self, reason: str) -> None:
        """Those that run have been asked to save and end; the others will not start."""

    def ended(self, job: Job, ending: Ending) -> None:
        """A job has ended, or will not start any more."""


def run_jobs(
    jobs: Sequence[Job],
    side_by_side: int,
    gpus: Sequence[str],  # to hand out
    threads: int | None,  # of each job; None: as many as it likes
    stop_on_failure: bool,  # one that fails stops the others; they can go on later
    watcher: Watcher,
) -> int:
    """Run jobs, in their order; returns the signal that asked to stop, 0 if none did.

    A signal is passed on: running jobs save and end. A second one ends them at once.
    """
    noted: list[int] = []
    with record_signals(noted):
        _Runner(jobs, side_by_side, gpus, threads, stop_on_failure, watcher, noted).run()
    return noted[0] if noted else 0


class _Runner:
    def __init__(
        self,
        jobs: Sequence[Job],
        side_by_side: int,
        gpus: Sequence[str],
        threads: int | None,
        stop_on_failure: bool,
        watcher: Watcher,
        noted: Sequence[int],  # signals, as they come
    ) -> None:
        self.waiting = list(jobs)
        self.running: list[_Process] = []
        self.side_by_side = side_by_side
        self.free = list(gpus)
        self.threads = threads
        self.stop_on_failure = stop_on_failure
        self.watcher = watcher
        self.noted = noted
        self.deadline: float | None = None  # when those are killed that were asked to stop; None: none was
        self.answered = 0  # signals that were passed on; one more ends all at once

    def run(self) -> None:
        try:
            while self.waiting or self.running:
                self._heed_signals()
                self._collect()
                self._start_those_that_can()
                self.watcher.going(self.running, len(self.waiting))
                time.sleep(_POLL if self.running else 0)
        finally:
            self._leave_none()

    def _leave_none(self) -> None:
        """After an error of our own: those that run save and end."""
        for running in self.running:
            send_signal(running.process, signal.SIGTERM)
        deadline, signals = time.monotonic() + _GRACE, len(self.noted)
        while any(running.process.poll() is None for running in self.running):
            if time.monotonic() > deadline or len(self.noted) > signals:
                break
            time.sleep(_POLL)
        for running in self.running:
            end_session(running.process)

    def _start_those_that_can(self) -> None:
        while self.waiting and len(self.running) < self.side_by_side and self.waiting[0].gpus <= len(self.free):
            job = self.waiting.pop(0)
            try:
                running = self._start(job)
            except (FakeganError, OSError) as error:
                self._end(job, Ending("failed", 0.0, str(error)))
            else:
                self.watcher.started(running)

    def _start(self, job: Job) -> _Process:
        job.prepare()
        (job.folder / STATUS_FILE).unlink(missing_ok=True)  # an earlier process's
        gpus = tuple(self.free[: job.gpus])
        with (job.folder / LOG_FILE).open("ab") as log:
            environment = environment_of(job.environment, gpus, self.threads)
            process = start_child(job.command, environment, log)
            running = _Process(job=job, process=process, gpus=gpus, log_from=log.tell())
        self.free = self.free[job.gpus :]
        self.running.append(running)
        return running

    def _collect(self) -> None:
        for running in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(running)
            end_session(running.process)  # what a killed job leaves must not share its GPUs with the next
            self.free.extend(running.gpus)
            self._end(running.job, self._ending(running))

    def _ending(self, running: _Process) -> Ending:
        if (running.job.folder / METRICS_FILE).is_file():
            return Ending("finished", running.seconds)
        code = running.process.returncode
        if self.deadline is not None and code not in {FakeganError.exit_code, UsageError.exit_code}:
            return Ending("stopped", running.seconds)
        tail = last_lines(running.job.folder / LOG_FILE, running.log_from, TAIL)
        refused = code == UsageError.exit_code
        return Ending("failed", running.seconds, reason(code, tail), tuple(tail), refused)

    def _end(self, job: Job, ending: Ending) -> None:
        self.watcher.ended(job, ending)
        if ending.state == "failed" and self.stop_on_failure and self.deadline is None:
            self._stop(signal.SIGTERM, f"job {job.number} failed (hydra.launcher.stop_on_failure)")

    def _heed_signals(self) -> None:
        if self.noted and self.deadline is None:
            number = signal.SIGINT if self.noted[0] == signal.SIGINT else signal.SIGTERM
            self._stop(number, signal.Signals(self.noted[0]).name)
            self.answered = 1
        if len(self.noted) > self.answered or (self.deadline is not None and time.monotonic() > self.deadline):
            for running in self.running:
                end_session(running.process)

    def _stop(self, number: signal.Signals, reason: str) -> None:
        """Ask those that run to save and end; the others will not start."""
        self.deadline = time.monotonic() + _GRACE
        self.watcher.stopping(reason)
        for running in self.running:
            send_signal(running.process, number)
        while self.waiting:
            self.watcher.ended(self.waiting.pop(0), Ending("stopped", 0.0, f"not started: {reason}"))


def last_lines(log: Path, since: int, count: int) -> list[str]:
    """Up to `count` last lines with something on them, of what was written after `since` bytes."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line[:_WIDEST] for line in lines if line.strip()][-count:]


def reason(code: int, tail: Sequence[str]) -> str:
    """Why a process ended without a result, in a sentence."""
    said = [line.removeprefix("error: ") for line in tail if line.startswith("error: ")]
    if said:
        return said[-1]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"killed by {name}{': out of memory, perhaps' if -code == signal.SIGKILL else ''}"
    return tail[-1].strip() if tail and code else f"ended with exit code {code} and without a result"
