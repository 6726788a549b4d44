"""Sweeps without training: jobs that are a line of Python, devices, folders, the table, what is said meanwhile."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from fakegan.cli import entry
from fakegan.config.overrides import to_hydra
from fakegan.errors import AlreadyReportedError, FakeganError, UsageError
from fakegan.runs import compose as composing
from fakegan.runs.folder import LOG_FILE
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.runs.settings import RunSettings
from fakegan.runs.status import Status, write_status
from fakegan.sweep import command as words
from fakegan.sweep import launcher, lifecycle, machine, table
from fakegan.sweep.display import Display, clock
from fakegan.sweep.jobs import TAIL, Ending, Job, Running, Watcher, last_lines, run_jobs
from fakegan.sweep.machine import Machine, check_room, gpus_of_one, this_machine, threads_of_one
from fakegan.sweep.planning import Folders
from fakegan.sweep.table import Row, read_rows, write_rows
from fakegan.system.places import PROJECT
from fakegan.system.shell import here
from tests.conftest import Compose

# Each is run with its folder as the working directory.
FINISH = "open('metrics.json', 'w').write('{\"objective\": 0.5}')"
SLEEP = "import time; time.sleep(60)"
HEARS = "import signal; signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())"  # what commands do first


class Recorded:
    """A watcher that remembers, and may act when a job starts."""

    def __init__(self, when_started: Callable[[Running], None] = lambda _: None) -> None:
        self.endings: dict[int, Ending] = {}
        self.most = 0
        self.when_started = when_started

    def started(self, running: Running) -> None:
        self.when_started(running)

    def going(self, running: Sequence[Running], waiting: int) -> None:
        self.most = max(self.most, len(running))

    def stopping(self, reason: str) -> None:
        pass

    def ended(self, job: Job, ending: Ending) -> None:
        assert job.number not in self.endings
        self.endings[job.number] = ending

    @property
    def states(self) -> list[str]:
        return [ending.state for _, ending in sorted(self.endings.items())]


def _jobs(root: Path, codes: Sequence[str], gpus: Sequence[int] = ()) -> list[Job]:
    jobs = []
    for i, code in enumerate(codes):
        folder = root / str(i)
        need = gpus[i] if gpus else 0
        command = (sys.executable, "-c", f"{HEARS}; import os; os.chdir({str(folder)!r}); {code}")
        jobs.append(Job(i, f"seed={i}", folder, command, os.environ, need, lambda f=folder: f.mkdir(exist_ok=True)))  # type: ignore[misc]
    return jobs


def _run(
    jobs: Sequence[Job],
    side_by_side: int = 1,
    gpus: Sequence[str] = (),
    threads: int | None = None,
    stop_on_failure: bool = False,
    watcher: Recorded | None = None,
) -> Recorded:
    watcher = watcher or Recorded()
    assert run_jobs(jobs, side_by_side, gpus, threads, stop_on_failure, watcher) == 0
    return watcher


def test_a_job_has_finished_when_its_result_is_there_whatever_its_process_says(tmp_path: Path) -> None:
    told = _run(_jobs(tmp_path, [f"{FINISH}; raise SystemExit(3)", "print('all went well')"]))
    assert told.states == ["finished", "failed"]
    assert told.endings[1].reason == "ended with exit code 0 and without a result"


def test_a_failed_job_does_not_stop_the_others_and_shows_the_end_of_its_log(tmp_path: Path) -> None:
    lines = "[print('line', i) for i in range(40)]; raise SystemExit('error: the loss is no number')"
    told = _run(_jobs(tmp_path, [FINISH, lines, FINISH]), side_by_side=2)
    assert told.states == ["finished", "failed", "finished"]
    ending = told.endings[1]
    assert ending.reason == "the loss is no number"
    assert ending.tail[-2:] == ("line 39", "error: the loss is no number")
    assert len(ending.tail) == TAIL
    assert len((tmp_path / "1" / LOG_FILE).read_text().splitlines()) == 41  # all of it is in its folder


def test_a_killed_job_says_by_which_signal(tmp_path: Path) -> None:
    told = _run(_jobs(tmp_path, ["os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 37)"]))
    assert told.endings[0].reason == "killed by SIGKILL: out of memory, perhaps"
    assert told.endings[1].reason == "killed by signal 37"  # which has no name


def test_what_is_asked_wrongly_is_told_from_what_fails(tmp_path: Path) -> None:
    told = _run(_jobs(tmp_path, ["raise SystemExit(2)", "raise SystemExit(1)"]))
    assert [ending.refused for ending in told.endings.values()] == [True, False]


def test_a_failure_stops_the_others_where_that_is_asked_for(tmp_path: Path) -> None:
    fails = "import time; time.sleep(0.5); raise SystemExit(1)"
    told = _run(_jobs(tmp_path, [SLEEP, fails, FINISH]), side_by_side=2, stop_on_failure=True)
    assert told.states == ["stopped", "failed", "stopped"]
    assert "job 1 failed" in told.endings[2].reason
    assert not (tmp_path / "2").exists()


def test_a_job_whose_folder_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("a file is in the way")
    told = _run(_jobs(tmp_path, [FINISH, FINISH]))
    assert told.states == ["failed", "finished"]


def test_an_earlier_log_is_kept_and_not_taken_for_this_jobs(tmp_path: Path) -> None:
    jobs = _jobs(tmp_path, ["raise SystemExit(1)"])
    jobs[0].folder.mkdir()
    (jobs[0].folder / LOG_FILE).write_text("error: of long ago\n")
    write_status(jobs[0].folder, Status("test"))
    seen: list[str] = []
    told = _run(jobs, watcher=Recorded(lambda running: seen.append(running.doing())))
    assert told.endings[0].reason == "ended with exit code 1 and without a result"
    assert seen == ["starting"]
    assert "long ago" in (jobs[0].folder / LOG_FILE).read_text()


def test_gpus_are_handed_out_and_never_shared(tmp_path: Path) -> None:
    code = (
        "import json, time; begin = time.time(); open('begun', 'w').close()\n"
        "first = [f'../{i}/begun' for i in range(3)]\n"
        "while os.getcwd()[-1] in '012' and not all(map(os.path.exists, first)): time.sleep(0.01)\n"
        "json.dump([begin, time.time(), os.environ['CUDA_VISIBLE_DEVICES']], open('seen', 'w'))\n"
    )
    needs = [1, 1, 1, 3, 2, 1]
    told = _run(_jobs(tmp_path, [code + FINISH] * 6, needs), side_by_side=3, gpus=("3", "5", "GPU-7"))
    assert told.states == ["finished"] * 6
    assert told.most == 3
    seen = [json.loads((tmp_path / str(i) / "seen").read_text()) for i in range(6)]
    owned = [set(names.split(",")) for _, _, names in seen]
    assert [len(names) for names in owned] == needs
    assert set().union(*owned) == {"3", "5", "GPU-7"}
    together = [(i, j) for i in range(6) for j in range(i) if seen[i][0] < seen[j][1] and seen[j][0] < seen[i][1]]
    assert together
    for i, j in together:
        assert not owned[i] & owned[j]


def test_what_a_killed_job_has_started_is_gone_before_its_gpu_is_anothers(tmp_path: Path) -> None:
    """One of a run's processes outlives its parent's SIGKILL: the next job must not share the GPU with it."""
    sleeps = "import os, time; os.setpgrp(); time.sleep(60)"  # in a group of its own, as a run's loaders are
    child = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {sleeps!r}]); time.sleep(0.5)"
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


def test_a_job_on_the_cpu_sees_no_gpu_and_has_its_share_of_threads(tmp_path: Path) -> None:
    code = (
        "open('seen', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'] + '|' + os.environ['OMP_NUM_THREADS']); " + FINISH
    )
    _run(_jobs(tmp_path, [code]), gpus=("0",), threads=3)
    assert (tmp_path / "0" / "seen").read_text() == "|3"


def test_threads_are_divided_and_one_is_left_to_each() -> None:
    eight = Machine((), threads=8)
    assert [threads_of_one(eight, jobs) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


def test_the_gpus_are_those_that_this_process_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert this_machine({}).gpus == ("0", "1")
    assert this_machine({"CUDA_VISIBLE_DEVICES": "3, 5,9"}).gpus == ("3", "5")  # the third does not exist
    assert this_machine({"OMP_NUM_THREADS": "6"}).threads == 6
    assert this_machine({"OMP_NUM_THREADS": "3,1"}).threads == 3  # of nested levels the first
    assert this_machine({"OMP_NUM_THREADS": "many"}).threads >= 1


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ({}, False),
        ({"/dev/nvme0": "", "/sys/bus/pci/devices/0000:00:1f.0/vendor": "0x8086\n"}, False),
        ({"/dev/nvidia0": ""}, True),
        ({"/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n"}, True),  # its driver has made no files yet
    ],
)
def test_torch_is_asked_for_gpus_where_there_may_be_one(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, str], asked: bool
) -> None:
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: fnmatch.filter(there, pattern))
    monkeypatch.setattr(machine, "_read", lambda path: there[path].strip())
    assert machine._may_have_gpus() == asked


def test_more_jobs_than_gpus_allow_is_a_sentence_with_numbers() -> None:
    four = Machine(("0", "1", "2", "3"), 8)
    check_room(four, [2, 2, 2], 2)
    check_room(four, [0] * 9, 9)  # on the CPU any number goes
    with pytest.raises(UsageError, match=r"jobs=3 needs 6 GPUs.* there are 4 GPUs: at most hydra.launcher.jobs=2"):
        check_room(four, [2, 2, 2], 3)


@pytest.mark.parametrize(
    ("trainer", "devices_per_job", "side_by_side", "gpus"),
    [
        ("trainer=cpu", None, 1, 0),
        ("trainer=auto", None, 1, 4),  # all there are
        ("trainer=auto", None, 3, 1),
        ("trainer=auto", None, 9, 1),
        ("trainer=auto", 2, 1, 2),
        ("trainer.devices=3", None, 2, 3),
        ("trainer.devices=3", 3, 1, 3),
        ("trainer.devices=3", 2, 1, "devices_per_job=2, but trainer.devices=3"),
        ("trainer.devices=5", None, 1, "needs 5 GPUs, but there are 4 GPUs: lower trainer.devices"),
        ("trainer=auto", 5, 1, "needs 5 GPUs, but there are 4 GPUs: lower hydra.launcher.devices_per_job"),
    ],
)
def test_a_job_has_the_gpus_that_it_asks_for_or_its_share(
    compose_settings: Compose, trainer: str, devices_per_job: int | None, side_by_side: int, gpus: int | str
) -> None:
    four = Machine(("0", "1", "2", "3"), 8)
    words = ("trainer.accelerator=auto",) if trainer != "trainer=cpu" else ()
    asked = compose_settings(*words, *([trainer] if trainer != "trainer=auto" else ["trainer.devices=auto"])).trainer
    if isinstance(gpus, str):
        with pytest.raises(UsageError, match=re.escape(gpus)):
            gpus_of_one(four, asked, devices_per_job, side_by_side)
    else:
        assert gpus_of_one(four, asked, devices_per_job, side_by_side) == gpus
    assert gpus_of_one(Machine((), 8), asked, devices_per_job, side_by_side) == 0


def test_a_job_that_fails_while_the_others_are_stopped_has_failed(tmp_path: Path) -> None:
    fails = "import signal, time; signal.signal(15, lambda *_: os._exit(1)); open('ready', 'w').close(); time.sleep(60)"
    first = f"import time\nwhile not os.path.exists({str(tmp_path / '0' / 'ready')!r}): time.sleep(0.05)\nos._exit(1)"
    told = _run(_jobs(tmp_path, [fails, first]), side_by_side=2, stop_on_failure=True)
    assert told.states == ["failed", "failed"]


def test_after_a_failure_has_stopped_them_one_signal_ends_jobs_at_once(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w').close(); time.sleep(60); " + FINISH
    )
    first = f"import time\nwhile not os.path.exists({str(tmp_path / '0' / 'ready')!r}): time.sleep(0.05)\nos._exit(1)"
    told = Recorded()
    told.stopping = lambda reason: _later(lambda _: tmp_path, [signal.SIGINT])(None)  # type: ignore[method-assign, arg-type]
    assert run_jobs(_jobs(tmp_path, [deaf, first]), 2, (), None, True, told) == signal.SIGINT
    assert told.states == ["stopped", "failed"]  # else it would have finished


def test_an_error_of_whoever_watches_lets_running_jobs_save(tmp_path: Path) -> None:
    saves = (
        "import signal, time; signal.signal(15, lambda *_: (open('saved', 'w').close(), os._exit(143))); "
        "open('ready', 'w').close(); time.sleep(60)"
    )

    def breaks(running: Running) -> None:
        while not (running.job.folder / "ready").exists():
            time.sleep(0.02)
        raise OSError("the disk is full")

    told = Recorded(breaks)
    with pytest.raises(OSError, match="full"):
        _run(_jobs(tmp_path, [saves, FINISH]), watcher=told)
    assert (tmp_path / "0" / "saved").exists()
    assert told.states == []  # it was no failure to start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_running_jobs_may_save(tmp_path: Path, number: signal.Signals) -> None:
    saves = (
        "import signal, time; "
        "handler = lambda *_: (time.sleep(0.3), open('saved', 'w').close(), os._exit(143)); "
        f"signal.signal({int(number)}, handler); open('ready', 'w').close(); time.sleep(60)"
    )
    told = Recorded(_later(lambda running: running.job.folder / "ready", [number]))
    assert run_jobs(_jobs(tmp_path, [saves, FINISH]), 1, (), None, False, told) == number
    assert told.states == ["stopped", "stopped"]
    assert (tmp_path / "0" / "saved").exists()
    assert not (tmp_path / "1").exists()


def test_a_second_signal_ends_jobs_at_once(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(2, signal.SIG_IGN); open('ready', 'w').close(); time.sleep(60); " + FINISH
    )
    told = Recorded(_later(lambda running: running.job.folder / "ready", [signal.SIGINT, signal.SIGINT]))
    assert run_jobs(_jobs(tmp_path, [deaf]), 1, (), None, False, told) == signal.SIGINT
    assert told.states == ["stopped"]  # else it would have finished


def _later(ready: Callable[[Running], Path], numbers: Sequence[signal.Signals]) -> Callable[[Running], None]:
    """Send signals to this process once a job's file is there, as a terminal would."""

    def send(running: Running) -> None:
        def wait_and_send() -> None:
            while not ready(running).exists():
                time.sleep(0.02)
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(1.0)  # nearer to it, a second one would be the same one

        threading.Thread(target=wait_and_send, daemon=True).start()

    return send


def test_a_signal_that_is_passed_on_by_a_wrapper_is_the_same_one(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the wrapper, too: the job may save all the same."""
    saves = (
        "import time; handler = lambda *_: (time.sleep(0.3), open('saved', 'w').close(), os._exit(130)); "
        "signal.signal(2, handler); open('ready', 'w').close(); time.sleep(60)"
    )

    def twice(_running: Running) -> None:
        def send() -> None:
            while not (tmp_path / "0" / "ready").exists():
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # else the system would make one of them
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=send, daemon=True).start()

    told = Recorded(twice)
    assert run_jobs(_jobs(tmp_path, [saves]), 1, (), None, False, told) == signal.SIGINT
    assert (tmp_path / "0" / "saved").exists()


def test_a_job_hears_nothing_before_it_can_answer(tmp_path: Path) -> None:
    """A signal in its first moments waits, so that it neither dies without a word nor shows a trace."""
    (job,) = _jobs(tmp_path, [FINISH])
    code = (
        "import os, signal, time; os.chdir('0'); open('ready', 'w').close()\n"
        "while signal.SIGINT not in signal.sigpending(): time.sleep(0.01)\n"
        "open('held', 'w').close(); signal.signal(2, lambda *_: os._exit(130))\n"
        f"os.chdir('..'); {HEARS}"
    )
    code = code.replace("os.chdir('0')", f"os.chdir({str(job.folder)!r})")
    told = Recorded(_later(lambda running: running.job.folder / "ready", [signal.SIGINT]))
    job = dataclasses.replace(job, command=(sys.executable, "-c", code))
    assert run_jobs([job], 1, (), None, False, told) == signal.SIGINT
    assert told.states == ["stopped"]
    assert (tmp_path / "0" / "held").exists()


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / LOG_FILE
    with log.open("wb") as file:
        file.seek(2**33)  # 8 GB of nothing
        file.write(b"\nepoch 1\repoch 2\rdone\n\n" + b"x" * 1000)
    before = _bytes_read()
    assert last_lines(log, 0, 2) == ["done", "x" * 300]
    assert _bytes_read() - before < 2**20
    assert last_lines(log, 2**33 + 24, 2) == ["x" * 300]
    assert last_lines(tmp_path / "nothing", 0, 2) == []


def _bytes_read() -> int:
    """By this process so far; 0 where the system does not say."""
    try:
        return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]
    except OSError:
        return 0


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(Running, "seconds", 0.0)
    return Running(job=Job(7, "seed=7", tmp_path, (), {}), log_from=0)


def test_a_job_says_where_it_stands_and_when_it_waits(running: Running) -> None:
    log = running.job.folder / LOG_FILE
    assert running.doing() == "starting"
    write_status(running.job.folder, Status("autoencoder"))
    log.write_text("another run is making autogan1-w4-0; waiting for it\n")
    assert running.doing() == "waiting for another run"
    log.write_text("another run is making autogan1-w4-0; waiting for it\nautoencoder: found trained, autogan1-w4-0\n")
    write_status(running.job.folder, Status("classifier", 2, 9))
    assert running.doing() == "classifier epoch 2/9"


def test_a_log_gets_a_line_for_each_stage_and_not_for_each_epoch(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    display = Display()
    display.expect(2, finished=0)
    display.started(running)
    for status in (Status("classifier", 1, 2), Status("classifier", 2, 2), Status("test")):
        write_status(running.job.folder, status)
        display.drawn_at = 0.0
        display.going([running], 1)
    display.ended(running.job, Ending("failed", 61, "the loss is no number", ("last words",)))
    assert capsys.readouterr().out.splitlines() == [
        "job 7 starts: seed=7",
        "job 7: classifier (0:00)",
        "job 7: test (0:00)",
        "job 7 (seed=7) failed after 1:01: the loss is no number; 0 of 2 done, 1 failed",
        f"  the end of {here(running.job.folder / LOG_FILE)}:",
        "  | last words",
    ]


def test_on_a_terminal_the_block_fits_and_is_erased_before_a_line_that_stays(
    running: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "6")
    display = Display()
    display.terminal = True
    display.expect(9, finished=0)
    display.going([running] * 9, 0)
    block = capsys.readouterr().out.splitlines()
    assert len(block) == 5  # three jobs, how many more, the sum
    assert block[-2:] == ["  and 6 more", "0 of 9 done, 9 running, 0 to come"]
    assert all(len(line) < 40 for line in block)
    display.say("a line")
    assert capsys.readouterr().out == "\x1b[5F\x1b[Ja line\n"
    display.close()
    assert capsys.readouterr().out == ""


def test_at_eighty_columns_a_job_shows_what_is_swept_and_what_it_does(
    running: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    write_status(running.job.folder, Status("classifier", 12, 30, "AUROC 0.833"))
    swept = ["seed=1 model=autogan4 classifier=alexnet pipeline=classify classifier.dropout=0.5", "seed=2 +a=null"]
    display = Display()
    display.terminal = True
    display.going([dataclasses.replace(running, job=dataclasses.replace(running.job, name=name)) for name in swept], 0)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "  job 7    0:00  seed=1 autogan4 alexnet classify dropout=0.5  classifier 12/30",
        "  job 7    0:00  seed=2 +a=null                                classifier 12/30",
    ]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_jobs_go_on_where_nobody_can_hear_of_them(
    running: Running, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise error

        def fileno(self) -> int:
            return spare

    with (running.job.folder / "spare").open("w") as file:
        spare = file.fileno()
        monkeypatch.setattr(sys, "stdout", Closed())
        display = Display()
        display.say("a line")
        display.ended(running.job, Ending("finished", 1.0))
        display.close()
    assert display.counts["finished"] == 1


def test_times_are_read_at_a_glance() -> None:
    assert [clock(s) for s in (7.4, 61, 3723)] == ["0:07", "1:01", "1:02:03"]


def _name(label: str) -> Callable[[int], str]:
    return lambda number: f"{number}_{label}"


def test_a_job_that_would_repeat_another_gets_no_folder_of_its_own(tmp_path: Path, compose_settings: Compose) -> None:
    folders = Folders(tmp_path, {})
    first = folders.place(0, compose_settings("pipeline=classify", "model=autogan1"), _name("a"))
    other = folders.place(1, compose_settings("pipeline=classify", "model=autogan1", "seed=2"), _name("b"))
    again = folders.place(2, compose_settings("pipeline=classify", "model=autogan4"), _name("c"))
    assert (first.folder, first.kind) == (tmp_path / "0_a", "new")
    assert (other.folder, other.kind) == (tmp_path / "1_b", "new")
    assert (again.folder, again.kind, again.owner) == (tmp_path / "0_a", "repeats", 0)


def test_a_sweep_that_got_more_values_finds_its_jobs_again_and_takes_free_numbers(
    tmp_path: Path, compose_settings: Compose
) -> None:
    """seed=1,2 with two learning rates had jobs 0 to 3; with seed=1,2,3 the fourth is another."""
    rates = ("classifier.optimizer.lr=0.1", "classifier.optimizer.lr=0.2")
    before = [(rate, seed) for rate in rates for seed in (1, 2)]
    for i in range(4):
        (tmp_path / f"{i}_x").mkdir()
    begun = {tmp_path / f"{i}_x": compose_settings(rate, f"seed={seed}") for i, (rate, seed) in enumerate(before)}
    folders = Folders(tmp_path, begun)
    now = [(rate, seed) for rate in rates for seed in (1, 2, 3)]
    places = [folders.place(i, compose_settings(r, f"seed={s}"), _name("x")) for i, (r, s) in enumerate(now)]
    assert [place.folder.name for place in places] == ["0_x", "1_x", "4_x", "2_x", "3_x", "5_x"]
    assert [place.kind for place in places] == ["begun", "begun", "new", "begun", "begun", "new"]


@pytest.mark.parametrize("fixed", ["run", "1_run"])
def test_folders_without_a_number_of_the_job_get_one(tmp_path: Path, compose_settings: Compose, fixed: str) -> None:
    folders = Folders(tmp_path, {})
    places = [folders.place(i, compose_settings(f"seed={i}"), lambda _: fixed) for i in range(3)]
    assert [place.folder.name for place in places] == [fixed, f"{fixed}_2", f"{fixed}_3"]


def test_the_table_is_read_back_and_tells_the_jobs_apart(tmp_path: Path) -> None:
    rows = [
        Row(0, "seed=1 +debug=fast", "finished", 0.75, 61.04, "0_a"),
        Row(
            1,
            "seed=2 +debug=fast 'data.split.unseen=[a, b]'",
            "failed",
            None,
            3.0,
            "1_b",
            "the disk, it seems, is full",
        ),
        Row(2, "seed=1 +debug=fast", "repeats 0", None, None, "0_a"),
    ]
    (tmp_path / "1_b").mkdir()
    (tmp_path / "1_b" / LOG_FILE).touch()
    write_rows(tmp_path, rows)
    assert read_rows(tmp_path) == [Row(0, "seed=1 +debug=fast", "finished", 0.75, 61.0, "0_a"), *rows[1:]]
    lines = table.as_text(rows, tmp_path).splitlines()
    assert lines[1].split() == ["0", "seed=1", "finished", "0.7500", "1:01", "0_a"]
    assert "+debug=fast" not in "\n".join(lines)
    assert "seed=2 'data.split.unseen=[a, b]'" in lines[2]
    assert lines[3].split() == ["2", "seed=1", "repeats", "0", "0_a"]
    assert lines[4].startswith("job 1 failed: the disk, it seems, is full (")
    (tmp_path / table.JOBS_FILE).write_text("nonsense")
    assert read_rows(tmp_path) == []


def test_other_launchers_jobs_are_told_by_their_folders(tmp_path: Path) -> None:
    for name in ("0_a", "1_b"):
        (tmp_path / name).mkdir()
    metrics = {"objective": 0.5, "command": "train.py seed=1"}
    (tmp_path / "0_a" / "metrics.json").write_text(json.dumps(metrics))
    rows = table.rows_of_folders([tmp_path / "0_a", tmp_path / "1_b"])
    assert rows == [Row(0, "seed=1", "finished", 0.5, None, "0_a"), Row(1, "", "failed", None, None, "1_b")]
    (tmp_path / "0_a" / "metrics.json").write_text("{}")
    with pytest.raises(FakeganError, match=r"metrics\.json is damaged"):
        table.objective_of(tmp_path / "0_a")
    damaged = table.rows_of_folders([tmp_path / "0_a", tmp_path / "1_b"])  # that one's failure
    assert [row.state for row in damaged] == ["failed", "failed"]
    assert "delete it" in damaged[0].reason


def test_a_sweep_says_the_whole_command_that_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a sweep"
    folder.mkdir()
    assert not words.is_sweep(folder)
    typed = [
        "/somewhere/train.py",
        "-m",
        "seed=1,2",
        "data.split.unseen=[a, b]",
        "hydra.sweep.dir=a sweep",
        "resume=true",
    ]
    words.keep_command(folder, typed)
    assert words.is_sweep(folder)
    assert words.to_go_on(folder).endswith(
        "train.py -m seed=1,2 'data.split.unseen=[a,b]' resume=true 'hydra.sweep.dir=\"a sweep\"'"
    )


def test_a_word_that_could_not_be_shown_again_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'model\.optimizer\.betas=\[0,\\t0\]' holds a tab"):
        words.keep_command(tmp_path, ["train.py", "-m", "model.optimizer.betas=[0,\t0]"])
    assert not words.is_sweep(tmp_path)


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["hydra.mode=MULTIRUN"], "train.py seed=2 'x=[1, 2]'"),  # what Hydra makes of -m
        ([], "train.py seed=2 'x=[1, 2]' hydra.mode=RUN"),  # an experiment sweeps by itself
    ],
)
def test_a_jobs_own_command_starts_it_alone(typed: list[str], command: str) -> None:
    sweep = OmegaConf.create({"job": {"name": "train"}, "overrides": {"hydra": typed}})
    assert words.alone(sweep, ["seed=2", "resume=true", "x=[1, 2]"]) == command


def test_a_class_that_is_swept_is_told_by_its_name() -> None:
    assert words.short("classifier.optimizer._target_=torch.optim.SGD classifier.net.dropout=0.1") == (
        "optimizer=SGD dropout=0.1"
    )


def test_jobs_are_named_by_what_they_do_not_share() -> None:
    jobs: Mapping[int, Sequence[str]] = {0: ["a=1", "seed=1"], 1: ["a=1", "seed=2"]}
    assert words.telling(jobs) == {0: "seed=1", 1: "seed=2"}
    assert words.telling({0: ["a=1"]}) == {0: "a=1"}


def test_what_an_experiment_sweeps_may_be_any_option() -> None:
    sweeper = OmegaConf.create({"params": {"seed": "1,2", "classifier.net.dropout": "0.1,0.3"}})
    lifecycle._open_params(sweeper)
    assert sweeper.params == {"seed": "1,2", "++classifier.net.dropout": "0.1,0.3"}
    with pytest.raises(UsageError, match="must be keys and values"):
        lifecycle._open_params(OmegaConf.create({"params": "seed"}))


def test_names_of_jobs_and_commands_are_as_words_are_typed(start: Started) -> None:
    start.fixed.append("hydra.sweep.subdir='${hydra.job.num}_${hydra.job.override_dirname}'")
    start.fixed.append("hydra.job.config.override_dirname.exclude_keys=[data,debug,pipeline,trainer,data.root]")
    start("classifier.net.dropout=0.1", "classifier.net.dropout=0.3")
    assert [job.name for job in start.ran] == ["classifier.net.dropout=0.1", "classifier.net.dropout=0.3"]
    assert [job.folder.name for job in start.ran] == ["0_classifier.net.dropout=0.1", "1_classifier.net.dropout=0.3"]
    assert start.ran[0].environment[COMMAND_VARIABLE].endswith(" classifier.net.dropout=0.1 hydra.mode=RUN")
    assert "++" not in (start.folder / table.JOBS_FILE).read_text()


def test_a_job_is_written_down_as_it_was_composed(start: Started) -> None:
    """The classes that an experiment sweeps stand in no word of the sweep itself, only in those of its jobs."""
    start.fixed.append("classifier=dcgan")
    for _ in range(2):
        start(
            "classifier.optimizer._target_=torch.optim.SGD", "classifier.net._target_=fakegan.nets.simple_cnn.SimpleCNN"
        )
        assert start.states == ["finished", "finished"]
    assert start.ran == []  # the second time: each is known again
    first, second = launcher.runs_in(start.folder).values()
    assert "betas" not in first.classifier.node["optimizer"]
    assert second.classifier.name == "SimpleCNN"


def test_a_wrong_key_or_type_is_refused_before_the_first_job(start: Started) -> None:
    start("classifier.drpout=0.1", "classifier.net.dropout=high", "classifier.net.dropout=0.3")
    assert [job.number for job in start.ran] == [2]
    reasons = [row.reason for row in read_rows(start.folder)]
    assert reasons[0] == "classifier.drpout is not a config key: did you mean classifier.net.dropout?"
    assert reasons[1] == "classifier.net.dropout='high' must be a number"
    with pytest.raises(UsageError, match=r"did you mean classifier\.net\.dropout"):
        start("classifier.drpout=0.1", "classifier.drpout=0.2")
    assert start.ran == []


class Started:
    """A sweep as Hydra's sweeper starts it, on jobs that finish at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, fixed: Sequence[str]) -> None:
        self.folder, self.fixed = folder, [*fixed, f"hydra.sweep.dir={folder}"]
        self.ran: list[Job] = []
        self.threads: int | None = None
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
        monkeypatch.setattr(launcher, "run_jobs", self._play)
        monkeypatch.setattr(launcher.ProcessLauncher, "launched", False)

    def _play(
        self, jobs: Sequence[Job], side: int, gpus: Sequence[str], threads: int | None, stop: bool, watcher: Watcher
    ) -> int:
        self.threads = threads
        for job in jobs:
            job.prepare()
            watcher.started(Running(job=job, log_from=0))
            (job.folder / "metrics.json").write_text('{"objective": 0.5}')
            watcher.ended(job, Ending("finished", 2.0))
        self.ran += jobs
        return 0

    def __call__(self, *jobs: str, options: Sequence[str] = ()) -> Sequence[JobReturn]:
        """Start it on jobs of a word each; what ran is in `ran`."""
        self.ran = []
        composing.register_resolvers()
        lifecycle.register()
        with initialize_config_dir(str(composing.CONF), version_base="1.3"):
            master = compose("train", [*map(to_hydra, self.fixed), *options], return_hydra_config=True)
            made = launcher.ProcessLauncher(**{k: v for k, v in master.hydra.launcher.items() if k != "_target_"})
            made.config, made.folder = master, self.folder
            made.loader = GlobalHydra.instance().config_loader()
            self.folder.mkdir(exist_ok=True)
            return made.launch([[*map(to_hydra, [*self.fixed, word])] for word in jobs], 0)

    @property
    def states(self) -> list[str]:
        return [row.state for row in read_rows(self.folder)]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_path: Path) -> Started:
    fixed = ("data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu", "pipeline=classify")
    return Started(monkeypatch, tmp_path / "sweep", fixed)


def test_a_job_that_cannot_be_composed_fails_alone_where_a_search_proposed_it(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = start("model=autogan1", "model=autogan9")
    assert start.states == ["finished", "failed"]
    assert "job 1 failed: model=autogan9 does not exist: did you mean autogan" in capsys.readouterr().out
    assert answers[0].return_value == 0.5
    with pytest.raises(AlreadyReportedError):
        _ = answers[1].return_value
    with pytest.raises(UsageError, match="model=autogan8 does not exist"):
        start("model=autogan8", "model=autogan9")


def test_damaged_results_and_configs_cost_the_other_jobs_nothing(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    start("seed=1", "seed=2", "seed=3")
    folders = sorted(path for path in start.folder.iterdir() if path.is_dir())
    (folders[0] / "metrics.json").write_text("{")
    (folders[1] / "config.yaml").write_text("")
    capsys.readouterr()
    start("seed=1", "seed=2", "seed=3", "seed=4")
    said = capsys.readouterr().out
    assert [row.state for row in read_rows(start.folder)] == ["failed", "finished", "finished", "finished"]
    assert [job.number for job in start.ran] == [1, 3]
    assert f"job 0 failed: {folders[0] / 'metrics.json'} is damaged" in said
    assert f"{here(folders[1])} is left as it is, and is no job's: " in said
    assert "jobs finished before: 1; begun before and resumed now: 0" in said
    assert len(launcher.runs_in(start.folder)) == 4  # what the report is on: not the damaged one


def test_a_finished_job_stays_finished_where_there_are_fewer_gpus_than_it_had(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.fixed = [*start.fixed, "trainer=auto", "trainer.accelerator=gpu", "trainer.devices=4"]
    monkeypatch.setattr(launcher, "this_machine", lambda _environment: Machine(("0", "1", "2", "3"), 8))
    start("seed=1")
    monkeypatch.setattr(launcher, "this_machine", lambda _environment: Machine(("0", "1"), 8))
    answers = start("seed=1", "seed=2")
    assert start.states == ["finished", "failed"]
    assert answers[0].return_value == 0.5
    assert "needs 4 GPUs" in read_rows(start.folder)[1].reason


def test_a_job_that_was_refused_its_gpus_is_no_run_that_others_repeat(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.fixed = [*start.fixed, "trainer=auto", "trainer.accelerator=gpu"]
    monkeypatch.setattr(launcher, "this_machine", lambda _environment: Machine(("0", "1"), 8))
    start("trainer.devices=4", "trainer.devices=2")
    assert start.states == ["failed", "finished"]


def test_a_split_that_cannot_be_is_refused_before_the_first_job(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"val split has no real faces .* give data\.split\.val=0\.15"):
        start("data.split.val=0", "data.split.val=0.0001")
    assert start.ran == []
    start("data.split.unseen=[gan_a,gan_b]", "data.split.unseen=[gan_a]", "data.split.unseen=[]")
    assert [job.number for job in start.ran] == [1, 2]
    assert "job 0 failed: the train split has no fake faces" in capsys.readouterr().out
    assert len(list(start.folder.glob("*/config.yaml"))) == 2


def test_a_resumed_sweep_mends_the_table_of_a_killed_one_and_keeps_its_seconds(start: Started) -> None:
    start("seed=1", "seed=2")
    rows = read_rows(start.folder)
    write_rows(start.folder, [dataclasses.replace(rows[0], state="running"), rows[1]])
    (start.folder / rows[1].folder / "metrics.json").unlink()
    start("seed=1", "seed=2")
    assert [(row.state, row.objective, row.seconds) for row in read_rows(start.folder)] == [
        ("finished", 0.5, 2.0),
        ("finished", 0.5, 4.0),
    ]


def test_a_jobs_threads_do_not_depend_on_how_many_jobs_are_left(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    start("seed=1", "seed=2", "seed=3", options=["hydra.launcher.jobs=3"])
    assert start.threads == 2
    start("seed=1", "seed=2", "seed=3", "seed=4", options=["hydra.launcher.jobs=3"])
    assert [job.number for job in start.ran] == [3]
    assert start.threads == 2


def test_gpus_that_one_job_cannot_have_are_its_failure_alone(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    start.fixed += ["trainer=auto", "hydra.launcher.devices_per_job=1"]
    start("trainer.devices=1", "trainer.devices=2", "trainer=cpu")
    assert start.states == ["finished", "failed", "repeats 0"]
    assert "devices_per_job=1, but trainer.devices=2" in read_rows(start.folder)[1].reason
    assert [job.gpus for job in start.ran] == [1]


def test_too_few_gpus_side_by_side_are_told_before_the_sweep_has_begun(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    start.fixed += ["trainer=auto", "trainer.devices=2", "hydra.launcher.jobs=2"]
    with pytest.raises(UsageError, match=r"jobs=2 needs 4 GPUs.*at most hydra\.launcher\.jobs=1"):
        start("seed=1", "seed=2")
    assert not launcher.ProcessLauncher.launched
    assert not list(start.folder.iterdir())


def test_the_same_run_twice_is_told_from_what_has_no_effect(start: Started, capsys: pytest.CaptureFixture[str]) -> None:
    start("seed=1", "seed=1", "model=autogan1")
    said = capsys.readouterr().out.splitlines()
    folder = next(path.name for path in start.folder.iterdir() if path.is_dir())
    assert f"job 1 is the same run as {folder}" in said
    assert f"job 2 is the same run as {folder}: what is swept has no effect on it" in said
    assert start.states == ["finished", "repeats 0", "repeats 0"]


@pytest.mark.parametrize("subdir", ["${seed}/run", "..", "runs/"])
def test_a_jobs_folder_lies_in_that_of_its_sweep(start: Started, subdir: str) -> None:
    start.fixed.append(f"hydra.sweep.subdir='{subdir}'")
    with pytest.raises(UsageError, match=r"hydra\.sweep\.subdir=.* leave out the /"):
        start("seed=1", "seed=2")


def test_hundreds_of_jobs_find_their_folders_at_once(
    tmp_path: Path, compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose_settings("pipeline=classify")
    many = [dataclasses.replace(settings, seed=seed) for seed in range(1000)]
    folders = Folders(tmp_path, {tmp_path / f"{i}_x": one for i, one in enumerate(many)})
    asked = 0
    identity = RunSettings.identity

    def counted(self: RunSettings) -> object:
        nonlocal asked
        asked += 1
        return identity(self)

    monkeypatch.setattr(RunSettings, "identity", counted)
    places = [folders.place(999 - i, one, _name("x")) for i, one in enumerate(many)]
    assert {(place.kind, place.owner + int(place.folder.name.split("_")[0])) for place in places} == {("begun", 999)}
    assert asked == len(many)  # and not each for each


def test_a_refused_sweep_leaves_a_folder_that_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (True, False):
        folder = tmp_path / str(made)
        folder.mkdir()
        words.keep_command(folder, ["train.py"])
        (folder / ".submitit").mkdir()
        monkeypatch.setattr(lifecycle.Opening, "folder", folder)
        monkeypatch.setattr(lifecycle.Opening, "made_folder", made)
        if not made:
            (folder / "jobs.csv").write_text("their own")
            monkeypatch.setattr(lifecycle.Opening, "found", frozenset({"jobs.csv"}))
        lifecycle.conclude()
        assert folder.exists() != made
    assert [path.name for path in folder.iterdir()] == ["jobs.csv"]


def _raising(error: Exception) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


@pytest.mark.parametrize(
    ("failure", "closing", "told"),
    [
        (UsageError("too few GPUs"), FakeganError("1 of 2 jobs failed"), "too few GPUs"),
        (UsageError("too few GPUs"), OSError("the disk is full"), "too few GPUs"),
        (AlreadyReportedError(1), FakeganError("1 of 2 jobs failed"), "1 of 2 jobs failed"),
    ],
)
def test_what_ended_a_sweep_is_told_whatever_comes_after(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, closing: Exception, told: str
) -> None:
    monkeypatch.setattr(lifecycle, "conclude", _raising(closing))
    with pytest.raises((FakeganError, OSError), match=told):
        entry._concluded(_raising(failure))


@pytest.mark.parametrize(("stop", "heard"), [(KeyboardInterrupt(), 1), (SystemExit(143), 1), (SystemExit(2), 0)])
def test_a_sweep_that_is_stopped_anywhere_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: BaseException,
    heard: int,
) -> None:
    words.keep_command(tmp_path, ["train.py", "-m", "seed=1,2"])
    monkeypatch.setattr(lifecycle.Opening, "folder", tmp_path)

    def run() -> object:
        raise stop

    with pytest.raises(type(stop)):
        entry._concluded(run)
    assert capsys.readouterr().err.count("train.py -m seed=1,2 resume=true") == heard


@pytest.mark.parametrize("word", ["resume=outputs/a", "resume=outputs/a,outputs/b", "'resume=choice(a,b)'"])
def test_a_run_is_no_sweep_to_go_on_with(word: str) -> None:
    resume = word.removeprefix("resume=") if word == "resume=outputs/a" else None  # Hydra leaves swept ones out
    with pytest.raises(UsageError, match="goes on with one run, without -m"):
        lifecycle._check_opening(resume, [word.strip("'"), "seed=1"])


def test_at_its_end_a_process_is_not_to_be_stopped() -> None:
    """What torch does as it is unloaded takes seconds, and shows a trace where Ctrl-C comes between."""
    code = (
        "import os, signal\nfrom fakegan.system.processes import deaf_afterwards\n"
        "with deaf_afterwards(): print('done')\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1): os.kill(os.getpid(), number)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
