"""A run's config.yaml and a search's best trial from elsewhere, and values that ask for too much."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fakegan.data.batches import flips
from fakegan.data.draws import face_keys
from fakegan.errors import UsageError
from fakegan.runs.config_file import read_run
from fakegan.runs.folder import BEST_FILE
from fakegan.sweep.search import closing_words
from fakegan.system.places import PROJECT
from tests.conftest import Compose
from tests.hostile.conftest import put_text, refused


def refuse_config(run_dir: Path, why: str) -> None:
    refused(lambda: read_run(str(run_dir)), "config.yaml", why)


@pytest.mark.parametrize(
    ("text", "instead_of", "why"),
    [
        ("hostile: {{_target_: os.mkdir, path: {marker}}}", "", r"hostile\._target_ is not a config key"),
        ("paths:\n  _target_: os.mkdir", "paths:", "paths._target_ is not a config key"),
        ("hostile: !!python/object/apply:os.mkdir [{marker}]", "", "has a tag in line"),
        ("hostile: !!python/name:os.mkdir", "", "has a tag in line"),
    ],
)
def test_a_config_that_names_code_runs_nothing(
    run_dir: Path, marker: Path, text: str, instead_of: str, why: str
) -> None:
    put_text(run_dir, text.format(marker=marker), instead_of)
    refuse_config(run_dir, why)


@pytest.mark.parametrize("text", ["${CALL}", r'"\x24{CALL}"', "a${CALL}"])
@pytest.mark.parametrize("call", ["touch:", "oc.env:FAKEGAN_SECRET", "oc.decode:${oc.env:FAKEGAN_SECRET}", "seed"])
def test_a_config_resolves_nothing(
    run_dir: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, text: str, call: str
) -> None:
    monkeypatch.setenv("FAKEGAN_SECRET", "autogan4")
    OmegaConf.register_new_resolver("touch", lambda: marker.mkdir() or "autogan4", replace=True)
    put_text(run_dir, f"name: {text.replace('CALL', call)}", "name: autogan4")
    refuse_config(run_dir, "has an interpolation in line")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]", "has an alias in line"),
        ("a: &a [*a]", "has an alias in line"),
        (f"# {'x' * 100_000}", "has more than 100 kB"),
        (f"a: {'[' * 50_000}", "has too many brackets in line"),
        ("? " * 40_000, "has too many brackets in line"),
        ('"\\e]0;owned\\a": 1', "has a control character in line"),
        (f"a: {'9' * 5000}", "damaged: Exceeds the limit"),
        (f"? {'x' * 50_000}\n: 1", "xxx; it may be of another version"),
        ("\x1b[2J: 1", "special characters are not allowed"),
    ],
)
def test_a_config_that_would_take_memory_or_the_terminal_is_one_sentence(run_dir: Path, text: str, why: str) -> None:
    put_text(run_dir, text)
    refuse_config(run_dir, why)


@pytest.mark.parametrize(
    ("text", "instead_of", "why"),
    [
        ("view: __class__", "view: reconstruction", r"pipeline\.view='__class__' does not exist"),
        ("fakes: os.system", "fakes: generated", r"pipeline\.fakes='os\.system' must be generated or"),
        ("accelerator: tpu", "accelerator: auto", r"trainer\.accelerator='tpu' must be auto or"),
        ("autoencoder_share: 1" + "0" * 400, "autoencoder_share: null", "int too large"),
        ("name: ../../../.ssh/x", "name: autogan4", r"model\.name='\.\./.*must be a short name"),
        ("name: a\\b", "name: alexnet", r"classifier\.name=.*must be a short name"),
        ("name: <script>", "name: recon_classify", r"pipeline\.name='<script>' must be a short name"),
        ("name: " + "x" * 65, "name: quick", r"budget\.name='x*.? must be a short name"),
        ("name: -rf", "name: faces", r"data\.name='-rf' must be a short name"),
        ("name: a\u202eb", "name: faces", r"data\.name=.*must be a short name"),
        (f"seed: 0x{'f' * 20_000}", "seed: 1", "seed=0xffff"),
        (f"seed: -0x{'f' * 20_000}", "seed: 1", "seed=-0xffff"),
    ],
)
def test_a_value_in_a_config_is_a_known_or_harmless_name(run_dir: Path, text: str, instead_of: str, why: str) -> None:
    put_text(run_dir, text, instead_of)
    refuse_config(run_dir, why)


@pytest.mark.parametrize("name", ["marked_classify", "mine + 4", "gän-1.5", "x" * 64])
def test_peoples_own_names_go_on_working(compose_settings: Compose, name: str) -> None:
    assert compose_settings(f"pipeline.name='{name}'").pipeline.name == name


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate.py run={run}", "train.py resume={run}", "evaluate.py runs=[{run}]"])
def test_a_command_on_a_hostile_run_says_so_and_does_nothing(run_dir: Path, marker: Path, command: str) -> None:
    put_text(run_dir, f"hostile: !!python/object/apply:os.mkdir [{marker}]")
    script, argument = command.format(run=run_dir).split()
    argv = [sys.executable, str(PROJECT / script), argument]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {run_dir / 'config.yaml'} has a tag in line")
    assert [path.name for path in run_dir.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("key", ["seed", "data.demo_seed", "data.split.seed"])
@pytest.mark.parametrize("value", [str(2**64), str(10**30), "-1", str(-(10**30))])
def test_a_seed_that_no_generator_takes_is_one_sentence(compose_settings: Compose, key: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{key}={value} must be 0 or more, and below 2"):
        compose_settings(f"{key}={value}")


def test_the_largest_seed_is_taken(compose_settings: Compose) -> None:
    settings = compose_settings(*(f"{key}={2**64 - 1}" for key in ("seed", "data.demo_seed", "data.split.seed")))
    torch.manual_seed(settings.seed)
    assert flips(face_keys(np.arange(100), settings.seed, 0).numpy()).any()
    assert settings.data.split.seed == settings.data.demo_seed == settings.seed


def test_a_config_cannot_ask_for_more_processes_than_there_are_cores(compose_settings: Compose) -> None:
    with pytest.raises(UsageError, match=r"trainer\.devices=20000, but this machine has \d+ cores"):
        _ = compose_settings("trainer.devices=20000").trainer.processes
    assert compose_settings("trainer=ddp_cpu").trainer.processes == 2
    with pytest.raises(UsageError, match=r"data\.workers=50000 must be a number from 0 to 64"):
        compose_settings("data.workers=50000")


@pytest.mark.parametrize(
    "text",
    [
        "words: [x]\ntrials: 1\nfailed: 0\nobjective: 1.0\nrun: ${oc.env:HOME}\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        'words: ["\\e[2J"]\n',
        "words: [x\n",
        "words: 3\ntrials: 1\nfailed: 0\nobjective: 1.0\nrun: a\n",
        "words: [x]\n",
    ],
)
def test_a_searchs_best_trial_from_elsewhere_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / BEST_FILE).write_text(text)
    refused(lambda: closing_words(tmp_path), BEST_FILE, "damaged|which train.py never writes")
