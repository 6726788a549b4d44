"""A search for hyperparameters: trials that Optuna proposes, in a study on disk that can be stopped and resumed.

Only Optuna's ask and tell are used, and its study in an SQLite file, which a kill or a full disk does not damage.
What is searched is written in Hydra's language for sweeps: `interval(a,b)`, `choice(a,b)`, `range(a,b,step)`, and
`tag(log, interval(a,b))` for a logarithmic scale.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import math
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Transformer,
)
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fakegan.config.overrides import from_hydra, to_hydra
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.config_file import read_plain
from fakegan.runs.folder import BEST_FILE, STUDY_FILE
from fakegan.sweep.plugins import register_plugin
from fakegan.system.files import replacing
from fakegan.system.places import install
from fakegan.system.shell import here

SAMPLERS = ("tpe", "random")
_SEARCHED = "searched"  # of a study: the words that it was begun with
_RUN = "run of trial {}"  # of a study: that trial's run folder


def register() -> None:
    """Make the search known to Hydra, which conf/hydra/sweeper/search.yaml chooses."""
    register_plugin(Search)


def is_search(folder: Path) -> bool:
    """Whether the sweep in this folder is a search."""
    return (folder / STUDY_FILE).is_file()


def closing_words(folder: Path) -> str:
    """A line about the best trial of a search so far.

    Raises:
        FakeganError: the file that names it is damaged.
    """
    path = folder / BEST_FILE
    if not path.is_file():
        return "no trial went well"
    found = read_plain(path)
    try:
        failed, words = int(found["failed"]), shlex.join(map(str, found["words"]))
        ended = f"{int(found['trials'])} trials" + (f" ({failed} failed)" if failed else "")
        run = folder / Path(found["run"]).name
        return f"best of {ended}: {words}, objective {float(found['objective']):.4f}, {here(run)}"
    except (KeyError, TypeError, ValueError) as error:
        raise FakeganError(f"{path} is damaged: delete it, and go on with the search") from error


class Search(Sweeper):
    """Runs trials until `n_trials` have ended, those first that an earlier start left unfinished.

    A trial without a finite objective is a failed one, and the search goes on. What is proposed depends on `seed`,
    the trial's number and the trials before it, so that a search which was stopped goes on as if it had not been.
    """

    ended: ClassVar[bool] = False  # that of this process
    config: DictConfig
    launcher: Launcher

    def __init__(
        self,
        n_trials: int,  # that have ended, all starts of the search together
        n_jobs: int,  # proposed at a time
        seed: int,  # of the proposals
        params: Mapping[str, str] | None,  # what is searched, beside the words of the command
        sampler: str = "tpe",  # or random
    ) -> None:
        self.n_trials, self.n_jobs, self.seed, self.params = n_trials, n_jobs, seed, dict(params or {})
        self.sampler = sampler

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra tells every sweeper.

        Raises:
            UsageError: Optuna is not installed, an option out of range, or one that a search cannot have.
        """
        _check_installed()
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
        space, fixed = _parsed([f"{key}={value}" for key, value in self.params.items()] + arguments)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), _breaking_told(folder / STUDY_FILE):
            warnings.simplefilter("ignore")  # what Optuna calls experimental
            self._go_on(_study(folder, space, fixed), folder, space, fixed)

    def _go_on(self, study: Any, folder: Path, space: Mapping[str, Any], fixed: Sequence[str]) -> None:
        _keep_best(study, folder, space)
        try:
            while trials := self._next(study, space):
                self._run(study, trials, space, fixed)
                _keep_best(study, folder, space)
        except UsageError:
            if not _ended(study, space):  # refused before it began
                (folder / STUDY_FILE).unlink()
            raise
        Search.ended = True
        if not _good(study):
            raise FakeganError(
                f"all {len(_ended(study, space))} trials failed: mend what their logs say, and begin another search"
            )

    def _next(self, study: Any, space: Mapping[str, Any]) -> list[Any]:
        """The trials to run now: those that an earlier start left, then new ones; none where enough have ended.

        A trial that was killed while its values were drawn is closed, and takes part in nothing.
        """
        from optuna.trial import TrialState

        left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            if not _drawn(trial, space):
                study.tell(trial.number, state=TrialState.FAIL)
        left = [trial for trial in left if _drawn(trial, space)]
        if left:
            return left[: self.n_jobs]
        begun = sum(_drawn(trial, space) for trial in study.get_trials(deepcopy=False))
        study.sampler = self._sampler(_seed(self.seed, begun))
        return [study.ask(dict(space)) for _ in range(min(self.n_jobs, self.n_trials - begun))]

    def _sampler(self, seed: int) -> Any:
        from optuna import samplers

        if self.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed, constant_liar=self.n_jobs > 1)  # it counts those that still run

    def _run(self, study: Any, trials: Sequence[Any], space: Mapping[str, Any], fixed: Sequence[str]) -> None:
        words = [[*fixed, *_words(trial.params, space)] for trial in trials]
        jobs = self.launcher.launch(words, initial_job_idx=trials[0].number)
        if not _ended(study, space):
            _raise_if_all_refused(jobs)
        for trial, job in zip(trials, jobs, strict=True):
            _tell(study, trial.number, job)


def _drawn(trial: Any, space: Mapping[str, Any]) -> bool:
    """Whether each value of a trial is known."""
    return bool(trial.params.keys() == space.keys())


def _check_installed() -> None:
    for library in ("optuna", "sqlalchemy"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise UsageError(f"a search needs Optuna: {install('optuna')}") from error


def _parsed(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is searched, by key, and the words that all trials have in common."""
    space: dict[str, Any] = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.get_key_element().removeprefix("++")
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            fixed[key] = str(override.input_line)
    space = {key: values for key, values in space.items() if key not in fixed}  # a plain word takes its place
    if not space:
        raise UsageError("nothing is searched: give a key an interval or a choice, e.g. 'budget.width=choice(8,16)'")
    return space, list(fixed.values())


def _distribution(override: Override) -> Any:
    """Optuna's distribution for an override: whole numbers for a range of such, and for int(interval(a,b)).

    A choice that is not a number is kept as it must be typed, with its quotes.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept: Any = override.value()
    try:
        if isinstance(swept, IntervalSweep):
            ends: Any = (swept.start, swept.end)
            options: dict[str, Any] = {"log": "log" in swept.tags}
        elif isinstance(swept, RangeSweep) and not swept.shuffle:
            ends, options = (swept.start, swept.stop), {"step": swept.step}
        elif isinstance(swept, ChoiceSweep | RangeSweep):
            values = override.sweep_iterator(transformer=Transformer.identity)
            return CategoricalDistribution([v if isinstance(v, int | float) else _typed(v) for v in values])
        else:
            raise ValueError("give an interval, a range or a choice")
        whole = all(isinstance(number, int) for number in (*ends, *options.values()))
        return IntDistribution(*ends, **options) if whole else FloatDistribution(*ends, **options)
    except ValueError as error:
        raise UsageError(f"{from_hydra(str(override.input_line))} cannot be searched: {error}") from error


def _typed(value: Any) -> str:
    """A choice as Hydra reads it: within choice(...) it has taken the quotes of a string away."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        value = QuotedString(value, Quote.single)
    return Transformer.str(value)


def _words(values: Mapping[str, Any], space: Mapping[str, Any]) -> list[str]:
    return [to_hydra(f"{key}={_rounded(value, space[key])}") for key, value in values.items()]


def _rounded(value: Any, distribution: Any) -> Any:
    """What is drawn from an interval with few digits, within it; what was chosen as it is."""
    from optuna.distributions import FloatDistribution

    if not isinstance(distribution, FloatDistribution):
        return value
    digits = 4 if distribution.step is None else 12
    return min(max(float(f"{value:.{digits}g}"), distribution.low), distribution.high)


def _study(folder: Path, space: Mapping[str, Any], fixed: Sequence[str]) -> Any:
    """The study in a folder, begun or gone on with."""
    searched = sorted([f"{key}={values}" for key, values in space.items()])
    searched += sorted(word for word in fixed if not word.startswith("resume="))
    study = _open(folder / STUDY_FILE)
    before = study.user_attrs.get(_SEARCHED, searched)
    if before != searched:
        differing = " ".join(from_hydra(word) for word in sorted(set(before) ^ set(searched)))
        raise UsageError(f"{here(folder)} holds another search, by {differing}: choose another hydra.sweep.dir")
    study.set_user_attr(_SEARCHED, searched)
    ended = len(_ended(study, space))
    if ended:
        print(f"trials of this search that have ended: {ended}", flush=True)
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
        raise FakeganError(f"{here(path)} is damaged, or another Optuna's: choose another hydra.sweep.dir") from error


@contextlib.contextmanager
def _breaking_told(path: Path) -> Iterator[None]:
    """Within, a study's file that can no longer be used is an error in one sentence."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        why = getattr(error.__cause__ or error, "orig", error)  # sqlite's own words
        raise FakeganError(f"{here(path)} can no longer be used ({why}): mend that, then add resume=true") from error


def _ended(study: Any, space: Mapping[str, Any]) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and _drawn(trial, space)]


def _good(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.values]


def _seed(seed: int, number: int) -> int:
    """A seed for the proposals from trial `number` on: a sampler made anew must not repeat itself."""
    return int.from_bytes(hashlib.sha256(f"{seed},{number}".encode()).digest()[:4], "big")


def _raise_if_all_refused(jobs: Sequence[JobReturn]) -> None:
    """What none of the first trials can be is a wrong command; what a later one cannot be, only the words proposed."""
    errors = [job._return_value for job in jobs]  # the property prints some of them
    if all(isinstance(error, UsageError) for error in errors):
        raise errors[0]


def _tell(study: Any, number: int, job: JobReturn) -> None:
    from optuna.trial import TrialState

    objective = float(job.return_value) if job.status == JobStatus.COMPLETED else math.nan
    if math.isfinite(objective):
        study.set_user_attr(_RUN.format(number), Path(job.cfg.paths.run_dir).name)  # type: ignore[union-attr]
        study.tell(number, objective)
    else:
        study.tell(number, state=TrialState.FAIL)


def _keep_best(study: Any, folder: Path, space: Mapping[str, Any]) -> None:
    """Write down the best trial so far, if one has gone well."""
    ended, good = _ended(study, space), _good(study)
    if not good:
        return
    best = study.best_trial
    found = {
        "words": [from_hydra(word) for word in _words(best.params, best.distributions)],
        "objective": best.value,
        "trial": best.number,
        "run": study.user_attrs[_RUN.format(best.number)],
        "trials": len(ended),
        "failed": len(ended) - len(good),
    }
    with replacing(folder / BEST_FILE) as building:
        OmegaConf.save(OmegaConf.create(found), building)
