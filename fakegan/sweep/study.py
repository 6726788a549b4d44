"""A search's study: Optuna's file of trials, from which a stopped search is resumed.

Only this file imports Optuna, which is an extra: it is imported when a search begins. Of Optuna only ask and tell are
used, and a study in an SQLite file, which a kill or a full disk does not damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
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
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from fakegan.config.overrides import from_hydra, to_hydra
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import BEST_FILE, STUDY_FILE
from fakegan.system.files import replacing
from fakegan.system.shell import local_path

Space = Mapping[str, BaseDistribution]
_SEARCHED = "searched"  # of a study: the overrides that it was begun with
_RUN = "run of trial {}"  # of a study: that trial's run folder


def parse(overrides: Sequence[str]) -> tuple[Space, list[str]]:
    """What is searched, by key, and the overrides that all trials share. An override with one value fixes its key.

    Raises:
        UsageError: nothing is searched, or a key by what is no distribution.
    """
    space: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.get_key_element().removeprefix("++")
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            fixed[key] = str(override.input_line)
    space = {key: values for key, values in space.items() if key not in fixed}
    if not space:
        raise UsageError("nothing is searched: give a key an interval or a choice, e.g. 'budget.width=choice(8,16)'")
    return space, list(fixed.values())


def _distribution(override: Override) -> BaseDistribution:
    """Optuna's distribution for an override: whole numbers for a range of such, and for int(interval(a,b)).

    A choice that is not a number is kept as it must be typed, with its quotes.
    """
    swept: Any = override.value()
    try:
        if isinstance(swept, IntervalSweep):
            ends: Any = (swept.start, swept.end)
            options: dict[str, Any] = {"log": "log" in swept.tags}
        elif isinstance(swept, RangeSweep) and not swept.shuffle:
            ends, options = (swept.start, swept.stop), {"step": swept.step}
        elif isinstance(swept, ChoiceSweep | RangeSweep):
            values = override.sweep_iterator(transformer=Transformer.identity)
            return CategoricalDistribution([v if isinstance(v, int | float) else _quoted(v) for v in values])
        else:
            raise ValueError("give an interval, a range or a choice")
        whole = all(isinstance(number, int) for number in (*ends, *options.values()))
        return IntDistribution(*ends, **options) if whole else FloatDistribution(*ends, **options)
    except ValueError as error:
        raise UsageError(f"{from_hydra(str(override.input_line))} cannot be searched: {error}") from error


def _quoted(value: Any) -> str:
    """A choice as Hydra reads it: within choice(...) it has taken the quotes of a string away."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        value = QuotedString(value, Quote.single)
    return Transformer.str(value)


def overrides_of(values: Mapping[str, Any], space: Space) -> list[str]:
    """A trial's values as overrides. A number that is drawn from an interval has few digits, and stays within."""
    overrides = []
    for key, value in values.items():
        drawn = space[key]
        if isinstance(drawn, FloatDistribution):
            rounded = float(f"{value:.{4 if drawn.step is None else 12}g}")
            overrides.append(to_hydra(f"{key}={min(max(rounded, drawn.low), drawn.high)}"))
        else:
            overrides.append(to_hydra(f"{key}={value}"))
    return overrides


class Study:
    """The trials of a search, in a file that every start of the search goes on with."""

    def __init__(
        self,
        folder: Path,
        space: Space,  # what is searched, by key
        fixed: Sequence[str],  # overrides of every trial
    ) -> None:
        """Open the file, or make it.

        Raises:
            UsageError: another search's.
            FakeganError: damaged.
        """
        self.space, self.fixed, self.path = space, fixed, folder / STUDY_FILE
        optuna.logging.set_verbosity(logging.ERROR)
        storage = f"sqlite:///{self.path.absolute()}"
        try:
            self.study = optuna.create_study(
                storage=storage, study_name="search", direction="maximize", load_if_exists=True
            )
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            sentence = f"{local_path(self.path)} is damaged, or another Optuna's: choose another hydra.sweep.dir"
            raise FakeganError(sentence) from error
        searched = sorted([f"{key}={values}" for key, values in space.items()])
        searched += sorted(o for o in fixed if not o.startswith("resume="))
        before = self.study.user_attrs.get(_SEARCHED, searched)
        if before != searched:
            differing = " ".join(map(from_hydra, sorted(set(before) ^ set(searched))))
            raise UsageError(
                f"{local_path(folder)} holds another search, by {differing}: choose another hydra.sweep.dir"
            )
        self.study.set_user_attr(_SEARCHED, searched)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials whose values are known; a process that was killed while it drew values has left others."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if trial.params.keys() == self.space.keys()]

    def ended(self) -> list[FrozenTrial]:
        """The trials that went well, which have values, and those that failed."""
        return self.trials(TrialState.COMPLETE, TrialState.FAIL)

    def next(self, sampler: str, seed: int, n_trials: int, n_jobs: int) -> list[Any]:
        """The trials to run now: those that an earlier start left, then new ones; none where enough have ended.

        The proposals depend on the seed, the trial's number and the trials before it.
        """
        left = self.trials(TrialState.RUNNING)
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for number in {trial.number for trial in running} - {trial.number for trial in left}:
            self.study.tell(number, state=TrialState.FAIL)
        if left:
            return left[:n_jobs]
        begun = len(self.trials())
        # Of the number of trials, too: a sampler that is made anew must not repeat itself.
        drawn = int.from_bytes(hashlib.sha256(f"{seed},{begun}".encode()).digest()[:4], "big")
        if sampler == "random":
            self.study.sampler = RandomSampler(seed=drawn)
        else:
            self.study.sampler = TPESampler(seed=drawn, constant_liar=n_jobs > 1)  # it counts trials that still run
        return [self.study.ask(dict(self.space)) for _ in range(min(n_jobs, n_trials - begun))]

    def run(self, trials: Sequence[Any], launcher: Launcher) -> None:
        """Run trials, and write down how they ended.

        Raises:
            UsageError: none of a search's first trials can be: the command is wrong, rather than the proposed values.
        """
        overrides = [[*self.fixed, *overrides_of(trial.params, self.space)] for trial in trials]
        jobs = launcher.launch(overrides, initial_job_idx=trials[0].number)
        errors = [job._return_value for job in jobs]  # the property prints some of them
        if not self.ended() and all(isinstance(error, UsageError) for error in errors):
            raise errors[0]
        for trial, job in zip(trials, jobs, strict=True):
            objective = float(job.return_value) if job.status == JobStatus.COMPLETED else math.nan
            if math.isfinite(objective):
                run = Path(job.cfg.paths.run_dir).name  # type: ignore[union-attr]
                self.study.set_user_attr(_RUN.format(trial.number), run)
                self.study.tell(trial.number, objective)
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def write_best(self) -> bool:
        """Write down the best trial so far; returns whether any went well."""
        ended = self.ended()
        good = sum(bool(trial.values) for trial in ended)
        if not good:
            return False
        best = self.study.best_trial
        found = {
            "words": [from_hydra(override) for override in overrides_of(best.params, best.distributions)],
            "objective": best.value,
            "trial": best.number,
            "run": self.study.user_attrs[_RUN.format(best.number)],
            "trials": len(ended),
            "failed": len(ended) - good,
        }
        with replacing(self.path.with_name(BEST_FILE)) as building:
            OmegaConf.save(OmegaConf.create(found), building)
        return True


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Within, a study's file that can no longer be used is an error in one sentence, and Optuna warns of nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna calls experimental
            yield
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        why = getattr(error.__cause__ or error, "orig", error)  # sqlite's own words
        raise FakeganError(
            f"{local_path(path)} can no longer be used ({why}): mend that, then add resume=true"
        ) from error
