"""--help: what it says, how wide, and that neither it nor a refused command waits for torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fakegan import composing, usage
from fakegan.cli import entry
from fakegan.composing import CONF
from fakegan.words import PROJECT

HEAVY = ("torch", "pytorch_lightning", "torchmetrics", "scipy", "matplotlib")
_SCRIPT = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("loaded:", *[name for name in HEAVY if name in sys.modules], file=sys.stderr)
"""


def _run(cwd: Path, *words: str, columns: int = 100) -> subprocess.CompletedProcess[str]:
    code = _SCRIPT.replace("HEAVY", repr(HEAVY))
    script, *rest = words
    return subprocess.run(
        [sys.executable, "-c", code, str(PROJECT / script), *rest],
        cwd=cwd,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("FAKEGAN_", "SLURM_"))},
            **{"COLUMNS": str(columns), "PYTHONPATH": str(PROJECT)},
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _light(result: subprocess.CompletedProcess[str], code: int) -> list[str]:
    """The lines on stderr, of a command that ended with that code and without torch."""
    *said, loaded = result.stderr.splitlines()
    assert (result.returncode, loaded.strip()) == (code, "loaded:"), result.stderr
    return said


def _help_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What train.py --help says beside some words, asked for in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "--help"])
    monkeypatch.setenv("COLUMNS", "100")
    composing.register_resolvers()
    return entry._help("train", "One run.\n\npython train.py seed=2    # another seed\n", sweeps=True)


def _rows(text: str) -> dict[str, str]:
    """By first word of a line, the rest of it; without the star of a choice."""
    lines = [line.removeprefix("*").strip() for line in text.splitlines()]
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}


def test_help_of_train_lists_every_choice_and_every_key_in_100_columns_without_torch(tmp_path: Path) -> None:
    result = _run(tmp_path, "train.py", "--help")
    assert _light(result, 0) == []
    assert max(map(len, result.stdout.splitlines())) <= 100
    rows = _rows(result.stdout)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        keys = [key for key, _ in usage.flat(OmegaConf.to_container(compose("train")))]
    assert "data.split.val" in keys
    assert set(keys) <= set(rows)
    for group in ("data", "model", "classifier", "pipeline", "budget", "trainer", "logger"):
        assert {f"{group}={path.stem}" for path in (CONF / group).glob("*.yaml")} <= set(rows)
    assert {f"+experiment={path.stem}" for path in (CONF / "experiment").glob("*.yaml")} <= set(rows)
    assert {"+debug=fast", "hydra/launcher=slurm", "hydra.launcher.jobs", "hydra.sweep.dir"} <= set(rows)
    assert "python train.py resume=outputs/RUN" in result.stdout
    assert not list(tmp_path.iterdir())


def test_help_of_evaluate_is_its_own(tmp_path: Path) -> None:
    result = _run(tmp_path, "evaluate.py", "-h", columns=80)
    assert _light(result, 0) == []
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []
    assert {"run", "sources", "device", "data=faces"} <= set(_rows(result.stdout))
    assert "model=autogan4" not in result.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model=autogan5", "--help"), "model=autogan5 does not exist: did you mean autogan4"),
        (("modle.depth=3", "-h"), "modle.depth is not a config key: did you mean model.depth"),
        (("resume=nowhere",), "there is no run in such a folder"),
        (("seed=1,2",), "seed=1,2: add -m to run each of these values, or write seed=[1,2] for a list"),
        (("foo",), "foo: write KEY=VALUE"),
        (("experiment=paper_exp1",), "experiment is chosen with a plus: +experiment="),
        (("model.depth=deep",), "model.depth='deep' must be a whole number"),
        (("pipeline.view=residuals",), "pipeline.view='residuals' does not exist"),
        (("classifier.net=vgg",), "classifier.net='vgg' does not exist: choose simple_cnn, alexnet, dcgan"),
        (("-m", "data=faces", "trainer=cpu", "seed=1,2"), "data.root must be given"),
        (("-m", "model=autogan1,autogan9"), "model=autogan9 does not exist: did you mean autogan4 or autogan1?"),
    ],
)
def test_what_is_refused_is_refused_in_a_sentence_and_before_torch_is_loaded(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    said = _light(_run(tmp_path, "train.py", *words), 2)
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert sentence in said[0]


def test_a_run_that_is_none_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (said,) = _light(_run(tmp_path, "evaluate.py", "run=nowhere"), 2)
    assert "nowhere is not a run" in said


@pytest.mark.parametrize("module", ["prepare", "predict", "sample"])
def test_help_of_the_other_commands_does_not_wait_for_torch(tmp_path: Path, module: str) -> None:
    result = _run(tmp_path, f"fakegan/{module}.py", "--help")
    assert _light(result, 0) == []
    assert f"python -m fakegan.{module}" in result.stdout


def test_words_beside_help_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _help_of(monkeypatch)
    text = _help_of(monkeypatch, "-m", "model=autogan1", "classifier=alexnet", "seed=7", "budget=quick,paper")
    assert "* model=autogan4" in plain
    assert "* model=autogan1" in text
    assert _rows(plain)["model.depth"] == "4 residual blocks"
    assert _rows(text)["model.depth"] == "1 residual blocks"
    assert _rows(text)["classifier.net_options.hidden"] == "1024 units of the two hidden layers"
    assert _rows(text)["seed"].startswith("7 of weights")
    assert "* budget=quick" in text  # several values: none of them


def test_values_are_what_they_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(_help_of(monkeypatch, "data=faces", "budget.width=24"))
    assert rows["model.width"] == "24 channels at 64x64"  # ${budget.width}
    assert rows["data.root"] == "must be given the folder given to prepare as --out"
    assert rows["model.checkpoint"].startswith("null a trained autoencoder.pt")
    assert rows["data.split.unseen"].startswith("[] sources that")
    assert rows["paths.run_dir"].startswith("this run's own folder")  # known when it runs


@pytest.mark.parametrize(
    "group", ["data", "model", "classifier", "pipeline", "budget", "trainer", "callbacks", "logger", "paths"]
)
def test_every_key_has_an_explanation(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        said = usage._inherited(CONF / group, path.stem)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"{group}={path.stem}"])
        keys = [key for key, _ in usage.flat(OmegaConf.to_container(cfg[group], resolve=False))]
        assert not [key for key in keys if key not in said], path


def test_comments_are_read_from_beside_their_keys() -> None:
    text = """# @package _global_
# First of two. Second one.
defaults:
  - demo
name: a  # in tables
split:   # of faces
  val: 0.1   # a share,
             # of groups
  test: 0.2
# no key's
  unseen: ["#1"]  # what for
root: ${a:b}
last: 1  # of all
"""
    assert usage.headline(text) == "First of two."
    assert usage.remarks(text) == {
        "name": "in tables",
        "split": "of faces",
        "split.val": "a share, of groups",
        "split.unseen": "what for",
        "last": "of all",
    }
    assert usage.headline("# By Zhang et al. 2019, 4 blocks\n# and\nname: x\n") == "By Zhang et al. 2019, 4 blocks and"
    assert usage.headline("name: x  # y\n") == ""


def test_a_choice_has_the_comments_of_those_that_it_builds_on(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("a: 1  # one\nb: 2  # two\n")
    (tmp_path / "own.yaml").write_text("defaults:\n  - base\n  - _self_\n\nb: 3  # three\n")
    (tmp_path / "brief.yaml").write_text("defaults: [own, _self_]\nc: 4\n")
    assert usage._inherited(tmp_path, "brief") == {"a": "one", "b": "three"}
    assert usage._inherited(tmp_path, "another_librarys") == {}
