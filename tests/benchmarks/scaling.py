"""Cost against the number of faces: time and peak memory, each point in a fresh process."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tests.benchmarks.harness import Side, Turns, playing
from tests.benchmarks.results import Bound, NotMeasured, Point, Result

SIZES = (2_000, 20_000, 200_000)
QUICK_SIZES = (40, 80)
RECONSTRUCTED = 20_000  # at most: the net, not the stage, is what takes the time
BATCH = 128
RESAMPLES = 1000
FLAT = 100.0  # MB that 200,000 faces may take more than 2,000
LINEAR = 1.1  # the exponent of a cost that is linear or better, as near as single measurements tell
LOOKS = 0.02  # seconds from one look at the memory to the next
FRAMES = 200  # of a film
FACE = 64 * 64 * 3  # bytes
FILE = 4096  # bytes on the disk, of a JPEG

Hashes = npt.NDArray[np.uint64]  # (N,)
Thumbs = npt.NDArray[np.uint8]  # (N, 64)


class Memory:
    """The peaks of this process and its children, in MB, by what Linux says; None where it says nothing."""

    def __init__(self) -> None:
        self.peak: float | None = None
        self.own: float | None = None
        self.child: float | None = None
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()
        self._look_once()  # what was shorter than the time between two looks
        self.peak = _status("self").get("VmHWM")

    def _look(self) -> None:
        while not self._ended.wait(LOOKS):
            self._look_once()

    def _look_once(self) -> None:
        self.own = _most(self.own, _status("self").get("RssAnon"))
        self.child = _most(self.child, *(_status(child).get("VmHWM") for child in _children()))


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _status(process: str) -> dict[str, float]:
    """Figures of /proc/PID/status in MB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # no Linux, or it has ended
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 / 1e6 for name, value, _ in fields}


def _children() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            found += task.read_text().split()
        except OSError:
            continue
    return found


def _measure(turns: Turns, work: Callable[[], object]) -> None:
    """One turn: the reply is (seconds, peak, own, child)."""
    if turns.wait() is None:
        return
    with Memory() as memory:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    turns.done((seconds, memory.peak, memory.own, memory.child))
    turns.wait()


def prepare(turns: Turns, folder: Path, faces: int) -> None:
    """JPEGs of 64x64 into a face store, with two workers."""
    from fakegan.data.build import Recipe, Source, build_store
    from fakegan.labels import FAKE, REAL

    files = folder / f"files-{faces}"
    recipe = Recipe([Source("real", REAL, files / "real"), Source("fake", FAKE, files / "fake")])
    _measure(turns, lambda: build_store(recipe, folder / f"store-{faces}", workers=2))


def split(turns: Turns, folder: Path, faces: int) -> None:
    """All splits of a store in which every fourth face shares a group with another."""
    from fakegan.data.splits import SplitConfig, split_faces

    rows = np.arange(faces)
    sources = np.array(["camera", "gan_a", "camera", "gan_b"])[rows % 4]
    groups = np.char.add("group", (rows - (rows % 8 == 2) * 2).astype(np.str_))
    kept = np.full(faces, "", dtype="<U5")
    _measure(turns, lambda: split_faces(rows % 2, sources, groups, kept, SplitConfig()))


def duplicates(turns: Turns, folder: Path, faces: int) -> None:
    """Near duplicates among faces without any, by their hashes and thumbnails."""
    _find_duplicates(turns, *(array[:faces].copy() for array in _looks(folder)))


def films(turns: Turns, folder: Path, faces: int) -> None:
    """The same among frames of films, by turns real and fake: within a film all are near copies."""
    _find_duplicates(turns, *film_frames(*_looks(folder), faces))


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


def _looks(folder: Path) -> tuple[Hashes, Thumbs]:
    """The made-up faces' hashes and thumbnails."""
    return np.load(folder / "hashes.npy", mmap_mode="r"), np.load(folder / "thumbs.npy", mmap_mode="r")


def _find_duplicates(turns: Turns, hashes: Hashes, thumbs: Thumbs) -> None:
    from fakegan.data.duplicates import find_duplicates

    keys = np.arange(len(hashes), dtype=np.uint64)
    labels = np.arange(len(hashes)) % 2
    _measure(turns, lambda: find_duplicates(keys, keys, keys, hashes, thumbs, labels))


def feed(turns: Turns, folder: Path, faces: int) -> None:
    """One epoch of shuffled, mirrored batches in [-1, 1]."""
    from fakegan.data.arrays import map_array
    from fakegan.views import VIEWS
    from tests.benchmarks import modules

    images, rows = map_array(folder / "images.npy")[:faces], np.arange(faces)
    batch = min(BATCH, faces)
    data = modules.real_and_fake({"image": images}, rows % 2, VIEWS["pixels"], rows, batch)

    def epoch() -> None:
        for batch in data.train_dataloader():
            data.on_after_batch_transfer(batch, 0)

    _measure(turns, epoch)


def reconstruct(turns: Turns, folder: Path, faces: int) -> None:
    """The stage that reconstructs, writing its file, with a net of depth 1 and width 2."""
    import torch

    from fakegan.data.arrays import map_array
    from fakegan.nets.autogan import AutoGAN
    from fakegan.runs.checkpoints import save_checkpoint
    from fakegan.stages.reconstruct import reconstruct_faces
    from fakegan.stages.stage import Run

    options: dict[str, Any] = {"depth": 1, "width": 2}
    net, file = AutoGAN(**options), folder / "autoencoder.pt"
    node = {"_target_": "fakegan.nets.autogan.AutoGAN", **options}
    save_checkpoint({"net": node, "weights": net.state_dict()}, file)
    settings = SimpleNamespace(
        paths=SimpleNamespace(artifact_dir=folder / "artifacts"),
        model=SimpleNamespace(name="scaling"),
        trainer=SimpleNamespace(accelerator="cpu"),
        trusted=(),
    )
    run = SimpleNamespace(settings=settings, device=torch.device("cpu"), autoencoder=file)
    images, rows = map_array(folder / "images.npy"), np.arange(faces)
    _measure(turns, lambda: reconstruct_faces(cast(Run, run), images, str(faces), rows))


def evaluate(turns: Turns, folder: Path, faces: int) -> None:
    """All that metrics.json says of a split, with 95% intervals from 1,000 resamples."""
    from fakegan.evaluation.metrics import measures

    rng = np.random.default_rng(0)
    rows = np.arange(faces)
    labels = rows % 2
    scores = 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.5)))
    sources = np.array(["camera", "gan_a", "camera", "gan_b"])[rows % 4]
    groups = np.char.add("group", rows.astype(np.str_))
    _measure(turns, lambda: measures(scores, labels, sources, groups, 0.5, resamples=RESAMPLES))


def make(turns: Turns, folder: Path, sizes: tuple[int, ...]) -> None:
    """Not measured: writes the faces, in a process that ends before the first point."""
    from tests.benchmarks.made_up import link_face_files, write_face_files, write_faces

    if turns.wait() is None:
        return
    write_faces(folder, max(sizes))
    write_face_files(np.load(folder / "images.npy", mmap_mode="r"), folder / f"files-{max(sizes)}")
    for size in sizes:
        if size != max(sizes):
            link_face_files(folder / f"files-{max(sizes)}", folder / f"files-{size}", size)
    turns.done(None)
    turns.wait()


KINDS: dict[str, Callable[..., None]] = {
    "prepare, 64x64 JPEGs, two workers": prepare,
    "split": split,
    "near-duplicate search": duplicates,
    f"near-duplicate search, films of {FRAMES} frames": films,
    "feed, one epoch, flips, floats": feed,
    "reconstruct, depth 1, width 2": reconstruct,
    f"evaluate, intervals of {RESAMPLES:,} resamples": evaluate,
}


def rows(quick: bool) -> Iterator[Result]:
    """Every kind at every size, then how it grows, and how flat the memory is of what streams."""
    sizes = QUICK_SIZES if quick else SIZES
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        needed, free = max(sizes) * (2 * FACE + FILE), shutil.disk_usage(folder).free
        if free < 1.1 * needed:
            room = f"{needed / 1e9:.1f} GB and a tenth of it to spare are needed in {folder.parent}"
            yield NotMeasured("cost against the number of faces", f"{room}, {free / 1e9:.1f} GB are free")
            return
        with playing(Side(make, (folder, sizes)), apart=not quick) as maker:
            maker.turn()
        for what, kind in KINDS.items():
            points = []
            for faces in sizes:
                if kind is reconstruct and faces > RECONSTRUCTED:
                    why = "the time goes into the net, which does the same for every batch: minutes that tell nothing"
                    yield NotMeasured(f"{what}, {faces:,} faces", why)
                    continue
                with playing(Side(kind, (folder, faces)), apart=not quick) as player:
                    points.append(Point(what, faces, *player.turn()))
                _remove_what_it_made(folder, kind, faces)
                yield points[-1]
            yield growth(points)
            if kind is prepare:
                yield flatness_of_prepare(points)
            elif kind is feed:
                yield flatness_of_feed(points)


def _remove_what_it_made(folder: Path, kind: Callable[..., None], faces: int) -> None:
    """The files of a point, which no other uses, so that the disk holds those of one only."""
    if kind is prepare:
        shutil.rmtree(folder / f"store-{faces}")
        shutil.rmtree(folder / f"files-{faces}")
    elif kind is reconstruct:
        shutil.rmtree(folder / "artifacts")


def growth(points: list[Point]) -> Bound:
    """The exponent between the two largest numbers of faces."""
    fewer, most = points[-2:]
    what = f"{most.what}: growth p of time ~ faces^p from {fewer.faces:,} to {most.faces:,} faces"
    return Bound(what, "", (most.growth_from(fewer),), LINEAR, "linear or better")


def flatness_of_prepare(points: list[Point]) -> Result:
    """How much more memory the most faces take than the fewest, in its process or in a worker."""
    few, many = points[0], points[-1]
    what = _flatness(few, many)
    if many.peak is None or few.peak is None or many.child is None or few.child is None:
        return NotMeasured(what, "the system does not say how much its process and its workers take")
    process, worker = many.peak - few.peak, many.child - few.child
    note = f"peak resident memory (VmHWM): its process {process:.0f}, its largest worker {worker:.0f}"
    return Bound(what, "MB", (max(process, worker),), FLAT, note)


def flatness_of_feed(points: list[Point]) -> Result:
    """How much more memory of its own the most faces take than the fewest: without the mapped file's pages."""
    few, many = points[0], points[-1]
    what = _flatness(few, many)
    if many.peak is None or few.peak is None or many.own is None or few.own is None:
        return NotMeasured(what, "the system does not say how much its process takes")
    own = f"own memory (RssAnon, sampled every {1000 * LOOKS:.0f} ms)"
    pages = "the pages of the mapped images.npy, which the system takes back at need"
    note = f"{own}; peak resident memory (VmHWM), with {pages}: {many.peak - few.peak:.0f}"
    return Bound(what, "MB", (many.own - few.own,), FLAT, note)


def _flatness(few: Point, many: Point) -> str:
    return f"{many.what}: memory at {many.faces:,} faces less that at {few.faces:,}"
