"""The search for hyperparameters: what it proposes, what it counts, how it goes on."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from fakegan.config.typed import flat, to_mapping
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import BEST_FILE, STUDY_FILE
from fakegan.sweep import lifecycle, search
from fakegan.sweep.search import Search, closing_words
from fakegan.system.places import CONF, PROJECT
from tests.conftest import Compose
from tests.helpers import composed, run_script

optuna = pytest.importorskip("optuna")
study_module = pytest.importorskip("fakegan.sweep.study")
parse, overrides_of = study_module.parse, study_module.overrides_of

SWEEPS = sorted(p.stem for p in (CONF / "sweep").glob("*.yaml"))
PARAMS = {"x": "interval(0.0, 1.0)", "width": "choice(8,16)"}
CANNOT_BE, DIVERGED = UsageError("width must be even"), FakeganError("training diverged")
Words = dict[str, str]


class PlayedLauncher:
    """Answers as a launcher does; remembers what it was asked."""

    def __init__(self, folder: Path, outcome: Callable[[int, Words], float]) -> None:
        self.folder = folder
        self.outcome = outcome  # by the job's number and words; may raise
        self.asked: dict[int, Words] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        jobs = []
        for number, words in enumerate(job_overrides, initial_job_idx):
            self.asked[number] = dict(word.split("=", 1) for word in words if not word.startswith("resume="))
            jobs.append(job := JobReturn())
            job.cfg = OmegaConf.create({"paths": {"run_dir": str(self.folder / f"{number}_run")}})
            try:
                job.return_value, job.status = self.outcome(number, self.asked[number]), JobStatus.COMPLETED
            except FakeganError as error:
                job.return_value, job.status = error, JobStatus.FAILED
        return jobs


def _by_x(_number: int, words: Words) -> float:
    return 1 - abs(float(words["x"]) - 0.3)


def _search(
    folder: Path,
    outcome: Callable[[int, Words], float] = _by_x,
    n_trials: int = 6,
    n_jobs: int = 1,
    words: Sequence[str] = ("seed=1",),
    params: Mapping[str, str] = PARAMS,
    sampler: str = "tpe",
) -> dict[int, Words]:
    """Run a search; returns what was launched, by number. Where the launcher raises, so does this."""
    launcher = PlayedLauncher(folder, outcome)
    searcher = Search(n_trials, n_jobs, 1, params, sampler)
    searcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    searcher.launcher = launcher  # type: ignore[assignment]
    searcher.sweep(list(words))
    return launcher.asked


def _set_up(sampler: str = "tpe", **launcher: object) -> None:
    config = OmegaConf.create({"hydra": {"launcher": launcher}})
    Search(1, 1, 1, PARAMS, sampler).setup(hydra_context=None, task_function=lambda _: None, config=config)  # type: ignore[arg-type]


def _failing(failures: Mapping[int, BaseException | float]) -> Callable[[int, Words], float]:
    """Trials that go well, but for those that raise, or have another objective."""

    def outcome(number: int, words: Words) -> float:
        failure = failures.get(number, _by_x(number, words))
        if isinstance(failure, BaseException):
            raise failure
        return failure

    return outcome


def _trials(folder: Path) -> list[Any]:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / STUDY_FILE}")
    return list(study.get_trials())


def _states(folder: Path) -> list[str]:
    return [trial.state.name for trial in _trials(folder)]


def test_a_search_runs_as_many_trials_as_asked_and_names_the_best(tmp_path: Path) -> None:
    asked = _search(tmp_path)
    assert list(asked) == list(range(6))
    assert all(words["seed"] == "1" and words["width"] in {"8", "16"} for words in asked.values())
    best = max(asked, key=lambda number: _by_x(number, asked[number]))
    found = OmegaConf.load(tmp_path / BEST_FILE)
    assert (found.trial, found.run, found.trials, found.failed) == (best, f"{best}_run", 6, 0)
    assert set(found.words) == {f"x={asked[best]['x']}", f"width={asked[best]['width']}"}
    assert found.objective == pytest.approx(_by_x(best, asked[best]))
    line = closing_words(tmp_path)
    assert line.startswith("best of 6 trials: ")
    assert line.endswith(f"{best}_run")
    assert len({words["x"] for words in asked.values()}) == 6
    assert _search(tmp_path) == {}  # it has finished
    assert list(_search(tmp_path, n_trials=8)) == [6, 7]
    assert "best of 8 trials" in closing_words(tmp_path)


def test_any_option_can_be_searched_and_the_best_is_told_as_it_is_typed(tmp_path: Path) -> None:
    params = {"classifier.net.dropout": "choice(0.1,0.1)"}
    asked = _search(tmp_path, lambda *_: 0.5, 1, words=["++model.pool_size=5"], params=params)
    assert asked[0] == {"++classifier.net.dropout": "0.1", "++model.pool_size": "5"}  # Hydra knows neither
    assert OmegaConf.load(tmp_path / BEST_FILE).words == ["classifier.net.dropout=0.1"]
    with pytest.raises(UsageError, match=r"holds another search, by model\.pool_size=5 model\.pool_size=6: choose"):
        _search(tmp_path, words=["++model.pool_size=6"], params=params)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, n_jobs: int) -> None:
    """The second trial has failed, and is not run again."""
    fails = {1: DIVERGED}
    whole = _search(tmp_path / "whole", _failing(fails), n_jobs=n_jobs)
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        _search(stopped, _failing(fails | {3: KeyboardInterrupt()}), n_jobs=n_jobs)
    assert _states(stopped).count("RUNNING") == n_jobs
    rest = _search(stopped, n_jobs=n_jobs, words=("seed=1", "resume=true"))
    assert rest == {number: whole[number] for number in range(4 - n_jobs, 6)}  # those that ran together, again
    assert _states(stopped) == ["COMPLETE", "FAIL", *["COMPLETE"] * 4]
    assert "best of 6 trials (1 failed)" in closing_words(stopped)
    assert [trial.params for trial in _trials(stopped)] == [trial.params for trial in _trials(tmp_path / "whole")]


@pytest.mark.parametrize(
    ("failures", "n_jobs"),
    [
        ({1: DIVERGED, 2: math.nan}, 1),
        ({0: DIVERGED, 1: CANNOT_BE}, 1),  # a later trial that cannot be: it is not the command that is wrong
        ({0: CANNOT_BE, 1: DIVERGED}, 2),  # of the first trials, which ran together
    ],
)
def test_a_failed_trial_is_one_of_many(
    tmp_path: Path, failures: Mapping[int, FakeganError | float], n_jobs: int
) -> None:
    _search(tmp_path, _failing(failures), n_jobs=n_jobs)
    assert _states(tmp_path) == ["FAIL" if number in failures else "COMPLETE" for number in range(6)]
    assert "best of 6 trials (2 failed)" in closing_words(tmp_path)


def test_an_interrupted_trial_that_can_be_no_more_does_not_block_the_search(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _search(tmp_path, _failing({1: KeyboardInterrupt()}))
    assert closing_words(tmp_path).startswith("best of 1 trials: ")  # the best so far
    assert list(_search(tmp_path, _failing({1: CANNOT_BE}))) == [1, 2, 3, 4, 5]
    assert _states(tmp_path) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_where_every_trial_fails_so_does_the_search(tmp_path: Path) -> None:
    with pytest.raises(FakeganError, match="all 6 trials failed"):
        _search(tmp_path, lambda *_: math.inf)
    assert closing_words(tmp_path) == "no trial went well"


def test_a_command_that_no_trial_can_run_costs_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"width"):
        _search(tmp_path, _failing({0: CANNOT_BE, 1: CANNOT_BE}), words=("data=faces",), n_jobs=2)
    assert not (tmp_path / STUDY_FILE).exists()
    assert len(_search(tmp_path)) == 6


def test_a_study_that_breaks_while_trials_run_or_is_found_damaged_is_one_sentence(tmp_path: Path) -> None:
    def outcome(number: int, words: Words) -> float:
        if number == 2:
            (tmp_path / STUDY_FILE).write_bytes(b"no database" * 100)
        return _by_x(number, words)

    with pytest.raises(FakeganError, match=r"study\.db can no longer be used \(.*database.*\): .*resume=true"):
        _search(tmp_path, outcome)
    assert closing_words(tmp_path).startswith("best of 2 trials: ")
    with pytest.raises(FakeganError, match=r"study\.db is damaged"):
        _search(tmp_path)


def test_choices_reach_the_trials_as_they_were_typed() -> None:
    space, _ = parse(
        ["a=choice(0.123456,1e-12)", r"b=choice(p\,q,'it\'s',r)", "c=choice([1,2],[3])", "d=choice(true,7)"]
    )
    taken: dict[str, list[object]] = {key: [] for key in space}
    for key, values in space.items():
        for choice in values.choices:
            (override,) = OverridesParser.create().parse_overrides(overrides_of({key: choice}, space))
            taken[key].append(override.value())
    assert taken == {"a": [0.123456, 1e-12], "b": ["p,q", "it's", "r"], "c": [[1, 2], [3]], "d": [True, 7]}


def test_drawn_numbers_have_few_digits_and_stay_within_their_interval() -> None:
    space, _ = parse(["x=interval(0.0,0.99999)", "y=tag(log,interval(1e-5,1.0))", "z=range(0.1,1.0,0.1)"])
    drawn = overrides_of({"x": 0.123456, "y": 1.23456e-5, "z": 0.1 + 0.2}, space)
    assert drawn == ["x=0.1235", "y=1.235e-05", "z=0.3"]
    assert overrides_of({"x": 0.999989}, space) == ["x=0.99999"]  # not 1


def test_whole_numbers_are_searched_where_they_are_asked_for() -> None:
    space, _ = parse(["a=int(interval(8,16))", "b=interval(8,16)", "c=range(8,16,4)", "d=int(tag(log,interval(1,9)))"])
    kinds = {key: (type(values).__name__, values.low, values.high, values.step) for key, values in space.items()}
    assert kinds == {
        "a": ("IntDistribution", 8, 16, 1),
        "b": ("FloatDistribution", 8.0, 16.0, None),
        "c": ("IntDistribution", 8, 16, 4),
        "d": ("IntDistribution", 1, 9, 1),
    }
    assert [values.log for values in space.values()] == [False, False, False, True]


def test_a_search_that_was_killed_as_it_began_or_drew_values_goes_on(tmp_path: Path) -> None:
    """Such a trial counts for nothing."""
    whole = _search(tmp_path / "whole", n_trials=3)
    killed = tmp_path / "killed"
    killed.mkdir()
    study = optuna.create_study(study_name="search", storage=f"sqlite:///{killed / STUDY_FILE}", direction="maximize")
    _search(killed, n_trials=1)
    study.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})  # "width" was not drawn
    rest = _search(killed, n_trials=3)
    assert list(rest.values()) == list(whole.values())[1:]
    assert _states(killed) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "best of 3 trials:" in closing_words(killed)


def test_proposals_are_drawn_by_the_sampler_that_is_named(tmp_path: Path) -> None:
    """The first ten of TPE are random, too."""
    named = {name: _search(tmp_path / name, n_trials=14, sampler=name) for name in search.SAMPLERS}
    assert [named["tpe"][i] for i in range(10, 14)] != [named["random"][i] for i in range(10, 14)]


def test_options_that_a_search_cannot_have_are_refused() -> None:
    with pytest.raises(UsageError, match=r"hydra\.sweeper\.sampler=grid must be tpe or random"):
        _set_up("grid")
    with pytest.raises(UsageError, match=r"hydra\.launcher\.stop_on_failure=true: .*leave it out"):
        _set_up(stop_on_failure=True)


@pytest.mark.parametrize("words", [("seed=2",), ("seed=1", "x=interval(0,2.0)"), ("seed=1", "x=0.5"), ()])
def test_a_study_is_of_one_search(tmp_path: Path, words: tuple[str, ...]) -> None:
    _search(tmp_path, n_trials=1)
    with pytest.raises(UsageError, match=r"holds another search.*hydra\.sweep\.dir"):
        _search(tmp_path, words=words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("x=tag(log,interval(0.0,1.0))",), r"cannot be searched: .*low > 0"),
        (("x=0.5", "width=8"), r"nothing is searched"),
        (("x=interval(1.0,0.0)",), r"cannot be searched: "),
        (("x=glob(*)",), r"cannot be searched: give an interval, a range or a choice"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        _search(tmp_path, words=words)


@pytest.mark.parametrize("library", ["optuna", "sqlalchemy"])
def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as where it is not installed
    with pytest.raises(UsageError, match=r"pip install -e '\.\[optuna\]'"):
        _set_up()


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_shipped_search_is_over_keys_that_exist_and_values_they_take(
    compose_settings: Compose, sweep: str
) -> None:
    lifecycle.register()
    cfg = composed(f"+sweep={sweep}")
    assert cfg.hydra.mode.name == "MULTIRUN"
    params = cfg.hydra.sweeper.params
    space, fixed = parse([f"{key}={value}" for key, value in params.items()])
    assert set(space) == set(params)
    assert not fixed
    for end in (0, -1):  # of every range
        chosen = {key: (getattr(v, "choices", None) or (v.low, v.high))[end] for key, v in space.items()}
        settings = compose_settings(f"+sweep={sweep}", *(f"{key}={value}" for key, value in chosen.items()))
        stated = dict(flat(to_mapping(settings)))
        assert {key: stated[key] for key in chosen} == chosen


@pytest.mark.slow
def test_a_search_that_was_killed_runs_what_is_missing_and_goes_on_with_the_interrupted_trial(
    tmp_path: Path, store_path: Path
) -> None:
    """Six trials, the third and sixth of which diverge; killed in the fourth."""
    folder = tmp_path / "search"
    words = [
        *("-m", "+sweep=optuna_classifier", "hydra.sweeper.n_trials=6", "hydra.sweeper.seed=6"),
        *("classifier.optimizer._target_=torch.optim.SGD", "classifier.optimizer.lr=choice(1e-3,1e30)"),
        *("data=faces", f"data.root={store_path}", "+debug=fast", "budget.classifier.max_epochs=40"),
        *("trainer=cpu", "callbacks.early_stopping.patience=99", f"paths.artifact_dir={tmp_path / 'artifacts'}"),
        f"hydra.sweep.dir={folder}",
    ]
    command = [sys.executable, str(PROJECT / "train.py"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        while not list(folder.glob("3_*/classifier/checkpoints/last.ckpt")) and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    assert _states(folder) == ["COMPLETE", "COMPLETE", "FAIL", "RUNNING"]
    resumed = run_script("train.py", *words, "resume=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert _states(folder) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "FAIL"]
    assert len(list(folder.glob("*/metrics.json"))) == 4
    assert len(list(folder.glob("*/config.yaml"))) == 6
    log = next(folder.glob("3_*")) / "log.txt"
    assert log.read_text().count("classifier epoch 1/40") == 1
    assert "best of 6 trials (2 failed): classifier.optimizer.lr=0.001" in resumed.stdout.splitlines()[-1]
