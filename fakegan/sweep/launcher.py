"""The launcher that runs the jobs of a sweep as fresh processes, for Hydra's sweepers and FakeGAN's search."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fakegan.config.overrides import from_hydra
from fakegan.errors import AlreadyReportedError, FakeganError, UnknownSourceError, UsageError
from fakegan.runs.compose import explain
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.sweep import opening
from fakegan.sweep.command import differing_overrides, keep_command, standalone_command
from fakegan.sweep.jobs import Job, run_jobs
from fakegan.sweep.machine import check_room, gpus_of_one, mps_runs, visible_gpus
from fakegan.sweep.planning import Planned, Planner, runs_in
from fakegan.sweep.progress import Progress
from fakegan.sweep.search import is_search
from fakegan.sweep.table import Row, objective_of, read_rows
from fakegan.system.processes import SHARING, resume_command, threads_of_one
from fakegan.system.ranks import without_ranks
from fakegan.system.shell import as_override, command, local_path


class FailedReturn(JobReturn):
    """Of a job without a result, whose reason has been shown."""

    @property
    def return_value(self) -> Any:
        """Raises an AlreadyReportedError; the reason is in `_return_value`."""
        raise AlreadyReportedError(FakeganError.exit_code)

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class ProcessLauncher(Launcher):
    """Runs each job as `train.py resume=ITS_FOLDER` in a process of its own, some of them side by side."""

    def __init__(
        self,
        jobs: int,  # side by side
        jobs_per_gpu: int,  # that share a GPU, and divide its memory
        devices_per_job: int | None,  # GPUs; None: what the job's trainer asks for
        stop_on_failure: bool,  # a job that fails stops the others
    ) -> None:
        self.side_by_side = jobs
        self.jobs_per_gpu = jobs_per_gpu
        self.devices_per_job = devices_per_job
        self.stop_on_failure = stop_on_failure
        self.planned: dict[int, Planned] = {}  # by number, of all launches: a sweeper may launch again and again
        self.overrides: dict[int, Sequence[str]] = {}  # likewise, also of jobs that cannot be

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands over what it knows. Raises a UsageError: an option of the launcher that is out of range."""
        self.config = config
        self.loader = hydra_context.config_loader
        jobs, shared, devices = self.side_by_side, self.jobs_per_gpu, self.devices_per_job or 1
        for name, value in (("jobs_per_gpu", shared), ("jobs", jobs), ("devices_per_job", devices)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"hydra.launcher.{name}={value} must be a whole number from 1")
        if shared > jobs:
            raise UsageError(f"hydra.launcher.jobs_per_gpu={shared} needs as many hydra.launcher.jobs, not {jobs}")
        if shared > 1 and devices > 1:
            raise UsageError(
                f"hydra.launcher.jobs_per_gpu={shared} is for jobs of one GPU, but hydra.launcher.devices_per_job="
                f"{devices}: leave one out"
            )
        if not isinstance(self.stop_on_failure, bool):
            raise UsageError(f"hydra.launcher.stop_on_failure={self.stop_on_failure} must be true or false")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and wait for them; Hydra's sweepers call it once, others several times.

        Raises:
            UsageError: no job can be what it is asked to be, a job that has not failed before names a source that
                the store does not hold, or there are too few GPUs for them side by side.
            KeyboardInterrupt, SystemExit: it was asked to stop.
        """
        first = not self.overrides
        if first:
            self._open()
        new = range(initial_job_idx, initial_job_idx + len(job_overrides))
        for number, overrides in zip(new, job_overrides, strict=True):
            self._plan(number, [o for o in overrides if not o.startswith("resume=")])
        for planned in self.planned.values() if opening.current and opening.current.each_fake else ():
            if (pipeline := planned.settings.pipeline).fakes == "reconstructed":
                why = "runs that hold each out would be all alike"
                raise UsageError(f"pipeline={pipeline.name} learns from no generator: {why}; choose other pipelines")
        # All are refused, most likely for the overrides that they share; a search knows of earlier trials.
        if first and self.progress.refused.issuperset(new) and not is_search(self.folder):
            raise UsageError(self.progress.rows[initial_job_idx].reason)
        self._show_plan(new)
        names = differing_overrides(self.overrides)
        jobs = [self._job(n, names[n]) for n in new if self.progress.rows[n].state == "waiting"]
        needed = [job.gpus for job in jobs]
        if any(needed):
            check_room(len(self.gpus), needed, self.side_by_side, self.jobs_per_gpu)
        keep_command(self.folder, sys.argv)  # the last command counts: it may have more jobs
        self.progress.write()
        opening.mark_begun()
        number = self._run(jobs)
        self.progress.close()
        if number:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        return [self._answer(number) for number in new]

    def _open(self) -> None:
        """Read what earlier starts of the sweep have left in its folder."""
        self.folder = Path(self.config.hydra.sweep.dir).absolute()
        self.progress = Progress(self.folder)
        begun = runs_in(self.folder, self.progress.say)
        names = {path.name for path in begun}
        earlier = [row for row in read_rows(self.folder) if row.folder in names and not row.repeats]
        self.progress.earlier = {row.folder: row for row in earlier}
        self.failed_before = {row.words for row in read_rows(self.folder) if row.state == "failed"}
        self.planner = Planner(self.loader, self.config, begun, self._gpus)

    def _plan(self, number: int, overrides: list[str]) -> None:
        """Plan a job and make its row, a failed one where there can be no such job."""
        row: dict[str, Any] = {"job": number, "words": shlex.join(map(from_hydra, overrides)), "state": "waiting"}
        self.overrides[number] = overrides
        try:
            planned = self.planned[number] = self.planner.plan(number, overrides)
            place = planned.place
            row["folder"] = place.folder.name
            if place.kind == "repeats":
                row["state"] = f"repeats {place.owner}"
            elif place.kind == "begun":
                before = self.progress.earlier.get(place.folder.name)
                row["seconds"] = before.seconds if before else None
                row["objective"] = objective_of(place.folder)
                row["state"] = "waiting" if row["objective"] is None else "finished"
        except (FakeganError, HydraException, OmegaConfBaseException) as error:
            if isinstance(error, UnknownSourceError) and row["words"] not in self.failed_before:
                raise  # a typing error, most likely: it costs no training of the other jobs
            reason = str(error) if isinstance(error, FakeganError) else explain(error)
            row |= {"state": "failed", "reason": reason}
            if isinstance(error, UsageError) or not isinstance(error, FakeganError):
                self.progress.refused.add(number)
        self.progress.rows[number] = Row(**row)

    def _show_plan(self, new: range) -> None:
        rows = [self.progress.rows[number] for number in new]
        finished, waiting = (sum(row.state == state for row in rows) for state in ("finished", "waiting"))
        resumed = sum(row.state == "waiting" and self.planned[row.job].place.kind == "begun" for row in rows)
        if len(self.overrides) == len(new):
            side = min(self.side_by_side, waiting)
            width = f", {side} side by side" if side > 1 else ""
            self.progress.note(f"{local_path(self.folder)}: {len(new)} job{'s' * (len(new) > 1)}{width}")
            if self.jobs_per_gpu > 1 and waiting:
                how = "at once, by NVIDIA MPS" if mps_runs() else "by turns: no NVIDIA MPS daemon is seen here"
                share = f"{self.jobs_per_gpu} jobs share each GPU, 1/{self.jobs_per_gpu} of its memory each"
                self.progress.note(f"{share}; they compute {how}")
        if (finished or resumed) and not is_search(self.folder):  # which counts its trials
            self.progress.note(f"jobs finished before: {finished}; begun before and resumed now: {resumed}")
        for row in rows:
            if row.job in self.planned and self.planned[row.job].untested:
                later = command("evaluate.py", as_override("run", self.folder / row.folder), "robustness=true")
                self.progress.note(
                    f"job {row.job}: {row.folder} was begun without test.robustness=true; later: {later}"
                )
            if row.repeats:
                same = row.words == self.progress.rows[self.planned[row.job].place.owner].words
                why = "" if same else ": what is swept has no effect on it"
                self.progress.note(f"job {row.job} is the same run as {row.folder}{why}")
            elif row.state == "failed":
                self.progress.say(f"job {row.job} failed: {row.reason}")

    def _job(self, number: int, name: str) -> Job:
        planned = self.planned[number]
        folder = planned.place.folder
        own_command = standalone_command(self.config.hydra, self.overrides[number])
        sharing = {SHARING: str(self.jobs_per_gpu)} if self.jobs_per_gpu > 1 else {}
        return Job(
            number=number,
            name=name,
            folder=folder,
            command=tuple(resume_command(folder, planned.settings.trusted)),
            environment={**without_ranks(os.environ), COMMAND_VARIABLE: own_command, **sharing},
            gpus=planned.gpus,
            prepare=planned.prepare,
        )

    @cached_property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs of this machine. To ask for them takes seconds: a sweep on the CPU does not."""
        return visible_gpus()

    def _gpus(self, trainer: TrainerSettings) -> int:
        """How many GPUs a job is to have. Raises a UsageError: it asks for what it cannot have."""
        there = 0 if trainer.accelerator == "cpu" else len(self.gpus)
        return gpus_of_one(there, trainer, self.devices_per_job, self.side_by_side, self.jobs_per_gpu)

    def _run(self, jobs: Sequence[Job]) -> int:
        """Run jobs; returns the signal that asked to stop, 0 if none did."""
        side = self.side_by_side  # however few jobs are left: the numbers may depend on the threads
        threads = threads_of_one(side) if side > 1 else None
        gpus = self.gpus * self.jobs_per_gpu if any(job.gpus for job in jobs) else ()
        return run_jobs(jobs, side, gpus, threads, self.stop_on_failure, self.progress)

    def _answer(self, number: int) -> JobReturn:
        """What Hydra and its sweepers want to know of a job: its objective, or that it has none."""
        planned = self.planned.get(number)
        number = number if planned is None else planned.place.owner
        row, finished = self.progress.rows[number], self.progress.rows[number].state == "finished"
        answer = JobReturn() if finished else FailedReturn()
        answer.overrides, answer.cfg = list(self.overrides[number]), planned.config if planned else None
        answer.status = JobStatus.COMPLETED if finished else JobStatus.FAILED
        error = UsageError if number in self.progress.refused else FakeganError
        answer.return_value = row.objective if finished else error(f"job {row.job} {row.state}: {row.reason}")
        return answer
