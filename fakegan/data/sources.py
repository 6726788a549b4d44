"""Where pictures come from: a folder, a zip archive or a NumPy array, each as names and a way to read one.

A container is small and can be pickled: worker processes get it with the names of the pictures to read. Each has
`entries`: every file's name in a fixed order, with "" or, for a file that is left out, the kind that counts it; and
`read`: the face of a name, or an ImageError where the picture cannot be used.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.checks import SIZES
from fakegan.data.arrays import map_array
from fakegan.data.formats import MAX_FILE_BYTES, ImageError, left_out, read_bounded
from fakegan.data.images import Face, Geometry, face_from_pixels, read_face, read_face_file
from fakegan.errors import FakeganError, UsageError

MAX_ZIP_MEMBERS = 2_000_000
MAX_ZIP_BYTES = 2**40  # unpacked, as declared
MAX_ZIP_RATIO = 100  # pictures are compressed already; a bomb reaches a thousand
_RATIO_MATTERS_FROM = 2**20  # bytes; a small blank picture may well compress that far
_PROBED = 64  # pictures of an array whose values are looked at before all are read

ValueRange = tuple[float, float]


@dataclass(frozen=True)
class Folder:
    """A folder and all below it, in the order of names; a folder reached twice by links counts once."""

    path: Path

    def entries(self) -> Iterator[tuple[str, str]]:
        """See the module."""
        yield from self._below("", set())

    def _below(self, inside: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
        names, folders, closed = self._listed(inside)
        status = (self.path / inside).stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            if name in folders:
                yield from self._below(f"{inside}{name}/", seen)
            else:
                yield f"{inside}{name}", "no file" if name in closed else left_out(f"{inside}{name}")

    def _listed(self, inside: str) -> tuple[list[str], set[str], set[str]]:
        """Sorted names, which of them are folders, and which neither folder nor file.

        A list of `os.DirEntry` would take three times the memory.
        """
        names: list[str] = []
        folders, closed = set[str](), set[str]()
        try:
            with os.scandir(self.path / inside) as listing:
                for entry in listing:
                    names.append(entry.name)
                    if _is(entry.is_dir):
                        folders.add(entry.name)
                    elif not _is(entry.is_file) and (not entry.is_symlink() or os.path.exists(entry.path)):
                        closed.add(entry.name)
        except OSError as error:
            raise FakeganError(f"cannot list {self.path / inside}: {error.strerror or error}") from error
        return sorted(names), folders, closed

    def read(self, name: str, geometry: Geometry) -> Face:
        """See the module."""
        return read_face_file(os.path.join(self.path, name), geometry)


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of that kind; a link that leads nowhere, or to itself, is of none."""
    try:
        return kind()
    except OSError:
        return False


@dataclass(frozen=True)
class ZipArchive:
    """A zip archive, read member by member and never unpacked to disk."""

    path: Path
    inside: str = ""  # only the files below this folder, "train/real/"

    def entries(self) -> Iterator[tuple[str, str]]:
        """See the module."""
        for name in _members(self.path):
            if name.startswith(self.inside):
                yield name[len(self.inside) :], left_out(name)

    def read(self, name: str, geometry: Geometry) -> Face:
        """See the module."""
        archive = _open_zip(self.path)
        member = archive.getinfo(f"{self.inside}{name}")
        _refuse_member(member)
        try:
            with archive.open(member) as file:
                content = read_bounded(file, member.file_size)
        except ImageError:
            raise
        except NotImplementedError:
            raise ImageError("compressed in the archive in a way that Python cannot read") from None
        except RuntimeError:
            raise ImageError("encrypted in the archive") from None
        except Exception as error:  # broken members raise BadZipFile, zlib.error, EOFError, OSError, ...
            raise ImageError("damaged in the archive") from error
        return read_face(content, geometry)


@lru_cache(maxsize=4)  # once a process, not once a picture
def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise FakeganError(f"{path} is no readable zip archive") from error


@lru_cache(maxsize=4)
def _members(path: Path) -> list[str]:
    return sorted({member.filename for member in _open_zip(path).infolist() if not member.is_dir()})


def _refuse_member(member: zipfile.ZipInfo) -> None:
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
        raise ImageError("its path climbs out of the archive")
    if member.file_size > MAX_FILE_BYTES:
        raise ImageError(f"file of more than {MAX_FILE_BYTES // 2**20} MiB")
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > _RATIO_MATTERS_FROM and ratio > MAX_ZIP_RATIO:
        raise ImageError(f"compressed {ratio:.0f} times in the archive, more than any picture")


@dataclass(frozen=True)
class ArrayFile:
    """uint8 (N, size, size, 3) or (N, 3, size, size), or floats that span a declared range; memory-mapped."""

    path: Path
    value_range: ValueRange | None = None

    def entries(self) -> Iterator[tuple[str, str]]:
        """See the module."""
        for index in range(len(_open_array(self.path))):
            yield f"{index:07d}", ""

    def read(self, name: str, geometry: Geometry) -> Face:
        """See the module."""
        pixels = np.asarray(_open_array(self.path)[int(name)])
        if pixels.shape != (geometry.size, geometry.size, 3):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.dtype != np.uint8:
            low, high = self.value_range or (0.0, 1.0)
            slack = 1e-3 * (high - low)  # rounding of a tanh or of half precision
            if not (pixels.min() >= low - slack and pixels.max() <= high + slack):  # also for NaN
                raise ImageError(f"values outside {low:g} to {high:g} (--npy-range)")
            levels = (pixels.astype(np.float64) - low) * (255 / (high - low))
            pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        return face_from_pixels(pixels, equalise=geometry.equalise)


@lru_cache(maxsize=4)
def _open_array(path: Path) -> npt.NDArray[Any]:
    try:
        return map_array(path)
    except ValueError as error:
        raise FakeganError(f"{path} is no readable .npy array of numbers: truncated, or something else") from error


Container = Folder | ZipArchive | ArrayFile


def open_container(
    path: Path,
    value_range: ValueRange | None = None,  # of the values in float arrays
    inside: str = "",  # of a folder or an archive: only the files below this folder, "train/real/"
    size: int = SIZES[0],  # pixels a side of an array's pictures
) -> Container:
    """The container at `path`, by its kind.

    Raises:
        UsageError: nothing is there, or nothing of these kinds, or an array of the wrong kind.
        FakeganError: a damaged archive or array, or an archive that is far too large.
    """
    if path.is_dir():
        return Folder(path / inside)
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a folder, a .zip or a .npy file")
    if path.suffix.lower() == ".zip":
        members = _open_zip(path).infolist()
        if len(members) > MAX_ZIP_MEMBERS:
            raise FakeganError(f"{path} holds more than {MAX_ZIP_MEMBERS:,} files: unpack it and give the folder")
        if sum(member.file_size for member in members) > MAX_ZIP_BYTES:
            raise FakeganError(f"{path} unpacks to more than {MAX_ZIP_BYTES // 2**30} GiB: refused")
        return ZipArchive(path, inside)
    if path.suffix.lower() == ".npy":
        _check_array(path, _open_array(path), value_range, size)
        return ArrayFile(path, value_range)
    raise UsageError(f"{path} is neither a folder nor a .zip nor a .npy file")


def _check_array(path: Path, array: npt.NDArray[Any], value_range: ValueRange | None, size: int) -> None:
    if array.ndim != 4 or array.shape[1:] not in ((size, size, 3), (3, size, size)):
        given = next((f", or add --size {s}" for s in SIZES if array.shape[1:] in ((s, s, 3), (3, s, s))), "")
        wanted = f"N x {size} x {size} x 3 or N x 3 x {size} x {size}"
        raise UsageError(f"{path} has shape {array.shape}: give {wanted}{given}")
    if array.dtype == np.uint8:
        return
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"{path} holds {array.dtype}: save it as uint8, 0 to 255")
    if value_range is None:
        raise UsageError(f"{path} holds {array.dtype}: say what it spans, --npy-range=-1,1 or --npy-range=0,1")
    low, high = value_range
    some = array[:: max(len(array) // _PROBED, 1)]
    # Read as -1 to 1, values from 0 to 1 would make washed-out pictures, and give their class away.
    if low < 0 and len(array) and some.min() >= 0 and some.max() <= high:
        raise UsageError(f"{path} holds no value below 0: is --npy-range=0,{high:g} meant?")
