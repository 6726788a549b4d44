"""Rows on pictures: preparing a face store and feeding batches out of it, against a loop and PIL images per item."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, cycle, islice, repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.store import FaceStore
from fakegan.labels import FAKE, REAL
from fakegan.views import VIEWS
from tests.benchmarks import machine
from tests.benchmarks.decoding import decode_only
from tests.benchmarks.harness import Side, Turns, repeating, take_turns
from tests.benchmarks.made_up import write_photographs
from tests.benchmarks.results import Result, Row, Share
from tests.benchmarks.trainer import real_and_fake

SIZE = (178, 218)  # CelebA's own; the larger the files, the larger the ratio
PREPARED_SIZE = (256, 256)
WORKERS = 2
FACE_BYTES = 64 * 64 * 3
BYTES_MISSED = (
    "About half of the time is the copy of the bytes, most of the rest DataLoader's own work on each batch: it would "
    "take a loop without DataLoader."
)
FLOATS_MISSED = (
    "Torch has no one operation from bytes to the same bits of x / 127.5 - 1, so 6.3 MB of floats are written and gone "
    "over twice more, which takes half of the time: it would take a kernel of our own."
)
PREPARE_MISSED = (
    "A third of a picture's time on a core is the resize, whose bits are in the stores: Pillow's, without SIMD. "
    "It would take Pillow built with SIMD, or another resize and so other stores; decoding JPEGs at half their size "
    "would treat them unlike PNGs."
)

# The usual way, of several the faster: a PIL image per item, a default DataLoader, a loop that saves.
TO_BYTES = transforms.PILToTensor()
TO_FLOATS = transforms.Compose(
    [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)


class FaceArray(Dataset[tuple[Tensor, int]]):
    """Faces of a uint8 array (N, 64, 64, 3) in memory; each becomes a PIL image whenever it is asked for."""

    def __init__(self, images: npt.NDArray[np.uint8], transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), index % 2


def usual_batches(turns: Turns, pictures: Path, to_floats: bool, batch_size: int) -> None:
    """A side: a unit is one shuffled batch, of a .npy file's faces in memory or of JPEGs opened when asked for."""
    transform = TO_FLOATS if to_floats else TO_BYTES
    data: Dataset[tuple[Tensor, int]]
    if pictures.suffix == ".npy":
        data = FaceArray(np.load(pictures), transform)
    else:
        data = ImageFolder(str(pictures), transforms.Compose([transforms.Resize((64, 64)), transform]))
    batches = chain.from_iterable(repeat(DataLoader(data, batch_size, shuffle=True)))
    turns.serve(repeating(lambda: next(batches)))


def our_batches(turns: Turns, out: Path, to_floats: bool, batch_size: int) -> None:
    """A side: a unit is one shuffled batch, as uint8 or mirrored and converted to [-1, 1]."""
    store = FaceStore.open(out)
    data = real_and_fake({"image": store.images}, store.labels, VIEWS["pixels"], np.arange(len(store)), batch_size)
    batches = chain.from_iterable(repeat(data.train_dataloader()))
    turns.serve(repeating(lambda: data.on_after_batch_transfer(next(batches), 0) if to_floats else next(batches)))


def rows(quick: bool) -> Iterator[Result]:
    """Batches as uint8, then mirrored and converted to [-1, 1]."""
    faces, batch_size, rounds, units = (24, 8, 2, 4) if quick else (2000, 128, 7, 30)
    copied = 2**16 if quick else machine.COPIED
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pictures, out = Path(folder) / "pictures", Path(folder) / "store"
        write_photographs(pictures, faces, SIZE)
        build_store(Recipe([Source("real", REAL, pictures / "real"), Source("fake", FAKE, pictures / "fake")]), out)
        for to_floats, bar, kind, if_missed in (
            (False, 60, "uint8", BYTES_MISSED),
            (True, 25, "flips, floats", FLOATS_MISSED),
        ):
            sides = [
                Side(our_batches, (out, to_floats, batch_size)),
                Side(usual_batches, (out / "images.npy", to_floats, batch_size)),
                Side(usual_batches, (pictures, to_floats, batch_size)),
                Side(machine.copy, (copied,)),
            ]
            ours, per_item, from_files, copies = take_turns(sides, rounds, (units, 2, 2, 2), 2, apart=not quick)
            what = f"feed, batches of {batch_size}, {kind}"
            usual = f"torchvision's transforms and a default DataLoader, {kind}"
            against = f"a PIL image per item, out of an array in memory, {usual}"
            yield Row(what, against, "batch", ours, per_item, bar, if_missed)
            against = f"torchvision's ImageFolder on the {SIZE[0]}x{SIZE[1]} JPEGs, {usual}"
            yield Row(what, against, "batch", ours, from_files, bar)
            size = batch_size * FACE_BYTES * (4 if to_floats else 1)
            limits = tuple(seconds * size / copied for seconds in copies)
            yield Share(what, f"a copy in memory of its {size / 1e6:.2g} MB", "batch", ours, limits)


def prepare(turns: Turns, pictures: Path, out: Path, workers: int) -> None:
    """A side: a unit is one picture, all of them prepared at once: worker processes started, duplicates found."""
    sources = [Source("real", REAL, pictures / "real"), Source("fake", FAKE, pictures / "fake")]
    turns.serve(lambda count: (build_store(Recipe(sources), out, workers=workers, overwrite=True), None)[1])
    shutil.rmtree(out)


def resize_loop(turns: Turns, pictures: Path, out: Path) -> None:
    """A side: a unit is one picture opened, resized to 64x64 and saved, one after the other in one process.

    Saved as JPEG: PNG would take longer.
    """
    out.mkdir()
    paths = sorted(pictures.rglob("*.jpg"))

    def work(count: int) -> None:
        for path in islice(cycle(paths), count):
            Image.open(path).convert("RGB").resize((64, 64)).save(out / path.name, quality=95)

    turns.serve(work)


def prepare_rows(quick: bool) -> Iterator[Result]:
    """All pictures a round; a share of them in the loop, whose time for one does not change."""
    count, part, rounds = (40, 20, 2) if quick else (12_000, 1000, 3)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_photographs(folder / "pictures", count, PREPARED_SIZE)
        sides = [
            Side(prepare, (folder / "pictures", folder / "store", WORKERS)),
            Side(resize_loop, (folder / "pictures", folder / "small")),
            Side(decode_only, (folder / "pictures", WORKERS)),
        ]
        units = (count, part, count)
        ours, loop, decode = take_turns(sides, rounds, units, units, apart=not quick)
    what = f"prepare {count:,} JPEGs of {PREPARED_SIZE[0]}x{PREPARED_SIZE[1]}, {WORKERS} workers"
    yield Row(what, "a loop in one process: open, resize, save as JPEG", "picture", ours, loop, bar=1.9)
    yield Share(what, f"decoding alone, {WORKERS} processes", "picture", ours, decode, 0.7, PREPARE_MISSED)
