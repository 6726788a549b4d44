"""How sides are timed: each in a process of its own, by turns, seconds per unit of work, round by round.

A side of its own process has its own allocator, thread pool and imports: what one sets helps and hurts no other. While
one works the others are blocked in a read of their pipe. No torch here: a side imports what it needs, and no more.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[[int], None]  # does that many units: batches, steps, faces


@dataclass(frozen=True)
class Side:
    """What takes turns: `start(turns, *arguments)` makes ready and then works whenever it is asked to."""

    start: Callable[..., None]  # of a module's top level: it is called in another process
    arguments: tuple[Any, ...] = ()


class Turns:
    """A side's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def wait(self) -> int | None:
        """Sleep until it is this side's turn: the units to do, None at the end."""
        units: int | None = self.pipe.recv()
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


class Player:
    """The caller's end: gives one side its turns."""

    def __init__(self, side: Side, pipe: Connection) -> None:
        self.side, self.pipe = side, pipe

    def turn(self, units: int = 1) -> Any:
        """Let it do so many units; its reply.

        Raises:
            RuntimeError: the side ended instead; its own message stands above.
        """
        try:
            self.pipe.send(units)
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"{self.side.start.__module__}.{self.side.start.__name__} ended early") from error


@contextmanager
def playing(
    side: Side,
    apart: bool = True,  # in a process of its own; False: in a thread, for a look whether it runs
) -> Iterator[Player]:
    """The side, started; it ends with the block."""
    ours, its = multiprocessing.Pipe()
    if apart:
        worker: Any = multiprocessing.get_context("spawn").Process(target=_play_apart, args=(side, its))
    else:
        worker = threading.Thread(target=_play, args=(side, its), daemon=True)
    worker.start()
    if apart:
        its.close()  # else its early end would leave the pipe open
    try:
        yield Player(side, ours)
        ours.send(None)
    finally:
        ours.close()
        worker.join()


def _play_apart(side: Side, pipe: Connection) -> None:
    sys.modules["__main__"] = types.ModuleType("__main__")  # else a side's own workers load the whole suite first
    _play(side, pipe)


def _play(side: Side, pipe: Connection) -> None:
    try:
        side.start(Turns(pipe), *side.arguments)
    finally:
        pipe.close()


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
        players = [stack.enter_context(playing(side, apart)) for side in sides]
        for player, count in zip(players, warm_ups, strict=True):
            player.turn(count)
        times = [[p.turn(count) for p, count in zip(players, units, strict=True)] for _ in range(rounds)]
    return [tuple(side) for side in zip(*times, strict=True)]
