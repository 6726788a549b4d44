"""Sides of a benchmark that another process can import without torch; test_benchmarks.py starts them."""

import os

from tests.benchmarks.harness import Turns


class OutOfMemoryError(RuntimeError):
    """As torch's, of a GPU."""


def own(turns: Turns) -> None:
    turns.wait()
    turns.done((os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")))
    turns.wait()


def ends(turns: Turns) -> None:
    turns.wait()


def is_full(turns: Turns) -> None:
    raise OutOfMemoryError("tried to allocate 9 GiB")
