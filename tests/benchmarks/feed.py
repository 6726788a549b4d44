"""Rows on the feed: batches out of a face store against a Dataset that opens a picture file per item."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.datamodule import RealFakeDataModule
from fakegan.data.demo import demo_faces
from fakegan.data.store import FAKE, REAL, FaceStore
from fakegan.views import VIEWS
from tests.benchmarks.baselines import TO_BYTES, TO_FLOATS, picture_batches
from tests.benchmarks.harness import Row, interleave

SIZE = (178, 218)  # CelebA's own; the larger the files, the larger the ratio
COPIES = 5  # files of each built-in face, at JPEG qualities 86, 88, ... 94: drawing faces is slow


def rows(quick: bool) -> Iterator[Row]:
    """Batches as uint8, then mirrored and converted to [-1, 1]."""
    faces, batch_size, rounds, our_batches = (8, 8, 2, 4) if quick else (400, 128, 7, 30)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pictures = Path(folder) / "pictures"
        _write_pictures(pictures, faces)
        data = _data(pictures, Path(folder) / "store", batch_size)
        loader = data.train_dataloader()
        ours = chain.from_iterable(repeat(loader))
        name = f"feed, batches of {batch_size}, "
        against = f"PIL image per item, torchvision transforms, default DataLoader, {SIZE[0]}x{SIZE[1]} JPEGs, "

        plain_bytes = picture_batches(pictures, TO_BYTES, batch_size)
        times = interleave(lambda n: _drop(ours, n), lambda n: _drop(plain_bytes, n), rounds, our_batches, 2)
        yield Row(name + "uint8", against + "uint8", "batch", *times, bar=20, aim=60)

        converted = (data.on_after_batch_transfer(batch, 0) for batch in ours)
        plain_floats = picture_batches(pictures, TO_FLOATS, batch_size)
        times = interleave(lambda n: _drop(converted, n), lambda n: _drop(plain_floats, n), rounds, our_batches, 2)
        yield Row(name + "flips, floats", against + "flips, floats", "batch", *times, bar=20, aim=25)


def _drop(batches: Iterator[object], count: int) -> None:
    for _ in islice(batches, count):
        pass


def _write_pictures(folder: Path, faces: int) -> None:
    for name in ("real", "fake"):
        (folder / name).mkdir(parents=True)
    for i, face in enumerate(demo_faces(faces, workers=1 if faces < 100 else None)):
        picture = Image.fromarray(face.image).resize(SIZE, Image.Resampling.BICUBIC)
        for copy in range(COPIES):
            kind = "fake" if face.is_fake else "real"
            picture.save(folder / kind / f"{i:04d}-{copy}.jpg", quality=86 + 2 * copy)


def _data(pictures: Path, out: Path, batch_size: int) -> RealFakeDataModule:
    """The same pictures, prepared."""
    sources = [Source("real", REAL, pictures / "real"), Source("fake", FAKE, pictures / "fake")]
    build_store(Recipe(sources), out)
    store = FaceStore.open(out)
    everything = np.arange(len(store))
    return RealFakeDataModule(
        {"image": store.images}, store.labels, VIEWS["pixels"], everything, everything[:0], batch_size, seed=0
    )
