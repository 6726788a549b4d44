"""The launchers that submit every job of a sweep to SLURM, by submitit, or run them as it does on this machine.

A job is the same command as elsewhere, `train.py resume=ITS_FOLDER`. So a job that SLURM has ended for its time or to
make room, and requeued, is resumed from its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fakegan.errors import UsageError, one_line
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.sweep.jobs import Job
from fakegan.sweep.launcher import ProcessLauncher
from fakegan.sweep.submitted import run_jobs

_SHARED = {"timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "name", "stderr_to_stdout"}  # of all executors


class SlurmLauncher(ProcessLauncher):
    """Puts every job of a sweep into SLURM's queue."""

    executor: ClassVar[str] = "slurm"  # submitit's name

    def __init__(
        self,
        submitit_folder: str,
        tasks_per_node: int,
        nodes: int,
        **resources: Any,  # submitit's other arguments
    ) -> None:
        super().__init__(jobs=1, jobs_per_gpu=1, devices_per_job=None, stop_on_failure=False)
        self.submitit_folder = Path(submitit_folder).absolute()
        self.tasks_per_node = max(tasks_per_node, 1)  # one without a GPU, too
        self.nodes = nodes
        self.resources: dict[str, Any] = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in resources.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands over what it knows. Raises a UsageError, as `make_executor` does."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.submitit = self.make_executor()

    def make_executor(self) -> Any:
        """Submitit's executor. Raises a UsageError: there is no SLURM here, or submitit does not take an option."""
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
            raise UsageError(f"hydra.launcher: {one_line(error, 200)}") from error
        return executor

    def _run(self, jobs: Sequence[Job]) -> int:
        return run_jobs(jobs, self.submitit, self.progress)

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
