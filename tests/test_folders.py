"""Several commands that want one folder at the same moment: each interleaving, step by step."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import filelock
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fakegan.errors import FakeganError, UsageError
from fakegan.runs import config_file as runs
from fakegan.runs.claim import Claim, Claiming
from fakegan.runs.folder import LOCK_FILE
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.sweep import command as words
from fakegan.sweep import opening as sweeps
from fakegan.system.places import PROJECT
from tests.helpers import compose_run, composed


@cache
def _content() -> RunSettings:
    """The settings of some run."""
    return compose_run("paths.run_dir=run")


def _begin(claim: Claim) -> None:
    """What start_run does in a claimed folder."""
    runs.write_down(_content(), claim.folder)
    claim.began = True


def _hydras(*overrides: str) -> DictConfig:
    """The config that Hydra's callbacks are given, its clock stopped."""
    return composed(*overrides, "hydra.job.num=0")


@pytest.mark.parametrize("winner_made_it", [True, False])
@pytest.mark.parametrize("there_before", [True, False])
def test_the_one_that_is_refused_takes_nothing_from_the_one_that_runs(
    tmp_path: Path, winner_made_it: bool, there_before: bool
) -> None:
    """Both meet the empty folder before either has written its config; the second to write is refused."""
    if there_before:
        (tmp_path / "run").mkdir()
    first, second = (Claim.on(tmp_path / "run", automatic=False) for _ in range(2))
    assert (first.made, second.made) == (not there_before, False)
    winner, loser = (first, second) if winner_made_it else (second, first)
    _begin(winner)
    with pytest.raises(UsageError, match="holds a run already"):
        runs.write_down(_content(), loser.folder)
    loser.give_up(refused=True)
    assert [path.name for path in winner.folder.iterdir()] == [runs.CONFIG_FILE]


def test_one_that_is_refused_early_may_take_the_empty_folder_that_it_made_and_the_other_begins_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Claim.on(tmp_path / "run", automatic=False) for _ in range(2))
    written = Path.write_text

    def given_up_in_between(path: Path, *args: str, **options: str) -> int:
        monkeypatch.setattr(Path, "write_text", written)
        first.give_up(refused=True)
        return path.write_text(*args, **options)

    monkeypatch.setattr(Path, "write_text", given_up_in_between)
    _begin(second)
    assert [path.name for path in second.folder.iterdir()] == [runs.CONFIG_FILE]


@pytest.mark.parametrize(
    ("found", "made", "refused", "left"),
    [
        (None, ["faces.sha256", LOCK_FILE], True, None),  # nothing of the run, nor its folder
        ([], ["faces.sha256", LOCK_FILE], True, []),
        (["notes.txt", "classifier/x"], ["faces.sha256", LOCK_FILE], True, ["notes.txt", "classifier"]),
        (None, ["notes.txt"], True, ["notes.txt"]),  # which another put beside the run
        (None, ["autoencoder/checkpoints/last.ckpt"], True, ["autoencoder", runs.CONFIG_FILE]),
        (None, ["faces.sha256"], False, ["faces.sha256", runs.CONFIG_FILE]),  # a failed run that has begun a stage
    ],
)
def test_a_run_that_is_given_up_leaves_what_it_found_and_what_has_come_of_it(
    tmp_path: Path, found: list[str] | None, made: list[str], refused: bool, left: list[str] | None
) -> None:
    def make(*names: str) -> None:
        for path in (tmp_path / "run" / name for name in names):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    if found is not None:
        (tmp_path / "run").mkdir()
        make(*found)
    claim = Claim.on(tmp_path / "run", automatic=False)
    _begin(claim)
    make(*made)
    claim.give_up(refused)
    assert claim.folder.exists() == (left is not None)
    names = {path.name for path in claim.folder.glob("*")}
    assert names - {LOCK_FILE} == set(left or ())
    assert LOCK_FILE not in names or runs.CONFIG_FILE in names


def test_a_run_that_another_command_goes_on_with_is_not_given_up(tmp_path: Path) -> None:
    claim = Claim.on(tmp_path / "run", automatic=False)
    _begin(claim)
    with filelock.FileLock(claim.folder / LOCK_FILE):
        claim.give_up(refused=True)
    assert (claim.folder / runs.CONFIG_FILE).is_file()


def test_who_waited_for_a_run_that_was_given_up_does_not_work_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim.on(tmp_path / "run", automatic=False)
    _begin(claim)
    held, acquire = filelock.FileLock(claim.folder / LOCK_FILE), filelock.FileLock.acquire
    held.acquire()

    def given_up_while_it_waits(lock: filelock.FileLock, timeout: float) -> object:
        if timeout == stages.PATIENCE:
            held.release()
            monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
            claim.give_up(refused=True)
        return acquire(lock, timeout=timeout)

    monkeypatch.setattr(filelock.FileLock, "acquire", given_up_while_it_waits)
    with pytest.raises(FakeganError, match="has given it up"), stages._alone_in(claim.folder):
        pass


def test_runs_of_the_same_second_and_words_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        cfg = _hydras()
        monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
        OmegaConf.register_new_resolver("now", lambda _: "noon", replace=True)
        Claiming().on_run_start(cfg)
        names.append(Path(cfg.hydra.run.dir).name)
        assert Claiming.claim is not None
        assert Claiming.claim.made
    assert names == [f"noon_recon_classify_autogan4_alexnet_s1{end}" for end in ("", "-2", "-3")]
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == set(names)


@pytest.mark.parametrize("word", ["hydra.run.dir=mine", "resume=mine"])
def test_a_folder_that_was_named_is_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = _hydras(word)
    Claiming().on_run_start(cfg)
    assert cfg.hydra.run.dir == str(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_other_processes_of_a_run_claim_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(Claiming, "claim", None)
    cfg = _hydras()
    Claiming().on_run_start(cfg)
    assert Claiming.claim is None
    assert cfg.hydra.run.dir == "."
    assert not list(tmp_path.iterdir())


def _open(folder: Path | None = None) -> Path:
    """A sweep's opening, as in a process of its own."""
    cfg = _hydras(*([] if folder is None else [f"hydra.sweep.dir={folder}"]))
    OmegaConf.register_new_resolver("now", lambda _: "noon", replace=True)
    sweeps.Opening().on_multirun_start(cfg)
    assert sweeps.current is not None
    assert sweeps.current.claim.folder == Path(cfg.hydra.sweep.dir)
    return Path(cfg.hydra.sweep.dir)


@pytest.fixture
def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
    monkeypatch.setattr(sweeps, "current", None)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("seed=2", "recon_classify_autogan4_alexnet_s2"),
        ("pipeline=classify", "classify_alexnet_s1"),  # which needs no autoencoder
        ("pipeline=recon_error model=autogan1", "recon_error_autogan1_s1"),  # nor this a classifier
        ("pipeline=classify classifier.net._target_=torch.nn.Identity", "classify_Identity_s1"),
        ("pipeline=classify classifier.net._target_=torch.nn.Identity classifier.name=mine", "classify_mine_s1"),
        ("pipeline.view=no_package.view", "recon_classify_autogan4_alexnet_s1"),  # refused later
    ],
)
def test_a_folder_s_name_is_of_what_the_run_has(words: str, name: str) -> None:
    cfg = _hydras(*words.split())
    assert str(cfg.hydra.sweep.subdir) == f"0_{name}"
    assert str(cfg.hydra.run.dir).endswith(f"_{name}")


@pytest.mark.parametrize(
    ("words", "said"), [("protocol=study", True), ("protocol=study budget=paper", False), ("", False)]
)
def test_a_protocol_that_changes_nothing_says_so(capsys: pytest.CaptureFixture[str], words: str, said: bool) -> None:
    Claiming().on_multirun_start(_hydras(*words.split()))
    assert ("protocol=study changes nothing with budget=quick" in capsys.readouterr().out) == said


@pytest.mark.usefixtures("opening")
def test_sweeps_of_the_same_second_have_folders_of_their_own() -> None:
    held = []
    for end in ("", "-2", "-3"):
        assert _open().name == f"sweep_noon{end}"
        held.append(sweeps.current)  # by as many processes


@pytest.mark.usefixtures("opening")
def test_a_sweep_is_not_resumed_without_its_overrides(tmp_path: Path) -> None:
    """Alone, resume=true would add a job of the default settings."""
    words.keep_command(tmp_path, ["train.py", "-m", "seed=1,2"])
    sweeps._check_folder(tmp_path, True)
    sys.argv[2:] = ["resume=true", f"hydra.sweep.dir={tmp_path}", "hydra.launcher.jobs=2"]
    with pytest.raises(UsageError, match=r"overrides beside it: .*train\.py -m seed=1,2 resume=true"):
        sweeps._check_folder(tmp_path, True)
    words.keep_command(tmp_path, ["train.py", "-m"])  # the defaults alone
    sweeps._check_folder(tmp_path, True)


@pytest.mark.usefixtures("opening")
def test_a_sweep_that_another_began_and_ended_while_this_one_came_to_its_lock_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, locked = tmp_path / "sweep", sweeps._locked

    def first_the_other(path: Path) -> filelock.BaseFileLock:
        words.keep_command(path, ["train.py", "-m", "seed=8,9"])
        return locked(path)

    monkeypatch.setattr(sweeps, "_locked", first_the_other)
    with pytest.raises(SystemExit):
        _open(folder)
    assert "holds a sweep already" in capsys.readouterr().err
    assert "seed=8,9" in words.to_go_on(folder)


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_two_commands_at_once_are_two_runs_or_one(tmp_path: Path, store_path: Path, named: bool) -> None:
    """With one name one of them is refused, and the other's run is whole; without, both run."""
    tiny = ["pipeline=classify", "data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu"]
    folder = ["hydra.run.dir=run"] if named else []
    command = [sys.executable, str(PROJECT / "train.py"), *tiny, *folder, f"paths.artifact_dir={tmp_path / 'art'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [job.communicate()[1].decode() for job in both]
    assert sorted(job.returncode for job in both) == ([0, 2] if named else [0, 0]), said
    done = [tmp_path / "run"] if named else list((tmp_path / "outputs").iterdir())
    assert len(done) == (1 if named else 2)
    for run in done:
        assert {"config.yaml", "metrics.json"} <= {path.name for path in run.iterdir()}
