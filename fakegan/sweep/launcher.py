"""The launcher that runs the jobs of a sweep as fresh processes, whatever sweeper asks for them."""

from __future__ import annotations

import contextlib
import copy
import shlex
import signal
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fakegan.config.overrides import from_hydra, text_from_hydra
from fakegan.data.faces import open_faces
from fakegan.errors import AlreadyReportedError, FakeganError, UsageError
from fakegan.runs.compose import explain, make_paths_absolute, root_of, settings_of
from fakegan.runs.config_file import give_places, read_run, write_down
from fakegan.runs.folder import CONFIG_FILE, METRICS_FILE
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.runs.settings import RunSettings
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.sweep import command as words
from fakegan.sweep import search, table
from fakegan.sweep.display import Display
from fakegan.sweep.jobs import Ending, Job, Running, run_jobs
from fakegan.sweep.machine import Machine, check_room, gpus_of_one, own_environment, this_machine, threads_of_one
from fakegan.sweep.planning import Folders
from fakegan.sweep.table import Row
from fakegan.system.processes import resume_command
from fakegan.system.shell import here


def runs_in(folder: Path, told: Callable[[str], None] = lambda _: None) -> dict[Path, RunSettings]:
    """The runs in a sweep's folder, by folder; `told` hears of those that are damaged."""
    runs = {}
    for path in sorted(folder.glob(f"*/{CONFIG_FILE}")):
        try:
            runs[path.parent] = read_run(str(path.parent))
        except FakeganError as error:
            told(f"{here(path.parent)} is left as it is, and is no job's: {error}")
    return runs


class FailedReturn(JobReturn):
    """Of a job without a result, of which people know already."""

    @property
    def return_value(self) -> Any:
        """Raises an AlreadyReportedError; what went wrong is in `_return_value`."""
        raise AlreadyReportedError(FakeganError.exit_code)

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


@dataclass
class _Planned:
    """A job as Hydra asked for it, and what has become of it."""

    row: Row
    overrides: Sequence[str]
    cfg: DictConfig | None = None  # composed, with Hydra's node; None: it cannot be
    own: DictConfig | None = None  # resolved, without it; None: refused
    settings: RunSettings | None = None  # of `own`
    gpus: int = 0  # that it is to have for itself
    refused: bool = False  # what it is asked to be cannot be
    begun: bool = False  # its folder holds a run of it


class ProcessLauncher(Launcher):
    """Runs each job as `train.py resume=ITS_FOLDER` in a process of its own, some of them side by side."""

    launched: ClassVar[bool] = False  # jobs, in this process

    def __init__(
        self,
        jobs: int,  # side by side
        devices_per_job: int | None,  # GPUs; None: what the job's trainer asks for
        stop_on_failure: bool,  # one that fails stops the others
    ) -> None:
        self.side_by_side = jobs
        self.devices_per_job = devices_per_job
        self.stop_on_failure = stop_on_failure
        self.planned: dict[int, _Planned] = {}  # by number, of all launches: a sweeper may launch again and again
        self.display = Display()
        self.checked: set[Hashable] = set()  # faces that jobs are to have, and how they divide them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands over what it knows.

        Raises:
            UsageError: an option of the launcher that is out of range.
        """
        self.config = config
        self.loader = hydra_context.config_loader
        for name, value in (("jobs", self.side_by_side), ("devices_per_job", self.devices_per_job or 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"hydra.launcher.{name}={value} must be a whole number from 1")
        if not isinstance(self.stop_on_failure, bool):
            raise UsageError(f"hydra.launcher.stop_on_failure={self.stop_on_failure} must be true or false")
        self.folder = Path(config.hydra.sweep.dir).absolute()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What Hydra calls, once or, by some sweepers, several times: run jobs and wait for them.

        Raises:
            UsageError: no job can be what it is asked to be, or there are too few GPUs for them side by side.
            KeyboardInterrupt, SystemExit: it was asked to stop.
        """
        first = not self.planned
        if first:
            self._open()
        given = [[word for word in o if not word.startswith("resume=")] for o in job_overrides]
        new = {number: self._plan(number, o) for number, o in enumerate(given, start=initial_job_idx)}
        self.planned |= new
        refused = all(planned.refused for planned in new.values())
        if first and refused and not search.is_search(self.folder):  # which knows whether others went well
            raise UsageError(new[initial_job_idx].row.reason)  # the words that they share, most likely
        self._tell_plan(new)
        self._run([number for number, planned in new.items() if planned.row.state == "waiting"])
        return [self._answer(number) for number in new]

    def _open(self) -> None:
        begun = runs_in(self.folder, self.display.say)
        self.folders = Folders(self.folder, begun)
        names = {path.name for path in begun}
        before = [row for row in table.read_rows(self.folder) if not row.state.startswith("repeats")]
        self.before = {row.folder: row for row in before if row.folder in names}

    def _plan(self, number: int, overrides: list[str]) -> _Planned:
        """What a job is to be, and where; a failed one where that cannot be."""
        planned = _Planned(Row(number, shlex.join(map(from_hydra, overrides)), "waiting"), overrides)
        try:
            self._compose(planned)
        except (FakeganError, HydraException, OmegaConfBaseException) as error:
            reason = str(error) if isinstance(error, FakeganError) else explain(error)
            planned.row = replace(planned.row, state="failed", reason=reason)
            planned.refused = isinstance(error, UsageError) or not isinstance(error, FakeganError)
        return planned

    def _compose(self, planned: _Planned) -> None:
        """Compose a job, check its settings, find its folder and, where it has finished, its objective."""
        number = planned.row.job
        cfg = planned.cfg = self.loader.load_sweep_config(self.config, list(planned.overrides))
        with _known_to_hydra(cfg, number, self.folder):
            own, settings = _own_part(cfg)
            planned.gpus = self._gpus_unless_finished(settings)
            if self.folders.begun(settings) is None:
                self._check_faces(settings)
            place = self.folders.place(number, settings, lambda n: _subdir(cfg, n))
        OmegaConf.update(own, "paths.run_dir", str(place.folder))
        with read_write(cfg.hydra):
            cfg.hydra.runtime.output_dir = str(place.folder)
        planned.own, planned.begun = own, place.kind == "begun"
        planned.settings = replace(settings, paths=replace(settings.paths, run_dir=place.folder))
        planned.row = replace(planned.row, folder=place.folder.name)
        if place.kind == "repeats":
            planned.row = replace(planned.row, state=f"repeats {place.owner}")
        elif place.kind == "begun":
            seconds = self.before[place.folder.name].seconds if place.folder.name in self.before else None
            planned.row = replace(planned.row, seconds=seconds)
            objective = table.objective_of(place.folder)
            if objective is not None:
                planned.row = replace(planned.row, state="finished", objective=objective)

    def _check_faces(self, settings: RunSettings) -> None:
        """Divide a job's faces as it will itself. Raises a FakeganError where there are none, or a split is empty."""
        data, needs = settings.data, settings.pipeline.needs
        key = (data.root, data.demo_faces, data.demo_seed, data.split, str(needs))
        if key not in self.checked:
            open_faces(data, settings.paths.data_dir, needs, verified=False)
            self.checked.add(key)

    def _tell_plan(self, new: dict[int, _Planned]) -> None:
        states = [planned.row.state for planned in new.values()]
        finished = states.count("finished")
        going_on = sum(planned.begun and planned.row.state == "waiting" for planned in new.values())
        self.display.expect(sum(not s.startswith("repeats") for s in states), finished)
        if len(self.planned) == len(new):
            self.display.say(
                f"{here(self.folder)}: {len(new)} job{'s' * (len(new) > 1)}{self._width(states.count('waiting'))}"
            )
        if (finished or going_on) and not search.is_search(self.folder):  # which counts its trials
            self.display.say(f"jobs finished before: {finished}; begun before and resumed now: {going_on}")
        for number, planned in new.items():
            if planned.row.state.startswith("repeats"):
                self.display.say(self._told_apart(planned))
            elif planned.row.state == "failed":
                self.display.refused(number, planned.row.reason)

    @cached_property
    def machine(self) -> Machine:
        """What there is for the jobs. To look takes torch where there may be GPUs: a refused sweep does not."""
        return this_machine(own_environment())

    def _told_apart(self, planned: _Planned) -> str:
        """Why a job is no run of its own."""
        owner = self.planned[_owner(planned.row)]
        why = "" if owner.row.words == planned.row.words else ": what is swept has no effect on it"
        return f"job {planned.row.job} is the same run as {planned.row.folder}{why}"

    def _width(self, waiting: int) -> str:
        side = min(self.side_by_side, waiting)
        return f", {side} side by side" if side > 1 else ""

    def _run(self, numbers: Sequence[int]) -> None:
        names = words.telling({n: planned.overrides for n, planned in self.planned.items()})
        jobs = [self._job(number, names[number]) for number in numbers]
        check_room(self.machine, [job.gpus for job in jobs], self.side_by_side)
        words.keep_command(self.folder, sys.argv)  # that of the last start counts: it may have more jobs
        self._write()
        ProcessLauncher.launched = True
        number = self._work(jobs)
        self.display.close()
        if number:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _work(self, jobs: Sequence[Job]) -> int:
        """Run jobs; returns the signal that asked to stop, 0 if none did."""
        side = self.side_by_side  # however few jobs are left: what comes out may depend on the threads
        threads = threads_of_one(self.machine, side) if side > 1 else None
        return run_jobs(jobs, side, self.machine.gpus, threads, self.stop_on_failure, self)

    def _job(self, number: int, name: str) -> Job:
        planned = self.planned[number]
        assert planned.own is not None
        assert planned.settings is not None
        settings, own, begun = planned.settings, planned.own, planned.begun
        folder = settings.paths.run_dir
        return Job(
            number=number,
            name=name,
            folder=folder,
            command=tuple(resume_command(folder, settings.trusted)),
            environment={**own_environment(), COMMAND_VARIABLE: words.alone(self.config.hydra, planned.overrides)},
            gpus=planned.gpus,
            prepare=lambda: _move_along(own, folder) if begun else write_down(settings, folder),
        )

    def _gpus_unless_finished(self, settings: RunSettings) -> int:
        """`_gpus` of a job; none for one that has finished, when there may have been more of them."""
        folder = self.folders.begun(settings)
        if folder is not None and (folder / METRICS_FILE).is_file():
            return 0
        return self._gpus(settings.trainer)

    def _gpus(self, trainer: TrainerSettings) -> int:
        """How many a job is to have for itself.

        Raises:
            UsageError: it asks for what it cannot have.
        """
        return gpus_of_one(self.machine, trainer, self.devices_per_job, self.side_by_side)

    def started(self, running: Running) -> None:
        """A job has started."""
        self._set(running.job.number, state="running")
        self.display.started(running)

    def going(self, running: Sequence[Running], waiting: int) -> None:
        """Some run, others wait."""
        self.display.going(running, waiting)

    def stopping(self, reason: str) -> None:
        """Those that run were asked to save and end."""
        self.display.stopping(reason)

    def ended(self, job: Job, ending: Ending) -> None:
        """A job has ended, or will not start any more."""
        objective = None
        try:
            objective = table.objective_of(job.folder) if ending.state == "finished" else None
        except FakeganError as error:
            ending = Ending("failed", ending.seconds, str(error))
        before = self.planned[job.number].row.seconds
        self.planned[job.number].refused = ending.refused
        seconds = (before or 0) + ending.seconds if ending.seconds or before is not None else None
        self._set(job.number, state=ending.state, objective=objective, seconds=seconds, reason=ending.reason)
        self.display.ended(job, ending)

    def _set(self, number: int, **changes: Any) -> None:
        planned = self.planned[number]
        planned.row = replace(planned.row, **changes)
        self._write()

    def _write(self) -> None:
        """jobs.csv: the jobs of this command, then what others have left finished in the folder."""
        rows = [planned.row for planned in self.planned.values()]
        folders = {row.folder for row in rows}
        others = [row for row in self.before.values() if row.state == "finished" and row.folder not in folders]
        with contextlib.suppress(OSError):  # a full disk: the jobs are worth more than the table of them
            table.write_rows(self.folder, [*rows, *others])

    def _answer(self, number: int) -> JobReturn:
        """What Hydra and its sweepers want to know of a job: its objective, or that it has none."""
        planned = self.planned[number]
        if planned.row.state.startswith("repeats "):
            planned = self.planned[_owner(planned.row)]
        row, finished = planned.row, planned.row.state == "finished"
        answer = JobReturn() if finished else FailedReturn()
        answer.overrides, answer.cfg = list(planned.overrides), planned.own
        if planned.cfg is not None:
            answer.hydra_cfg = OmegaConf.create({"hydra": planned.cfg.hydra})
        answer.status = JobStatus.COMPLETED if finished else JobStatus.FAILED
        error = UsageError if planned.refused else FakeganError
        answer.return_value = row.objective if finished else error(f"job {row.job} {row.state}: {row.reason}")
        return answer


def _move_along(own: DictConfig, folder: Path) -> None:
    """A job that has begun goes on with the store where the sweep finds it now."""
    give_places(str(folder), root_of(own))


def _owner(row: Row) -> int:
    """The number of the job that one repeats."""
    return int(row.state.removeprefix("repeats "))


@contextlib.contextmanager
def _known_to_hydra(cfg: DictConfig, number: int, sweep_dir: Path) -> Iterator[None]:
    """Within, `${hydra:...}` means this job, as it does in Hydra's own launchers."""
    before = HydraConfig.instance().cfg
    with open_dict(cfg):
        cfg.hydra.job.id = cfg.hydra.job.num = number
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(sweep_dir)  # its folder is chosen when its settings are known
    HydraConfig.instance().set_config(cfg)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _own_part(cfg: DictConfig) -> tuple[DictConfig, RunSettings]:
    """A job's config as it will be kept, and its settings."""
    own = copy.deepcopy(cfg)
    with read_write(own), open_dict(own):
        del own["hydra"]
    make_paths_absolute(own)
    OmegaConf.resolve(own)
    return own, settings_of(RunSettings, own)


def _subdir(cfg: DictConfig, number: int) -> str:
    """What a job's folder would be called under a number."""
    before = cfg.hydra.job.num
    with read_write(cfg.hydra):
        cfg.hydra.job.num = number
        name = text_from_hydra(str(cfg.hydra.sweep.subdir))
        cfg.hydra.job.num = before
    if name != Path(name).name or name == "..":
        raise UsageError(f"hydra.sweep.subdir={name} must name one folder in that of the sweep: leave out the /")
    return name
