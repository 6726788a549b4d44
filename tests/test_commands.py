"""The commands as people run them: a fresh process, its exit code, its words. Slow: each starts torch."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fakegan.runs.folder import JOBS_FILE
from fakegan.system.places import PROJECT
from tests.helpers import csv_rows, run_script

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


def test_one_by_one_finds_the_generators_and_trains_one_autoencoder_for_all(
    tmp_path: Path, own_faces: tuple[str, ...]
) -> None:
    words = ("+experiment=one_by_one", "model=autogan1", "classifier=simple_cnn", *own_faces)
    result = _sweep(tmp_path, *words)
    assert result.returncode == 0, result.stderr
    sweep = tmp_path / "sweep"
    found = [re.search(r"learn_from=\[(\w+)\]", row["words"]) for row in csv_rows(sweep / JOBS_FILE)]
    assert [name and name[1] for name in found] == ["gan_a", "gan_b"]
    logs = [path.read_text() for path in sweep.glob("*/log.txt")]
    assert sum("autoencoder: training autogan1" in log for log in logs) == 1
    assert "recon_classify · autogan1 · simple_cnn budget=debug: AUROC; * never seen" in result.stdout
    cells = {(row["learnt_from"], row["generator"]): row["unseen"] for row in csv_rows(sweep / "held_out.csv")}
    assert cells["gan_a alone", "gan_b"] == cells["gan_b alone", "gan_a"] == "yes"
    assert cells["gan_a alone", "gan_a"] == cells["gan_b alone", "gan_b"] == "no"
    again = _sweep(tmp_path, *words, "resume=true")
    assert again.returncode == 0, again.stderr
    assert "jobs finished before: 2" in again.stdout
    assert " starts" not in again.stdout


def test_jobs_that_fail_or_cannot_be_stop_neither_the_others_nor_the_report(
    tmp_path: Path, own_faces: tuple[str, ...]
) -> None:
    rates = ("classifier.optimizer.lr=1e30,1e-3", "classifier.optimizer._target_=torch.optim.SGD")
    result = _sweep(tmp_path, "pipeline=classify", "seed=-1,1", *rates, *own_faces)
    assert result.returncode == 1
    assert "job 0 failed: seed=-1 must be 0 or more" in result.stdout
    assert re.search(r"job 2 \(.*classifier\.optimizer\.lr=1e\+30\) failed after", result.stdout)
    assert result.stdout.index("  | error: ") < result.stdout.index("job 3 starts")  # at once
    assert [row["state"] for row in csv_rows(tmp_path / "sweep" / JOBS_FILE)] == [*["failed"] * 3, "finished"]
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert "3 of 4 jobs failed" in result.stderr


def test_a_sweep_does_not_start_within_a_run_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    _refused(_run("train.py", "-m", "seed=1,2", cwd=tmp_path), 2, "without torchrun")


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
        checkpoint = started / "classifier" / "checkpoints" / "last.ckpt"
        while not checkpoint.exists() and job.poll() is None:
            time.sleep(0.05)
        assert checkpoint.exists()
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
    epochs = re.findall(r"^classifier epoch (\d+)", (started / "log.txt").read_text(), re.MULTILINE)
    assert epochs.count("1") == 1, "it began anew"
    assert epochs[-1] == "100"


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


def test_a_run_that_is_refused_for_its_faces_or_its_hardware_leaves_no_folder(
    tmp_path: Path, own_faces: tuple[str, ...], store_path: Path
) -> None:
    later = tmp_path / "later"
    shutil.copytree(store_path, later)
    manifest = later / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 9'))
    _refused(_run("train.py", *own_faces, "data.root=nowhere", cwd=tmp_path), 2, "nowhere", "fakegan.prepare")
    _refused(_run("train.py", *own_faces, f"data.root={later}", cwd=tmp_path), 1, "manifest.json", "9")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        _refused(_run("train.py", "+debug=fast", "trainer=gpu", cwd=tmp_path), 2, "no GPU", "trainer=cpu")
    assert not list((tmp_path / "outputs").glob("*"))


def test_a_quiet_command_prints_its_result_alone(tmp_path: Path, own_faces: tuple[str, ...]) -> None:
    words = ("pipeline=classify", "protocol=study", *own_faces, "hydra.run.dir=run")
    quiet = _run("train.py", "-q", *words, cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "validation AUROC" in quiet.stdout
    assert "protocol=study changes nothing" not in quiet.stdout
