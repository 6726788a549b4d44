"""The face store: images.npy + faces.csv + manifest.json in one folder, read as memory-mapped arrays.

Every picture that any stage trains, tests or reports on comes out of a store; `StoreWriter` is the only
way in. Also the home of the one label convention.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import fakegan
from fakegan.data.arrays import HEADER_BYTES, map_array, npy_header
from fakegan.data.images import Face, Geometry, Pixels
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import CLASS_NAMES, FAKE, LABEL_CONVENTION, REAL
from fakegan.system.files import building_folder, csv_table, disk_errors, entries, leftovers, replacing
from fakegan.system.shell import here

FORMAT_VERSION = 1
KEPT_SPLITS = ("", "train", "val", "test")

COLUMNS = ["file", "label", "source", "group", "sha256", "width", "height", "format"]
COLUMNS += ["jpeg_quantiser_mean", "phash", "split"]
_IMAGES, _FACES, _MANIFEST, _REJECTED = "images.npy", "faces.csv", "manifest.json", "rejected.csv"
_STORE_FILES = {_REJECTED, _FACES, _IMAGES, _MANIFEST}  # the last says that all are there
_SHA256 = re.compile("[0-9a-f]{64}")
# A store may come from elsewhere: nothing of it is read that is far larger than such a file ever is.
_MAX_MANIFEST_BYTES = 16 * 2**20  # some 100 for each source
_MAX_ROW_BYTES = 16 * 2**10  # some 200, mostly the file's name
_MAX_COLUMN_BYTES = 16 * 2**30  # in memory, where each cell takes as much as the longest
_MAX_SIDE = 2**31  # pixels; what an image file's header can say

StringArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Row:
    """One line of faces.csv."""

    file: str  # unique in the store: source, "/", name within the source
    label: int  # REAL or FAKE
    source: str  # data set or generator
    group: str  # identity or origin: never divided between splits
    sha256: str
    width: int  # of the original picture
    height: int
    format: str
    jpeg_quantiser_mean: float  # NaN if not JPEG
    phash: int
    split: str = ""  # a split that came with the data and was kept: train, val, test

    @classmethod
    def of(cls, face: Face, *, file: str, label: int, source: str, group: str = "", split: str = "") -> Row:
        """A row for a face; without a group it is alone in its own, named after its content."""
        return cls(
            file=file,
            label=label,
            source=source,
            group=group or face.sha256[:16],
            sha256=face.sha256,
            width=face.width,
            height=face.height,
            format=face.format,
            jpeg_quantiser_mean=face.jpeg_quantiser_mean,
            phash=face.phash,
            split=split,
        )

    def cells(self) -> list[str]:
        """In the order of COLUMNS."""
        mean = "" if math.isnan(self.jpeg_quantiser_mean) else f"{self.jpeg_quantiser_mean:.4f}"
        head = [self.file, str(self.label), self.source, self.group, self.sha256]
        return head + [str(self.width), str(self.height), self.format, mean, f"{self.phash:016x}", self.split]


@dataclass(frozen=True)
class FaceStore:
    """An opened store; row i of every array describes images[i]."""

    path: Path
    images: npt.NDArray[np.uint8]  # (N, 64, 64, 3), memory-mapped, read only
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
        """Checks shape, dtype, rows, version and labels; not the content, which is for `verify`.

        Raises:
            UsageError: no store there.
            FakeganError: a damaged store or one of another version.
        """
        path = Path(path)
        _must_exist(path)
        manifest = _read_manifest(path / _MANIFEST)
        images = _map_images(path / _IMAGES, manifest)
        columns = _read_columns(path / _FACES, len(images))
        return cls(
            path=path,
            images=images,
            files=_texts(columns["file"], path / _FACES),
            labels=_labels(columns["label"], path / _FACES),
            sources=_texts(columns["source"], path / _FACES),
            groups=_texts(columns["group"], path / _FACES),
            sha256=_digests(columns["sha256"], path / _FACES),
            widths=_sides(columns["width"], path / _FACES),
            heights=_sides(columns["height"], path / _FACES),
            kept_split=_kept_split(columns["split"], path / _FACES),
            geometry=Geometry.of(manifest["geometry"]),
            fingerprint=manifest["fingerprint"],
            manifest=manifest,
        )

    def verify(self) -> None:
        """Reads everything and compares it with the fingerprint.

        Raises:
            FakeganError: images.npy or faces.csv is not what was written.
        """
        digest = hashlib.sha256()
        with (self.path / _IMAGES).open("rb") as file:
            file.seek(HEADER_BYTES)
            _digest_file(digest, file)
        with (self.path / _FACES).open("rb") as file:
            _digest_file(digest, file)
        if digest.hexdigest() != self.fingerprint:
            raise _damaged(self.path / _MANIFEST, "its fingerprint does not match images.npy and faces.csv")


class StoreWriter:
    """Builds a store beside `path` and moves it there at the end of the `with` block.

    A link is followed. In a folder that cannot be renamed, such as a container's volume, the store is built within it,
    and its files take their places at the end, the manifest last: without that they are no store.

    Rows go straight to disk. If the block raises, nothing is left behind; what a killed process left is
    swept by the next writer of the same path (`swept` tells). Same rows, same bytes.

    Raises on entering:
        UsageError: `path` is taken: by a store without `overwrite`, or by anything that is no store.
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
        self._groups: Iterable[str] | None = None
        self._warnings: list[str] = []
        self._notes: dict[str, str] = {}
        self._sources: dict[str, dict[str, int]] = {}
        self._digest = hashlib.sha256()

    def __enter__(self) -> StoreWriter:
        with disk_errors(self.path), ExitStack() as stack:
            self.swept = bool(leftovers(self.path))
            self._folder = stack.enter_context(building_folder(self.path, last=_MANIFEST, durable=True))
            self._refuse_taken()
            self._files = stack.enter_context(ExitStack())
            self._images = self._files.enter_context((self._folder / _IMAGES).open("wb"))
            self._images.write(npy_header(0, self.geometry.size))
            self._rows = self._files.enter_context(csv_table(self._folder / _FACES, COLUMNS))
            rejected = csv_table(self._folder / _REJECTED, ("file", "source", "reason"))
            self._rejected = self._files.enter_context(rejected)
            self._building = stack.pop_all()
        return self

    def append(self, pixels: Pixels, row: Row) -> None:
        """Adds one face, (size, size, 3) uint8; rows keep the order of the calls."""
        self.extend([pixels], [row])

    def extend(self, faces: Sequence[Pixels], rows: Sequence[Row]) -> None:
        """`append` for several: costs less a face."""
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
        self._digest.update(content)
        for row in rows:
            source = self._of_source(row.source)
            source["label"] = row.label
            source["count"] += 1
        self.count += len(rows)

    def reject(self, file: str, source: str, reason: str) -> None:
        """Notes a picture that could not be used in rejected.csv."""
        with disk_errors(self.path):
            self._rejected.writerow([file, source, reason])
        self._of_source(source)["rejected"] += 1

    def regroup(self, groups: Iterable[str]) -> None:
        """Replaces the groups of all rows, once all are known: duplicates share one.

        They are read as the `with` block ends, which raises ValueError if they are not as many as the rows.
        """
        self._groups = groups

    def warn(self, warnings: Sequence[str]) -> None:
        """Keeps warnings about the pictures in the manifest, for whoever reports on them later."""
        self._warnings = list(warnings)

    def note(self, key: str, value: str) -> None:
        """Keeps how the store was made in the manifest."""
        self._notes[key] = value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(OSError):  # a full disk raises once more when the buffers are written
                self._building.__exit__(kind, error, trace)
            return
        with disk_errors(self.path), self._building:
            self._finish_files()
            self._refuse_taken()  # again: someone else may have written there in the meantime

    def _of_source(self, source: str) -> dict[str, int]:
        return self._sources.setdefault(source, {"label": -1, "count": 0, "rejected": 0})

    def _refuse_taken(self) -> None:
        path = self.path
        if not path.exists() and not path.is_symlink():
            return
        if not path.exists() and os.path.realpath(path) == os.path.abspath(path):
            raise UsageError(f"{path} is a link to itself: choose another --out")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: choose another --out")
        found = entries(path)
        if found - _STORE_FILES:
            other = min(found - _STORE_FILES)
            raise UsageError(f"{path} holds other things than a face store ({other}): choose another --out")
        if found and not self.overwrite:
            raise UsageError(f"{path} holds a face store already: add --overwrite, or choose another --out")

    def _finish_files(self) -> None:
        self._images.seek(0)
        self._images.write(npy_header(self.count, self.geometry.size))
        self._files.close()
        if self._groups is not None:
            _replace_groups(self._folder / _FACES, self._groups)
        with (self._folder / _FACES).open("rb") as faces:
            _digest_file(self._digest, faces)
        with (self._folder / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(self._manifest(), file, indent=2)
            file.write("\n")

    def _manifest(self) -> dict[str, Any]:
        size = self.geometry.size
        return {
            "format_version": FORMAT_VERSION,
            "fakegan": fakegan.__version__,
            "geometry": asdict(self.geometry),
            "label_convention": LABEL_CONVENTION,
            "count": self.count,
            "shape": [self.count, size, size, 3],
            "dtype": "uint8",
            "fingerprint": self._digest.hexdigest(),
            "sources": self._sources,
            "warnings": self._warnings,
            **self._notes,
        }


def _replace_groups(path: Path, groups: Iterable[str]) -> None:
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


def _digest_file(digest: Any, file: IO[bytes]) -> None:
    while block := file.read(2**20):
        digest.update(block)


def _damaged(file: Path, what: str) -> FakeganError:
    return FakeganError(f"{file} is damaged: {what}; prepare the store again with --overwrite")


def _shown(value: object) -> str:
    """What a foreign file says as part of a sentence: short, and without characters that act on a terminal."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint that a store's manifest states; None where there is no store that can be read."""
    with suppress(FakeganError, OSError):
        return str(_read_manifest(path / _MANIFEST)["fingerprint"])
    return None


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise UsageError(
            f"no face store at {path}: make one with python -m fakegan.prepare --real NAME=DIR "
            f"--fake NAME=DIR --out {shlex.quote(here(path))}, or give the place of one by data=faces data.root=DIR"
        )
    missing = [name for name in (_IMAGES, _FACES, _MANIFEST) if not (path / name).is_file()]
    if len(missing) == 3:
        raise UsageError(f"{path} is not a face store: give the folder that python -m fakegan.prepare --out wrote")
    if missing:
        raise FakeganError(f"{path / missing[0]} is missing: prepare the store again with --overwrite")


def _read_manifest(file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise _damaged(file, "too large for a store's manifest")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # the last from brackets in brackets in ...
        raise _damaged(file, "not a store's manifest") from None
    if version != FORMAT_VERSION:
        raise FakeganError(
            f"{file} is of format version {_shown(version)}, this FakeGAN reads version {FORMAT_VERSION}: "
            f"prepare the store again with --overwrite"
        )
    if manifest.get("label_convention") != LABEL_CONVENTION:
        raise FakeganError(
            f"{file} says labels mean {_shown(manifest.get('label_convention'))}, here they mean {LABEL_CONVENTION}: "
            f"prepare the store again with --overwrite"
        )
    if not is_geometry(manifest.get("geometry")):
        raise _damaged(file, "its geometry is not one of this version")
    if not _SHA256.fullmatch(str(manifest.get("fingerprint"))):
        raise _damaged(file, "it has no fingerprint")
    sources, warnings = manifest.get("sources", {}), manifest.get("warnings", [])
    if not isinstance(sources, dict) or not all(isinstance(source, dict) for source in sources.values()):
        raise _damaged(file, "its sources are no table")
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        raise _damaged(file, "its warnings are no list of sentences")
    return dict(manifest)


def is_geometry(values: object) -> bool:
    """Whether they are the fields of a `Geometry`, read from a file; older ones lack `to_srgb`."""
    names = {field.name for field in fields(Geometry)}
    if not isinstance(values, Mapping) or set(values) | {"to_srgb"} != names:
        return False
    numbers = values["size"], values["max_megapixels"]
    flags = values["crop"], values.get("to_srgb", False)
    return all(type(flag) is bool for flag in flags) and all(type(number) is int and number > 0 for number in numbers)


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


def _read_columns(file: Path, count: int) -> dict[str, tuple[str, ...]]:
    if file.stat().st_size > _MAX_ROW_BYTES * (count + 1):
        raise _damaged(file, f"too large a table for {count} images")
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        try:
            header, *rows = csv.reader(lines)
        except (ValueError, csv.Error):
            raise _damaged(file, "not a table") from None
    if header != COLUMNS:
        raise _damaged(file, f"its columns are not {','.join(COLUMNS)}")
    if len(rows) != count:
        raise _damaged(file, f"it has {len(rows)} rows for {count} images")
    try:
        return dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(COLUMNS, ())
    except ValueError:
        raise _damaged(file, "a row has too few or too many cells") from None


def _texts(cells: Sequence[str], file: Path) -> StringArray:
    longest = max(map(len, cells), default=0)
    if 4 * longest * len(cells) > _MAX_COLUMN_BYTES:
        raise _damaged(file, f"a cell has {longest} characters")
    return np.array(cells, dtype=np.str_)


def _digests(cells: Sequence[str], file: Path) -> StringArray:
    wrong = next((cell for cell in cells if not _SHA256.fullmatch(cell)), None)
    if wrong is not None:
        raise _damaged(file, f"a sha256 is {_shown(wrong)}")
    return np.array(cells, dtype=np.str_)


def _labels(cells: Sequence[str], file: Path) -> npt.NDArray[np.int64]:
    wrong = set(cells) - {str(label) for label in CLASS_NAMES}
    if wrong:
        raise _damaged(file, f"a label is {_shown(sorted(wrong)[0])} instead of {REAL} (real) or {FAKE} (fake)")
    return np.array(cells, dtype=np.int64)


def _sides(cells: Sequence[str], file: Path) -> npt.NDArray[np.int64]:
    try:
        sides = np.array(cells, dtype=np.str_).astype(np.int64)
    except (ValueError, OverflowError):
        raise _damaged(file, "a width or a height is no whole number") from None
    if len(sides) and not 0 < sides.min() <= sides.max() < _MAX_SIDE:
        raise _damaged(file, "a width or a height is no picture's")
    return sides


def _kept_split(cells: Sequence[str], file: Path) -> StringArray:
    wrong = set(cells) - set(KEPT_SPLITS)
    if wrong:
        raise _damaged(file, f"a split is {_shown(sorted(wrong)[0])} instead of train, val, test or nothing")
    return np.array(cells, dtype=np.str_)
