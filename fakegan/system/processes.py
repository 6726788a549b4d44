"""Processes and signals: children in a session of their own, watched, stopped together, gone when their parent is."""

from __future__ import annotations

import contextlib
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
from fakegan.system.shell import trusting, word

_PARENT = "FAKEGAN_PARENT"  # in a child's environment: its parent's process id
REQUEUED = 75  # the exit code of a run that goes on later: BSD's "try again"
_POLL = 0.1  # seconds
_GRACE = 60.0  # seconds to save and end, before a process is killed
_ALONE = 5.0  # seconds for a process whose fellow has failed to fail for the same reason, before it is killed
_KILLED = 5.0  # seconds that the system has to end what was killed; a container may never bury it
_DEBOUNCE = 0.5  # seconds; a terminal and a wrapper that passes signals on both send the one Ctrl-C
_PORTS = range(20_000, 32_768)  # below those that a system gives to whoever asks for any
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))  # Windows has no SIGUSR1


def resume_command(
    run_dir: Path,
    trust: Sequence[str] = (),  # packages whose code its config may name
) -> list[str]:
    """The command that begins, or goes on with, a run whose config has been written, whatever its path is made of."""
    return [sys.executable, str(places.script("train")), word("resume", str(run_dir)), *trusting(trust)]


def start_child(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """A child that does not hear the terminal's Ctrl-C, and ends when this process does.

    Its words go to `output`, or where this process's own go. It leads a session, to which its own children belong.
    Signals that ask to stop reach it once it calls `hear_signals`.
    """
    with block_signals():
        return subprocess.Popen(
            list(command),
            env={**environment, _PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},  # a log's last words are its last
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=not is_child(),
        )


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Signals that ask to stop come after the block; processes started within inherit that they are held back."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """In a process whose parent holds signals back from it: from now on it can answer."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextlib.contextmanager
def ignore_signals_after() -> Iterator[None]:
    """What comes after the block is the process's end, which takes torch seconds: nothing is left to stop."""
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
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_child() -> bool:
    """Whether `start` started this process: its parent speaks to people."""
    return os.environ.get(_PARENT) == str(os.getppid())


def end_with_parent() -> None:
    """In a child: when the parent has died, save and end; called once, at the start."""
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
        for pid in left:  # in groups of their own, as a run's loaders are
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)


def _session_of(leader: int) -> list[int]:
    """The processes of a session that have not ended; none where the system does not tell as Linux does."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, _parent, _group, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in {"Z", "X"}:
                found.append(int(path.parent.name))
    return found


def send_signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a child, if it still runs."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)


@contextlib.contextmanager
def record_signals(noted: list[int]) -> Iterator[None]:
    """Signals that ask to stop are appended to the list instead of acted on; one on another's heels is the same one."""
    heard = [
        number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    ]  # as in a script's "&"
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
    """Run a command as `count` processes that know of each other, as torchrun would; wait for all of them.

    The first speaks for all; what the others say is in `logs`, one file each. Signals that ask to stop are passed on,
    and act on this process once the others have ended. The command calls `hear_signals` when it can answer them.

    Raises:
        AlreadyReportedError: one of them failed; the others were stopped.
        KeyboardInterrupt: it was stopped by Ctrl-C.
        SystemExit: it was stopped by another signal.
    """
    for log in logs.glob("process_*.log"):  # of an earlier start
        log.unlink()
    children: list[subprocess.Popen[bytes]] = []
    noted: list[int] = []
    shared = _meeting_place(count)
    with record_signals(noted), contextlib.ExitStack() as files:
        for i in range(count):
            output = files.enter_context((logs / f"process_{i}.log").open("wb")) if i else None
            children.append(start_child(script, {**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, output))
        passed, killed, deadline = 0, list[int](), math.inf
        while any(child.poll() is None for child in children):
            for number in noted[passed:]:
                for child in children:
                    send_signal(child, number)
            passed = len(noted)
            ended = {child.returncode for child in children} - {None, 0}
            if ended:  # the others save and end, too, or wait in vain for one that has failed
                saving = len(noted) == 1 and not ended & {1, 2}
                deadline = min(deadline, time.monotonic() + (_GRACE if saving else _ALONE))
            if time.monotonic() > deadline:
                killed = _kill(children)
            time.sleep(_POLL)
    _answer(children, noted, killed, logs)


def _meeting_place(count: int) -> dict[str, str]:
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # of nested levels the first
    threads = int(given) if given.isdigit() else cores()
    return {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": str(max(threads // count, 1)),
    }


def _free_port() -> int:
    """A port that is still free when the first process listens there, many seconds later."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise FakeganError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free: the processes cannot meet")


def _kill(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Kill those that still run: they cannot save without the others. Returns their numbers."""
    left = [i for i, child in enumerate(children) if child.poll() is None]
    for i in left:
        send_signal(children[i], signal.SIGKILL)
        children[i].wait()
    return left


def _answer(
    children: Sequence[subprocess.Popen[bytes]], noted: Sequence[int], ended_by_us: Collection[int], logs: Path
) -> None:
    codes = [child.returncode for child in children]
    for log in logs.glob("process_*.log"):
        if not log.stat().st_size:
            log.unlink()
    if not any(codes):
        return
    if noted and not {1, 2} & set(codes):  # none failed on its way to a stop
        signal.raise_signal(noted[0])  # what it means to this process, now that the others have saved
        raise SystemExit(128 + noted[0])
    for i, code in enumerate(codes):
        log = logs / f"process_{i}.log"
        if (
            code > 0
            and code != PeerLostError.exit_code
            and log.is_file()
            and codes[0] in {PeerLostError.exit_code, *range(-64, 1)}
        ):  # it failed first
            print(log.read_text(errors="replace").strip(), file=sys.stderr, flush=True)
        elif code < 0 and i not in ended_by_us:
            print(
                f"process {i} of {len(codes)} was killed by {signal.Signals(-code).name}", file=sys.stderr, flush=True
            )
    raise AlreadyReportedError(2 if 2 in codes else 1)
