"""The commands as people run them: a fresh process, its exit code, its words. Slow: each starts torch."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fakegan.runs.folder import JOBS_FILE
from fakegan.system.places import PROJECT
from tests.helpers import csv_rows, run_script, smooth_faces

pytestmark = pytest.mark.slow


def _run(script: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    fresh = script == "train.py" and not any(word.startswith("resume=") for word in words)
    paths = [f"paths.{kind}_dir={cwd / kind}" for kind in ("artifact", "data")] if fresh else []
    return run_script(script, *words, *paths, cwd=cwd)


def _done(script: str, *words: str, cwd: Path) -> str:
    """What a command that succeeds prints."""
    result = _run(script, *words, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


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
    trained = _done("train.py", *words, cwd=tmp_path)
    assert "demo_transposed (fake)" in trained
    assert "validation AUROC" in trained
    _done("evaluate.py", f"run={run_dir}", cwd=tmp_path)
    scores = next((run_dir / "evaluations").glob("*/scores.csv"))
    assert scores.read_bytes() == (run_dir / "scores.csv").read_bytes()
    again = _run("train.py", *words, cwd=tmp_path)
    _refused(again, 2, "holds a run already", "resume=")


def _sweep(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _run("train.py", "-m", *words, f"hydra.sweep.dir={cwd / 'sweep'}", cwd=cwd)


def test_a_sweep_runs_every_combination_side_by_side_and_trains_each_autoencoder_once(
    tmp_path: Path, own_faces: tuple[str, ...]
) -> None:
    """Eight jobs: depth has no effect on one of the four pipelines, so that seven run."""
    words = ("model=autogan1,autogan4", "pipeline=classify,recon_classify,residual_classify,stack_classify", *own_faces)
    result = _sweep(tmp_path, *words, "hydra.launcher.jobs=2")
    assert result.returncode == 0, result.stderr
    sweep = tmp_path / "sweep"
    assert [row["state"] for row in csv_rows(sweep / JOBS_FILE)] == [*["finished"] * 4, "repeats 0", *["finished"] * 3]
    same = "job 4 is the same run as 0_classify_alexnet_s1: what is swept has no effect on it"
    assert same in result.stdout
    logs = {path.parent.name: path.read_text() for path in sweep.glob("*/log.txt")}
    assert len(logs) == 7
    for depth in (1, 4):
        training = [name for name, log in logs.items() if f"autoencoder: training autogan{depth}" in log]
        assert len(training) == 1, training
    assert "hydra.sweep.dir" not in (sweep / "command.txt").read_text()
    metrics = json.loads((sweep / "1_recon_classify_autogan1_alexnet_s1" / "metrics.json").read_text())
    assert metrics["command"].startswith("train.py model=autogan1 pipeline=recon_classify data=faces")
    assert (sweep / "report.html").is_file()
    assert "Does depth matter?" in result.stdout
    _refused(_sweep(tmp_path, *words), 2, "holds a sweep already", "resume=true")
    _refused(_run("train.py", f"resume={sweep}", cwd=tmp_path), 2, "train.py -m model=autogan1,autogan4", "resume=true")
    again = _sweep(tmp_path, *words, "resume=true")
    assert again.returncode == 0, again.stderr
    assert "jobs finished before: 7" in again.stdout
    assert " starts" not in again.stdout
    assert [row["seconds"] for row in csv_rows(sweep / JOBS_FILE)].count("") == 1  # what they had taken is still known


def test_a_failed_job_stops_neither_the_others_nor_the_report(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    words = ("pipeline=classify", "classifier.optimizer.lr=1e30,1e-3", "classifier.optimizer._target_=torch.optim.SGD")
    result = _sweep(tmp_path, *words, *own_faces)
    assert result.returncode == 1
    assert "job 0 (classifier.optimizer.lr=1e+30) failed after" in result.stdout
    assert result.stdout.index("  | error: ") < result.stdout.index("job 1 starts")  # at once
    assert [row["state"] for row in csv_rows(tmp_path / "sweep" / JOBS_FILE)] == ["failed", "finished"]
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert "1 of 2 jobs failed" in result.stderr


def test_a_combination_that_cannot_be_is_a_failed_job_and_the_others_run(
    tmp_path: Path, own_faces: tuple[str, ...]
) -> None:
    result = _sweep(tmp_path, "pipeline=classify", "seed=-1,1", *own_faces)
    assert result.returncode == 1
    assert "job 0 failed: seed=-1 must be 0 or more" in result.stdout
    assert [row["state"] for row in csv_rows(tmp_path / "sweep" / JOBS_FILE)] == ["failed", "finished"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-m", "seed=-1,-2"), ("seed=-1 must be 0 or more",)),
        (("-m", "seed=1,2", "data=faces"), ("data.root must be given",)),
        (("-m", "seed=1,2", "hydra.launcher.jobs=0"), ("hydra.launcher.jobs=0",)),
        (("-m", "seed=1,2", "resume=somewhere"), ("resume=true",)),
        (("-m", "seed=1,2", "resume=true"), ("hydra.sweep.dir=DIR",)),
        (("-m", "seed=1,2", "hydra/launcher=basic"), ("choose processes (the default), slurm or slurm_local",)),
        (("resume=true",), ("-m", "hydra.sweep.dir=DIR")),
    ],
)
def test_what_a_wrong_sweep_gets(tmp_path: Path, words: tuple[str, ...], expected: tuple[str, ...]) -> None:
    _refused(_run("train.py", *words, cwd=tmp_path), 2, *expected)
    assert not list((tmp_path / "outputs").glob("*")), "a refused sweep left a directory"


def test_a_sweep_does_not_start_within_a_run_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    _refused(_run("train.py", "-m", "seed=1,2", cwd=tmp_path), 2, "without torchrun")


def _until(is_so: Callable[[], bool], job: subprocess.Popen[bytes]) -> None:
    while not is_so() and job.poll() is None:
        time.sleep(0.05)
    assert is_so()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, own_faces: tuple[str, ...], number: signal.Signals
) -> None:
    """Stopped while its second job trains; the first has finished, the third has not begun."""
    sweep = tmp_path / "sweep"
    long = ("budget.classifier.max_epochs=20,100,21", "callbacks.early_stopping.patience=999")
    words = ("pipeline=classify", *long, *own_faces)
    places = [f"paths.{kind}_dir={tmp_path / kind}" for kind in ("artifact", "data")]
    command = [sys.executable, str(PROJECT / "train.py"), "-m", *words, *places, "hydra.sweep.dir=sweep"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        started = sweep / "1_classify_alexnet_s1"
        _until((started / "classifier" / "checkpoints" / "last.ckpt").exists, job)
        job.send_signal(number)
        stderr = job.communicate()[1].decode()
    finished = sweep / "0_classify_alexnet_s1" / "metrics.json"
    before = finished.stat().st_mtime_ns
    if number != signal.SIGKILL:
        assert job.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert "resume=true hydra.sweep.dir=sweep" in stderr
        assert [row["state"] for row in csv_rows(sweep / JOBS_FILE)] == ["finished", "stopped", "stopped"]
    resumed = _sweep(tmp_path, *words, "resume=true", "hydra.launcher.jobs=2")
    assert resumed.returncode == 0, resumed.stderr
    assert "jobs finished before: 1; begun before and resumed now: 1" in resumed.stdout
    assert [row["state"] for row in csv_rows(sweep / JOBS_FILE)] == ["finished"] * 3
    assert finished.stat().st_mtime_ns == before
    epochs = [int(line.split()[2].split("/")[0]) for line in _epoch_lines(started / "log.txt")]
    assert epochs.count(1) == 1, "it began anew"
    assert epochs[-1] == 100


def _epoch_lines(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("classifier epoch ")]


def test_the_second_experiment_is_one_command_and_ends_in_a_report(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    """Three classifiers on one autoencoder; then two of them side by side, and a generator's samples as a source."""
    sweep, samples = tmp_path / "sweep", tmp_path / "samples"
    _done("train.py", "-m", "+experiment=paper_exp2", *own_faces, f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert len(list(sweep.glob("*/metrics.json"))) == 3
    assert sum(log.read_text().count("autoencoder: training") for log in sweep.glob("*/log.txt")) == 1
    for name in ("report.html", "report.md"):
        assert "generalise" in (sweep / name).read_text()
    cnn, dcgan = (next(sweep.glob(f"*_{name}_s1")) for name in ("simple_cnn", "dcgan"))
    _done("evaluate.py", f"runs=[{cnn},{dcgan}]", f"out={tmp_path / 'pair'}", cwd=tmp_path)
    assert (tmp_path / "pair" / "comparison.json").is_file()
    _done("fakegan/sample.py", "--run", str(dcgan), "--count", "12", "--out", str(samples), cwd=tmp_path)
    assert len(list(samples.glob("*.png"))) == 12
    _done("fakegan/prepare.py", "--fake", f"own={samples}", "--out", str(tmp_path / "store"), cwd=tmp_path)
    scored = _done("evaluate.py", f"run={cnn}", "data=faces", f"data.root={tmp_path / 'store'}", cwd=tmp_path)
    assert "own (fake, unseen)" in scored


def test_predict_gives_the_scores_of_evaluate(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    run_dir = tmp_path / "run"
    _done("train.py", "pipeline=recon_classify", *own_faces, f"hydra.run.dir={run_dir}", cwd=tmp_path)
    rng = np.random.default_rng(3)
    for source, board in (("camera", 0.0), ("gan", 12.0)):
        (tmp_path / source).mkdir()
        for i, pixels in enumerate(smooth_faces(5, rng, board)):
            Image.fromarray(pixels).resize((90, 90)).save(tmp_path / source / f"{i}.jpg")
    words = ("--real", f"camera={tmp_path / 'camera'}", "--fake", f"gan={tmp_path / 'gan'}")
    _done("fakegan/prepare.py", *words, "--out", str(tmp_path / "store"), cwd=tmp_path)
    _done("evaluate.py", f"run={run_dir}", "data=faces", f"data.root={tmp_path / 'store'}", cwd=tmp_path)
    predicted = _done("fakegan/predict.py", "camera", "gan", "--format", "csv", "--run", str(run_dir), cwd=tmp_path)
    ours = {Path(row["file"]): float(row["score"]) for row in csv.DictReader(predicted.splitlines())}
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
        (("model.dept=2",), 2, ("model.dept is not a config key", "model.net.depth")),
        (("trainer=gpu",), 2, ("GPU", "trainer=cpu")),
        (("resume=nowhere",), 2, ("resume=nowhere", "no run in such a folder")),
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
    own = tmp_path / "faces"
    shutil.copytree(store_path, own)

    def train(*words: str) -> subprocess.CompletedProcess[str]:
        return _run("train.py", *own_faces, f"data.root={own}", *words, cwd=tmp_path)

    _refused(train("budget.classifier.batch_size=5000", "pipeline=classify"), 2, "budget.classifier.batch_size=5000")
    _refused(train("data.split.unseen=[gan_a,gan_b]"), 2, "train", "fake")
    _refused(train("data.split.test=0"), 2, "test")
    _refused(train("data.split.unseen=[gan_c]"), 2, "gan_c", "gan_a")
    manifest = own / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 9'))
    _refused(train(), 1, "manifest.json", "9")


def test_a_quiet_command_prints_its_result_and_its_errors_alone(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    words = ("pipeline=classify", "protocol=study", *own_faces, "hydra.run.dir=run")
    quiet = _run("train.py", "-q", *words, cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "validation AUROC" in quiet.stdout
    assert "protocol=study changes nothing" not in quiet.stdout
    _refused(_run("evaluate.py", "run=nowhere", "--quiet", cwd=tmp_path), 2, "nowhere is not a run")
    _refused(
        _run("fakegan/predict.py", "-q", "--run", "nowhere", "face.png", cwd=tmp_path), 2, "face.png does not exist"
    )


def test_a_run_without_checkpoints_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    _refused(_run("evaluate.py", "run=run", cwd=tmp_path), 2, "run is not a run")
    _refused(_run("evaluate.py", cwd=tmp_path), 2, "run=DIR", "'runs=[DIR,DIR]'")
    _refused(_run("evaluate.py", "runs=[nowhere]", cwd=tmp_path), 2, "no run at nowhere")
