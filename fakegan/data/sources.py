"""Where pictures come from: a folder, a zip archive or a NumPy array, each as names and a way to read one.

A container is small and can be pickled: worker processes get it with the names they are to read.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import map_array
from fakegan.data.formats import MAX_FILE_BYTES, ImageError, left_out, read_bounded
from fakegan.data.images import Face, Geometry, face_from_pixels, read_face, read_face_file
from fakegan.errors import FakeganError, UsageError

MAX_ZIP_MEMBERS = 2_000_000
MAX_ZIP_BYTES = 2**40  # unpacked, as declared
MAX_ZIP_RATIO = 100  # pictures are compressed already; a bomb reaches a thousand
_RATIO_MATTERS_FROM = 2**20  # bytes; a small blank picture may well compress that far

ValueRange = tuple[float, float]


class Container(Protocol):
    """Names in a fixed order, and the face that belongs to a name."""

    def entries(self) -> Iterator[tuple[str, str]]:
        """Every file: its name, and "" or what it is counted as where it is left out."""
        ...

    def read(self, name: str, geometry: Geometry) -> Face:
        """Raises ImageError where the picture cannot be used."""
        ...


def open_container(
    path: Path,
    value_range: ValueRange | None = None,  # what float arrays span
    inside: str = "",  # of a folder or an archive only what is below this one, "train/real/"
) -> Container:
    """What `path` holds, by its kind.

    Raises:
        UsageError: nothing there, or nothing of these kinds, or an array of the wrong kind.
        FakeganError: a damaged archive or array.
    """
    if path.is_dir():
        return Folder(path / inside)
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a folder, a .zip or a .npy file")
    if path.suffix.lower() == ".zip":
        _check_zip(path)
        return ZipArchive(path, inside)
    if path.suffix.lower() == ".npy":
        _check_array(path, _open_array(path), value_range)
        return ArrayFile(path, value_range)
    raise UsageError(f"{path} is neither a folder nor a .zip nor a .npy file")


@dataclass(frozen=True)
class Folder:
    """A folder and all below it, in the order of names; a folder reached twice by links counts once."""

    path: Path

    def entries(self) -> Iterator[tuple[str, str]]:  # noqa: D102 - see Container
        yield from self._below("", set())

    def top(self) -> tuple[list[str], int]:
        """The folders directly in it, and how many pictures lie beside them."""
        names, folders, closed = self._listed("")
        loose = sum(not left_out(name) and name not in folders | closed for name in names)
        return [name for name in names if name in folders], loose

    def below(self, folder: str) -> Folder:
        """One of its folders."""
        return Folder(self.path / folder)

    def _listed(self, inside: str) -> tuple[list[str], set[str], set[str]]:
        try:
            with os.scandir(self.path / inside) as listing:
                return _sorted_names(listing)
        except OSError as error:
            raise FakeganError(f"cannot list {self.path / inside}: {error.strerror or error}") from error

    def _below(self, inside: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
        names, folders, closed = self._listed(inside)
        status = (self.path / inside).stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in names:
            name = f"{inside}{entry}"
            if entry in folders:
                yield from self._below(f"{name}/", seen)
            else:
                yield name, "no file" if entry in closed else left_out(name)

    def read(self, name: str, geometry: Geometry) -> Face:  # noqa: D102
        return read_face_file(os.path.join(self.path, name), geometry)


def _sorted_names(listing: Iterable[os.DirEntry[str]]) -> tuple[list[str], set[str], set[str]]:
    """All names, those of folders, those of what is no file either; a list of entries would take three times that."""
    names: list[str] = []
    folders: set[str] = set()
    closed: set[str] = set()
    for entry in listing:
        names.append(entry.name)
        if _is(entry.is_dir):
            folders.add(entry.name)
        elif not _is(entry.is_file) and (not entry.is_symlink() or os.path.exists(entry.path)):
            closed.add(entry.name)
    names.sort()
    return names, folders, closed


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of that kind; a link that leads nowhere, or to itself, is of none."""
    try:
        return kind()
    except OSError:
        return False


_PROBED = 64  # pictures of an array whose values are looked at before all are read


@dataclass(frozen=True)
class ZipArchive:
    """A zip archive, read member by member and never unpacked to disk."""

    path: Path
    inside: str = ""  # only what is below this folder of it, "train/real/"

    def entries(self) -> Iterator[tuple[str, str]]:  # noqa: D102 - see Container
        for name in _members(self.path):
            if name.startswith(self.inside):
                yield name[len(self.inside) :], left_out(name)

    def top(self) -> tuple[list[str], int]:
        """The folders directly in it, and how many pictures lie beside them."""
        loose, folders = 0, set()
        for name, other in self.entries():
            folder, slash, _ = name.partition("/")
            if slash:
                folders.add(folder)
            else:
                loose += not other
        return sorted(folders), loose

    def below(self, folder: str) -> ZipArchive:
        """One of its folders."""
        return ZipArchive(self.path, f"{self.inside}{folder}/")

    def read(self, name: str, geometry: Geometry) -> Face:  # noqa: D102
        archive = _open_zip(self.path)
        member_name = f"{self.inside}{name}"
        _refuse_member(archive.getinfo(member_name))
        try:
            with archive.open(member_name) as member:
                content = read_bounded(member, archive.getinfo(member_name).file_size)
        except ImageError:
            raise
        except NotImplementedError:
            raise ImageError("compressed in the archive in a way that Python cannot read") from None
        except RuntimeError:
            raise ImageError("encrypted in the archive") from None
        except Exception as error:  # broken members raise BadZipFile, zlib.error, EOFError, OSError, ...
            raise ImageError("damaged in the archive") from error
        return read_face(content, geometry)


@dataclass(frozen=True)
class ArrayFile:
    """uint8 N x 64 x 64 x 3 or N x 3 x 64 x 64, or floats that span a declared range; memory-mapped."""

    path: Path
    value_range: ValueRange | None = None

    def entries(self) -> Iterator[tuple[str, str]]:  # noqa: D102 - see Container
        for index in range(len(_open_array(self.path))):
            yield f"{index:07d}", ""

    def read(self, name: str, geometry: Geometry) -> Face:  # noqa: D102
        pixels = np.asarray(_open_array(self.path)[int(name)])
        if pixels.shape != (geometry.size, geometry.size, 3):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.dtype != np.uint8:
            pixels = _to_levels(pixels, self.value_range or (0.0, 1.0))
        return face_from_pixels(pixels)


def _to_levels(values: npt.NDArray[Any], value_range: ValueRange) -> npt.NDArray[np.uint8]:
    low, high = value_range
    slack = 1e-3 * (high - low)  # rounding of a tanh or of half precision
    if not (values.min() >= low - slack and values.max() <= high + slack):  # also for NaN
        raise ImageError(f"values outside {low:g} to {high:g} (--npy-range)")
    levels = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)  # once a process, not once a picture
def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise FakeganError(f"{path} is no readable zip archive") from error


@lru_cache(maxsize=4)
def _members(path: Path) -> list[str]:
    return sorted({member.filename for member in _open_zip(path).infolist() if not member.is_dir()})


def _check_zip(path: Path) -> None:
    members = _open_zip(path).infolist()
    if len(members) > MAX_ZIP_MEMBERS:
        raise FakeganError(f"{path} holds more than {MAX_ZIP_MEMBERS:,} files: unpack it and give the folder")
    if sum(member.file_size for member in members) > MAX_ZIP_BYTES:
        raise FakeganError(f"{path} unpacks to more than {MAX_ZIP_BYTES // 2**30} GiB: refused")


def _refuse_member(member: zipfile.ZipInfo) -> None:
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
        raise ImageError("its path climbs out of the archive")
    if member.file_size > MAX_FILE_BYTES:
        raise ImageError(f"file of more than {MAX_FILE_BYTES // 2**20} MiB")
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > _RATIO_MATTERS_FROM and ratio > MAX_ZIP_RATIO:
        raise ImageError(f"compressed {ratio:.0f} times in the archive, more than any picture")


@lru_cache(maxsize=4)
def _open_array(path: Path) -> npt.NDArray[Any]:
    try:
        return map_array(path)
    except ValueError as error:
        raise FakeganError(f"{path} is no readable .npy array of numbers: truncated, or something else") from error


def _check_array(path: Path, array: npt.NDArray[Any], value_range: ValueRange | None) -> None:
    if array.ndim != 4 or array.shape[1:] not in ((64, 64, 3), (3, 64, 64)):
        raise UsageError(f"{path} has shape {array.shape}: give N x 64 x 64 x 3 or N x 3 x 64 x 64")
    is_float = np.issubdtype(array.dtype, np.floating)
    if array.dtype != np.uint8 and not is_float:
        raise UsageError(f"{path} holds {array.dtype}: save it as uint8, 0 to 255")
    if is_float and value_range is None:
        raise UsageError(f"{path} holds {array.dtype}: say what it spans, --npy-range=-1,1 or --npy-range=0,1")
    if is_float and value_range is not None and value_range[0] < 0 and len(array):
        some = array[:: max(len(array) // _PROBED, 1)]
        if (
            some.min() >= 0 and some.max() <= value_range[1]
        ):  # taken at its word, every picture would come out washed out, and its class with it
            raise UsageError(f"{path} holds no value below 0: is --npy-range=0,{value_range[1]:g} meant?")
