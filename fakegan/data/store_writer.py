"""Writes face stores: row by row to disk, and into place when all is there."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import fakegan
from fakegan.data.arrays import npy_header
from fakegan.data.file_facts import FileFacts
from fakegan.data.images import Face, Geometry, Pixels
from fakegan.data.store import (
    COLUMNS,
    EQUALISED,
    FACES,
    FILES,
    IMAGES,
    KEPT_SPLITS,
    MANIFEST,
    OWN_FILES,
    REJECTED,
    add_file,
    format_version,
)
from fakegan.errors import UsageError
from fakegan.labels import CLASS_NAMES, LABEL_CONVENTION
from fakegan.system.files import building_folder, csv_table, disk_errors, entries, leftovers, replacing


@dataclass(frozen=True)
class Row:
    """One line of faces.csv."""

    file: str  # unique in the store: source, "/", name within the source
    label: int  # REAL or FAKE
    source: str  # data set or generator
    group: str  # identity or origin: never divided between splits
    sha256: str
    phash: int
    facts: FileFacts  # of the original picture's file
    equalised: FileFacts | None = None  # of the file that it was made into first; all rows have such facts, or none
    split: str = ""  # a split that came with the data and was kept: train, val, test

    @classmethod
    def of(cls, face: Face, *, file: str, label: int, source: str, group: str = "", split: str = "") -> Row:
        """The row of a face; without a group it is alone in its own, named after its content."""
        of_face = (face.sha256, face.phash, face.facts, face.equalised)
        return cls(file, label, source, group or face.sha256[:16], *of_face, split)

    def cells(self) -> list[str]:
        """In the order of COLUMNS."""
        format, width, height, mean = fact_cells(self.facts)[:4]
        head = [self.file, str(self.label), self.source, self.group, self.sha256]
        return head + [width, height, format, mean, f"{self.phash:016x}", self.split]


def fact_cells(facts: FileFacts) -> list[str]:
    """A file's facts in the order of its fields; nothing where a number is unknown."""

    def number(value: float, digits: int = 0) -> str:
        return "" if math.isnan(value) else f"{value:.{digits}f}"

    mean, length, exif = number(facts.jpeg_quantiser_mean, 4), number(facts.bytes), number(facts.exif)
    return [facts.format, str(facts.width), str(facts.height), mean, facts.chroma, length, exif, facts.profile]


class StoreWriter:
    """Builds a store and moves it to `path` at the end of the `with` block; the same rows give the same bytes.

    A link is followed. `building_folder` says how a store is built, and how the remains of a killed process are removed
    (`swept` tells whether there were any). If the block raises, nothing is left behind.

    Raises on entering:
        UsageError: `path` is taken: by a store without `overwrite`, or by anything that is no store.
        FakeganError: another process writes it, or the disk cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        geometry: Geometry,
        overwrite: bool = False,  # replaces a finished store, once the new one is complete
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.geometry = geometry
        self.overwrite = overwrite
        self.swept = False
        self.count = 0
        self.groups: Iterable[str] | None = None  # of all rows, once known: they replace the groups of the rows
        self.notes: dict[str, object] = {"warnings": []}  # for the manifest
        self._sources: dict[str, dict[str, int]] = {}
        self._digest = hashlib.sha256()

    def __enter__(self) -> StoreWriter:
        with disk_errors(self.path), ExitStack() as stack:
            self.swept = bool(leftovers(self.path))
            self._folder = stack.enter_context(building_folder(self.path, last=MANIFEST, durable=True))
            self._refuse_taken()
            self._files = stack.enter_context(ExitStack())
            self._images = self._files.enter_context((self._folder / IMAGES).open("wb"))
            self._images.write(npy_header(0, self.geometry.size))
            self._rows = self._files.enter_context(csv_table(self._folder / FACES, COLUMNS))
            self._facts = self._files.enter_context(csv_table(self._folder / FILES, FileFacts._fields))
            self._equalised: Any = None  # as `_facts`, begun by the first row that has such facts
            rejected = csv_table(self._folder / REJECTED, ("file", "source", "reason"))
            self._rejected = self._files.enter_context(rejected)
            self._building = stack.pop_all()
        return self

    def append(self, pixels: Pixels, row: Row) -> None:
        """Adds one face, (size, size, 3) uint8; rows keep the order of the calls."""
        self.extend([pixels], [row])

    def extend(self, faces: Sequence[Pixels], rows: Sequence[Row]) -> None:
        """`append` for several faces: costs less a face."""
        size = self.geometry.size
        for pixels, row in zip(faces, rows, strict=True):
            if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
                raise TypeError(f"a face is uint8 ({size}, {size}, 3), got {pixels.dtype} {pixels.shape}")
            if row.label not in CLASS_NAMES or row.split not in KEPT_SPLITS or not row.group:
                raise ValueError(f"not a row of a store: {row}")
        content = b"".join(pixels.tobytes() for pixels in faces)
        with disk_errors(self.path):
            self._images.write(content)
            self._rows.writerows(row.cells() for row in rows)
            self._facts.writerows(fact_cells(row.facts) for row in rows)
            if equalised := [fact_cells(row.equalised) for row in rows if row.equalised]:
                if self._equalised is None:
                    table = csv_table(self._folder / EQUALISED, FileFacts._fields)
                    self._equalised = self._files.enter_context(table)
                self._equalised.writerows(equalised)
        self._digest.update(content)
        for row in rows:
            source = self._of_source(row.source)
            source["label"] = row.label
            source["count"] += 1
        self.count += len(rows)

    def reject(self, file: str, source: str, reason: str) -> None:
        """Notes in rejected.csv a picture that could not be used."""
        with disk_errors(self.path):
            self._rejected.writerow([file, source, reason])
        self._of_source(source)["rejected"] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):  # a full disk raises once more when the buffers are written
                self._building.__exit__(kind, error, trace)
            return
        with disk_errors(self.path), self._building:
            self._images.seek(0)
            self._images.write(npy_header(self.count, self.geometry.size))
            self._files.close()
            if self.groups is not None:
                _replace_groups(self._folder / FACES, self.groups)
            add_file(self._digest, self._folder / FACES)
            (self._folder / MANIFEST).write_text(json.dumps(self._manifest(), indent=2) + "\n", encoding="utf-8")
            self._refuse_taken()  # again: someone else may have written there in the meantime

    def _of_source(self, source: str) -> dict[str, int]:
        return self._sources.setdefault(source, {"label": -1, "count": 0, "rejected": 0})

    def _refuse_taken(self) -> None:
        path = self.path
        if path.is_symlink():  # `realpath` follows every other link
            raise UsageError(f"{path} is a link to itself: choose another --out")
        if not path.exists():
            return
        if not path.is_dir():
            raise UsageError(f"{path} is a file: choose another --out")
        found = entries(path)
        if others := found - OWN_FILES:
            raise UsageError(f"{path} holds other things than a face store ({min(others)}): choose another --out")
        if found and not self.overwrite:
            raise UsageError(f"{path} holds a face store already: add --overwrite, or choose another --out")

    def _manifest(self) -> dict[str, object]:
        size = self.geometry.size
        return {
            "format_version": format_version(size),
            "fakegan": fakegan.__version__,
            "geometry": self.geometry.values(),
            "label_convention": LABEL_CONVENTION,
            "count": self.count,
            "shape": [self.count, size, size, 3],
            "dtype": "uint8",
            "fingerprint": self._digest.hexdigest(),
            "sources": self._sources,
            **self.notes,
        }


def _replace_groups(path: Path, groups: Iterable[str]) -> None:
    """Another group in each row of faces.csv.

    Raises:
        ValueError: there are not as many groups as rows.
    """
    column = COLUMNS.index("group")
    with (
        replacing(path) as grouped,
        csv_table(grouped, COLUMNS) as writer,
        path.open(encoding="utf-8", errors="surrogateescape", newline="") as rows,
    ):
        reader = csv.reader(rows)
        next(reader)
        try:
            for cells, group in zip(reader, groups, strict=True):
                cells[column] = group
                writer.writerow(cells)
        except ValueError as error:
            raise ValueError(f"not as many groups as rows in {path.name}") from error
