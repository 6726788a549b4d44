"""Sources to face store: reads pictures in worker processes, streams them to disk, merges duplicates' groups.

Also `read_pictures`, the same reading without a store, for prediction.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fakegan.data.arrays import at_once
from fakegan.data.duplicates import Duplicates, find_duplicates
from fakegan.data.file_facts import FactTable
from fakegan.data.formats import ImageError, describe_left_out
from fakegan.data.frames import GroupBy, Names
from fakegan.data.grouping import Grouping
from fakegan.data.images import Face, Geometry, one_large_picture_at_a_time
from fakegan.data.originals import PLACES
from fakegan.data.shortcuts import Pictures
from fakegan.data.sources import Container, Folder, ValueRange, open_container
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.data.summary import SourceSummary, Summary
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import REAL
from fakegan.system.log import quiet
from fakegan.system.pool import in_order

CHUNK = 32  # small pictures that a worker reads at a time, fewer of larger ones: 400 kB of faces on the way back
_OWN_GROUP = re.compile("[0-9a-f]{16}")  # the name of the group of a picture that is alone in it

Outcome = Face | str  # the reason where there is no face


@dataclass(frozen=True)
class Source:
    """A named set of pictures of one class."""

    name: str
    label: int
    path: Path  # folder, .zip or .npy
    split: str = ""  # kept in the store's column split
    prefix: str = ""  # of the file names in the store; the source's name if empty
    inside: str = ""  # of a folder or a .zip: only the pictures below this folder, "train/real/"


@dataclass(frozen=True)
class Recipe:
    """All that decides the bytes of a store."""

    sources: Sequence[Source]
    geometry: Geometry = field(default_factory=Geometry)
    groups: Path | None = None  # CSV with the columns file, group
    group_by: GroupBy | None = None  # without such a CSV
    limit: int | None = None  # the first so many of each source
    value_range: ValueRange | None = None  # of the values in float arrays


class _Unreadable(NamedTuple):
    """In place of a container that holds no pictures, or cannot be opened."""

    reason: str

    def read(self, name: str, geometry: Geometry) -> Face:
        raise ImageError(self.reason)


class _Chunk(NamedTuple):
    """Pictures that one worker reads in one go."""

    source: Source
    container: Container | _Unreadable
    names: list[str]


def build_store(
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 1,  # 0 or 1: in this process
    overwrite: bool = False,
    dry_run: bool = False,  # reads and summarises, writes nothing
) -> Summary:
    """Makes the store, the same bytes for any number of workers.

    Raises:
        UsageError: a source without pictures, an array or a groups file of the wrong kind, `out` taken.
        FakeganError: a source of which nothing could be read, a full disk, a dead worker.
    """
    grouping = Grouping.of_recipe(recipe.groups, recipe.group_by)
    value_range, size = recipe.value_range, recipe.geometry.size
    containers = [open_container(source.path, value_range, source.inside, size) for source in recipe.sources]
    with ExitStack() as stack:
        writer = None if dry_run else stack.enter_context(StoreWriter(out, recipe.geometry, overwrite))
        summaries, total = _count(recipe, containers)
        found = _Found()
        interval = 0.1 if sys.stderr.isatty() else 10  # seconds: a log needs few lines
        with tqdm(total=total, unit=" pictures", mininterval=interval, delay=interval, disable=quiet()) as bar:
            for chunk, outcomes in _read_chunks(_chunks(recipe, containers), recipe.geometry, workers, total):
                _keep(chunk, outcomes, grouping, summaries[chunk.source.name], found, writer)
                bar.update(len(outcomes))
        for summary in summaries.values():
            summary.refuse_empty()
        grouping.refuse_unused(any_group=bool(found.group_names))
        duplicates = found.duplicates()
        result = _summarise(recipe, list(summaries.values()), found, duplicates, grouping)
        if writer:
            result.swept = writer.swept
            writer.groups = found.groups(duplicates)
            lie = {s.prefix or s.name: {"path": os.path.abspath(s.path), "inside": s.inside} for s in recipe.sources}
            writer.notes = {"warnings": result.warnings(), PLACES: lie}
            if recipe.group_by:
                writer.notes["group_by"] = recipe.group_by
        return result


def _count(recipe: Recipe, containers: Sequence[Container]) -> tuple[dict[str, SourceSummary], int]:
    """A summary to fill for each source, and the number of pictures in all."""
    summaries: dict[str, SourceSummary] = {}
    pictures: Counter[str] = Counter()
    for source, container in zip(recipe.sources, containers, strict=True):
        summary = summaries.setdefault(source.name, SourceSummary(source.name, source.label))
        others = Counter(other for _, other in container.entries())
        found = others.pop("", 0)
        if not found:
            raise UsageError(f"{source.path / source.inside} {_no_pictures(others)}")
        summary.left_out += others
        pictures[source.name] += found
    return summaries, sum(min(count, recipe.limit or count) for count in pictures.values())


def _no_pictures(left_out: Counter[str]) -> str:
    return f"holds no pictures; {describe_left_out(left_out)}" if left_out else "holds no pictures: it is empty"


def _chunks(recipe: Recipe, containers: Sequence[Container]) -> Iterator[_Chunk]:
    taken: Counter[str] = Counter()  # a source may be made up of several folders
    for source, container in zip(recipe.sources, containers, strict=True):
        left = None if recipe.limit is None else recipe.limit - taken[source.name]
        names = islice((name for name, other in container.entries() if not other), left)
        while part := list(islice(names, at_once(CHUNK, recipe.geometry.size))):
            taken[source.name] += len(part)
            yield _Chunk(source, container, part)


def _keep(
    chunk: _Chunk,
    outcomes: Sequence[Outcome],
    grouping: Grouping,
    summary: SourceSummary,
    found: _Found,
    writer: StoreWriter | None,
) -> None:
    """The faces of a chunk go into the store, its failures into rejected.csv."""
    source = chunk.source
    prefix = source.prefix or source.name
    faces, rows = [], []
    for name, outcome in zip(chunk.names, outcomes, strict=True):
        file, group = f"{prefix}/{name}", grouping.of(prefix, name)
        if isinstance(outcome, str):
            summary.reasons[outcome] += 1
            if writer:
                writer.reject(file, source.name, outcome)
            continue
        row = Row.of(outcome, file=file, label=source.label, source=source.name, group=group, split=source.split)
        summary.count += 1
        found.add(outcome, row, name)
        faces.append(outcome.pixels)
        rows.append(row)
    if writer:
        writer.extend(faces, rows)


class _Found:
    """What is kept of every row to find duplicates: about 160 bytes a picture, and 150 more during the search."""

    def __init__(self) -> None:
        self.group_names: dict[int, str] = {}  # by key; other groups are called by their key
        self.group_keys, self.file_keys, self.pixel_keys, self.hashes = (array("Q") for _ in range(4))  # 64 bits each
        self.thumbs = bytearray()
        self.labels = array("b")
        self.source_numbers: dict[str, int] = {}
        self.sources = array("I")  # their numbers
        self.names = Names()
        self.files, self.equalised = FactTable(), FactTable()

    def add(self, face: Face, row: Row, name: str) -> None:
        if _OWN_GROUP.fullmatch(row.group):
            key = int(row.group, 16)
        else:
            digest = hashlib.blake2b(row.group.encode("utf-8", "surrogateescape"), digest_size=8).digest()
            key = int.from_bytes(digest, "big")
            self.group_names[key] = row.group
        self.group_keys.append(key)
        self.labels.append(row.label)
        self.sources.append(self.source_numbers.setdefault(row.source, len(self.source_numbers)))
        self.file_keys.append(int(face.sha256[:16], 16))
        self.pixel_keys.append(face.pixel_key)
        self.hashes.append(face.phash)
        self.thumbs += face.thumbnail
        self.files.add(face.facts)
        if face.equalised is not None:
            self.equalised.add(face.equalised)
        self.names.add(name)

    def duplicates(self) -> Duplicates:
        columns = (self.group_keys, self.file_keys, self.pixel_keys, self.hashes)
        group_keys, file_keys, pixel_keys, hashes = (np.frombuffer(column, dtype=np.uint64) for column in columns)
        thumbs = np.frombuffer(self.thumbs, dtype=np.uint8).reshape(-1, 64)
        return find_duplicates(
            group_keys, file_keys, pixel_keys, hashes, thumbs, labels=np.frombuffer(self.labels, dtype=np.int8)
        )

    def groups(self, duplicates: Duplicates) -> Iterator[str]:
        """The merged groups, each named after that of its first row."""
        for row in duplicates.first:
            key = self.group_keys[row]
            yield self.group_names.get(key) or f"{key:016x}"


def _summarise(
    recipe: Recipe, sources: list[SourceSummary], found: _Found, duplicates: Duplicates, grouping: Grouping
) -> Summary:
    numbers, names = np.frombuffer(found.sources, dtype=np.uintc), list(found.source_numbers)
    files = found.files.columns()
    equalised = found.equalised.columns() if recipe.geometry.equalise else None
    for source in sources:
        own = numbers == found.source_numbers[source.name]
        source.exact, source.near = int(duplicates.exact[own].sum()), int(duplicates.near[own].sum())
        source.files = {name: column[own] for name, column in files.items()}
    labels, groups = np.frombuffer(found.labels, dtype=np.int8).astype(np.int64), duplicates.first.astype(np.str_)
    pictures = Pictures(labels, np.array(names)[numbers], groups, files, equalised)
    summary = Summary(sources, pictures, recipe.geometry, both_classes=duplicates.both_classes)
    summary.unused_groups = len(grouping.declared) - len(grouping.used)
    if recipe.group_by:
        summary.grouped = recipe.group_by, len(found.group_names)
    elif not recipe.groups:
        thumbs = np.frombuffer(found.thumbs, dtype=np.uint8).reshape(-1, 64)
        summary.frames = [(names[source], by, count) for source, by, count in found.names.found(numbers, thumbs)]
    return summary


def read_pictures(
    paths: Sequence[Path],
    geometry: Geometry,
    workers: int = 1,
    left_out: Counter[str] | None = None,  # counts by suffix the files that are clearly no pictures
) -> Iterator[tuple[str, Outcome]]:
    """Files, folders with all below them and zip archives as faces, in this order; for what cannot be used, the reason.

    Each comes with its name: a file's path, or that of its folder or archive and its own below. In folders and
    archives files that are clearly no pictures are left out; a file that is named itself is always tried. A folder that
    cannot be listed, a broken archive, and one without pictures have a line with the reason. Memory does not grow
    with their number.
    """
    chunks = _path_chunks(paths, at_once(CHUNK, geometry.size), Counter() if left_out is None else left_out)
    for chunk, outcomes in _read_chunks(chunks, geometry, workers, count_pictures(paths)):
        names = (f"{chunk.source.prefix}{name}" for name in chunk.names)
        yield from zip(names, outcomes, strict=True)


def count_pictures(paths: Sequence[Path]) -> int:
    """How many outcomes `read_pictures` gives."""
    return sum(1 for _ in _pictures(paths, Counter()))


def _path_chunks(paths: Sequence[Path], length: int, left_out: Counter[str]) -> Iterator[_Chunk]:
    for (container, prefix), pictures in groupby(_pictures(paths, left_out), key=itemgetter(0, 1)):
        while part := [name for _, _, name in islice(pictures, length)]:
            yield _Chunk(Source("", REAL, Path(), prefix=prefix), container, part)


def _pictures(paths: Sequence[Path], left_out: Counter[str]) -> Iterator[tuple[Container | _Unreadable, str, str]]:
    """Each picture's container, the prefix of its name, and its name there; counts what is left out."""
    for path in paths:
        is_folder = os.path.isdir(path)  # unlike Path.is_dir, no error where a folder above is closed to us
        if not is_folder and not (path.suffix.lower() == ".zip" and os.path.isfile(path)):
            yield Folder(Path()), "", str(path)
            continue
        found = False
        others: Counter[str] = Counter()
        try:
            container = open_container(path)
            for name, other in container.entries():
                if other:
                    others[other] += 1
                else:
                    found = True
                    yield container, f"{path}{os.sep}", name
        except FakeganError as error:
            yield _Unreadable(f"{error}; the rest of it was not read" if found else str(error)), "", str(path)
        else:
            if not found:
                yield _Unreadable(_no_pictures(others)), "", str(path)
        left_out += others


def _read_chunks(
    chunks: Iterable[_Chunk],
    geometry: Geometry,
    workers: int,  # at most: no more than there are chunks
    count: int,  # of pictures
) -> Iterator[tuple[_Chunk, list[Outcome]]]:
    """Reads chunks in their order, in worker processes."""
    workers = min(workers, -(-count // at_once(CHUNK, geometry.size)))
    begin = partial(one_large_picture_at_a_time, multiprocessing.get_context("spawn").Lock()) if workers > 1 else None
    try:
        for chunk, packed in in_order(partial(_read_chunk, geometry), chunks, workers, begin):
            yield chunk, packed.outcomes()
    except BrokenProcessPool as error:
        raise FakeganError(
            "a worker process died, most likely for want of memory: try fewer --workers, or a lower --max-megapixels"
        ) from error


class _Packed(NamedTuple):
    """A chunk's outcomes on the way between processes: all pixels as one block, which is quick to pickle."""

    pixels: bytes
    size: int
    others: list[tuple[Any, ...] | str]  # a face's other fields; the reason where there is no face

    def outcomes(self) -> list[Outcome]:
        pixels = iter(np.frombuffer(self.pixels, dtype=np.uint8).reshape(-1, self.size, self.size, 3))
        return [other if isinstance(other, str) else Face(next(pixels), *other) for other in self.others]


_but_pixels = attrgetter(*(field.name for field in fields(Face) if field.name != "pixels"))


def _read_chunk(geometry: Geometry, chunk: _Chunk) -> _Packed:
    pixels = bytearray()
    others: list[tuple[Any, ...] | str] = []
    for name in chunk.names:
        try:
            face = chunk.container.read(name, geometry)
        except ImageError as error:
            others.append(str(error))
        else:
            pixels += face.pixels.tobytes()
            others.append(_but_pixels(face))
    return _Packed(bytes(pixels), geometry.size, others)
