"""The face store: images.npy, faces.csv and manifest.json in one folder, read as memory-mapped arrays.

Every picture that a stage trains, tests or reports on comes out of a store; `store_writer` is the only way in.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.checks import SIZES
from fakegan.data.arrays import HEADER_BYTES, map_array
from fakegan.data.file_facts import NUMBERS, FileFacts, Files
from fakegan.data.images import Equaliser, Geometry
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import FAKE, LABEL_CONVENTION, REAL
from fakegan.system.files import building_place
from fakegan.system.shell import local_path

FORMAT_VERSION = 2  # of faces larger than the smallest, which version 1 knows alone; both are read
IMAGES, FACES, MANIFEST, REJECTED = "images.npy", "faces.csv", "manifest.json", "rejected.csv"
FILES, EQUALISED = "files.csv", "equalised.csv"  # facts of the files as they came, and as equalising made them
AUDIT = "audit.json"  # what `audit` found of such a store
OWN_FILES = frozenset({IMAGES, FACES, MANIFEST, REJECTED, FILES, EQUALISED, AUDIT})
OWN_FILES |= {building_place(Path(AUDIT)).name}  # of an audit that was killed
COLUMNS = ["file", "label", "source", "group", "sha256", "width", "height", "format"]  # of faces.csv
COLUMNS += ["jpeg_quantiser_mean", "phash", "split"]
KEPT_SPLITS = ("", "train", "val", "test")

_SHA256 = "[0-9a-f]{64}"
_TEXT = (r"[^\x00-\x1f\x7f-\x9f]*", "a text that a terminal can show")
_SIDE = ("[1-9][0-9]{0,8}", "a number of pixels")
_CELLS = {  # column: what a cell must match, and how that is called
    "label": ("[01]", f"{REAL} (real) or {FAKE} (fake)"),
    "sha256": (_SHA256, "64 hexadecimal digits"),
    "width": _SIDE,
    "height": _SIDE,
    "split": ("|".join(KEPT_SPLITS), "train, val, test or nothing"),
    "jpeg_quantiser_mean": (r"(\d{1,5}\.\d{4})?", "a number or nothing"),
    "bytes": ("[0-9]{0,9}", "a number or nothing"),
    "exif": ("[01]?", "0, 1 or nothing"),
    "format": _TEXT,
    "chroma": _TEXT,
    "profile": _TEXT,
}
# A store may come from elsewhere: no file is read that is far larger than a store's file ever is.
_MAX_MANIFEST_BYTES = 16 * 2**20  # some 100 for each source
_MAX_ROW_BYTES = 16 * 2**10  # some 200, mostly the file's name
_MAX_COLUMN_BYTES = 16 * 2**30  # in memory, where each cell takes as much as the longest

StringArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class FaceStore:
    """An opened store; row i of every array describes images[i]."""

    path: Path
    images: npt.NDArray[np.uint8]  # (N, size, size, 3), memory-mapped, read only
    files: StringArray  # (N,)
    labels: npt.NDArray[np.int64]  # (N,), REAL or FAKE
    sources: StringArray  # (N,)
    groups: StringArray  # (N,)
    sha256: StringArray  # (N,)
    widths: npt.NDArray[np.int64]  # (N,), of the original pictures
    heights: npt.NDArray[np.int64]  # (N,)
    kept_split: StringArray  # (N,), one of KEPT_SPLITS
    geometry: Geometry
    fingerprint: str  # sha256 over the image bytes, then faces.csv
    manifest: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FaceStore:
        """Checks shape, dtype, rows, version and labels; `verify` checks the content.

        Raises:
            UsageError: there is no store.
            FakeganError: the store is damaged or of another version.
        """
        path = Path(path)
        _must_exist(path)
        manifest = _read_manifest(path / MANIFEST)
        images = _map_images(path / IMAGES, manifest)
        table = _read_columns(path / FACES, len(images), COLUMNS)
        return cls(
            path=path,
            images=images,
            files=_column(table, "file", path / FACES),
            labels=_column(table, "label", path / FACES).astype(np.int64),
            sources=_column(table, "source", path / FACES),
            groups=_column(table, "group", path / FACES),
            sha256=_column(table, "sha256", path / FACES),
            widths=_column(table, "width", path / FACES).astype(np.int64),
            heights=_column(table, "height", path / FACES).astype(np.int64),
            kept_split=_column(table, "split", path / FACES),
            geometry=Geometry.of(manifest["geometry"]),
            fingerprint=manifest["fingerprint"],
            manifest=manifest,
        )

    def file_facts(self, name: str = FILES) -> Files | None:
        """The facts of the pictures' files, as they came or EQUALISED; None where they were not equalised.

        Older stores know format, size and quantiser alone. Raises a FakeganError for a damaged table, or none of an
        equalised store.
        """
        path, fields = self.path / name, FileFacts._fields
        if name == EQUALISED and self.geometry.equalise is None:
            return None
        if not path.is_file():
            if name == EQUALISED:  # as they came they would accuse what is equal
                raise FakeganError(f"{path} is missing: prepare the store again with --overwrite")
            path = self.path / FACES
        table = _read_columns(path, len(self), fields if path.name == name else COLUMNS)
        cells = {field: _column(table, field, path) if field in table else np.full(len(self), "") for field in fields}
        for field in NUMBERS:
            column = cells[field]
            cells[field] = np.where(column == "", "nan", column).astype(np.float64)
        return dict(cells)

    def verify(self) -> None:
        """Reads everything and compares it with the fingerprint.

        Raises:
            FakeganError: images.npy or faces.csv has changed since it was written.
        """
        digest = hashlib.sha256()
        add_file(digest, self.path / IMAGES, HEADER_BYTES)
        add_file(digest, self.path / FACES)
        if digest.hexdigest() != self.fingerprint:
            raise _damaged(self.path / MANIFEST, "its fingerprint does not match images.npy and faces.csv")


def add_file(digest: Any, path: Path, start: int = 0) -> None:
    """Update a hash with a file's bytes, from `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(2**20):
            digest.update(block)


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint that a store's manifest states; None where there is no store that can be read."""
    with suppress(FakeganError, OSError):
        return str(_read_manifest(path / MANIFEST)["fingerprint"])
    return None


def stored_geometry(path: Path) -> Geometry:
    """How a store was prepared; raises as `FaceStore.open` where there is no store, or no manifest of one."""
    _must_exist(path)
    return Geometry.of(_read_manifest(path / MANIFEST)["geometry"])


def format_version(size: int) -> int:
    """Of a store of faces of this size: programs that know the smallest alone must refuse larger ones."""
    return 1 if size == SIZES[0] else FORMAT_VERSION


def is_geometry(values: object) -> bool:
    """Whether values read from a file are those of a `Geometry`; older files lack `to_srgb`."""
    names = {field.name for field in fields(Geometry)}
    if not isinstance(values, Mapping) or set(values) | {"to_srgb", "equalise"} != names:
        return False
    size, most, flags = values["size"], values["max_megapixels"], (values["crop"], values.get("to_srgb", False))
    numbers = type(size) is int and size in SIZES and type(most) is int and most > 0
    return numbers and all(type(flag) is bool for flag in flags) and _is_equaliser(values.get("equalise"), size)


def _is_equaliser(values: object, size: int) -> bool:
    """Whether these are none, or the whole numbers of an `Equaliser` for faces of this size."""
    numbers = values if isinstance(values, list) and [type(value) for value in values] == [int, int] else None
    return values is None or (numbers is not None and not Equaliser(*numbers).wrong(size))


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise UsageError(
            f"no face store at {path}: make one with python -m fakegan.prepare --real NAME=DIR --fake NAME=DIR "
            f"--out {shlex.quote(local_path(path))}, or give the place of one by data=faces data.root=DIR"
        )
    missing = [name for name in (IMAGES, FACES, MANIFEST) if not (path / name).is_file()]
    if len(missing) == 3:
        raise UsageError(f"{path} is not a face store: give the folder that python -m fakegan.prepare --out wrote")
    if missing:
        raise FakeganError(f"{path / missing[0]} is missing: prepare the store again with --overwrite")


def _read_manifest(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise _damaged(file, "too large for a store's manifest")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version, labels = manifest["format_version"], manifest.get("label_convention")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # the last from brackets in brackets in ...
        raise _damaged(file, "not a store's manifest") from None
    again = "prepare the store again with --overwrite"
    if version not in range(1, FORMAT_VERSION + 1):
        raise FakeganError(
            f"{file} is of format version {_shown(version)}, this FakeGAN reads up to version {FORMAT_VERSION}: {again}"
        )
    if labels != LABEL_CONVENTION:
        raise FakeganError(f"{file} says labels mean {_shown(labels)}, here they mean {LABEL_CONVENTION}: {again}")
    if not is_geometry(manifest.get("geometry")):
        raise _damaged(file, "its geometry is not one of this version")
    if not re.fullmatch(_SHA256, str(manifest.get("fingerprint"))):
        raise _damaged(file, "it has no fingerprint")
    sources, warnings = manifest.get("sources", {}), manifest.get("warnings", [])
    if not isinstance(sources, dict) or not all(isinstance(source, dict) for source in sources.values()):
        raise _damaged(file, "its sources are no table")
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        raise _damaged(file, "its warnings are no list of sentences")
    return dict(manifest)


def _map_images(file: Path, manifest: dict[str, Any]) -> npt.NDArray[np.uint8]:
    try:
        images: npt.NDArray[np.uint8] = map_array(file)
    except ValueError:
        raise _damaged(file, "not a whole array") from None
    size, count = manifest["geometry"]["size"], manifest.get("count")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise _damaged(file, f"{images.dtype!s:.80} {images.shape} instead of uint8 (N, {size}, {size}, 3)")
    if file.stat().st_size != HEADER_BYTES + images.nbytes or images.shape[0] != count:
        raise _damaged(file, f"it holds {len(images)} images, the manifest says {_shown(count)}")
    return images


def _read_columns(file: Path, count: int, columns: Sequence[str]) -> dict[str, Sequence[str]]:
    if file.stat().st_size > _MAX_ROW_BYTES * (count + 1):
        raise _damaged(file, f"too large a table for {count} images")
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        try:
            header, *rows = csv.reader(lines)
        except (ValueError, csv.Error):
            raise _damaged(file, "not a table") from None
    if header != list(columns):
        raise _damaged(file, f"its columns are not {','.join(columns)}")
    if len(rows) != count:
        raise _damaged(file, f"it has {len(rows)} rows for {count} images")
    if any(len(row) != len(columns) for row in rows):
        raise _damaged(file, "a row has too few or too many cells")
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(columns, ())


def _column(table: dict[str, Sequence[str]], name: str, file: Path) -> StringArray:
    """A column as an array of texts, once each cell is what `_CELLS` asks for."""
    cells = table[name]
    if name in _CELLS:
        pattern, meaning = _CELLS[name]
        wrong = [cell for cell in set(cells) if not re.fullmatch(pattern, cell)]
        if wrong:
            raise _damaged(file, f"a {name} is {_shown(min(wrong))} instead of {meaning}")
    longest = max(map(len, cells), default=0)
    if 4 * longest * len(cells) > _MAX_COLUMN_BYTES:
        raise _damaged(file, f"a cell has {longest} characters")
    return np.array(cells, dtype=np.str_)


def _damaged(file: Path, what: str) -> FakeganError:
    return FakeganError(f"{file} is damaged: {what}; prepare the store again with --overwrite")


def _shown(value: object) -> str:
    """A value from a foreign file as part of a sentence: short, and without characters that act on a terminal."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
