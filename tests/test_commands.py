"""The commands as people run them: a fresh process, its exit code, its words. Slow: each starts torch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fakegan.config import PROJECT

pytestmark = pytest.mark.slow


def _command(script: str, *words: str, cwd: Path) -> list[str]:
    fresh = script == "train.py" and not any(word.startswith("resume=") for word in words)
    paths = [f"paths.{kind}_dir={cwd / kind}" for kind in ("artifact", "data")] if fresh else []
    return [sys.executable, str(PROJECT / script), *words, *paths]


def _run(script: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": ""}
    command = _command(script, *words, cwd=cwd)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def _refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture
def own_faces(store_path: Path) -> tuple[str, str, str, str]:
    return ("data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu")


def test_train_and_evaluate_on_the_built_in_faces(tmp_path: Path) -> None:
    run_dir = tmp_path / "out"
    words = ("model=autogan4", "pipeline=recon_classify", "+debug=fast", f"hydra.run.dir={run_dir}")
    trained = _run("train.py", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "demo_transposed (fake)" in trained.stdout
    assert "validation AUROC" in trained.stdout
    evaluated = _run("evaluate.py", f"run={run_dir}", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    scores = next((run_dir / "evaluations").glob("*/scores.csv"))
    assert scores.read_bytes() == (run_dir / "scores.csv").read_bytes()
    again = _run("train.py", *words, cwd=tmp_path)
    _refused(again, 2, "holds a run already", "resume=")


def test_a_sweep_runs_every_combination(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    words = (
        "-m",
        "model=autogan1,autogan4",
        "pipeline=classify,recon_classify",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )
    result = _run("train.py", *words, *own_faces, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    finished = sorted(p.parent.name for p in (tmp_path / "sweep").glob("*/metrics.json"))
    assert len(finished) == 4
    assert len(list((tmp_path / "artifact" / "autoencoder").glob("autogan*"))) == 2


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("data=faces", "data.root=nowhere"), 2, ("nowhere", "fakegan.prepare")),
        (("model=autogan5",), 2, ("model=autogan5 does not exist", "autogan4")),
        (("model.dept=2",), 2, ("model.dept is not a config key", "model.depth")),
        (("trainer=gpu",), 2, ("gpu", "trainer=cpu")),
        (("resume=nowhere",), 2, ("nowhere is not a run",)),
        (("model.checkpoint=nowhere",), 2, ("nowhere does not exist", "autoencoder.pt")),
    ],
)
def test_what_bad_words_get(tmp_path: Path, words: tuple[str, ...], code: int, expected: tuple[str, ...]) -> None:
    if words == ("trainer=gpu",) and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("this machine has a GPU")
    debug = () if words[0].startswith("resume=") else ("+debug=fast",)
    result = _run("train.py", *debug, *words, cwd=tmp_path)
    _refused(result, code, *expected)
    outputs = tmp_path / "outputs"
    assert not list(outputs.glob("*")), "a refused run left a directory"


def test_what_a_bad_store_gets(tmp_path: Path, own_faces: tuple[str, ...], store_path: Path) -> None:
    def train(*words: str) -> subprocess.CompletedProcess[str]:
        return _run("train.py", *own_faces, *words, cwd=tmp_path)

    _refused(train("budget.classifier.batch_size=5000", "pipeline=classify"), 2, "budget.classifier.batch_size=5000")
    _refused(train("data.split.unseen=[gan_a,gan_b]"), 1, "train", "fake")
    _refused(train("data.split.test=0"), 1, "test")
    _refused(train("data.split.unseen=[gan_c]"), 2, "gan_c", "gan_a")
    manifest = store_path / "manifest.json"
    before = manifest.read_text()
    try:
        manifest.write_text(before.replace('"format_version": 1', '"format_version": 9'))
        _refused(train(), 1, "manifest.json", "9")
    finally:
        manifest.write_text(before)


def test_a_run_without_checkpoints_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    _refused(_run("evaluate.py", "run=run", cwd=tmp_path), 2, "run is not a run")
    _refused(_run("evaluate.py", cwd=tmp_path), 2, "run must be given")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    tmp_path: Path, own_faces: tuple[str, ...], number: signal.Signals
) -> None:
    """Stopped once its autoencoder has trained and its classifier has begun."""
    words = ("pipeline=recon_classify", "budget.classifier.max_epochs=40", "callbacks.patience=99", *own_faces)
    whole = _run("train.py", *words, f"hydra.run.dir={tmp_path / 'whole'}", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    run_dir = tmp_path / "stopped"
    command = _command("train.py", *words, f"hydra.run.dir={run_dir}", cwd=tmp_path)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        last = run_dir / "classifier" / "checkpoints" / "last.ckpt"
        deadline = time.monotonic() + 120
        while not last.exists() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert last.exists()
        job.send_signal(number)
        stderr = job.communicate(timeout=60)[1].decode()
    assert not (run_dir / "metrics.json").exists()
    if number != signal.SIGKILL:
        assert job.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert f"resume={run_dir.name}" in stderr
    resumed = _run("train.py", f"resume={run_dir}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (run_dir / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("stopped", "whole"))
    assert ours == theirs
