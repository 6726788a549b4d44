"""Rows on preparing: pictures into a face store against a loop that saves, and against decoding alone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fakegan.data.build import Recipe, Source, build_store
from fakegan.labels import FAKE, REAL
from tests.benchmarks.baselines import resize_loop
from tests.benchmarks.decoding import decode_only
from tests.benchmarks.harness import Side, Turns, take_turns
from tests.benchmarks.made_up import write_photographs
from tests.benchmarks.results import Result, Row, Share

SIZE = (256, 256)
WORKERS = 2
IF_MISSED = (
    "A third of a picture's time on a core is the resize, whose bits are in the stores: Pillow's, without SIMD. "
    "It would take Pillow built with SIMD, or another resize and so other stores; decoding JPEGs at half their size "
    "would treat them unlike PNGs."
)


def ours(turns: Turns, pictures: Path, out: Path, workers: int) -> None:
    """A side: a unit is one picture, all of them prepared at once: worker processes started, duplicates found."""
    sources = [Source("real", REAL, pictures / "real"), Source("fake", FAKE, pictures / "fake")]

    def work(count: int) -> None:
        build_store(Recipe(sources), out, workers=workers, overwrite=True)

    turns.serve(work)
    shutil.rmtree(out)


def rows(quick: bool) -> Iterator[Result]:
    """All pictures a round; a share of them in the loop, whose time for one does not change."""
    count, part, rounds = (40, 20, 2) if quick else (12_000, 1000, 3)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_photographs(folder / "pictures", count, SIZE)
        sides = [
            Side(ours, (folder / "pictures", folder / "store", WORKERS)),
            Side(resize_loop, (folder / "pictures", folder / "small")),
            Side(decode_only, (folder / "pictures", WORKERS)),
        ]
        units = (count, part, count)
        our_times, loop, decode = take_turns(sides, rounds, units, (count, part, count), apart=not quick)
    what = f"prepare {count:,} JPEGs of {SIZE[0]}x{SIZE[1]}, {WORKERS} workers"
    yield Row(what, "a loop in one process: open, resize, save as JPEG", "picture", our_times, loop, bar=1.9)
    yield Share(what, f"decoding alone, {WORKERS} processes", "picture", our_times, decode, 0.7, IF_MISSED)
