"""A sweep and a job of sbatch's on a real SLURM, where they are preempted, held, suspended, killed, and stopped.

One sweep of four jobs, each of which would train for hours, goes through all trials in their order. Conditions are
waited for; no clock decides but where something would hang.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakegan.runs.status import read_status
from fakegan.system.places import PROJECT

from . import own
from .own import asked

pytestmark = pytest.mark.slurm
_LONG = 150  # seconds for what takes some ten: then it hangs
_TRAINING = ("pipeline=classify", "+debug=fast", "budget.classifier.max_epochs=1000000")
_CPU = ("partition=null", "gpus_per_node=0", "cpus_per_task=3", "mem_gb=2")


@dataclass(frozen=True)
class Place:
    """A SLURM, and a folder that its nodes see."""

    folder: Path
    ours: bool  # we are its operator


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0:
        folder = PROJECT / "outputs" / f"slurm_trial_{os.getpid()}"
        folder.mkdir(parents=True)
        yield Place(folder, ours=False)
        shutil.rmtree(folder)
        return
    reason = own.why_not()
    if reason:
        pytest.skip(f"no SLURM here: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # short, for sockets
    folder.chmod(0o755)  # munge insists
    with own.OwnSlurm(folder / "own"):
        yield Place(folder, ours=True)
    shutil.rmtree(folder)


class Trial:
    """The sweep's command, and the job that sbatch was given."""

    def __init__(self, place: Place, store: Path) -> None:
        self.sweep = place.folder / "sweep"
        self.said = place.folder / "said.txt"
        self.log = place.folder / "sbatch.log"  # of sbatch's job
        self.run = place.folder / "run"  # of sbatch's job
        train = [sys.executable, str(PROJECT / "train.py")]
        words = [*_TRAINING, "data=faces", f"data.root={store}", "callbacks.early_stopping.patience=1000000"]
        launched = ["hydra/launcher=slurm", *(f"hydra.launcher.{word}" for word in _CPU)]
        command = [*train, "-m", *launched, *words, "trainer=cpu", "seed=1,2,3,4", f"hydra.sweep.dir={self.sweep}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"OMP_NUM_THREADS": "1"}
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                command, cwd=place.folder, env=environment, stdout=said, stderr=said, start_new_session=True
            )
        # docs/clusters.md's line, on the CPUs of both nodes
        line = ["sbatch", "--parsable", "--requeue", "--signal=USR1@120", "--nodes=2", "--ntasks-per-node=1"]
        wrapped = " ".join(["srun", *train, *words, "trainer=ddp_cpu", f"hydra.run.dir={self.run}"])
        if place.ours:
            environment["MASTER_ADDR"] = "127.0.0.1"  # the nodes' names are known to SLURM only
        own_words = [f"--output={self.log}", "--open-mode=append", f"--chdir={place.folder}", f"--wrap={wrapped}"]
        self.single = subprocess.run(
            [*line, *own_words], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
        wait_for("the sweep's jobs in the queue", lambda: len(self.names()) == 4, self)
        self.submitted = time.monotonic()

    def names(self) -> list[str]:
        """SLURM's names of the sweep's jobs."""
        stored = sorted((self.sweep / ".submitit").glob("*_submitted.pkl"))
        return [path.name.removesuffix("_submitted.pkl") for path in stored]

    def name(self, number: int) -> str:
        """SLURM's name of a job of the sweep."""
        return f"{self.names()[0].split('_')[0]}_{number}"

    def folder(self, number: int) -> Path:
        """Of a job of the sweep."""
        (found,) = self.sweep.glob(f"*_s{number + 1}")
        return found

    def words(self) -> str:
        """What the sweep has said."""
        return self.said.read_text()

    def end(self) -> None:
        """Whatever still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        asked("scancel", self.single, *self.names())


@pytest.fixture(scope="module")
def trial(place: Place, store_path: Path) -> Iterator[Trial]:
    store = place.folder / "store"
    shutil.copytree(store_path, store)
    made = Trial(place, store)
    try:
        yield made
    finally:
        made.end()


def wait_for(what: str, true: Callable[[], object], trial: Trial, seconds: float = _LONG) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            queue = asked("squeue", "--states=all", "--format=%i %T %r %M")
            pytest.fail(f"no {what} in {seconds} s\n{trial.words()}\n{queue}")
        time.sleep(0.5)


def epoch(run: Path) -> int:
    """That a run's classifier is in; 0 before."""
    status = read_status(run)
    return status.epoch if status is not None and status.stage == "classifier" else 0


def state(name: str) -> str:
    return asked("squeue", "--noheader", "--states=all", f"--jobs={name}", "--format=%T")


def restarts(name: str) -> int:
    found = re.search(r"Restarts=(\d+)", asked("scontrol", "show", "job", name))
    return int(found[1]) if found else -1


def all_train(trial: Trial, numbers: tuple[int, ...], beyond: int = 1) -> bool:
    """Whether these jobs are beyond an epoch, and SLURM's states are those of jobs that run."""
    return all(state(trial.name(n)) == "RUNNING" and epoch(trial.folder(n)) > beyond for n in numbers)


def only_ours(place: Place) -> None:
    if not place.ours:
        pytest.skip("only the operator of a SLURM may do that")


def test_jobs_that_make_room_save_and_go_on(place: Place, trial: Trial) -> None:
    """All in their time of grace, in which a job that just ends has failed for SLURM; the sweep's and sbatch's."""
    wait_for("training", lambda: all_train(trial, (0, 1, 2, 3)) and epoch(trial.run) > 1, trial)
    only_ours(place)
    logs = [trial.folder(n) / "log.txt" for n in range(4)] + [trial.log]
    names = [trial.name(n) for n in range(4)] + [trial.single]
    runs = [trial.folder(n) for n in range(4)] + [trial.run]
    urgent = asked("sbatch", "--parsable", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap=sleep 900")
    wait_for("queue", lambda: all(state(name) == "PENDING" for name in names), trial)
    reached = [epoch(run) for run in runs]
    wait_for("word of it", lambda: trial.words().count(": in the queue (") == 8, trial)  # twice each
    for log in logs:
        assert log.read_text().count("is in the queue again") == 1
        assert "stopped; resume with" not in log.read_text()
    asked("scancel", urgent)
    wait_for("second start", lambda: all(epoch(run) > then for run, then in zip(runs, reached, strict=True)), trial)
    assert [restarts(name) for name in names] == [1] * 5
    assert {log.read_text().count("classifier epoch 1/") for log in logs} == {1}  # trained once
    asked("scancel", trial.single)


def test_a_job_that_fails_is_noticed_without_accounts(place: Place, trial: Trial) -> None:
    wait_for("training", lambda: all_train(trial, (0, 1, 2, 3)), trial)
    asked("scancel", "--signal=ABRT", trial.name(2))  # no word of its own
    wait_for("word of it", lambda: re.search(r"job 2 .*failed after .*its state is FAILED", trial.words()), trial, 60)


def test_jobs_that_live_are_not_called_failed(place: Place, trial: Trial) -> None:
    """Held in the queue; suspended; on a node that fails."""
    reached = epoch(trial.folder(3))
    before = restarts(trial.name(3))
    asked("scontrol", "requeuehold", trial.name(0))
    wait_for("word of it", lambda: re.search(r"job 0: (held )?in the queue \(", trial.words()), trial)
    if place.ours:
        asked("scontrol", "suspend", trial.name(1))
        wait_for("word of it", lambda: "job 1: suspended (" in trial.words(), trial)
        node = asked("squeue", "--noheader", f"--jobs={trial.name(3)}", "--format=%N")
        asked("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=trial")
        wait_for("another start", lambda: restarts(trial.name(3)) > before, trial)
        asked("scontrol", "update", f"NodeName={node}", "State=RESUME")
        asked("scontrol", "resume", trial.name(1))
        wait_for("training", lambda: all_train(trial, (1, 3), reached), trial)
    log = (trial.folder(0) / "log.txt").read_text()
    assert "stopped; resume with" not in log
    assert not re.search(r"job [013] .*failed", trial.words())


def test_ctrl_c_saves_what_runs_and_cancels_what_waits(place: Place, trial: Trial) -> None:
    """At once, though a job that has run before waits in the queue, whose signal scancel would try for 95 seconds."""
    wait_for("queue", lambda: state(trial.name(0)) == "PENDING", trial)
    ran = time.monotonic() - trial.submitted  # at most
    time.sleep(10)  # of waiting, which are no seconds of the job's
    trial.process.send_signal(signal.SIGINT)
    wait_for("end", lambda: trial.process.poll() is not None, trial, 75)
    assert trial.process.returncode == 130
    assert state(trial.name(0)) == "CANCELLED"
    for number in (1, 3):
        assert "stopped; resume with" in (trial.folder(number) / "log.txt").read_text()
    with (trial.sweep / "jobs.csv").open(newline="") as file:
        rows = {int(row["job"]): row for row in csv.DictReader(file)}
    assert [rows[n]["state"] for n in range(4)] == ["stopped", "stopped", "failed", "stopped"]
    assert 1 < float(rows[0]["seconds"]) < ran + 5
