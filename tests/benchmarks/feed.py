"""Rows on the feed: batches out of a face store against Datasets that make a PIL image per item."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.store import FaceStore
from fakegan.labels import FAKE, REAL
from fakegan.training.datamodules import RealFakeDataModule
from fakegan.views import VIEWS
from tests.benchmarks import machine
from tests.benchmarks.baselines import face_batches, picture_batches, taking
from tests.benchmarks.harness import Side, Turns, take_turns
from tests.benchmarks.made_up import write_photographs
from tests.benchmarks.results import Result, Row, Share

SIZE = (178, 218)  # CelebA's own; the larger the files, the larger the ratio
FACE_BYTES = 64 * 64 * 3
BYTES_MISSED = (
    "About half of the time is the copy of the bytes, most of the rest DataLoader's own work on each batch: it would "
    "take a loop without DataLoader."
)
FLOATS_MISSED = (
    "Torch has no one operation from bytes to the same bits of x / 127.5 - 1, so 6.3 MB of floats are written and gone "
    "over twice more, which takes half of the time: it would take a kernel of our own."
)


def ours(turns: Turns, out: Path, to_floats: bool, batch_size: int) -> None:
    """A side: a unit is one shuffled batch, as uint8 or mirrored and converted to [-1, 1]."""
    store = FaceStore.open(out)
    everything = np.arange(len(store))
    data = RealFakeDataModule(
        {"image": store.images}, store.labels, VIEWS["pixels"], everything, everything[:0], batch_size, seed=0
    )
    batches = chain.from_iterable(repeat(data.train_dataloader()))
    if to_floats:
        turns.serve(taking(data.on_after_batch_transfer(batch, 0) for batch in batches))
    else:
        turns.serve(taking(batches))


def rows(quick: bool) -> Iterator[Result]:
    """Batches as uint8, then mirrored and converted to [-1, 1]."""
    faces, batch_size, rounds, our_batches = (24, 8, 2, 4) if quick else (2000, 128, 7, 30)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pictures, out = Path(folder) / "pictures", Path(folder) / "store"
        write_photographs(pictures, faces, SIZE)
        build_store(Recipe([Source("real", REAL, pictures / "real"), Source("fake", FAKE, pictures / "fake")]), out)
        for to_floats, bar, kind, if_missed in (
            (False, 60, "uint8", BYTES_MISSED),
            (True, 25, "flips, floats", FLOATS_MISSED),
        ):
            copied = 2**16 if quick else machine.COPIED
            sides = [
                Side(ours, (out, to_floats, batch_size)),
                Side(face_batches, (out / "images.npy", to_floats, batch_size)),
                Side(picture_batches, (pictures, to_floats, batch_size)),
                Side(machine.copy, (copied,)),
            ]
            times = take_turns(sides, rounds, (our_batches, 2, 2, 2), warm_up=2, apart=not quick)
            what = f"feed, batches of {batch_size}, {kind}"
            usual = f"torchvision's transforms and a default DataLoader, {kind}"
            per_item = f"a PIL image per item, out of an array in memory, {usual}"
            yield Row(what, per_item, "batch", times[0], times[1], bar, if_missed)
            files = f"{SIZE[0]}x{SIZE[1]} JPEGs"
            yield Row(what, f"torchvision's ImageFolder on the {files}, {usual}", "batch", times[0], times[2], bar)
            size = batch_size * FACE_BYTES * (4 if to_floats else 1)
            limits = tuple(seconds * size / copied for seconds in times[3])
            yield Share(what, f"a copy in memory of its {size / 1e6:.2g} MB", "batch", times[0], limits)
