"""Jobs of a sweep as jobs of a cluster: all put into SLURM's queue by submitit, watched until the last has ended.

A job is the same command as elsewhere, `train.py resume=ITS_FOLDER`. So one that SLURM has ended for its time or for
others, and put into the queue again, goes on from its checkpoints.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fakegan.errors import UsageError
from fakegan.evaluation.results import METRICS_FILE
from fakegan.pipeline.ledger import COMMAND_VARIABLE
from fakegan.processes import signals_noted
from fakegan.progress import STATUS_FILE
from fakegan.sweep.jobs import LOG_FILE, TAIL, Ending, Job, Running, Watcher, last_lines, reason
from fakegan.sweep.launcher import ProcessLauncher
from fakegan.sweep.plugins import make_known

if TYPE_CHECKING:  # it imports torch, which --help does not need
    from fakegan.pipeline.settings import TrainerSettings

_POLL = 0.5  # seconds; what submitit asks SLURM, it asks once a minute
_SHARED = {"timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "name", "stderr_to_stdout"}


def register() -> None:
    """Make the launchers known to Hydra, which conf/hydra/launcher/slurm.yaml and slurm_local.yaml choose."""
    make_known(SlurmLauncher)
    make_known(LocalSlurmLauncher)


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

    def _work(self, jobs: Sequence[Job], side: int) -> int:
        for job in jobs:
            self._check_processes(job.number)
        return run_jobs(jobs, self.submitit, self)

    def _check_processes(self, number: int) -> None:
        settings, processes = self.planned[number].settings, self.nodes * self.tasks_per_node
        if settings is not None and processes > 1 and settings.trainer.devices not in {"auto", processes}:
            raise UsageError(
                f"each job is {processes} processes, but trainer.devices={settings.trainer.devices}: add trainer=ddp, "
                "or let each have one GPU of one node"
            )

    def _gpus(self, trainer: TrainerSettings, side: int) -> int:
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
        """Run the script as if it had been typed."""
        sys.argv = [self.script, *self.words]
        os.environ[COMMAND_VARIABLE] = self.recorded
        runpy.run_path(self.script, run_name="__main__")

    def checkpoint(self) -> Any:
        """What is put into the queue again: the same; what it has done so far is in its folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True, kw_only=True)
class _Submitted(Running):
    handle: Any  # submitit's

    def doing(self) -> str:
        return super().doing() if self.handle.paths.stdout.exists() else "in the queue"


def run_jobs(jobs: Sequence[Job], executor: Any, watcher: Watcher) -> int:
    """Run jobs by submitit; returns the signal that asked to stop, 0 if none did. A signal cancels those that run."""
    for job in jobs:
        job.prepare()
    noted: list[int] = []
    with signals_noted(noted):
        running = _submit(jobs, executor)
        for one in running:
            watcher.started(one)
        while running:
            if noted:
                _cancel(running, watcher)
                break
            for one in [one for one in running if _is_over(one)]:
                running.remove(one)
                watcher.ended(one.job, _ending(one))
            watcher.going(running, 0)
            time.sleep(_POLL)
    return noted[0] if noted else 0


def _submit(jobs: Sequence[Job], executor: Any) -> list[_Submitted]:
    with executor.batch():  # one array
        handles = [executor.submit(_command(job)) for job in jobs]
    running = []
    for job, handle in zip(jobs, handles, strict=True):
        _link(job.folder / LOG_FILE, handle.paths.stdout)
        (job.folder / STATUS_FILE).unlink(missing_ok=True)  # an earlier process's
        running.append(_Submitted(job=job, log_from=0, handle=handle))
    return running


def _link(log: Path, written: Path) -> None:
    """Let a run's log be what submitit writes; that of an earlier start without it is kept."""
    if log.is_file() and not log.is_symlink():
        log.rename(log.with_stem(f"{log.stem}_before"))
    log.unlink(missing_ok=True)
    log.symlink_to(os.path.relpath(written, log.parent))


def _command(job: Job) -> Command:
    return Command(job.command[1], job.command[2:], job.environment[COMMAND_VARIABLE])


def _is_over(one: _Submitted) -> bool:
    return bool(one.handle.done())


def _ending(one: _Submitted) -> Ending:
    if (one.job.folder / METRICS_FILE).is_file():
        return Ending("finished", one.seconds)
    tail = last_lines(one.job.folder / LOG_FILE, 0, TAIL)
    return Ending("failed", one.seconds, reason(1, tail), tuple(tail))


def _cancel(running: Sequence[_Submitted], watcher: Watcher) -> None:
    for one in running:
        one.handle.cancel(check=False)
    for one in running:
        while not _is_over(one):
            time.sleep(_POLL)
        watcher.ended(one.job, Ending("stopped", one.seconds))
