"""A search for hyperparameters: trials that Optuna proposes, in a study on disk that can be stopped and resumed.

What is searched is written in Hydra's language for sweeps: `interval(a,b)`, `choice(a,b)`, `range(a,b,step)`, and
`tag(log, interval(a,b))` for a logarithmic scale.
"""

from __future__ import annotations

import importlib
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fakegan.errors import FakeganError, UsageError
from fakegan.runs.config_file import read_plain
from fakegan.runs.folder import BEST_FILE, STUDY_FILE
from fakegan.sweep import opening
from fakegan.system.places import install
from fakegan.system.shell import local_path

SAMPLERS = ("tpe", "random")
_log = logging.getLogger(__name__)


def is_search(folder: Path) -> bool:
    """Whether the sweep in this folder is a search."""
    return (folder / STUDY_FILE).is_file()


def closing_words(folder: Path) -> str:
    """A line about the best trial of a search so far. Raises a FakeganError: the file that names it is damaged."""
    path = folder / BEST_FILE
    if not path.is_file():
        return "no trial went well"
    found = read_plain(path)
    try:
        failed, words = int(found["failed"]), shlex.join(map(str, found["words"]))
        ended = f"{int(found['trials'])} trials" + (f" ({failed} failed)" if failed else "")
        run = folder / Path(found["run"]).name
        return f"best of {ended}: {words}, objective {float(found['objective']):.4f}, {local_path(run)}"
    except (KeyError, TypeError, ValueError) as error:
        raise FakeganError(f"{path} is damaged: delete it, and go on with the search") from error


class Search(Sweeper):
    """Runs trials until `n_trials` have ended, first the trials that an earlier start left unfinished.

    A trial without a finite objective has failed, and the search goes on. A search that was stopped goes on as if it
    had not been.
    """

    config: DictConfig
    launcher: Launcher

    def __init__(
        self,
        n_trials: int,  # that have ended, in all starts of the search
        n_jobs: int,  # proposed at a time
        seed: int,  # of the proposals
        params: Mapping[str, str] | None,  # what is searched, beside the overrides of the command
        sampler: str = "tpe",  # or random
    ) -> None:
        self.n_trials, self.n_jobs, self.seed, self.params = n_trials, n_jobs, seed, dict(params or {})
        self.sampler = sampler

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands over what it knows. Raises a UsageError: no Optuna, or an option with a wrong value."""
        for library in ("optuna", "sqlalchemy"):
            try:
                importlib.import_module(library)
            except ImportError as error:
                raise UsageError(f"a search needs Optuna: {install('optuna')}") from error
        for key, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"hydra.sweeper.{key}={value} must be a whole number from 1")
        if self.sampler not in SAMPLERS:
            raise UsageError(f"hydra.sweeper.sampler={self.sampler} must be {' or '.join(SAMPLERS)}")
        if OmegaConf.select(config, "hydra.launcher.stop_on_failure"):
            raise UsageError("hydra.launcher.stop_on_failure=true: in a search a failed trial stops none: leave it out")
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing, and write down the best of all.

        Raises:
            UsageError: nothing to search, another search's folder, or a command that no trial can run.
            FakeganError: the study's file is damaged or cannot be written, or no trial went well.
        """
        from fakegan.sweep.study import Study, parse, storage_errors

        space, fixed = parse([f"{key}={value}" for key, value in self.params.items()] + arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with storage_errors(folder / STUDY_FILE):
            study = Study(folder, space, fixed)
            if ended := study.ended():
                _log.info("trials of this search that have ended: %d", len(ended))
            best = study.write_best()
            try:
                while trials := study.next(self.sampler, self.seed, self.n_trials, self.n_jobs):
                    study.run(trials, self.launcher)
                    best = study.write_best()
            except UsageError:
                if not study.ended():  # refused before it began
                    study.path.unlink()
                raise
            opening.mark_begun()
            if not best:
                failed = f"all {len(study.ended())} trials failed"
                raise FakeganError(f"{failed}: mend what their logs say, and begin another search")
