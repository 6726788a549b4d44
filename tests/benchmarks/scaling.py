"""Cost against the number of faces: time and peak memory, each point in a fresh process.

What a point needs is imported as it is measured: its process holds no more than the command would.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from tests.benchmarks.harness import Side, Turns, playing
from tests.benchmarks.results import Bound, NotMeasured, Point, Result

SIZES = (2_000, 20_000, 200_000)
QUICK_SIZES = (40, 80)
RECONSTRUCTED = 20_000  # at most: the net, not the stage, is what takes the time
LARGE = 256  # pixels a side, of the largest faces
LARGE_FACES = 20_000  # of them at most
BATCH = 128
RESAMPLES = 1000
FLAT = 100.0  # MB that 200,000 faces may take more than 2,000
LINEAR = 1.1  # the exponent of a cost that is linear or better, as near as single measurements tell
INTERVAL = 0.02  # seconds between two readings of the memory
FRAMES = 200  # of a film
FACE, LARGE_FACE = 3 * 64**2, 3 * LARGE**2  # bytes
FILE = 4096  # bytes on the disk, of a JPEG

Hashes = npt.NDArray[np.uint64]  # (N,)
Thumbs = npt.NDArray[np.uint8]  # (N, 64)
Prepared = Callable[[], object]  # what is timed


class Memory:
    """The peaks of this process and its children, in MB, by what Linux says; NaN where it says nothing."""

    def __init__(self) -> None:
        self.peak = self.own = self.child = math.nan
        self._ended = threading.Event()
        self._reading = threading.Thread(target=self._read_again_and_again, daemon=True)

    def __enter__(self) -> Memory:
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._reading.join()
        self._read()  # what was shorter than the time between two readings
        self.peak = _status("self").get("VmHWM", math.nan)

    def _read_again_and_again(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._read()

    def _read(self) -> None:
        self.own = float(np.fmax(self.own, _status("self").get("RssAnon", math.nan)))  # or the one that is no NaN
        for task in Path("/proc/self/task").glob("*/children"):
            try:
                children = task.read_text().split()
            except OSError:  # the thread has ended
                continue
            for child in children:
                self.child = float(np.fmax(self.child, _status(child).get("VmHWM", math.nan)))


def _status(process: str) -> dict[str, float]:
    """Figures of /proc/PID/status in MB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # no Linux, or the process has ended
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 / 1e6 for name, value, _ in fields}


def measured(turns: Turns, kind: Callable[[Path, int], Prepared], folder: Path, faces: int) -> None:
    """A side: its one turn makes ready, then times the work; the reply is (seconds, peak, own, child)."""
    work = kind(folder, faces)
    if turns.wait() is not None:
        with Memory() as memory:
            started = time.perf_counter()
            work()
            seconds = time.perf_counter() - started
        turns.done((seconds, memory.peak, memory.own, memory.child))
        turns.wait()


def prepare(folder: Path, faces: int, size: int = 64) -> Prepared:
    """JPEGs of 64x64 into a face store of this size, with two workers."""
    from fakegan.data.build import Recipe, Source, build_store
    from fakegan.data.images import Geometry
    from fakegan.labels import FAKE, REAL

    files = folder / f"files-{faces}"
    recipe = Recipe([Source("real", REAL, files / "real"), Source("fake", FAKE, files / "fake")], Geometry(size))
    return lambda: build_store(recipe, folder / f"store-{faces}", workers=2)


def split(folder: Path, faces: int) -> Prepared:
    """All splits of a store in which every fourth face shares a group with another."""
    from fakegan.data.splits import SplitConfig, split_faces

    rows = np.arange(faces)
    groups = np.char.add("group", (rows - (rows % 8 == 2) * 2).astype(np.str_))
    kept = np.full(faces, "", dtype="<U5")
    return lambda: split_faces(rows % 2, _sources(rows), groups, kept, SplitConfig())


def _sources(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    return np.array(["camera", "gan_a", "camera", "gan_b"])[rows % 4]


def duplicates(folder: Path, faces: int) -> Prepared:
    """Near duplicates among faces without any, by their hashes and thumbnails."""
    return _finding(*(array[:faces].copy() for array in _hashes_and_thumbnails(folder)))


def films(folder: Path, faces: int) -> Prepared:
    """The same among frames of films, by turns real and fake: within a film all are near copies."""
    return _finding(*film_frames(*_hashes_and_thumbnails(folder), faces))


def film_frames(hashes: Hashes, thumbs: Thumbs, count: int) -> tuple[Hashes, Thumbs]:
    """Hashes and thumbnails of so many frames, `FRAMES` in a row near copies of one of these faces and of each other.

    They differ from the face in up to three bits of the hash, and in each grey level by up to two.
    """
    rng = np.random.default_rng(0)
    film = np.arange(count) // FRAMES
    frames = hashes[film]
    for _ in range(3):
        frames ^= rng.integers(0, 2, count, dtype=np.uint64) << rng.integers(0, 64, count, dtype=np.uint64)
    levels = thumbs[film].astype(np.int16) + rng.integers(-2, 3, (count, 64), dtype=np.int16)
    return frames, levels.clip(0, 255).astype(np.uint8)


def _hashes_and_thumbnails(folder: Path) -> tuple[Hashes, Thumbs]:
    return np.load(folder / "hashes.npy", mmap_mode="r"), np.load(folder / "thumbs.npy", mmap_mode="r")


def _finding(hashes: Hashes, thumbs: Thumbs) -> Prepared:
    from fakegan.data.duplicates import find_duplicates

    keys = np.arange(len(hashes), dtype=np.uint64)
    return lambda: find_duplicates(keys, keys, keys, hashes, thumbs, np.arange(len(hashes)) % 2)


def feed(folder: Path, faces: int, images: str = "images.npy") -> Prepared:
    """One epoch of shuffled, mirrored batches in [-1, 1]."""
    from fakegan.data.arrays import map_array
    from fakegan.views import VIEWS
    from tests.benchmarks.trainer import real_and_fake

    pictures, rows = map_array(folder / images)[:faces], np.arange(faces)
    data = real_and_fake({"image": pictures}, rows % 2, VIEWS["pixels"], rows, min(BATCH, faces))

    def epoch() -> None:
        for batch in data.train_dataloader():
            data.on_after_batch_transfer(batch, 0)

    return epoch


def reconstruct(folder: Path, faces: int) -> Prepared:
    """The stage that reconstructs, writing its file, with a net of depth 1 and width 2."""
    import torch

    from fakegan.data.arrays import map_array
    from fakegan.nets.autogan import AutoGAN
    from fakegan.runs.checkpoints import save_checkpoint
    from fakegan.stages.reconstruct import reconstruct_faces
    from fakegan.stages.stage import Run

    options: dict[str, Any] = {"depth": 1, "width": 2}
    net, file = AutoGAN(**options), folder / "autoencoder.pt"
    save_checkpoint({"net": {"_target_": "fakegan.nets.autogan.AutoGAN", **options}, "weights": net.state_dict()}, file)
    settings = SimpleNamespace(
        paths=SimpleNamespace(artifact_dir=folder / "artifacts"),
        model=SimpleNamespace(name="scaling"),
        trainer=SimpleNamespace(accelerator="cpu"),
        trusted=(),
    )
    store = SimpleNamespace(geometry=SimpleNamespace(size=64))
    device, opened = torch.device("cpu"), SimpleNamespace(store=store)
    run = SimpleNamespace(settings=settings, device=device, autoencoder=file, faces=opened)
    images, rows = map_array(folder / "images.npy"), np.arange(faces)
    return lambda: reconstruct_faces(cast(Run, run), images, str(faces), rows)


def evaluate(folder: Path, faces: int) -> Prepared:
    """All that metrics.json says of a split, with 95% intervals from 1,000 resamples."""
    from fakegan.evaluation.metrics import measures

    rows = np.arange(faces)
    labels = rows % 2
    scores = 1 / (1 + np.exp(-np.random.default_rng(0).normal(2 * labels - 1, 1.5)))
    groups = np.char.add("group", rows.astype(np.str_))
    return lambda: measures(scores, labels, _sources(rows), groups, 0.5, resamples=RESAMPLES)


def make(turns: Turns, folder: Path, sizes: Sequence[int]) -> None:
    """Not measured: writes the faces, in a process that ends before the first point."""
    from tests.benchmarks.made_up import write_faces, write_jpegs, write_larger

    if turns.wait() is not None:
        write_faces(folder, max(sizes))
        write_larger(folder, min(LARGE_FACES, max(sizes)), LARGE)
        for size in sizes:
            write_jpegs(folder / f"files-{size}", np.load(folder / "images.npy", mmap_mode="r")[:size])
        turns.done(None)
        turns.wait()


class Kind(NamedTuple):
    """What is measured at every number of faces."""

    make_ready: Callable[[Path, int], Prepared]
    flat: str = ""  # what its memory must stay flat of: "files" that worker processes read, or one "map" of a file
    most: int | None = None  # faces that it is measured with
    why: str = ""  # not with more


_NET_TELLS_NOTHING = "the time goes into the net, which does the same for every batch: minutes that tell nothing"
_DISK = f"their pictures would take {200_000 * LARGE_FACE / 1e9:.0f} GB"
KINDS: dict[str, Kind] = {
    "prepare, 64x64 JPEGs, two workers": Kind(prepare, "files"),
    f"prepare --size {LARGE}, 64x64 JPEGs, two workers": Kind(
        partial(prepare, size=LARGE), "files", LARGE_FACES, _DISK
    ),
    "split": Kind(split),
    "near-duplicate search": Kind(duplicates),
    f"near-duplicate search, films of {FRAMES} frames": Kind(films),
    "feed, one epoch, flips, floats": Kind(feed, "map"),
    f"feed of {LARGE}x{LARGE}, one epoch, flips, floats": Kind(
        partial(feed, images=f"images-{LARGE}.npy"), "map", LARGE_FACES, _DISK
    ),
    "reconstruct, depth 1, width 2": Kind(reconstruct, "", RECONSTRUCTED, _NET_TELLS_NOTHING),
    f"evaluate, intervals of {RESAMPLES:,} resamples": Kind(evaluate),
}


def rows(quick: bool) -> Iterator[Result]:
    """Every kind at every size, then how it grows, and how flat the memory is of what streams."""
    sizes = QUICK_SIZES if quick else SIZES
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        needed = max(sizes) * 2 * FACE + sum(sizes) * FILE + min(LARGE_FACES, max(sizes)) * 2 * LARGE_FACE
        free = shutil.disk_usage(folder).free
        if free < 1.1 * needed:
            room = f"{needed / 1e9:.1f} GB and a tenth of it to spare are needed in {folder.parent}"
            yield NotMeasured("cost against the number of faces", f"{room}, {free / 1e9:.1f} GB are free")
            return
        with playing(Side(make, (folder, sizes)), apart=not quick) as turn:
            turn()
        for what, kind in KINDS.items():
            points = []
            for faces in sizes:
                if kind.most is not None and faces > kind.most:
                    yield NotMeasured(f"{what}, {faces:,} faces", kind.why)
                    continue
                with playing(Side(measured, (kind.make_ready, folder, faces)), apart=not quick) as turn:
                    points.append(Point(what, faces, *turn()))
                for made in (f"store-{faces}", "artifacts"):
                    shutil.rmtree(folder / made, ignore_errors=True)  # no other point uses it
                yield points[-1]
            yield growth(points)
            if kind.flat:
                yield flatness(points, streams_files=kind.flat == "files")


def growth(points: Sequence[Point]) -> Bound:
    """The exponent between the two largest numbers of faces."""
    fewer, most = points[-2:]
    what = f"{most.what}: growth p of time ~ faces^p from {fewer.faces:,} to {most.faces:,} faces"
    return Bound(what, "", (most.growth_from(fewer),), LINEAR, "linear or better")


def flatness(
    points: Sequence[Point],
    streams_files: bool,  # by worker processes; False: it maps one file, whose pages are not its own memory
) -> Result:
    """How much more memory the most faces take than the fewest: of a process or worker, or of its own."""
    few, many = points[0], points[-1]
    what = f"{many.what}: memory at {many.faces:,} faces less that at {few.faces:,}"
    peak, own, child = many.peak - few.peak, many.own - few.own, many.child - few.child
    if math.isnan(peak) or math.isnan(child if streams_files else own):
        return NotMeasured(what, "the system does not say how much its processes take")
    if streams_files:
        note = f"peak resident memory (VmHWM): its process {peak:.0f}, its largest worker {child:.0f}"
        return Bound(what, "MB", (max(peak, child),), FLAT, note)
    pages = "the pages of the mapped images.npy, which the system takes back at need"
    read = f"own memory (RssAnon, sampled every {1000 * INTERVAL:.0f} ms)"
    return Bound(what, "MB", (own,), FLAT, f"{read}; peak resident memory (VmHWM), with {pages}: {peak:.0f}")
