"""What SLURM says to a job, and what the job asks of SLURM; scontrol is played."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakegan.runs.claim import Claim, Claiming
from fakegan.runs.folder import CONFIG_FILE
from fakegan.system import processes, slurm
from fakegan.system.places import PROJECT
from tests.helpers import be_job_17, begin


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return be_job_17(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ({}, "requeue 17\n"),
        ({"SLURM_PROCID": "0"}, "requeue 17\n"),
        ({"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, "requeue 9_3\n"),
        ({"SLURM_PROCID": "1"}, None),  # the first of srun's processes asks
        ({"RANK": "1", "SLURM_PROCID": "0"}, None),
        ({"FAKEGAN_PARENT": str(os.getppid())}, None),  # the one that started it asks, once all have saved
    ],
)
def test_one_process_of_a_job_asks_for_the_queue(
    job: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, str], asked: str | None
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        slurm.requeue(signal.SIGUSR1)
    assert ended.value.code == processes.REQUEUED
    assert (job.read_text() if job.exists() else None) == asked


@pytest.mark.parametrize(
    ("shown", "place", "asked", "code"),
    [
        ("JobState=RUNNING Restarts=0 PreemptTime=2026-11-30T06:44:04", {}, "requeue 17\n", processes.REQUEUED),
        ("JobState=RUNNING Restarts=0 PreemptTime=None", {}, None, 143),  # somebody's kill
        ("JobState=COMPLETING Restarts=0 PreemptTime=None", {}, None, 143),  # scancel
        ("JobState=COMPLETING Restarts=0 PreemptTime=2026-11-30T06:44:04", {}, None, 143),  # cancelled in its grace
        ("JobState=COMPLETING Restarts=1 EndTime=Unknown", {}, None, processes.REQUEUED),  # without a time of grace
        ("JobState=COMPLETING Restarts=1", {"SLURM_RESTART_COUNT": "1"}, None, 143),  # cancelled in its second start
        ("", {}, None, 143),
    ],
)
def test_a_sigterm_is_a_preemption_or_an_end(
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shown: str,
    place: dict[str, str],
    asked: str | None,
    code: int,
) -> None:
    """What SLURM 22.05 shows of a job in these moments; in a time of grace, a job that ends has ended for good."""
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "shown").write_text(f"JobId=17 JobName=wrap {shown} Requeue=1\n")
    with pytest.raises(SystemExit) as ended:
        slurm.requeue(signal.SIGTERM)
    assert ended.value.code == code
    assert (job.read_text() if job.exists() else None) == asked


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_a_job_that_makes_room_while_it_loads_its_libraries_is_requeued(job: Path, tmp_path: Path, script: str) -> None:
    (tmp_path / "shown").write_text("JobState=RUNNING Restarts=0 PreemptTime=2026-11-30T06:44:04\n")
    (tmp_path / "omegaconf.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    done = subprocess.run([sys.executable, PROJECT / script], env=environment, capture_output=True, check=False)
    assert (done.returncode, job.exists()) == (processes.REQUEUED, True), done.stderr


def test_where_slurm_refuses_the_exit_code_says_so(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(job.parent))  # without scontrol
    with pytest.raises(SystemExit) as ended:
        slurm.requeue(signal.SIGUSR1)
    assert ended.value.code == 128 + signal.SIGUSR1


def test_a_job_that_is_started_again_finds_its_run_though_the_clock_has_moved(
    job: Path, tmp_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin(store_path, tmp_path / "at_noon", "pipeline=classify", f"paths.artifact_dir={tmp_path}")
    begin(store_path, tmp_path / "next", "pipeline=classify", "seed=3", f"paths.artifact_dir={tmp_path}")  # its second
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    fixed = begin(store_path, tmp_path / "next", "pipeline=classify", "seed=3", f"paths.artifact_dir={tmp_path}")
    assert fixed.paths.run_dir == tmp_path / "next"
    monkeypatch.setattr(Claiming, "claim", Claim.on(tmp_path / "at_one", automatic=False))
    again = begin(store_path, tmp_path / "at_one", "pipeline=classify", f"paths.artifact_dir={tmp_path}")
    assert again.paths.run_dir == first.paths.run_dir
    assert not (tmp_path / "at_one").exists()
    other = begin(store_path, tmp_path / "at_two", "pipeline=classify", "seed=2", f"paths.artifact_dir={tmp_path}")
    assert other.paths.run_dir == tmp_path / "at_two"  # other words: another run
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert begin(store_path, tmp_path / "at_three", "pipeline=classify").paths.run_dir == tmp_path / "at_three"


def test_elsewhere_nothing_is_noted(tmp_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    begin(store_path, tmp_path / "run", "pipeline=classify")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / CONFIG_FILE).is_file()


def test_several_processes_save_before_the_one_that_started_them_asks(
    job: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They hear the signal that this one gets, whenever it comes: here before they can answer."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(PROJECT)!r})
from fakegan.system import processes, slurm
slurm.requeue_when_told()
if os.environ["RANK"] == "0":
    os.kill(os.getppid(), signal.SIGUSR1)
while signal.SIGUSR1 not in signal.sigpending():
    pass
assert not os.path.exists({str(job)!r})
open({str(tmp_path)!r} + "/saved_" + os.environ["RANK"], "w").close()
processes.unblock_signals()
"""
    before = signal.getsignal(signal.SIGUSR1)
    slurm.requeue_when_told()
    try:
        with pytest.raises(SystemExit) as ended:
            processes.run_ranks([sys.executable, "-c", program], 2, tmp_path)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    assert ended.value.code == processes.REQUEUED
    assert job.read_text() == "requeue 17\n"
    assert sorted(path.name for path in tmp_path.glob("saved_*")) == ["saved_0", "saved_1"]
    assert capfd.readouterr().err.count("is in the queue again") == 1
