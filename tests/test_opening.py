"""How a sweep begins and ends without training: its command, what it sweeps, which folder it takes, what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fakegan.cli import entry
from fakegan.errors import AlreadyReportedError, FakeganError, UsageError
from fakegan.runs.claim import Claim
from fakegan.runs.folder import JOBS_FILE
from fakegan.sweep import command, lifecycle, opening
from fakegan.sweep.each import with_each_source
from tests.helpers import composed


def test_a_sweep_says_the_whole_command_that_resumes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a sweep"
    folder.mkdir()
    assert not command.is_sweep(folder)
    typed = ["seed=1,2", "data.split.unseen=[a, b]", "hydra.sweep.dir=a sweep", "resume=true"]
    command.keep_command(folder, ["/somewhere/train.py", "-m", *typed])
    assert command.is_sweep(folder)
    assert command.to_go_on(folder).endswith(
        "train.py -m seed=1,2 'data.split.unseen=[a,b]' resume=true 'hydra.sweep.dir=\"a sweep\"'"
    )


def test_an_override_that_could_not_be_shown_again_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'model\.optimizer\.betas=\[0,\\t0\]' holds a tab"):
        command.keep_command(tmp_path, ["train.py", "-m", "model.optimizer.betas=[0,\t0]"])
    assert not command.is_sweep(tmp_path)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["hydra.mode=MULTIRUN"], "train.py seed=2 'x=[1, 2]'"),  # what Hydra makes of -m
        ([], "train.py seed=2 'x=[1, 2]' hydra.mode=RUN"),  # an experiment sweeps by itself
    ],
)
def test_a_jobs_own_command_starts_it_without_its_sweep(typed: list[str], expected: str) -> None:
    hydra = OmegaConf.create({"job": {"name": "train"}, "overrides": {"hydra": typed}})
    assert command.standalone_command(hydra, ["seed=2", "resume=true", "x=[1, 2]"]) == expected


def test_jobs_are_named_by_what_they_do_not_share() -> None:
    assert command.differing_overrides({0: ["a=1", "seed=1"], 1: ["a=1", "seed=2"]}) == {0: "seed=1", 1: "seed=2"}
    assert command.differing_overrides({0: ["a=1"]}) == {0: "a=1"}


# How a sweep begins and ends


def test_what_an_experiment_sweeps_may_be_any_option() -> None:
    ours = {"_target_": "hydra_plugins.fakegan.ProcessLauncher"}
    params = {"seed": "1,2", "classifier.net.dropout": "0.1,0.3"}
    hydra = OmegaConf.create({"launcher": ours, "sweeper": {"params": params}})
    opening._check_plugins(hydra)
    assert hydra.sweeper.params == {"seed": "1,2", "++classifier.net.dropout": "0.1,0.3"}
    with pytest.raises(UsageError, match="must be keys and values"):
        opening._check_plugins(OmegaConf.create({"launcher": ours, "sweeper": {"params": "seed"}}))


@pytest.mark.parametrize(
    ("word", "swept", "jobs"),
    [
        ("+experiment=leave_one_out", [], ["[]", "[gan_a]", "[gan_b]"]),
        ("+experiment=leave_one_out", ["++data.split.unseen=[],[gan_b]"], ["[]", "[gan_b]"]),
        ("+experiment=one_by_one", [], ["[gan_a]", "[gan_b]"]),
        ("hydra/launcher=slurm_local +experiment=one_by_one", [], ["[gan_a]", "[gan_b]"]),
        ("data.split.unseen=each(fake)", [], ["[gan_a]", "[gan_b]"]),
    ],
)
def test_generators_to_hold_out_are_found_in_the_store(
    word: str, swept: list[str], jobs: list[str], store_path: Path
) -> None:
    config = composed("data=faces", f"data.root={store_path}", *word.split())
    opening._check_plugins(config.hydra)
    opening._take_sources(config)
    params = [f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task, *swept])
    (found,) = BasicSweeper.split_arguments(parsed, None)
    assert [o.partition("=")[2] for job in found for o in job if o.startswith("++data.split.")] == jobs


def test_sources_to_hold_out_need_a_store_that_has_two(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name its folder, data\.root=DIR"):
        with_each_source("each(fake)", "faces", None)
    with pytest.raises(UsageError, match=r"there is one real source, camera, .* --real NAME=PATH"):
        with_each_source("[],each(real)", "faces", store_path)
    with pytest.raises(FakeganError, match="gone"):
        with_each_source("each(fake)", "faces", tmp_path / "gone")
    assert with_each_source("each(fake)", "demo", None) == "[demo_transposed],[demo_nearest],[demo_bilinear]"
    assert with_each_source("seed=1,2", "faces", None) == "seed=1,2"


def test_a_source_that_has_another_role_in_all_runs_is_not_held_out() -> None:
    words = ("data=demo", "data.split.learn_from=each(fake)", "data.split.unseen=[demo_nearest]")
    config = composed(*words)
    opening._take_sources(config)
    assert "++data.split.learn_from=[demo_transposed],[demo_bilinear]" in config.hydra.overrides.task
    with pytest.raises(UsageError, match="one fake source, demo_bilinear besides demo_transposed, demo_nearest, which"):
        with_each_source("each(fake)", "demo", None, taken=("demo_transposed", "demo_nearest"))


@pytest.mark.parametrize("word", ["resume=outputs/a,outputs/b", "resume=choice(a,b)"])
def test_several_runs_are_no_sweep_to_go_on_with(word: str) -> None:
    with pytest.raises(UsageError, match="resumes one run, without -m"):
        opening._check_command(None, [word, "seed=1"])  # Hydra leaves a swept resume out


def _sweep_in(folder: Path, made: bool = False, found: frozenset[str] = frozenset()) -> opening.Sweep:
    return opening.Sweep(Claim(folder, made, found), lock=None)  # type: ignore[arg-type]


def test_a_refused_sweep_leaves_a_folder_that_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made, found in ((True, frozenset[str]()), (False, frozenset({JOBS_FILE}))):
        folder = tmp_path / str(made)
        folder.mkdir()
        command.keep_command(folder, ["train.py"])
        (folder / ".submitit").mkdir()
        for name in found:
            (folder / name).write_text("their own")
        monkeypatch.setattr(opening, "current", _sweep_in(folder, made, found))
        lifecycle.conclude()
        assert folder.exists() != made
    assert [path.name for path in folder.iterdir()] == [JOBS_FILE]


def _raising(error: BaseException) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


@pytest.mark.parametrize(
    ("failure", "closing", "told"),
    [
        (UsageError("too few GPUs"), FakeganError("1 of 2 jobs failed"), "too few GPUs"),
        (UsageError("too few GPUs"), OSError("the disk is full"), "too few GPUs"),
        (AlreadyReportedError(1), FakeganError("1 of 2 jobs failed"), "1 of 2 jobs failed"),
    ],
)
def test_what_ended_a_sweep_is_told_whatever_comes_after(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, closing: Exception, told: str
) -> None:
    monkeypatch.setattr(lifecycle, "conclude", _raising(closing))
    with pytest.raises((FakeganError, OSError), match=told):
        entry._concluded(_raising(failure))


@pytest.mark.parametrize(("stop", "heard"), [(KeyboardInterrupt(), 1), (SystemExit(143), 1), (SystemExit(2), 0)])
def test_a_sweep_that_is_stopped_anywhere_says_how_to_resume(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: BaseException,
    heard: int,
) -> None:
    command.keep_command(tmp_path, ["train.py", "-m", "seed=1,2"])
    monkeypatch.setattr(opening, "current", _sweep_in(tmp_path))
    with pytest.raises(type(stop)):
        entry._concluded(_raising(stop))
    assert capsys.readouterr().err.count("train.py -m seed=1,2 resume=true") == heard
