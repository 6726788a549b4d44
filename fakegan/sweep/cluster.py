"""Jobs of a sweep as jobs of a cluster: all put into SLURM's queue by submitit, watched until the last has ended.

A job is the same command as elsewhere, `train.py resume=ITS_FOLDER`. So one that SLURM has ended for its time or for
others, and put into the queue again, goes on from its checkpoints.
"""

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
from typing import Any, ClassVar

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import LOG_FILE, METRICS_FILE, STATUS_FILE
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.sweep.jobs import TAIL, Ending, Job, Watcher, reason
from fakegan.sweep.launcher import ProcessLauncher
from fakegan.sweep.plugins import register_plugin
from fakegan.sweep.queue import LOOK, Queue
from fakegan.sweep.submitted import CODE, Queued, Submitted
from fakegan.system.processes import record_signals

_POLL = 0.5  # seconds
_ASKED_TO_END = 2.0  # seconds between two looks at jobs that were asked to end, SLURM asked each time
_GRACE = 120.0  # seconds to save and end, before a job that was asked to stop is cancelled
_CANCELLED = 45.0  # seconds that SLURM has to end a cancelled job; it kills after 30
_LOOKS = 3  # for a result, a second apart: a file that a node has written can be late here
_LAST = {0, FakeganError.exit_code, UsageError.exit_code, 130}  # after another code SLURM may start the job again
_SHARED = {"timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "name", "stderr_to_stdout"}


def register() -> None:
    """Make the launchers known to Hydra, which conf/hydra/launcher/slurm.yaml and slurm_local.yaml choose."""
    register_plugin(SlurmLauncher)
    register_plugin(LocalSlurmLauncher)


class SlurmLauncher(ProcessLauncher):
    """Puts every job of a sweep into SLURM's queue."""

    executor: ClassVar[str] = "slurm"  # submitit's name

    def __init__(
        self,
        submitit_folder: str,
        tasks_per_node: int,
        nodes: int,
        **resources: Any,  # submitit's other words for what a job is to have
    ) -> None:
        super().__init__(jobs=1, devices_per_job=None, stop_on_failure=False)
        self.submitit_folder = Path(submitit_folder).absolute()
        self.tasks_per_node = max(tasks_per_node, 1)  # one without a GPU, too
        self.nodes = nodes
        self.resources: dict[str, Any] = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in resources.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra tells every launcher.

        Raises:
            UsageError: there is no SLURM here, or an option that submitit does not take.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.submitit = self._executor()

    def _executor(self) -> Any:
        import submitit

        given = {k: v for k, v in self.resources.items() if v is not None}
        options = {k if k in _SHARED else f"{self.executor}_{k}": v for k, v in given.items()}
        timeouts = f"{self.executor}_max_num_timeout"
        first = {timeouts: options.pop(timeouts)} if timeouts in options else {}
        try:
            executor = submitit.AutoExecutor(folder=self.submitit_folder, cluster=self.executor, **first)
            executor.update_parameters(nodes=self.nodes, tasks_per_node=self.tasks_per_node, **options)
        except RuntimeError as error:
            raise UsageError("there is no SLURM here, no srun; to try it, hydra/launcher=slurm_local") from error
        except (NameError, ValueError, AssertionError) as error:
            raise UsageError(f"hydra.launcher: {' '.join(str(error).split())[:200]}") from error
        return executor

    def _work(self, jobs: Sequence[Job]) -> int:
        return run_jobs(jobs, self.submitit, self)

    def _gpus(self, trainer: TrainerSettings) -> int:
        processes = self.nodes * self.tasks_per_node
        if processes > 1 and trainer.devices not in {"auto", processes}:
            raise UsageError(
                f"each job is {processes} processes, but trainer.devices={trainer.devices}: add trainer=ddp, "
                "or let each have one GPU of one node"
            )
        return 0  # the cluster hands them out


class LocalSlurmLauncher(SlurmLauncher):
    """The same without SLURM, on this machine: to try a sweep before it is submitted."""

    executor = "local"


@dataclass(frozen=True)
class Command:
    """What a process of a cluster's job does; submitit stores it, and calls it where the job runs."""

    script: str
    words: tuple[str, ...]
    recorded: str  # the command that would run it alone

    def __call__(self) -> None:
        """Run the script as if it had been typed; neither submitit nor SLURM keeps exit codes, so the log does."""
        sys.argv = [self.script, *self.words]
        os.environ[COMMAND_VARIABLE] = self.recorded
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit's handler passes it over; the script's own saves
        code: Any = FakeganError.exit_code
        try:
            runpy.run_path(self.script, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
            raise
        finally:
            if code in _LAST:
                print(f"{CODE}{code}", flush=True)

    def checkpoint(self) -> Any:
        """What is put into the queue again: the same; what it has done so far is in its folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def run_jobs(jobs: Sequence[Job], executor: Any, watcher: Watcher) -> int:
    """Run jobs by submitit; returns the signal that asked to stop, 0 if none did.

    After a signal SLURM's jobs save and end, those on this machine end. A second one cancels them and does not wait.

    Raises:
        UsageError: they were not taken into the queue; their folders are as they were.
    """
    noted: list[int] = []
    with record_signals(noted):
        running, queue = _submit(jobs, executor) if jobs else ([], None)
        for one in running:
            watcher.started(one)
        while running and not noted:
            over = [one for one in running if one.is_over()]
            if queue is not None:
                queue.look(every=0 if over else LOOK)  # at an end, for the time that it took
            for one in over:
                running.remove(one)
                watcher.ended(one.job, _ending(one))
            watcher.going(running, 0)
            time.sleep(_POLL)
        if running:
            _stop(running, queue, watcher, noted)
    return noted[0] if noted else 0


def _submit(jobs: Sequence[Job], executor: Any) -> tuple[list[Submitted], Queue | None]:
    with contextlib.ExitStack() as undo:
        for job in jobs:
            if not job.folder.exists():
                undo.callback(shutil.rmtree, job.folder, ignore_errors=True)
            job.prepare()
            (job.folder / STATUS_FILE).unlink(missing_ok=True)  # an earlier process's
        handles = _queued(jobs, executor)
        undo.pop_all()
    for job, handle in zip(jobs, handles, strict=True):
        _link(job.folder / LOG_FILE, handle.paths.stdout)
    submitted = list(zip(jobs, handles, strict=True))
    if executor.cluster == LocalSlurmLauncher.executor:
        return [Submitted(job=job, log_from=0, handle=handle) for job, handle in submitted], None
    queue = Queue([handle.job_id for handle in handles])
    return [Queued(job=job, log_from=0, handle=handle, queue=queue) for job, handle in submitted], queue


def _queued(jobs: Sequence[Job], executor: Any) -> list[Any]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with _complaints_kept(executor), executor.batch():  # one array
            return [executor.submit(_command(job)) for job in jobs]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        said = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).splitlines()]
        raise UsageError(f"the jobs were not taken into the queue: {'; '.join(said)}") from error


@contextlib.contextmanager
def _complaints_kept(executor: Any) -> Iterator[None]:
    """Of the processes that submitit starts within, on this machine, to watch over the jobs: a trace when they end."""
    if executor.cluster != LocalSlurmLauncher.executor:
        yield
        return
    folder, stderr = Path(executor.folder), os.dup(2)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "watchers.log").open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _link(log: Path, written: Path) -> None:
    """Let a run's log be what submitit writes; that of an earlier start without it is kept."""
    if log.is_file() and not log.is_symlink():
        log.rename(log.with_stem(f"{log.stem}_before"))
    log.unlink(missing_ok=True)
    log.symlink_to(os.path.relpath(written, log.parent))


def _command(job: Job) -> Command:
    return Command(job.command[1], job.command[2:], job.environment[COMMAND_VARIABLE])


def _ending(one: Submitted) -> Ending:
    """What became of a job that was not asked to end."""
    code = one.closed()
    if _has_result(one.job.folder, looks=1 if code else _LOOKS):
        return Ending("finished", one.seconds)
    lines = one.tail()
    tail = tuple(lines[-TAIL:])
    if code is None:
        return Ending("failed", one.seconds, f"it has left no result; its state is {one.state()}", tail)
    why = reason(code, [line for line in lines if not line.startswith(CODE)])
    return Ending("failed", one.seconds, why, tail, refused=code == UsageError.exit_code)


def _has_result(folder: Path, looks: int) -> bool:
    for look in range(looks):
        time.sleep(1 if look else 0)
        if folder.is_dir() and METRICS_FILE in os.listdir(folder):  # which, unlike is_file, asks the file server anew
            return True
    return False


def _stop(running: list[Submitted], queue: Queue | None, watcher: Watcher, noted: Sequence[int]) -> None:
    watcher.stopping(signal.Signals(noted[0]).name)
    if queue is not None:
        queue.let_save(_names(running))
        _let_end(running, queue, watcher, noted, _GRACE)
        queue.cancel(_names(running))
    else:
        for one in running:
            one.handle.cancel(check=False)
    _let_end(running, queue, watcher, noted, _CANCELLED)
    for one in running:
        watcher.ended(one.job, Ending("stopped", one.seconds))


def _names(running: Sequence[Submitted]) -> list[str]:
    return [one.handle.job_id for one in running]


def _let_end(
    running: list[Submitted], queue: Queue | None, watcher: Watcher, noted: Sequence[int], seconds: float
) -> None:
    """Wait for jobs that were asked to end: so long, and not after a second signal."""
    deadline = time.monotonic() + seconds
    while running and len(noted) < 2 and time.monotonic() < deadline:
        time.sleep(_ASKED_TO_END)
        if queue is not None:
            queue.look(every=0)
            queue.cancel([name for name in _names(running) if queue.states[name] == "PENDING"], "--state=PENDING")
        for one in [one for one in running if one.is_over()]:
            running.remove(one)
            watcher.ended(one.job, Ending("finished" if _has_result(one.job.folder, 1) else "stopped", one.seconds))
        watcher.going(running, 0)
