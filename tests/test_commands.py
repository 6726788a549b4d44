"""The commands as people run them: a fresh process, its exit code, its words. Slow: each starts torch."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fakegan.config import PROJECT

from .conftest import smooth_faces

pytestmark = pytest.mark.slow


def _command(script: str, *words: str, cwd: Path) -> list[str]:
    fresh = script == "train.py" and not any(word.startswith("resume=") for word in words)
    paths = [f"paths.{kind}_dir={cwd / kind}" for kind in ("artifact", "data")] if fresh else []
    return [sys.executable, str(PROJECT / script), *words, *paths]


def _run(script: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": ""}
    command = _command(script, *words, cwd=cwd)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def _run_module(module: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", module, *words]
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
    folders = sorted(p.name[2:] for p in (tmp_path / "sweep").glob("?_*"))
    assert [name.removesuffix("_simple_cnn_s1") for name in folders] == [
        "classify_autogan1",  # at depth 4 it would be the same run again
        "recon_classify_autogan1",
        "recon_classify_autogan4",
    ]
    assert "repeats 0_classify_autogan1_simple_cnn_s1: what is swept has no effect on it" in result.stdout
    assert len(list((tmp_path / "artifact" / "autoencoder").glob("autogan*"))) == 2
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert "Does depth matter?" in result.stdout
    again = _run("train.py", *words, *own_faces, cwd=tmp_path)  # the way to go on with a sweep that was stopped
    assert again.returncode == 0, again.stderr
    assert "job 0 goes on with 0_classify_autogan1_simple_cnn_s1" in again.stdout
    assert again.stdout.count("had finished already") == 4
    assert "training" not in again.stdout


def test_a_failed_job_stops_neither_the_others_nor_the_report(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    words = ("-m", "pipeline=classify", "classifier.learning_rate=1e-3,1e30", "classifier.optimizer=sgd")
    result = _run("train.py", *words, *own_faces, f"hydra.sweep.dir={tmp_path / 'sweep'}", cwd=tmp_path)
    assert result.returncode == 1
    assert "job 1 failed" in result.stderr
    assert (tmp_path / "sweep" / "report.html").is_file()


def test_the_second_experiment_is_one_command_and_ends_in_a_report(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    """Three classifiers on one autoencoder; then two of them side by side, and a generator's samples as a source."""
    sweep = tmp_path / "sweep"
    result = _run("train.py", "-m", "+experiment=paper_exp2", *own_faces, f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list(sweep.glob("*/metrics.json"))) == 3
    assert result.stdout.count("autoencoder: training") == 1
    for name in ("report.html", "report.md"):
        assert "generalise" in (sweep / name).read_text()
    cnn, dcgan = (next(sweep.glob(f"*_{name}_s1")) for name in ("simple_cnn", "dcgan"))
    words = (f"runs=[{cnn},{dcgan}]", f"out={tmp_path / 'pair'}")
    compared = _run("evaluate.py", *words, cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "pair" / "comparison.json").is_file()
    samples = tmp_path / "samples"
    sampled = _run_module("fakegan.sample", "--run", str(dcgan), "--count", "12", "--out", str(samples), cwd=tmp_path)
    assert sampled.returncode == 0, sampled.stderr
    assert len(list(samples.glob("*.png"))) == 12
    prepared = _run_module(
        "fakegan.prepare", "--fake", f"own={samples}", "--out", str(tmp_path / "store"), cwd=tmp_path
    )
    assert prepared.returncode == 0, prepared.stderr
    scored = _run("evaluate.py", f"run={cnn}", "data=faces", f"data.root={tmp_path / 'store'}", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "own (fake)" in scored.stdout


def test_predict_gives_the_scores_of_evaluate(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    run_dir = tmp_path / "run"
    trained = _run("train.py", "pipeline=recon_classify", *own_faces, f"hydra.run.dir={run_dir}", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    rng = np.random.default_rng(3)
    for source, board in (("camera", 0.0), ("gan", 12.0)):
        (tmp_path / source).mkdir()
        for i, pixels in enumerate(smooth_faces(5, rng, board)):
            Image.fromarray(pixels).resize((90, 90)).save(tmp_path / source / f"{i}.jpg")
    words = ("--real", f"camera={tmp_path / 'camera'}", "--fake", f"gan={tmp_path / 'gan'}")
    prepared = _run_module("fakegan.prepare", *words, "--out", str(tmp_path / "store"), cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    evaluated = _run("evaluate.py", f"run={run_dir}", "data=faces", f"data.root={tmp_path / 'store'}", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    rows = ("camera", "gan", "--format", "csv", "--run", str(run_dir))
    predicted = _run_module("fakegan.predict", *rows, cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    ours = {Path(row["file"]): float(row["score"]) for row in csv.DictReader(predicted.stdout.splitlines())}
    with next((run_dir / "evaluations").glob("*/scores.csv")).open() as file:
        theirs = {Path(row["file"]): float(row["score"]) for row in csv.DictReader(file)}
    assert len(ours) == 10
    for path, score in theirs.items():
        assert ours[path] == pytest.approx(score, abs=1e-6), path


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
    _refused(_run("evaluate.py", cwd=tmp_path), 2, "run=DIR", "'runs=[DIR,DIR]'")
    _refused(_run("evaluate.py", "runs=[nowhere]", cwd=tmp_path), 2, "no run at nowhere")


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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs, and inherited
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
    assert {**ours, "command": ""} == {**theirs, "command": ""}
    assert "resume=" in ours["command"]
