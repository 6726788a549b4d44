"""--help: what it says, how wide, and that neither it nor a refused command waits for torch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fakegan.cli import entry, usage
from fakegan.config.typed import flat, nearest
from fakegan.runs import compose as composing
from fakegan.runs.compose import CONF
from fakegan.system.places import PROJECT

GROUPS = ("data", "model", "classifier", "pipeline", "budget", "trainer", "callbacks", "logger", "paths")
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
    """A command, which says on stderr which heavy libraries it has loaded."""
    command = [sys.executable, "-c", _SCRIPT.replace("HEAVY", repr(HEAVY)), str(PROJECT / words[0]), *words[1:]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FAKEGAN_", "SLURM_"))}
    environment |= {"COLUMNS": str(columns), "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def _light(result: subprocess.CompletedProcess[str], code: int) -> list[str]:
    """The lines on stderr, of a command that ended with that code and without torch."""
    *said, loaded = result.stderr.splitlines()
    assert (result.returncode, loaded.strip()) == (code, "loaded:"), result.stderr
    return said


def _help_of(monkeypatch: pytest.MonkeyPatch, *words: str, columns: int = 100) -> str:
    """What train.py --help says beside some words, asked for in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "--help"])
    monkeypatch.setenv("COLUMNS", str(columns))
    composing.register_resolvers()
    shown = entry._shown("train", "One run.\n\npython train.py seed=2    # another seed\n", sweeps=True)
    assert shown is not None
    return shown


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
        keys = {key for key, _ in flat(OmegaConf.to_container(compose("train")))}
    assert {key for key in keys if not key.endswith("._partial_")} <= set(rows)
    only_in_signatures = {"data.split.val", "classifier.net.dropout", "model.pool_size", "trainer.devices"}
    assert only_in_signatures <= set(rows) - keys
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
        (("model=autogan5", "--help"), "model=autogan5 does not exist: did you mean autogan1 or autogan4?"),
        (("resume=nowhere",), "there is no run in such a folder"),
        (("--seed", "3"), "--seed is no option: config keys are written KEY=VALUE, without dashes; see --help"),
        (("resume=true",), "resume=true is for sweeps, with -m and hydra.sweep.dir=DIR"),
        (("run=nowhere", "--quiet"), "nowhere is not a run"),
        (("-m", "data=faces", "trainer=cpu", "seed=1,2"), "data.root must be given"),
        (("-m", "model=autogan1,autogan9"), "model=autogan9 does not exist: did you mean autogan1 or autogan4?"),
        (("-m", "seed=1,2", "resume=true"), "hydra.sweep.dir=DIR"),
        (("-m", "seed=1,2", "resume=outputs/a"), "resume=outputs/a resumes one run, without -m; resume=true resumes"),
        (("-m", "seed=1,2", "hydra/launcher=basic"), "choose processes (the default), slurm or slurm_local"),
        (("-m", "seed=1,2", "hydra.launcher.jobs=0"), "hydra.launcher.jobs=0"),
        (("-m", "seed=1,2", "hydra/launcher=slurm_local", "hydra.launcher.jobs_per_gpu=2"), "=processes, not of the"),
    ],
)
def test_what_is_refused_is_refused_in_a_sentence_and_before_torch_is_loaded(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    said = _light(_run(tmp_path, "evaluate.py" if words[0].startswith("run=") else "train.py", *words), 2)
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert sentence in said[0]
    assert not list(tmp_path.glob("outputs/*")), "a refused command left a folder"


@pytest.mark.parametrize("module", ["prepare", "predict", "export", "sample"])
def test_help_of_the_other_commands_does_not_wait_for_torch(tmp_path: Path, module: str) -> None:
    result = _run(tmp_path, f"fakegan/{module}.py", "--help")
    assert _light(result, 0) == []
    assert f"python -m fakegan.{module}" in result.stdout


def test_words_beside_help_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _help_of(monkeypatch)
    text = _help_of(monkeypatch, "-m", "model=autogan1", "classifier=simple_cnn", "seed=7", "budget=quick,paper")
    assert "* model=autogan4" in plain
    assert "* model=autogan1" in text
    assert _rows(plain)["model.net.depth"] == "4 residual blocks: the study's axis"
    assert _rows(text)["model.net.depth"] == "1 residual blocks: the study's axis"
    assert _rows(plain)["classifier.net.hidden"].startswith("1024")
    assert "classifier.net.hidden" not in _rows(text)
    assert "classifier.generator.latent" in _rows(_help_of(monkeypatch, "classifier=dcgan"))
    assert _rows(text)["seed"].startswith("7 of weights")
    assert "* budget=quick" in text  # several values: none of them


def test_values_are_what_they_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(_help_of(monkeypatch, "data=faces", "++budget.width=24", "++classifier.net.dropout=0.5"))
    assert rows["model.net.width"] == "24 channels at full size"  # ${budget.width}
    assert rows["classifier.net.dropout"].startswith("0.5 share of the units")
    assert rows["data.root"].startswith("must be given the folder given to prepare as --out")
    assert rows["model.checkpoint"].startswith("null a trained autoencoder.pt")
    assert rows["data.split.unseen"].startswith("[] sources, fake or real, that")
    assert rows["paths.run_dir"].startswith("this run's own folder")  # known when it runs


@pytest.mark.parametrize("choice", [(g, p.stem) for g in GROUPS for p in sorted((CONF / g).glob("*.yaml"))])
def test_every_option_has_an_explanation(monkeypatch: pytest.MonkeyPatch, choice: tuple[str, str]) -> None:
    """And what follows from elsewhere is none: channels, folders, metrics, stages. No line is too wide."""
    whole = _help_of(monkeypatch, "=".join(choice), columns=80)
    assert max(map(len, whole.splitlines())) <= 80
    text = whole.partition("KEY=VALUE:")[2].partition("\n\nFolders")[0]
    assert not re.search(r"\.(in_channels|out_channels|size|folder|monitor|mode|stage|_partial_) ", text)
    lines = [line for line in text.splitlines() if line.strip()]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        alone = re.fullmatch(r"  (\S+)( +\S+)?", line) is not None
        assert not alone or below.startswith("      ") or "._target_ " in line, line  # a library's class says it


def test_the_options_of_a_users_own_class_are_shown_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "help_of_mine.py").write_text(
        """raise SystemExit("imported")
class Mine(Net):
    def __init__(
        self,
        in_channels: int = 3,
        blocks: int = 3,  # of two convolutions,
        # with a sum around them
        rate: float = 2 * 0.25,  # computed
        **rest: int,
    ) -> None: ...
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = _rows(_help_of(monkeypatch, "classifier.net._target_=help_of_mine.Mine", "++classifier.net.size=5"))
    assert rows["classifier.net.blocks"] == "3 of two convolutions, with a sum around them"
    assert rows["classifier.net.rate"] == "computed"  # no plain value
    assert rows["classifier.net.size"] == "5"
    assert "classifier.net.in_channels" not in rows


def test_further_arguments_of_a_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(_help_of(monkeypatch).split())
    assert re.search(r"trainer\.NAME=VALUE, NAME one of strategy, .*gradient_clip_val", text)
    assert re.search(r"classifier\.optimizer\.NAME=VALUE, NAME one of betas, eps, ", text)
    assert "trainer.NAME=VALUE, NAME one of accelerator" not in text  # it has a row of its own


def test_a_choice_that_is_not_there_gets_the_one_that_is() -> None:
    assert nearest("resnet", ["alexnet", "dcgan", "resnet18", "simple_cnn"]) == "did you mean resnet18?"
    assert nearest("vgg", ["alexnet", "dcgan"]) == "choose one of alexnet, dcgan"


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
