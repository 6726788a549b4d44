"""Jobs as fresh processes, some of them side by side: started, watched, stopped. Knows nothing of what they do.

A job has finished when its result file is there, whatever its exit code. Its output goes into a log in its folder, of
which only the last lines are ever read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import LOG_FILE, METRICS_FILE, STATUS_FILE
from fakegan.runs.status import read_status
from fakegan.sweep.machine import VISIBLE
from fakegan.system.processes import end_session, record_signals, start_child

if TYPE_CHECKING:  # it shows what is defined here
    from fakegan.sweep.progress import Progress

TAIL = 15  # lines of a failed job's log that are shown
_TAIL_BYTES = 16384
_WIDEST = 300  # characters of a shown line
_POLL = 0.2  # seconds
_GRACE = 120.0  # seconds to save and end, before a job that was asked to stop is killed
_WAITING = "; waiting for it"  # in the log of a run that another keeps waiting


@dataclass(frozen=True)
class Job:
    """What is to be run."""

    number: int
    name: str  # the overrides that the other jobs do not share
    folder: Path  # of its result and log
    command: tuple[str, ...]
    environment: Mapping[str, str]
    gpus: int = 0  # that it needs; 0: it computes on the CPU
    prepare: Callable[[], object] = lambda: None  # just before it starts; makes the folder


@dataclass(frozen=True)
class Ending:
    """What became of a job."""

    state: Literal["finished", "failed", "stopped"]
    seconds: float  # that it ran this time
    reason: str = ""  # why it has not finished
    tail: tuple[str, ...] = ()  # the last lines of its log, where it failed
    refused: bool = False  # it failed because its settings cannot be


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job that runs."""

    job: Job
    log_from: int  # bytes of the log that are an earlier process's
    gpus: tuple[str, ...] = ()  # that it computes on
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


def run_jobs(
    jobs: Sequence[Job],
    side_by_side: int,
    gpus: Sequence[str],  # to hand out; one that several jobs may share is there several times
    threads: int | None,  # of each job; None: as many as it likes
    stop_on_failure: bool,  # a job that fails stops the others; they can be resumed later
    progress: Progress,
) -> int:
    """Run jobs, in their order; returns the signal that asked to stop, 0 if none did.

    A signal is passed on: running jobs save and end. A second one kills them.
    """
    noted: list[int] = []
    with record_signals(noted):
        _Runner(list(jobs), side_by_side, list(gpus), threads, stop_on_failure, progress, noted).run()
    return noted[0] if noted else 0


@dataclass
class _Runner:
    waiting: list[Job]
    side_by_side: int
    free: list[str]  # GPUs
    threads: int | None
    stop_on_failure: bool
    progress: Progress
    noted: Sequence[int]  # signals, as they come
    running: list[_Process] = field(default_factory=list)
    deadline: float | None = None  # when jobs that were asked to stop are killed; None: none was asked
    answered: int = 0  # signals that were passed on; one more kills the jobs

    def run(self) -> None:
        try:
            while self.waiting or self.running:
                self._answer_signals()
                self._collect()
                self._start_next()
                self.progress.going(self.running)
                time.sleep(_POLL if self.running else 0)
        finally:
            self._end_all()

    def _answer_signals(self) -> None:
        if self.noted and self.deadline is None:
            number = signal.SIGINT if self.noted[0] == signal.SIGINT else signal.SIGTERM
            self._stop(number, signal.Signals(self.noted[0]).name)
            self.answered = 1
        if len(self.noted) > self.answered or (self.deadline is not None and time.monotonic() > self.deadline):
            for running in self.running:
                end_session(running.process)

    def _stop(self, number: signal.Signals, why: str) -> None:
        """Ask the jobs that run to save and end; the others will not start."""
        self.deadline = time.monotonic() + _GRACE
        self.progress.stopping(why)
        for running in self.running:
            running.process.send_signal(number)
        while self.waiting:
            self.progress.ended(self.waiting.pop(0), Ending("stopped", 0.0, f"not started: {why}"))

    def _collect(self) -> None:
        """Take the jobs whose processes have ended out of those that run, and their GPUs back."""
        for running in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(running)
            end_session(running.process)  # what a killed job leaves must not share its GPUs with the next
            self.free.extend(running.gpus)
            code, folder = running.process.returncode, running.job.folder
            if (folder / METRICS_FILE).is_file():
                ending = Ending("finished", running.seconds)
            elif self.deadline is not None and code not in {FakeganError.exit_code, UsageError.exit_code}:
                ending = Ending("stopped", running.seconds)
            else:
                tail = tuple(last_lines(folder / LOG_FILE, running.log_from, TAIL))
                ending = Ending("failed", running.seconds, reason(code, tail), tail, code == UsageError.exit_code)
            self._end(running.job, ending)

    def _end(self, job: Job, ending: Ending) -> None:
        self.progress.ended(job, ending)
        if ending.state == "failed" and self.stop_on_failure and self.deadline is None:
            self._stop(signal.SIGTERM, f"job {job.number} failed (hydra.launcher.stop_on_failure)")

    def _start_next(self) -> None:
        """Start jobs, in their order, as long as there is room."""
        while self.waiting and len(self.running) < self.side_by_side and self.waiting[0].gpus <= len(self.free):
            job = self.waiting.pop(0)
            try:
                running = self._start(job)
            except (FakeganError, OSError) as error:
                self._end(job, Ending("failed", 0.0, str(error)))
            else:
                self.progress.started(running)

    def _start(self, job: Job) -> _Process:
        job.prepare()
        (job.folder / STATUS_FILE).unlink(missing_ok=True)  # an earlier process's
        self.free.sort(key=Counter(self.free).__getitem__, reverse=True)  # first the GPUs that fewest jobs share
        gpus = tuple(self.free[: job.gpus])
        environment = {**job.environment, VISIBLE: ",".join(gpus)}
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with (job.folder / LOG_FILE).open("ab") as log:
            log_from = log.tell()  # before the job moves the place, which both processes share
            process = start_child(job.command, environment, log)
        running = _Process(job=job, process=process, gpus=gpus, log_from=log_from)
        self.free = self.free[job.gpus :]
        self.running.append(running)
        return running

    def _end_all(self) -> None:
        """After an error of our own, let the jobs that run save and end; after none, none runs."""
        for running in self.running:
            running.process.send_signal(signal.SIGTERM)
        deadline, signals = time.monotonic() + _GRACE, len(self.noted)
        while any(running.process.poll() is None for running in self.running):
            if time.monotonic() > deadline or len(self.noted) > signals:
                break
            time.sleep(_POLL)
        for running in self.running:
            end_session(running.process)


def last_lines(log: Path, since: int, count: int) -> list[str]:
    """Up to `count` last lines that are not blank, of those written after `since` bytes."""
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
    errors = [line.removeprefix("error: ") for line in tail if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"killed by {name}{': out of memory, perhaps' if -code == signal.SIGKILL else ''}"
    return tail[-1].strip() if tail and code else f"ended with exit code {code} and without a result"
