"""The limit of preparing pictures: decoding them. Apart from the baselines, since its workers should not load torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from tests.benchmarks.harness import Turns


def decode_only(turns: Turns, pictures: Path, workers: int) -> None:
    """A side: a unit is one picture decoded to RGB and dropped, in so many processes, which start anew every time."""
    paths = sorted(pictures.rglob("*.jpg"))

    def work(count: int) -> None:
        wanted = list(islice(itertools.cycle(paths), count))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(_decode, [wanted[i : i + 32] for i in range(0, count, 32)]))

    turns.serve(work)


def _decode(paths: Sequence[Path]) -> None:
    for path in paths:
        with Image.open(path) as picture:
            picture.convert("RGB").load()
