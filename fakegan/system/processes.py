"""Processes and signals: children in a session of their own, watched, stopped together, gone when their parent is."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import IO

from fakegan.errors import AlreadyReportedError, FakeganError, PeerLostError
from fakegan.system import places
from fakegan.system.shell import as_override, trusting

_PARENT = "FAKEGAN_PARENT"  # in a child's environment: its parent's process id
SHARING = "FAKEGAN_JOBS_PER_GPU"  # in the environment of a sweep's job: how many jobs its GPU has
REQUEUED = 75  # the exit code of a run that goes on later: BSD's "try again"
_POLL = 0.1  # seconds
_GRACE = 60.0  # seconds to save and end, before a process is killed
_FAIL_TOO = 5.0  # seconds for the other ranks to fail for the same reason, before they are killed
_KILLED = 5.0  # seconds that the system has to end a killed process; a container may never reap it
_DEBOUNCE = 0.5  # seconds; a terminal and a wrapper that passes signals on both send the one Ctrl-C
_PORTS = range(20_000, 32_768)  # below the ports that a system gives to whoever asks for any
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_log = logging.getLogger(__name__)


def resume_command(run_dir: Path, trust: Sequence[str]) -> list[str]:
    """The command that begins or resumes a run whose config has been written; the config may name these packages."""
    return [sys.executable, str(places.script("train")), as_override("resume", str(run_dir)), *trusting(trust)]


def start_child(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """A child that does not hear the terminal's Ctrl-C, and ends when this process does.

    It writes to `output`, or where this process writes. It leads a session, to which its own children belong.
    Signals that ask to stop reach it once it calls `unblock_signals`.
    """
    with block_signals():
        return subprocess.Popen(
            list(command),
            env={**environment, _PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},  # a killed child's log is complete
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=not is_child(),
        )


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Delay signals that ask to stop until the block ends; processes started within inherit the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """In a child whose parent blocked signals for it: from now on it can answer them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextlib.contextmanager
def ignore_signals_after() -> Iterator[None]:
    """Ignore signals after the block, where the process ends: torch takes seconds for that, with nothing to stop."""
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def start_worker() -> None:
    """In a pool's process: leave Ctrl-C to the main process, and end with it: a killed parent leaves no orphans."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    unblock_signals()
    parent = multiprocessing.parent_process()

    def exit_with_parent(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_one(processes: int) -> int:
    """The threads of each of several processes side by side, of OMP_NUM_THREADS or all cores."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # of nested levels the first
    return max((int(given) if given.isdigit() else cores()) // processes, 1)


def jobs_per_gpu() -> int:
    """How many jobs of a sweep, this process's among them, divide the memory of its GPU; 1: it has a GPU for itself."""
    return int(os.environ.get(SHARING, "1"))


def is_child() -> bool:
    """Whether `start_child` started this process: its parent tells the user what happens."""
    return os.environ.get(_PARENT) == str(os.getppid())


def end_with_parent() -> None:
    """In a child: save and end when the parent has died; called once, at the start."""
    if _PARENT not in os.environ:
        return
    parent = int(os.environ[_PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def end_session(child: subprocess.Popen[bytes]) -> None:
    """Kill a child, where it still runs, and all that it has started; wait until they are gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + _KILLED
    while (left := _session_of(child.pid)) and time.monotonic() < deadline:
        for pid in left:  # in process groups of their own, as a run's loaders are
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)


def _session_of(leader: int) -> list[int]:
    """The processes of a session that have not ended; none on a system without Linux's /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, _parent, _group, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in {"Z", "X"}:
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def record_signals(noted: list[int]) -> Iterator[None]:
    """Append signals that ask to stop to the list, instead of acting on them; repeats within half a second are one."""
    heard = [n for n in STOP_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]  # ignored: as in a script's "&"
    last = -math.inf

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _DEBOUNCE:
            noted.append(number)
        last = time.monotonic()

    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_ranks(script: Sequence[str], count: int, logs: Path) -> None:
    """Run a command as `count` ranks of one run, as torchrun would; wait for all of them.

    Rank 0 writes where this process writes, each other rank to a file in `logs`. Signals that ask to stop are passed on
    and act on this process once the ranks have ended. The command calls `unblock_signals` when it can answer them.

    Raises:
        AlreadyReportedError: one of them failed; the others were stopped.
        KeyboardInterrupt: it was stopped by Ctrl-C.
        SystemExit: it was stopped by another signal.
    """
    for log in logs.glob("process_*.log"):  # of an earlier start
        log.unlink()
    children: list[subprocess.Popen[bytes]] = []
    noted: list[int] = []
    shared = _shared_environment(count)
    with record_signals(noted), contextlib.ExitStack() as files:
        for rank in range(count):
            output = files.enter_context((logs / f"process_{rank}.log").open("wb")) if rank else None
            children.append(start_child(script, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, output))
        passed_on, killed, deadline = 0, list[int](), math.inf
        while any(child.poll() is None for child in children):
            for number in noted[passed_on:]:
                for child in children:
                    child.send_signal(number)
            passed_on = len(noted)
            ended = {child.returncode for child in children} - {None, 0}
            if ended:  # the others save and end, too, or wait in vain for a rank that has failed
                saving = len(noted) == 1 and not ended & {1, 2}
                deadline = min(deadline, time.monotonic() + (_GRACE if saving else _FAIL_TOO))
            if time.monotonic() > deadline:  # they cannot save without the others
                killed = [rank for rank, child in enumerate(children) if child.poll() is None]
                for rank in killed:
                    children[rank].kill()
                    children[rank].wait()
            time.sleep(_POLL)
    _conclude([child.returncode for child in children], noted, killed, logs)


def _shared_environment(count: int) -> dict[str, str]:
    """What all ranks have in their environment: where they meet, and each rank's share of the threads."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):  # at random: rank 0 binds it many seconds later
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            break
    else:
        raise FakeganError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free: the processes cannot meet")
    return {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": str(threads_of_one(count)),
    }


def _conclude(codes: Sequence[int], noted: Sequence[int], killed_here: Collection[int], logs: Path) -> None:
    """Say what became of the ranks, by their exit codes; raise what `run_ranks` raises."""
    for log in logs.glob("process_*.log"):
        if not log.stat().st_size:
            log.unlink()
    if not any(codes):
        return
    if noted and not {1, 2} & set(codes):  # none failed on its way to a stop
        signal.raise_signal(noted[0])  # its meaning to this process, now that the ranks have saved
        raise SystemExit(128 + noted[0])
    rank_zero_is_no_cause = codes[0] in {PeerLostError.exit_code, *range(-64, 1)}
    for rank, code in enumerate(codes):
        log = logs / f"process_{rank}.log"
        if code > 0 and code != PeerLostError.exit_code and rank_zero_is_no_cause and log.is_file():
            _log.error(log.read_text(errors="replace").strip())
        elif code < 0 and rank not in killed_here:
            _log.error("process %d of %d was killed by %s", rank, len(codes), signal.Signals(-code).name)
    raise AlreadyReportedError(2 if 2 in codes else 1)
