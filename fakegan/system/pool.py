"""A pool of worker processes that gives its results in order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from fakegan.system.processes import block_signals, start_worker

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,  # processes; 0 or 1: none but this one
    begin: Callable[[], object] | None = None,  # called in each worker as it starts
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in order; two tasks a worker are under way, so memory is bounded.

    Raises a BrokenProcessPool: a worker died.
    """
    if workers <= 1:
        yield from ((task, work(task)) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads can hang
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(begin,))
    under_way: deque[tuple[Task, Future[Result]]] = deque()
    try:
        for task in tasks:
            with block_signals():  # submitting may start a worker, which inherits the blocked signals
                under_way.append((task, pool.submit(work, task)))
            if len(under_way) > 2 * workers:
                first, result = under_way.popleft()
                yield first, result.result()
        while under_way:
            first, result = under_way.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(begin: Callable[[], object] | None) -> None:
    start_worker()
    if begin:
        begin()
