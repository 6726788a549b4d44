"""Jobs that are a line of Python: how they run side by side, share a machine, fail and are stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fakegan.errors import UsageError
from fakegan.runs.folder import LOG_FILE
from fakegan.runs.status import Status, write_status
from fakegan.sweep import machine
from fakegan.sweep.jobs import TAIL, Job, Running, last_lines, run_jobs
from fakegan.sweep.machine import gpus_of_one, mps_runs, visible_gpus
from fakegan.system.processes import start_child, threads_of_one
from tests.conftest import Compose
from tests.helpers import Recorded

# Each is run with its folder as the working directory.
FINISH = "open('metrics.json', 'w').write('{\"objective\": 0.5}')"
UNBLOCK = "signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())"  # as commands do
READY = f"{UNBLOCK}; open('ready', 'w').close(); time.sleep(60)"
SAVES = "lambda *_: (time.sleep(0.3), open('saved', 'w').close(), os._exit(143))"


def _jobs(root: Path, codes: Sequence[str], gpus: Sequence[int] = ()) -> list[Job]:
    jobs = []
    for i, code in enumerate(codes):
        folder = root / str(i)
        command = (sys.executable, "-c", f"import os, signal, time; os.chdir({str(folder)!r}); {code}")
        prepare = lambda f=folder: f.mkdir(exist_ok=True)  # noqa: E731
        jobs.append(Job(i, f"seed={i}", folder, command, os.environ, gpus[i] if gpus else 0, prepare))
    return jobs


def _run(
    jobs: Sequence[Job],
    side_by_side: int = 1,
    gpus: Sequence[str] = (),
    threads: int | None = None,
    stop_on_failure: bool = False,
    when_started: Callable[[Running], None] = lambda _: None,
    stopped_by: int = 0,
) -> Recorded:
    progress = Recorded(jobs[0].folder.parent, jobs, when_started)
    assert run_jobs(jobs, side_by_side, gpus, threads, stop_on_failure, progress) == stopped_by
    return progress


def _signals_once(ready: Path, numbers: Sequence[signal.Signals], apart: float = 1.0) -> None:
    """Send signals to this process once a file is there, as a terminal would."""

    def wait_and_send() -> None:
        while not ready.exists():
            time.sleep(0.02)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(apart)

    threading.Thread(target=wait_and_send, daemon=True).start()


def test_how_jobs_end_and_why(tmp_path: Path) -> None:
    """A job has finished when its result is there, whatever its exit code; no failure stops the others."""
    lines = "[print('line', i) for i in range(40)]; raise SystemExit('error: the loss is no number')"
    codes = {
        f"{FINISH}; raise SystemExit(3)": ("finished", "", False),
        "print('all went well')": ("failed", "ended with exit code 0 and without a result", False),
        lines: ("failed", "the loss is no number", False),
        "os.kill(os.getpid(), 9)": ("failed", "killed by SIGKILL: out of memory, perhaps", False),
        "os.kill(os.getpid(), 37)": ("failed", "killed by signal 37", False),  # which has no name
        "raise SystemExit(1)": ("failed", "ended with exit code 1 and without a result", False),
        "raise SystemExit(2)": ("failed", "ended with exit code 2 and without a result", True),  # asked wrongly
        FINISH: ("finished", "", False),
    }
    jobs = _jobs(tmp_path, list(codes))
    (tmp_path / "7").write_text("a file is in the way")
    told = _run(jobs, side_by_side=3)
    found = [(e.state, e.reason, e.refused) for _, e in sorted(told.endings.items())]
    assert found[:7] == list(codes.values())[:7]
    assert (found[7][0], told.refused) == ("failed", {6})  # its folder could not be made
    assert told.endings[2].tail[-2:] == ("line 39", "error: the loss is no number")
    assert len(told.endings[2].tail) == TAIL
    assert len((tmp_path / "2" / LOG_FILE).read_text().splitlines()) == 41  # all of it is in its folder


def test_an_earlier_log_is_kept_and_not_taken_for_this_jobs(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, ["raise SystemExit(1)"])
    jobs[0].folder.mkdir()
    (jobs[0].folder / LOG_FILE).write_text("error: of long ago\n")
    write_status(jobs[0].folder, Status("test"))
    seen: list[str] = []
    told = _run(jobs, when_started=lambda running: seen.append(running.doing()))
    assert told.endings[0].reason == "ended with exit code 1 and without a result"
    assert seen == ["starting"]
    assert "long ago" in (jobs[0].folder / LOG_FILE).read_text()


def test_a_job_that_fails_before_its_start_is_noted_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*given: Any) -> subprocess.Popen[bytes]:
        process = start_child(*given)
        process.wait()
        return process

    monkeypatch.setattr("fakegan.sweep.jobs.start_child", start)
    told = _run(_jobs(tmp_path, ["raise SystemExit('error: no such store')"]))
    assert told.endings[0].reason == "no such store"


def test_gpus_are_handed_out_and_never_shared(tmp_path: Path) -> None:
    """A job without one sees none; threads are what each is given."""
    code = (
        "import json; begin = time.time(); open('begun', 'w').close()\n"
        "first = [f'../{i}/begun' for i in range(3)]\n"
        "while os.getcwd()[-1] in '012' and not all(map(os.path.exists, first)): time.sleep(0.01)\n"
        "own = [os.environ[name] for name in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS')]\n"
        "json.dump([begin, time.time(), *own], open('seen', 'w'))\n"
    )
    needs = [1, 1, 1, 3, 2, 1, 0]
    told = _run(_jobs(tmp_path, [code + FINISH] * 7, needs), side_by_side=3, gpus=("3", "5", "GPU-7"), threads=3)
    assert told.states == ["finished"] * 7
    assert told.most == 3
    seen = [json.loads((tmp_path / str(i) / "seen").read_text()) for i in range(7)]
    owned = [set(filter(None, names.split(","))) for _, _, names, _ in seen]
    assert [len(names) for names in owned] == needs
    assert {threads for *_, threads in seen} == {"3"}
    assert set().union(*owned) == {"3", "5", "GPU-7"}
    together = [(i, j) for i in range(7) for j in range(i) if seen[i][0] < seen[j][1] and seen[j][0] < seen[i][1]]
    assert together
    for i, j in together:
        assert not owned[i] & owned[j]


def test_a_shared_gpu_takes_its_jobs_and_first_comes_the_one_that_fewest_have(tmp_path: Path) -> None:
    """Of three jobs the first waits for the last; of two on one GPU each waits for the other."""

    def seen(*waits_for: int, gpus: Sequence[str]) -> list[str]:
        root = tmp_path / str(len(gpus))
        root.mkdir()
        code = "open('seen', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        wait = "while not os.path.exists('../{}/seen'): time.sleep(0.01)\n"
        codes = [code + wait.format(other) + FINISH for other in waits_for]
        told = _run(_jobs(root, codes, [1] * len(codes)), 2, gpus)
        assert (told.states, told.most) == (["finished"] * len(waits_for), 2)
        return [(root / str(i) / "seen").read_text() for i in range(len(waits_for))]

    assert seen(2, 1, 2, gpus=("3", "5") * 2) == ["3", "5", "5"]
    assert seen(1, 0, gpus=("7", "7")) == ["7", "7"]


def test_what_a_killed_job_has_started_is_gone_before_its_gpu_is_anothers(tmp_path: Path) -> None:
    """A rank outlives its parent's SIGKILL: the next job must not share the GPU with it."""
    sleeps = "import os, time; os.setpgrp(); time.sleep(60)"  # in a group of its own, as a run's loaders are
    child = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {sleeps!r}]); time.sleep(0.5)"
    orphaned = f"{child}; open('pid', 'w').write(str(p.pid)); os.kill(os.getpid(), 9)"
    look = f"""
try:
    state = open('/proc/' + open({str(tmp_path / "0" / "pid")!r}).read() + '/stat').read().rsplit(')', 1)[1].split()[0]
except OSError:
    state = 'gone'
open('state', 'w').write(state)
"""
    told = _run(_jobs(tmp_path, [orphaned, f"{look}{FINISH}"], gpus=[1, 1]), gpus=["0"])
    assert told.states == ["failed", "finished"]
    assert (tmp_path / "1" / "state").read_text() in {"gone", "Z", "X"}


_WAIT_FOR_0 = "\nwhile not os.path.exists('../0/ready'): time.sleep(0.05)\nos._exit(1)"


@pytest.mark.parametrize(
    ("first", "state"),
    [
        ("signal.signal(15, signal.SIG_DFL); " + READY, "stopped"),
        ("signal.signal(15, lambda *_: os._exit(1)); " + READY, "failed"),  # while it was stopped
    ],
)
def test_a_failure_stops_the_others_where_that_is_asked_for(tmp_path: Path, first: str, state: str) -> None:
    jobs = _jobs(tmp_path, [first, _WAIT_FOR_0, FINISH])
    told = _run(jobs, side_by_side=2, stop_on_failure=True)
    assert told.states == [state, "failed", "stopped"]
    assert "job 1 failed" in told.endings[2].reason
    assert not (tmp_path / "2").exists()


def test_after_a_failure_has_stopped_them_one_signal_kills_jobs(tmp_path: Path) -> None:
    deaf = f"signal.signal(15, signal.SIG_IGN); {READY}; {FINISH}"
    jobs = _jobs(tmp_path, [deaf, _WAIT_FOR_0])
    told = Recorded(tmp_path, jobs)
    told.stopping = lambda reason: _signals_once(tmp_path, [signal.SIGINT])  # type: ignore[method-assign]
    assert run_jobs(jobs, 2, (), None, True, told) == signal.SIGINT
    assert told.states == ["stopped", "failed"]  # else it would have finished


def test_an_error_of_the_sweep_itself_lets_running_jobs_save(tmp_path: Path) -> None:
    def breaks(running: Running) -> None:
        while not (running.job.folder / "ready").exists():
            time.sleep(0.02)
        raise OSError("the disk is full")

    jobs = _jobs(tmp_path, [f"signal.signal(15, {SAVES}); {READY}", FINISH])
    told = Recorded(tmp_path, jobs, breaks)
    with pytest.raises(OSError, match="full"):
        run_jobs(jobs, 1, (), None, False, told)
    assert (tmp_path / "0" / "saved").exists()
    assert told.endings == {}  # it was no failure to start


@pytest.mark.parametrize(
    ("handler", "numbers", "apart", "saved"),
    [
        (SAVES, [signal.SIGINT], 1.0, True),
        (SAVES, [signal.SIGTERM], 1.0, True),
        (SAVES, [signal.SIGINT, signal.SIGINT], 0.1, True),  # one Ctrl-C, which a wrapper passes on, too
        ("signal.SIG_IGN", [signal.SIGINT, signal.SIGINT], 1.0, False),
    ],
)
def test_a_signal_lets_running_jobs_save_and_a_second_kills_them(
    tmp_path: Path, handler: str, numbers: list[signal.Signals], apart: float, saved: bool
) -> None:
    """A signal in a job's first moments waits until it can answer: it neither dies without a word nor shows a trace."""
    number = int(numbers[0])
    code = (
        f"open('ready', 'w').close()\nwhile {number} not in signal.sigpending(): time.sleep(0.01)\n"
        f"signal.signal({number}, {handler}); {READY}; {FINISH}"
    )
    told = _run(
        _jobs(tmp_path, [code, FINISH]),
        when_started=lambda running: _signals_once(running.job.folder / "ready", numbers, apart),
        stopped_by=numbers[0],
    )
    assert told.states == ["stopped", "stopped"]  # else the first would have finished
    assert (tmp_path / "0" / "saved").exists() == saved
    assert not (tmp_path / "1").exists()


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / LOG_FILE
    with log.open("wb") as file:
        file.seek(2**33)  # 8 GB of nothing
        file.write(b"\nepoch 1\repoch 2\rdone\n\n" + b"x" * 1000)
    counters = Path("/proc/self/io")  # not everywhere
    counted = lambda: re.findall(r"rchar: (\d+)", counters.read_text()) if counters.exists() else ["0"]  # noqa: E731
    before = int(counted()[0])
    assert last_lines(log, 0, 2) == ["done", "x" * 300]
    assert int(counted()[0]) - before < 2**20
    assert last_lines(log, 2**33 + 24, 2) == ["x" * 300]
    assert last_lines(tmp_path / "nothing", 0, 2) == []


def test_what_this_process_may_use_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess("python", 0, "2\n")

    monkeypatch.setattr(machine.subprocess, "run", answers)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5,9")
    assert visible_gpus() == ("3", "5")  # the third does not exist
    for given, threads in (("8", [8, 4, 2, 1, 1]), ("3,1", [3, 1, 1, 1, 1])):  # of nested levels the first
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert [threads_of_one(jobs) for jobs in (1, 2, 3, 8, 20)] == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert threads_of_one(1) >= 1


@pytest.mark.parametrize(
    ("trainer", "devices_per_job", "side_by_side", "gpus"),
    [
        ("trainer=cpu", None, 1, 0),
        ("trainer.devices=auto", None, 1, 4),  # all there are
        ("trainer.devices=auto", None, 3, 1),
        ("trainer.devices=auto", None, 9, 1),
        ("trainer.devices=auto", 2, 1, 2),
        ("trainer.devices=3", None, 2, 3),
        ("trainer.devices=3", 3, 1, 3),
        ("trainer.devices=3", 2, 1, "devices_per_job=2, but trainer.devices=3"),
        ("trainer.devices=5", None, 1, "needs 5 GPUs, but there are 4 GPUs: lower trainer.devices"),
        ("trainer.devices=auto", 5, 1, "needs 5 GPUs, but there are 4 GPUs: lower hydra.launcher.devices_per_job"),
    ],
)
def test_a_job_has_the_gpus_that_it_asks_for_or_its_share(
    compose_settings: Compose, trainer: str, devices_per_job: int | None, side_by_side: int, gpus: int | str
) -> None:
    words = ("trainer.accelerator=auto",) if trainer != "trainer=cpu" else ()
    asked = compose_settings(*words, trainer).trainer
    if isinstance(gpus, str):
        with pytest.raises(UsageError, match=re.escape(gpus)):
            gpus_of_one(4, asked, devices_per_job, side_by_side)
    else:
        assert gpus_of_one(4, asked, devices_per_job, side_by_side) == gpus
    assert gpus_of_one(0, asked, devices_per_job, side_by_side) == 0


@pytest.mark.parametrize(
    ("trainer", "there", "gpus"),
    [
        ("trainer.devices=auto", 4, 1),
        ("trainer.devices=1", 1, 1),
        ("trainer.devices=2", 4, "is for jobs of one GPU, but trainer.devices=2: leave one out"),
        ("trainer.devices=auto", 0, "but this machine has none that CUDA can use: leave it out"),
        ("trainer=cpu", 4, "is for jobs on a GPU, but trainer.accelerator=cpu: leave one out"),
    ],
)
def test_a_job_that_shares_has_one_gpu(compose_settings: Compose, trainer: str, there: int, gpus: int | str) -> None:
    words = ("trainer.accelerator=auto",) if trainer != "trainer=cpu" else ()
    asked = compose_settings(*words, trainer).trainer
    with pytest.raises(UsageError, match=re.escape(str(gpus))) if isinstance(gpus, str) else nullcontext():
        assert gpus_of_one(there, asked, None, side_by_side=2, jobs_per_gpu=2) == gpus


@pytest.mark.parametrize(
    ("pid", "runs"),
    [
        pytest.param(str(os.getpid()), True, id="own"),  # named: each process that collects tests has another
        pytest.param("1", True, id="of-another-user"),
        pytest.param(str(2**22 + 1), False, id="no-process"),
        pytest.param("", False, id="empty"),
    ],
)
def test_mps_is_where_its_daemon_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: str, runs: bool) -> None:
    """2**22 is Linux's largest process id; that of a daemon which was killed may stay in the file."""
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_runs()
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(f"{pid}\n")
    assert mps_runs() == runs
