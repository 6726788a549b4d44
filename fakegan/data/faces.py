"""Faces to work with: a store and its splits, by the data settings; draws and keeps the built-in store."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from tqdm import tqdm

from fakegan.checks import SIZES, one_of
from fakegan.config.typed import unknown
from fakegan.data import demo
from fakegan.data.arrays import Rows
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.splits import CLASSIFIER, ClassRatio, Needs, SplitConfig, Splits, seeds, split_faces
from fakegan.data.store import MANIFEST, FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.system.columns import in_columns
from fakegan.system.log import quiet
from fakegan.system.processes import cores

_HEADINGS = {"autoencoder_train": "autoencoder", "autoencoder_val": "its val"}  # of the splits, in a table
_HEADINGS |= {"train": "train", "val": "val", "test": "test"}
_LONGEST_NAME = 24  # of a source, in a table of 80 columns
_TRAININGS = ("autoencoder", "classifier")  # each with a data module
_MAX_WORKERS = 64  # a config may come from elsewhere


@dataclass(frozen=True)
class DataSettings:
    """conf/data."""

    name: str  # in tables and folders
    root: Path | None  # the folder given to prepare as --out; null: the built-in faces
    demo_faces: int = 2400  # built-in faces to draw, half of them real; data=demo only
    demo_seed: int = 0  # of the drawing alone
    demo_size: int = SIZES[0]  # pixels a side of the built-in faces: 64, 128 or 256
    split: SplitConfig = field(default_factory=SplitConfig)
    limit: int | None = None  # faces of each source in each split, at most, for a quick try; null: all
    ratio: ClassRatio = "balanced"  # of real and fake in a training epoch: balanced or natural
    workers: int = 0  # DataLoader processes; 0 is fastest from a memory map; none where a GPU keeps the faces
    modules: dict[str, Any] = field(default_factory=dict)  # the LightningDataModules of the two trainings, as nodes

    def __post_init__(self) -> None:
        seeds(data__demo_seed=self.demo_seed)
        one_of(SIZES, demo_size=self.demo_size)
        if self.name == "demo" and self.root is not None:
            raise UsageError(f"data.root={self.root} needs data=faces: data=demo draws its own faces")
        if not 0 <= self.workers <= _MAX_WORKERS:
            raise UsageError(f"data.workers={self.workers} must be a number from 0 to {_MAX_WORKERS}")
        for name in self.modules:
            if name not in _TRAININGS:
                raise unknown(f"data.modules.{name}", None, [f"data.modules.{known}" for known in _TRAININGS])
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"data.limit={self.limit} must be 1 or more, or null for all faces")


@dataclass(frozen=True)
class Faces:
    """A store with its splits."""

    store: FaceStore
    splits: Splits

    def by_stage(self, needs: Needs) -> str:
        """A line for each source with its faces in each split, those of the autoencoder first; 80 columns at most."""
        shown = [i for i, split in enumerate(_HEADINGS) if split in needs or (split in CLASSIFIER and "test" in needs)]
        headings = [list(_HEADINGS.values())[i] for i in shown]
        rows = [["faces", *(f"{heading:>7}" for heading in headings)]]
        for source, counts in self.splits.counts(self.store.sources).items():
            label = CLASS_NAMES[int(self.store.labels[self.store.sources == source][0])]
            name = source if len(source) <= _LONGEST_NAME else f"{source[: _LONGEST_NAME - 3]}..."
            rows.append([f"{name} ({label})", *(f"{counts[i]:,}" for i in shown)])
        return "\n".join(in_columns(rows, right=range(1, len(rows[0]))))


def open_faces(
    settings: DataSettings,
    data_dir: Path,
    needs: Needs,
    verified: bool = True,  # that its images are what was written
) -> Faces:
    """The store of these settings, drawn first if it is the built-in one, and its splits.

    Raises:
        FakeganError: no store, a damaged one, or a split without the classes in `needs`.
    """
    path = settings.root if settings.root is not None else built_in_store(settings, data_dir)
    store = FaceStore.open(path)
    if verified:
        store.verify()
    return Faces(store, divided(store, settings, needs))


def divided(store: FaceStore, settings: DataSettings, needs: Needs) -> Splits:
    """The splits of a store; of each source in each split data.limit faces at most, evenly from first to last.

    Raises:
        FakeganError: a split without the classes in `needs`.
    """
    sources, limit = store.sources, settings.limit
    splits = split_faces(store.labels, sources, store.groups, store.kept_split, settings.split, needs=needs)
    if limit is None:
        return splits
    chosen: dict[str, Any] = {}
    for name in _HEADINGS:
        rows: Rows = getattr(splits, name)
        of_sources = [rows[sources[rows] == source] for source in np.unique(sources[rows])]
        kept = [own[np.linspace(0, len(own) - 1, min(limit, len(own))).astype(np.int64)] for own in of_sources]
        chosen[name] = np.sort(np.concatenate([rows[:0], *kept]))
    all_rows = np.concatenate([getattr(splits, name) for name in chosen])
    left_out = len(np.setdiff1d(all_rows, np.concatenate(list(chosen.values()))))
    reason = {f"data.limit={limit} for each source in each split": left_out} if left_out else {}
    return replace(splits, **chosen, left_out=splits.left_out | reason)


def built_in_store(settings: DataSettings, data_dir: Path) -> Path:
    """The store of built-in faces under `data_dir`, drawn once for each count, seed, size and recipe."""
    if settings.demo_faces < len(demo.SOURCES) * 2:
        raise UsageError(f"data.demo_faces={settings.demo_faces} is too few: ask for 100 or more")
    size = settings.demo_size
    larger = "" if size == SIZES[0] else f"-{size}px"
    path = data_dir / f"demo-{settings.demo_faces}-{settings.demo_seed}{larger}-r{demo.RECIPE}"
    if (path / MANIFEST).is_file():
        return path
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FakeganError(f"{data_dir} cannot be written ({error}): choose another data_dir") from error
    with filelock.FileLock(data_dir / f".{path.name}.lock"):
        if (path / MANIFEST).is_file():  # drawn by another run in the meantime
            return path
        faces = demo.demo_faces(settings.demo_faces, settings.demo_seed, size, workers=cores())
        with StoreWriter(path, Geometry(size)) as writer:
            hidden = quiet() or None  # None: where there is no terminal
            for drawn in tqdm(faces, f"drawing {path.name}", settings.demo_faces, mininterval=0.5, disable=hidden):
                face = face_from_pixels(drawn.image, format="DRAWN")
                label = FAKE if drawn.is_fake else REAL
                writer.append(face.pixels, Row.of(face, file=drawn.file, label=label, source=drawn.source))
    return path
