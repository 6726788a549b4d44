"""A search for hyperparameters: trials that Optuna proposes, in a study on disk that can be stopped and goes on.

The loop of Optuna's own sweeper counts its trials anew at every start, forgets those that were running, and ends
with the first that fails; only its language for what is searched is used here.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fakegan.errors import FakeganError, UsageError
from fakegan.sweep.display import shown
from fakegan.sweep.plugins import make_known

STUDY_FILE = "study.db"  # in a search's folder: every trial, by Optuna
BEST_FILE = "optimization_results.yaml"
_SEARCHED = "searched"  # of a study: the words that it was begun with
_RUN = "run"  # of a trial: its run's folder


def register() -> None:
    """Make the search known to Hydra, which conf/hydra/sweeper/search.yaml chooses."""
    make_known(Search)


def is_search(folder: Path) -> bool:
    """Whether the sweep in this folder is a search."""
    return (folder / STUDY_FILE).is_file()


def closing_words(folder: Path) -> str:
    """A line about the best trial of a search that has ended."""
    if not (folder / BEST_FILE).is_file():
        return "no trial went well"
    found = OmegaConf.load(folder / BEST_FILE)
    ended = f"{found.trials} trials" + (f" ({found.failed} failed)" if found.failed else "")
    return f"best of {ended}: {' '.join(found.words)}, objective {found.objective:.4f}, {shown(folder / found.run)}"


class Search(Sweeper):
    """Runs trials until `n_trials` have ended, those first that an earlier start left unfinished.

    A trial without a finite objective is a failed one, and the search goes on. What is proposed depends on `seed`,
    the trial's number and the trials before it, so that a search which was stopped goes on as if it had not been.
    """

    ended: ClassVar[bool] = False  # that of this process
    config: DictConfig
    launcher: Launcher

    def __init__(self, n_trials: int, n_jobs: int, seed: int, params: Mapping[str, str] | None) -> None:
        self.n_trials, self.n_jobs, self.seed, self.params = n_trials, n_jobs, seed, dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra tells every sweeper.

        Raises:
            UsageError: Optuna is not installed, or an option out of range.
        """
        _check_installed()
        for key, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"hydra.sweeper.{key}={value} must be a whole number from 1")
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing, and write down the best of all.

        Raises:
            UsageError: nothing to search, another search's folder, or a command that no trial can run.
            FakeganError: a damaged study, or no trial went well.
        """
        space, fixed = _parsed([f"{key}={value}" for key, value in self.params.items()] + arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna calls experimental
            study = _study(folder, space, fixed)
            try:
                while trials := self._next(study):
                    self._run(study, trials, space, fixed)
            except UsageError:
                if not _ended(study):  # refused before it began
                    (folder / STUDY_FILE).unlink()
                raise
            Search.ended = True
            _conclude(study, folder)

    def _next(self, study: Any) -> list[Any]:
        """The trials to run now: those that an earlier start left, then new ones; none where enough have ended."""
        import optuna

        left = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        if left:
            return [optuna.trial.Trial(study, trial._trial_id) for trial in left[: self.n_jobs]]
        begun = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=_seed(self.seed, begun), constant_liar=self.n_jobs > 1)
        return [study.ask() for _ in range(min(self.n_jobs, self.n_trials - begun))]

    def _run(self, study: Any, trials: Sequence[Any], space: Mapping[str, Any], fixed: Sequence[str]) -> None:
        proposed = [{key: trial._suggest(key, values) for key, values in space.items()} for trial in trials]
        words = [[*fixed, *_words(values)] for values in proposed]  # of one from an earlier start, as they were
        jobs = self.launcher.launch(words, initial_job_idx=trials[0].number)
        for job in jobs:
            _raise_if_refused(study, job)
        for trial, job in zip(trials, jobs, strict=True):
            _tell(study, trial, job)


def _check_installed() -> None:
    for library in ("optuna", "sqlalchemy", "hydra_plugins.hydra_optuna_sweeper"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise UsageError("a search needs Optuna: pip install 'fakegan[optuna]'") from error


def _parsed(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is searched, by key, and the words that all trials have in common."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    try:
        space, fixed = create_params_from_overrides(list(words))
    except ValueError as error:
        raise UsageError(f"this cannot be searched: {error}") from error
    space = {key: values for key, values in space.items() if key not in fixed}  # a plain word takes its place
    if not space:
        raise UsageError("nothing is searched: give a key an interval or a choice, e.g. 'model.width=choice(8,16)'")
    return space, [f"{key}={value}" for key, value in fixed.items()]


def _words(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]


def _study(folder: Path, space: Mapping[str, Any], fixed: Sequence[str]) -> Any:
    """The study in a folder, begun or gone on with."""
    searched = sorted([f"{key}={values}" for key, values in space.items()])
    searched += sorted(word for word in fixed if not word.startswith("resume="))
    study = _open(folder / STUDY_FILE)
    before = study.user_attrs.get(_SEARCHED, searched)
    if before != searched:
        differing = " ".join(sorted(set(before) ^ set(searched)))
        raise UsageError(f"{shown(folder)} holds another search, by {differing}: choose another hydra.sweep.dir")
    study.set_user_attr(_SEARCHED, searched)
    ended = len(_ended(study))
    if ended:
        print(f"{ended} trials of this search have ended", flush=True)
    return study


def _open(path: Path) -> Any:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(logging.ERROR)
    try:
        return optuna.create_study(
            storage=f"sqlite:///{path.absolute()}", study_name="search", direction="maximize", load_if_exists=True
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise FakeganError(f"{shown(path)} is damaged, or another Optuna's: choose another hydra.sweep.dir") from error


def _ended(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _good(study: Any) -> list[Any]:
    return [trial for trial in _ended(study) if trial.values]


def _seed(seed: int, number: int) -> int:
    """A seed for the proposals from trial `number` on: a sampler made anew must not repeat itself."""
    return int.from_bytes(hashlib.sha256(f"{seed},{number}".encode()).digest()[:4], "big")


def _raise_if_refused(study: Any, job: JobReturn) -> None:
    """A wrong command ends the search; once a trial went well, it is only the words that were proposed."""
    error = job._return_value  # the property prints some of them
    if isinstance(error, UsageError) and not _good(study):
        raise error


def _tell(study: Any, trial: Any, job: JobReturn) -> None:
    import optuna

    objective = float(job.return_value) if job.status == JobStatus.COMPLETED else math.nan
    if math.isfinite(objective):
        trial.set_user_attr(_RUN, Path(job.cfg.paths.run_dir).name)  # type: ignore[union-attr]
        study.tell(trial, objective)
    else:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _conclude(study: Any, folder: Path) -> None:
    ended, good = _ended(study), _good(study)
    if not good:
        raise FakeganError(f"all {len(ended)} trials failed: mend what their logs say, and begin another search")
    best = study.best_trial
    found = {
        "words": _words(best.params),
        "objective": best.value,
        "trial": best.number,
        "run": best.user_attrs[_RUN],
        "trials": len(ended),
        "failed": len(ended) - len(good),
    }
    OmegaConf.save(OmegaConf.create(found), folder / BEST_FILE)
