"""How sides are timed: each in a process of its own, by turns, seconds per unit of work, round by round.

A process of its own has its own allocator, thread pool and imports: what a side sets helps and hurts no other. While
one side works, the others are blocked in a read of their pipe. A side's process imports the module that the side is
written in, so there is no torch here: `python -m` keeps `__main__` out of other processes.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from unittest.mock import patch

Work = Callable[[int], None]  # does that many units: batches, steps, faces


@dataclass(frozen=True)
class Side:
    """What takes turns: `start(turns, *arguments)` makes ready and then works whenever it is asked to."""

    start: Callable[..., None]  # of a module's top level: it is called in another process
    arguments: tuple[Any, ...] = ()
    sees_gpus: bool = False  # False: its process has none, so that a machine with GPUs measures the same


class _Failure(NamedTuple):
    """What a side replies when it fails."""

    kind: str  # the exception's name
    message: str


class SideError(RuntimeError):
    """A side ended before its time."""

    def __init__(self, side: Side, failure: _Failure | None = None) -> None:
        why = f": {failure.kind}: {failure.message}" if failure else ""
        super().__init__(f"{side.start.__module__}.{side.start.__name__} ended early{why}")
        # torch's OutOfMemoryError, or an error of a library of CUDA's
        self.out_of_memory = "outofmemory" in why.lower().replace(" ", "")


class Turns:
    """A side's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def wait(self) -> int | None:
        """Sleep until it is this side's turn: the units to do, None at the end."""
        try:
            units: int | None = self.pipe.recv()
        except (EOFError, OSError):  # another side has failed, and the caller has gone
            return None
        return units

    def done(self, reply: Any) -> None:
        """End the turn; for a timed side the reply is seconds a unit."""
        self.pipe.send(reply)

    def serve(self, work: Work, finish: Callable[[], None] = lambda: None) -> None:
        """Do what is asked for until the end; `finish` waits for what the work left running (a GPU)."""
        while (units := self.wait()) is not None:
            started = time.perf_counter()
            work(units)
            finish()
            self.done((time.perf_counter() - started) / units)


@contextmanager
def playing(
    side: Side,
    apart: bool = True,  # in a process of its own; False: in a thread, for a look whether it runs
) -> Iterator[Callable[..., Any]]:
    """Start a side, which ends with the block.

    Yields a function that lets the side do so many units and returns its reply; a SideError if the side has ended.
    """
    ours, its = multiprocessing.Pipe()
    if apart:
        worker: Any = multiprocessing.get_context("spawn").Process(target=_play, args=(side, its))
        with patch.dict(os.environ, {} if side.sees_gpus else {"CUDA_VISIBLE_DEVICES": ""}):
            worker.start()
        its.close()  # else the side's early end would leave the pipe open
    else:
        worker = threading.Thread(target=_play, args=(side, its), daemon=True)
        worker.start()

    def turn(units: int = 1) -> Any:
        with suppress(OSError):  # the side has ended; its reply can still be read
            ours.send(units)
        try:
            reply = ours.recv()
        except (EOFError, OSError) as error:
            raise SideError(side) from error
        if isinstance(reply, _Failure):
            raise SideError(side, reply)
        return reply

    try:
        yield turn
        ours.send(None)
    finally:
        ours.close()
        worker.join()


def _play(side: Side, pipe: Connection) -> None:
    try:
        side.start(Turns(pipe), *side.arguments)
    except KeyboardInterrupt:  # from the terminal, which has interrupted the caller, too
        pass
    except Exception as error:
        with suppress(OSError):  # the caller has gone
            pipe.send(_Failure(type(error).__name__, str(error)))
            traceback.print_exc()
    finally:
        pipe.close()


def repeating(once: Callable[[], object]) -> Work:
    """Work whose unit is one call."""

    def work(count: int) -> None:
        for _ in range(count):
            once()

    return work


def take_turns(
    sides: Sequence[Side],
    rounds: int,
    units: Sequence[int],  # of each side, a round
    warm_up: int | Sequence[int] = 1,  # units of each side before the clock counts
    apart: bool = True,
) -> list[tuple[float, ...]]:
    """Seconds a unit of each side, a value a round: A B C A B C ..., after a warm-up of each."""
    warm_ups = [warm_up] * len(sides) if isinstance(warm_up, int) else warm_up
    with ExitStack() as stack:
        turns = [stack.enter_context(playing(side, apart)) for side in sides]
        for turn, count in zip(turns, warm_ups, strict=True):
            turn(count)
        times = [[turn(count) for turn, count in zip(turns, units, strict=True)] for _ in range(rounds)]
    return list(zip(*times, strict=True))
