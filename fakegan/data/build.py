"""Sources to face store: reads pictures in worker processes, streams them to disk, merges duplicates' groups.

Also `read_pictures`, the same reading without a store, for prediction.
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fakegan.data.duplicates import Duplicates, find_duplicates
from fakegan.data.formats import ImageError, describe_left_out
from fakegan.data.frames import GroupBy, Names, group_of
from fakegan.data.images import Face, Geometry, Pixels, read_face_file, take_turns
from fakegan.data.sources import Container, ValueRange, open_container
from fakegan.data.store import Row, StoreWriter
from fakegan.data.summary import SourceSummary, Summary
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import REAL
from fakegan.system.pool import in_order

CHUNK = 32  # pictures a worker reads at a time: 400 kB of faces on the way back
_GROUP_KEY = re.compile("[0-9a-f]{16}")  # a group named like the one that a picture has of itself

_NO_GROUP = {
    "folder": "none lies in a folder below its source's own",
    "name": "none is numbered, with a name before the number",
}

Progress = Callable[[int, int], None]  # pictures done, pictures in all
Outcome = Face | str  # the reason where there is no face


@dataclass(frozen=True)
class Source:
    """A named set of pictures of one class."""

    name: str
    label: int
    path: Path  # folder, .zip or .npy
    split: str = ""  # kept in the store's column split
    prefix: str = ""  # of the file names in the store; the source's name if empty
    inside: str = ""  # of a folder or a .zip only what is below this one, "train/real/"


@dataclass(frozen=True)
class Recipe:
    """What the store is made of: all that decides its bytes."""

    sources: Sequence[Source]
    geometry: Geometry = field(default_factory=Geometry)
    groups: Path | None = None  # CSV with the columns file, group
    group_by: GroupBy | None = None  # without such a CSV
    limit: int | None = None  # the first so many of each source
    value_range: ValueRange | None = None  # what float arrays span


class Chunk(NamedTuple):
    """Pictures that one worker reads in one go."""

    source: Source
    container: Container
    names: list[str]


def build_store(
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 1,  # 0 or 1: in this process
    overwrite: bool = False,
    dry_run: bool = False,  # reads and summarises, writes nothing
    progress: Progress | None = None,
) -> Summary:
    """Makes the store, the same bytes for any number of workers.

    Raises:
        UsageError: a source without pictures, an array or a groups file of the wrong kind, `out` taken.
        FakeganError: a source of which nothing could be read, a full disk, a dead worker.
    """
    declared = DeclaredGroups.read(recipe.groups) if recipe.groups else DeclaredGroups({})
    containers = [open_container(source.path, recipe.value_range, source.inside) for source in recipe.sources]
    with ExitStack() as stack:
        writer = None if dry_run else stack.enter_context(StoreWriter(out, recipe.geometry, overwrite))
        summaries, total = _count(recipe, containers)
        found = _Found()
        chunks = _chunks(recipe, containers)
        done = 0
        for chunk, outcomes in _read_chunks(chunks, recipe.geometry, min(workers, -(-total // CHUNK))):
            summary = summaries[chunk.source.name]
            groups = _groups(chunk, recipe.group_by, declared)
            _keep(chunk, outcomes, summary=summary, groups=groups, found=found, writer=writer)
            done += len(outcomes)
            if progress:
                progress(done, total)
        _refuse_nothing_read(summaries)
        declared.refuse_all_unused(recipe.groups)
        if recipe.group_by and not found.group_names:
            raise UsageError(f"--group-by {recipe.group_by}: no picture has such a group: {_NO_GROUP[recipe.group_by]}")
        duplicates = found.duplicates()
        if writer:
            writer.regroup(found.groups(duplicates))
        result = _summarise(summaries, found, duplicates, declared, writer)
        result.grouped = (recipe.group_by, len(found.group_names)) if recipe.group_by else None
        if writer and recipe.group_by:
            writer.note("group_by", recipe.group_by)
        if not recipe.groups and not recipe.group_by:
            result.frames = found.frames()
        if writer:
            writer.warn(result.warnings())
        return result


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
    chunks = _path_chunks(paths, Counter() if left_out is None else left_out)
    for chunk, outcomes in _read_chunks(chunks, geometry, min(workers, -(-count_pictures(paths) // CHUNK))):
        names = (f"{chunk.source.prefix}{name}" for name in chunk.names)
        yield from zip(names, outcomes, strict=True)


def count_pictures(paths: Sequence[Path]) -> int:
    """How many outcomes `read_pictures` gives."""
    return sum(1 for _ in _pictures(paths, Counter()))


@dataclass(frozen=True)
class _Files:
    """Any files, named by their paths."""

    def entries(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def read(self, name: str, geometry: Geometry) -> Face:
        return read_face_file(Path(name), geometry)


@dataclass(frozen=True)
class _Nothing:
    """What holds no pictures that could be read, and why."""

    reason: str

    def entries(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def read(self, name: str, geometry: Geometry) -> Face:
        raise ImageError(self.reason)


def _pictures(paths: Sequence[Path], left_out: Counter[str]) -> Iterator[tuple[Container, str, str]]:
    """Each picture's container, the prefix of its name, and its name there; counts what is left out."""
    for path in paths:
        is_folder = os.path.isdir(path)  # unlike Path.is_dir, no error where a folder above is closed to us
        if not is_folder and not (path.suffix.lower() == ".zip" and os.path.isfile(path)):
            yield _Files(), "", str(path)
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
            yield _Nothing(f"{error}; the rest of it was not read" if found else str(error)), "", str(path)
        else:
            if not found:
                yield _Nothing(_no_pictures(others)), "", str(path)
        left_out += others


def _no_pictures(left_out: Counter[str]) -> str:
    return f"holds no pictures; {describe_left_out(left_out)}" if left_out else "holds no pictures: it is empty"


def _path_chunks(paths: Sequence[Path], left_out: Counter[str]) -> Iterator[Chunk]:
    for (container, prefix), pictures in groupby(_pictures(paths, left_out), key=itemgetter(0, 1)):
        while part := [name for _, _, name in islice(pictures, CHUNK)]:
            yield Chunk(Source("", REAL, Path(), prefix=prefix), container, part)


@dataclass
class DeclaredGroups:
    """The lines of --groups: a file, as faces.csv names it or as its source does, and its group."""

    group_of: dict[str, str]
    used: dict[str, str] = field(default_factory=dict)  # what stands in the CSV -> the file in the store

    @classmethod
    def read(cls, path: Path) -> DeclaredGroups:
        """Raises UsageError where the file is missing or is not such a table."""
        group_of: dict[str, str] = {}
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
                for row in csv.DictReader(lines):
                    file, group = row.get("file"), row.get("group")
                    if not file or not group:
                        raise UsageError(
                            f"{path}: line {len(group_of) + 2} lacks a file or a group; the first line is file,group"
                        )
                    if group_of.setdefault(file, group) != group:
                        raise UsageError(f"{path}: {file} is in two groups, {group_of[file]} and {group}")
        except (OSError, csv.Error) as error:
            raise UsageError(f"{path}: cannot be read as --groups: {getattr(error, 'strerror', error)}") from None
        if not group_of:
            raise UsageError(f"{path}: names no file; its first line is file,group, then one line a file")
        return cls(group_of)

    def of(self, file: str, name: str) -> str:
        """The declared group, or "" where there is none.

        Raises:
            UsageError: a bare name that fits pictures of two sources, which have nothing to do with each other.
        """
        for key in (file, name):
            if key in self.group_of:
                if self.used.setdefault(key, file) != file:
                    other = self.used[key]
                    raise UsageError(f"--groups: {key} could be {other} or {file}: name the file as {file} in the CSV")
                return self.group_of[key]
        return ""

    @property
    def unused(self) -> int:
        """Lines that named no picture."""
        return len(self.group_of) - len(self.used)

    def refuse_all_unused(self, path: Path | None) -> None:
        """Raises UsageError where not one line named a picture: the names are of another kind."""
        if self.group_of and not self.used:
            raise UsageError(
                f"{path}: none of its files is among the pictures: name them as below their source's folder, "
                f"such as 0001.jpg, not {next(iter(self.group_of))}"
            )


@dataclass
class _Found:
    """What finding duplicates needs of every row: about 110 bytes a picture, and 150 more while it looks."""

    group_names: dict[int, str] = field(default_factory=dict)  # the declared ones; others are called by their key
    group_keys: array[int] = field(default_factory=lambda: array("Q"))  # 64 bits: no chance collisions
    labels: array[int] = field(default_factory=lambda: array("b"))
    source_numbers: dict[str, int] = field(default_factory=dict)
    sources: array[int] = field(default_factory=lambda: array("I"))  # their numbers
    file_keys: array[int] = field(default_factory=lambda: array("Q"))
    pixel_keys: array[int] = field(default_factory=lambda: array("Q"))
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    thumbs: bytearray = field(default_factory=bytearray)
    names: Names = field(default_factory=Names)

    def add(self, face: Face, row: Row) -> None:
        self.group_keys.append(self._group_key(row.group))
        self.labels.append(row.label)
        self.sources.append(self.source_numbers.setdefault(row.source, len(self.source_numbers)))
        self.file_keys.append(int(face.sha256[:16], 16))
        self.pixel_keys.append(face.pixel_key)
        self.hashes.append(face.phash)
        self.thumbs += face.thumbnail

    def _group_key(self, group: str) -> int:
        if _GROUP_KEY.fullmatch(group):
            return int(group, 16)
        digest = hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        key = int.from_bytes(digest, "big")
        self.group_names[key] = group
        return key

    def duplicates(self) -> Duplicates:
        group_keys, file_keys, pixel_keys, hashes = (
            np.frombuffer(keys, dtype=np.uint64)
            for keys in (self.group_keys, self.file_keys, self.pixel_keys, self.hashes)
        )
        thumbs = np.frombuffer(self.thumbs, dtype=np.uint8).reshape(-1, 64)
        labels = np.frombuffer(self.labels, dtype=np.int8)
        return find_duplicates(group_keys, file_keys, pixel_keys, hashes, thumbs, labels)

    def frames(self) -> list[tuple[str, GroupBy, int]]:
        """Sources whose pictures look like frames of some things: name, how to group them, how many groups."""
        names = list(self.source_numbers)
        thumbs = np.frombuffer(self.thumbs, dtype=np.uint8).reshape(-1, 64)
        found = self.names.found(np.frombuffer(self.sources, dtype=np.uintc), thumbs)
        return [(names[source], by, count) for source, by, count in found]

    def groups(self, duplicates: Duplicates) -> Iterator[str]:
        """The merged groups, each named after that of its first row."""
        for row in duplicates.first:
            key = self.group_keys[row]
            yield self.group_names.get(key) or f"{key:016x}"


def _count(recipe: Recipe, containers: Sequence[Container]) -> tuple[dict[str, SourceSummary], int]:
    """A summary to fill for each source, and the number of pictures in all."""
    summaries: dict[str, SourceSummary] = {}
    pictures: Counter[str] = Counter()
    for source, container in zip(recipe.sources, containers, strict=True):
        summary = summaries.setdefault(source.name, SourceSummary(source.name, source.label))
        others: Counter[str] = Counter()
        for _, other in container.entries():
            others[other] += 1
        found = others.pop("", 0)
        if not found:
            raise UsageError(f"{source.path / source.inside} {_no_pictures(others)}")
        summary.left_out += others
        pictures[source.name] += found
    return summaries, sum(min(count, recipe.limit or count) for count in pictures.values())


def _chunks(recipe: Recipe, containers: Sequence[Container]) -> Iterator[Chunk]:
    taken: Counter[str] = Counter()  # a source may be made up of several folders
    for source, container in zip(recipe.sources, containers, strict=True):
        left = None if recipe.limit is None else recipe.limit - taken[source.name]
        names = islice((name for name, other in container.entries() if not other), left)
        while part := list(islice(names, CHUNK)):
            taken[source.name] += len(part)
            yield Chunk(source, container, part)


def _groups(chunk: Chunk, by: GroupBy | None, declared: DeclaredGroups) -> list[str]:
    """The group of each picture that --groups or --group-by gives it, else ""."""
    prefix = chunk.source.prefix or chunk.source.name
    if by is None:
        return [declared.of(f"{prefix}/{name}", name) for name in chunk.names]
    groups = [group_of(name, by) for name in chunk.names]
    return [f"{prefix}/{group}" if group else "" for group in groups]


def _keep(
    chunk: Chunk,
    outcomes: Sequence[Outcome],
    *,
    summary: SourceSummary,
    groups: Sequence[str],  # of each picture; "" for one that is alone
    found: _Found,
    writer: StoreWriter | None,
) -> None:
    """One chunk's faces into the store, its failures into rejected.csv."""
    source = chunk.source
    faces: list[Pixels] = []
    rows: list[Row] = []
    for name, group, outcome in zip(chunk.names, groups, outcomes, strict=True):
        file = f"{source.prefix or source.name}/{name}"
        if isinstance(outcome, str):
            summary.reject(outcome)
            if writer:
                writer.reject(file, source.name, outcome)
            continue
        row = Row.of(
            outcome,
            file=file,
            label=source.label,
            source=source.name,
            group=group,
            split=source.split,
        )
        summary.add(outcome)
        found.add(outcome, row)
        found.names.add(name)
        faces.append(outcome.pixels)
        rows.append(row)
    if writer:
        writer.extend(faces, rows)


def _refuse_nothing_read(summaries: dict[str, SourceSummary]) -> None:
    for summary in summaries.values():
        if not summary.count:
            reason, times = summary.reasons.most_common(1)[0]
            raise FakeganError(
                f"none of the {summary.rejected} pictures of {summary.name} could be used; most often: "
                f"{reason} ({times})"
            )


def _summarise(
    summaries: dict[str, SourceSummary],
    found: _Found,
    duplicates: Duplicates,
    declared: DeclaredGroups,
    writer: StoreWriter | None,
) -> Summary:
    sources = np.frombuffer(found.sources, dtype=np.uintc)
    for name, number in found.source_numbers.items():
        summaries[name].exact = int(duplicates.exact[sources == number].sum())
        summaries[name].near = int(duplicates.near[sources == number].sum())
    return Summary(
        sources=list(summaries.values()),
        both_classes=duplicates.both_classes,
        unused_groups=declared.unused,
        swept=bool(writer and writer.swept),
    )


def _read_chunks(chunks: Iterable[Chunk], geometry: Geometry, workers: int) -> Iterator[tuple[Chunk, list[Outcome]]]:
    """Reads chunks in their order, in worker processes."""
    begin = partial(take_turns, multiprocessing.get_context("spawn").Lock()) if workers > 1 else None
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

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], size: int) -> _Packed:
        pixels = b"".join(outcome.pixels.tobytes() for outcome in outcomes if isinstance(outcome, Face))
        others = [outcome if isinstance(outcome, str) else _but_pixels(outcome) for outcome in outcomes]
        return cls(pixels, size, others)

    def outcomes(self) -> list[Outcome]:
        pixels = iter(np.frombuffer(self.pixels, dtype=np.uint8).reshape(-1, self.size, self.size, 3))
        return [other if isinstance(other, str) else Face(next(pixels), *other) for other in self.others]


_but_pixels = attrgetter(*(field.name for field in fields(Face) if field.name != "pixels"))


def _read_chunk(geometry: Geometry, chunk: Chunk) -> _Packed:
    return _Packed.of([_read_one(chunk.container, name, geometry) for name in chunk.names], geometry.size)


def _read_one(container: Container, name: str, geometry: Geometry) -> Outcome:
    try:
        return container.read(name, geometry)
    except ImageError as error:
        return str(error)
