"""Jobs of a sweep as submitit's jobs: submitted all at once, watched until the last has ended, stopped."""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import LOG_FILE, METRICS_FILE, STATUS_FILE
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.sweep.jobs import TAIL, Ending, Job, Running, last_lines, reason
from fakegan.sweep.progress import Progress
from fakegan.sweep.queue import LOOK, Queue
from fakegan.system.processes import record_signals

_POLL = 0.5  # seconds
_CANCEL_AGAIN = 2.0  # seconds between two looks at jobs that were asked to end; SLURM is asked again each time
_GRACE = 120.0  # seconds to save and end, before a job that was asked to stop is cancelled
_CANCELLED = 45.0  # seconds that SLURM has to end a cancelled job; it kills after 30
_LOOKS = 3  # for a result, a second apart: a file that a node has written can be late here
_FINAL = {0, FakeganError.exit_code, UsageError.exit_code, 130}  # after another code SLURM may start the job again
_CODE = "ended with exit code "  # the closing line in a job's log
_CLOSING = 200  # last lines of a log, among which the closing line is: a trace may come after it


@dataclass(frozen=True)
class Command:
    """What a process of a submitted job does; submitit stores it, and calls it where the job runs."""

    script: str
    words: tuple[str, ...]
    recorded: str  # the command that would run it without its sweep

    def __call__(self) -> None:
        """Run the script as if it had been typed, with its own arguments and its own answer to SIGTERM.

        Neither submitit nor SLURM keeps exit codes, so the log does.
        """
        sys.argv = [self.script, *self.words]
        os.environ[COMMAND_VARIABLE] = self.recorded
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit's handler ignores it
        code: Any = FakeganError.exit_code
        try:
            runpy.run_path(self.script, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
            raise
        finally:
            if code in _FINAL:
                print(f"{_CODE}{code}", flush=True)

    def checkpoint(self) -> Any:
        """What submitit requeues: the same command, which resumes the run in its folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True, kw_only=True)
class Submitted(Running):
    """A job that was submitted."""

    handle: Any  # submitit's
    queue: Queue | None  # SLURM's; None: it runs on this machine

    @property
    def seconds(self) -> float:
        """That it has run; its time in the queue does not count."""
        return super().seconds if self.queue is None else self.queue.seconds(self.handle.job_id)

    def doing(self) -> str:
        """Its state in the queue, or its stage and epoch."""
        waits = self.queue.doing(self.handle.job_id) if self.queue is not None else ""
        begun = self.queue is None or self.handle.paths.stdout.exists()
        return waits or (super().doing() if begun else "starting")

    def tail(self) -> list[str]:
        """The end of its log."""
        return last_lines(self.job.folder / LOG_FILE, 0, _CLOSING)

    def exit_code(self) -> int | None:
        """The exit code in its log's closing line; None where there is none."""
        codes = [line.removeprefix(_CODE) for line in self.tail() if line.startswith(_CODE)]
        return int(codes[-1]) if codes and codes[-1].isdecimal() else None

    def is_over(self) -> bool:
        """Whether it has ended for good."""
        if self.queue is None:
            return bool(self.handle.done())
        return self.exit_code() is not None or self.queue.is_over(self.handle.job_id)

    def ending(self) -> Ending:
        """What became of it, where it was not asked to end."""
        code = self.exit_code()
        if has_result(self.job.folder, looks=1 if code else _LOOKS):
            return Ending("finished", self.seconds)
        lines = self.tail()
        tail = tuple(lines[-TAIL:])
        if code is None:
            state = str(self.handle.state) if self.queue is None else self.queue.states[self.handle.job_id]
            return Ending("failed", self.seconds, f"it has left no result; its state is {state}", tail)
        why = reason(code, [line for line in lines if not line.startswith(_CODE)])
        return Ending("failed", self.seconds, why, tail, refused=code == UsageError.exit_code)


def has_result(folder: Path, looks: int) -> bool:
    """Whether a run has finished, asked so many times, a second apart."""
    for look in range(looks):
        time.sleep(1 if look else 0)
        if folder.is_dir() and METRICS_FILE in os.listdir(folder):  # unlike is_file, listdir asks a file server anew
            return True
    return False


def run_jobs(jobs: Sequence[Job], executor: Any, progress: Progress) -> int:
    """Run jobs by submitit; returns the signal that asked to stop, 0 if none did.

    After a signal SLURM's jobs save and end, those on this machine end. A second one cancels them and does not wait.

    Raises:
        UsageError: they were not taken into the queue; their folders are as they were.
    """
    noted: list[int] = []
    with record_signals(noted):
        running, queue = _submit(jobs, executor) if jobs else ([], None)
        for job in running:
            progress.started(job)
        while running and not noted:
            over = [job for job in running if job.is_over()]
            if queue is not None:
                queue.look(every=0 if over else LOOK)  # at an end, for the time that it took
            for job in over:
                running.remove(job)
                progress.ended(job.job, job.ending())
            progress.going(running)
            time.sleep(_POLL)
        if running:
            _stop(running, queue, progress, noted)
    return noted[0] if noted else 0


def _submit(jobs: Sequence[Job], executor: Any) -> tuple[list[Submitted], Queue | None]:
    """Submit jobs as one array; where that fails, remove the folders that were made for them."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    local = executor.cluster == "local"
    with contextlib.ExitStack() as undo:
        for job in jobs:
            if not job.folder.exists():
                undo.callback(shutil.rmtree, job.folder, ignore_errors=True)
            job.prepare()
            (job.folder / STATUS_FILE).unlink(missing_ok=True)  # an earlier process's
        commands = [Command(job.command[1], job.command[2:], job.environment[COMMAND_VARIABLE]) for job in jobs]
        try:
            with _watchers_log(Path(executor.folder)) if local else contextlib.nullcontext(), executor.batch():
                handles = [executor.submit(command) for command in commands]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines()]
            raise UsageError(f"the jobs were not taken into the queue: {'; '.join(said)}") from error
        undo.pop_all()
    for job, handle in zip(jobs, handles, strict=True):  # a run's log is what submitit writes; an earlier log is kept
        log = job.folder / LOG_FILE
        if log.is_file() and not log.is_symlink():
            log.rename(log.with_stem(f"{log.stem}_before"))
        log.unlink(missing_ok=True)
        log.symlink_to(os.path.relpath(handle.paths.stdout, log.parent))
    queue = None if local else Queue([handle.job_id for handle in handles])
    pairs = zip(jobs, handles, strict=True)
    return [Submitted(job=job, log_from=0, handle=handle, queue=queue) for job, handle in pairs], queue


@contextlib.contextmanager
def _watchers_log(folder: Path) -> Iterator[None]:
    """Keep in a file what submitit's watching processes, started within, write to stderr: a trace when they end."""
    stderr = os.dup(2)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "watchers.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _stop(running: list[Submitted], queue: Queue | None, progress: Progress, noted: Sequence[int]) -> None:
    """Let jobs save and end, then cancel those that have not."""
    progress.stopping(signal.Signals(noted[0]).name)
    if queue is not None:
        queue.let_save([job.handle.job_id for job in running])
        _wait(running, queue, progress, noted, _GRACE)
        queue.cancel([job.handle.job_id for job in running])
    else:
        for job in running:
            job.handle.cancel(check=False)
    _wait(running, queue, progress, noted, _CANCELLED)
    for job in running:
        progress.ended(job.job, Ending("stopped", job.seconds))


def _wait(
    running: list[Submitted], queue: Queue | None, progress: Progress, noted: Sequence[int], seconds: float
) -> None:
    """Wait so long for jobs that were asked to end, and not after a second signal; take out those that have ended."""
    deadline = time.monotonic() + seconds
    while running and len(noted) < 2 and time.monotonic() < deadline:
        time.sleep(_CANCEL_AGAIN)
        if queue is not None:
            queue.look(every=0)
            names = [job.handle.job_id for job in running]
            queue.cancel([name for name in names if queue.states[name] == "PENDING"], "--state=PENDING")
        for job in [job for job in running if job.is_over()]:
            running.remove(job)
            finished = has_result(job.job.folder, looks=1)
            progress.ended(job.job, Ending("finished" if finished else "stopped", job.seconds))
        progress.going(running)
