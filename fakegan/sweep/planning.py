"""The jobs of a sweep as they will run: composed, checked, and each with a folder.

Jobs are known by configuration and seed, not by number: a resumed sweep may have more values.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fakegan.config.overrides import text_from_hydra
from fakegan.data.faces import open_faces
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.compose import make_paths_absolute, root_of, settings_of
from fakegan.runs.config_file import give_places, read_run, write_down
from fakegan.runs.folder import CONFIG_FILE, METRICS_FILE
from fakegan.runs.settings import RunSettings
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.system.shell import local_path


def runs_in(folder: Path, tell: Callable[[str], None] = lambda _: None) -> dict[Path, RunSettings]:
    """The runs in a sweep's folder, by folder; `tell` gets a sentence about each damaged run."""
    runs = {}
    for path in sorted(folder.glob(f"*/{CONFIG_FILE}")):
        try:
            runs[path.parent] = read_run(str(path.parent))
        except FakeganError as error:
            tell(f"{local_path(path.parent)} is left as it is, and is no job's: {error}")
    return runs


@dataclass(frozen=True)
class Place:
    """Where a job belongs."""

    folder: Path
    kind: Literal["new", "begun", "repeats"]  # begun: by an earlier start of the sweep
    owner: int  # the job whose folder it is: another job where this one repeats it


class Folders:
    """The folders of a sweep, and the jobs that own them."""

    def __init__(
        self,
        sweep_dir: Path,
        begun: Mapping[Path, RunSettings],  # runs that are there already, by folder
    ) -> None:
        self.sweep_dir = sweep_dir
        self.folders: dict[Hashable, Path] = {settings.identity(): folder for folder, settings in begun.items()}
        self.owners: dict[Path, int] = {}
        self.taken = {path.name for path in sweep_dir.glob("*")}

    def place(self, number: int, identity: Hashable, name: Callable[[int], str]) -> Place:
        """The place of a job with this RunSettings.identity(); `name` is its folder's name under a number."""
        if identity in self.folders:
            folder = self.folders[identity]
            owner = self.owners.setdefault(folder, number)
            return Place(folder, "begun" if owner == number else "repeats", owner)
        folder = self.sweep_dir / self._free(number, name)
        self.taken.add(folder.name)
        self.folders[identity], self.owners[folder] = folder, number
        return Place(folder, "new", number)

    def _free(self, number: int, name: Callable[[int], str]) -> str:
        """The name under this number, or under the next number that no folder has."""
        if name(number) == name(number + 1):  # hydra.sweep.subdir is without a number
            names = (name(number) if i == 1 else f"{name(number)}_{i}" for i in itertools.count(1))
        else:
            numbers = {taken.partition("_")[0] for taken in self.taken}
            names = (name(i) for i in itertools.count(number) if str(i) not in numbers)
        return next(free for free in names if free not in self.taken)


@dataclass(frozen=True)
class Planned:
    """A job that can run."""

    config: DictConfig  # resolved, without Hydra's node
    settings: RunSettings  # of that
    place: Place
    gpus: int  # that it needs
    untested: bool  # it asks for a test of robustness, and the run that its place has does not

    def prepare(self) -> None:
        """Write its config.yaml; where it has begun, only where the sweep finds its store now."""
        if self.place.kind == "begun":
            give_places(str(self.place.folder), root_of(self.config))
        else:
            write_down(self.settings, self.place.folder)


class Planner:
    """Makes jobs of overrides."""

    def __init__(
        self,
        loader: ConfigLoader,
        sweep: DictConfig,  # the composed config of the sweep itself, with Hydra's node
        begun: Mapping[Path, RunSettings],  # runs that are in its folder already
        gpus_of: Callable[[TrainerSettings], int],  # that a job needs; raises a UsageError
    ) -> None:
        self.loader = loader
        self.sweep = sweep
        self.gpus_of = gpus_of
        self.folders = Folders(Path(sweep.hydra.sweep.dir).absolute(), begun)
        self.tests = {folder: settings.test.robustness for folder, settings in begun.items()}
        self.checked: set[Hashable] = set()  # faces, and how jobs divide them

    def plan(self, number: int, overrides: Sequence[str]) -> Planned:
        """Compose a job, check its settings and faces, find its folder.

        Raises:
            FakeganError, HydraException, OmegaConfBaseException: there can be no such job.
        """
        cfg = self.loader.load_sweep_config(self.sweep, list(overrides))
        with _current_job(cfg, number, self.folders.sweep_dir):
            own = copy.deepcopy(cfg)
            with read_write(own), open_dict(own):
                del own["hydra"]
            make_paths_absolute(own)
            OmegaConf.resolve(own)
            settings = settings_of(RunSettings, own)
            identity = settings.identity()
            known = self.folders.folders.get(identity)
            finished = known is not None and (known / METRICS_FILE).is_file()
            gpus = 0 if finished else self.gpus_of(settings.trainer)  # there may have been more when it ran
            if known is None:
                self._check_faces(settings)
            place = self.folders.place(number, identity, lambda n: _folder_name(cfg, n))
        OmegaConf.update(own, "paths.run_dir", str(place.folder))
        settings = replace(settings, paths=replace(settings.paths, run_dir=place.folder))
        tested = self.tests.setdefault(place.folder, settings.test.robustness)
        return Planned(own, settings, place, gpus, settings.test.robustness and not tested)

    def _check_faces(self, settings: RunSettings) -> None:
        """Divide a job's faces as it will itself. Raises a FakeganError where there are none, or a split is empty."""
        data, needs = settings.data, settings.pipeline.needs
        key = (data.root, data.demo_faces, data.demo_seed, data.demo_size, data.split, str(needs))
        if key not in self.checked:
            open_faces(data, settings.paths.data_dir, needs, verified=False)
            self.checked.add(key)


@contextlib.contextmanager
def _current_job(cfg: DictConfig, number: int, sweep_dir: Path) -> Iterator[None]:
    """Within, `${hydra:...}` means this job. It reads Hydra's one HydraConfig, so that must hold the job's config."""
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


def _folder_name(cfg: DictConfig, number: int) -> str:
    """The name of a job's folder under a number."""
    before = cfg.hydra.job.num
    with read_write(cfg.hydra):  # the name is interpolated from hydra.job.num
        cfg.hydra.job.num = number
        name = text_from_hydra(str(cfg.hydra.sweep.subdir))
        cfg.hydra.job.num = before
    if name != Path(name).name or name == "..":
        raise UsageError(f"hydra.sweep.subdir={name} must name one folder in that of the sweep: leave out the /")
    return name
