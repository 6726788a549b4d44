"""Files and folders that are written whole: after a kill, or on a full disk, the last good one is still there."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fakegan.errors import FakeganError

_OF_A_DISK = {"lost+found"}  # names in the top folder of a new file system


def new_folder(wanted: Path) -> Path:
    """Make a folder and return it: `wanted`, or `wanted`-2, `wanted`-3 and so on where the name is taken."""
    number, folder = 1, wanted
    while True:
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")


def building_place(path: Path) -> Path:
    """Where a file or folder is built, beside its place."""
    return path.with_name(f".{path.name}.building")


@contextmanager
def replacing(
    path: Path,
    durable: bool = False,  # on the disk before it takes its place: survives a power cut, too; costs milliseconds
) -> Iterator[Path]:
    """Yield a path to write a file to: at the end of the block the file becomes `path`; after an error it is removed.

    Only one process may write a `path` at a time. A file that a killed process has left is replaced by the next: not
    written into, since it may be a second name of a good file.
    """
    building = building_place(path)
    try:
        building.unlink(missing_ok=True)
        yield building
        if durable:
            _flush(building)
        building.replace(path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise


@contextmanager
def building_folder(
    path: Path,
    last: str = "",  # the file that says that a folder is whole: it comes last and goes first
    durable: bool = False,  # on the disk before it takes its place
) -> Iterator[Path]:
    """Yield a folder to fill: at the end of the block it becomes `path`; after an error it is removed.

    It is built beside `path`. A `path` that cannot be renamed, such as a container's volume, is filled from a folder
    within it, file by file. A folder that was there before is set aside until the new one has taken its place. The
    remains of a killed process are put in order first: an old folder that was set aside comes back, the rest goes.

    Raises:
        FakeganError: another process builds the same folder.
    """
    place = path if _cannot_be_renamed(path) else path.parent
    place.mkdir(parents=True, exist_ok=True)
    building, aside, lock_file = (place / f".{path.name}.{kind}" for kind in ("building", "replaced", "building.lock"))
    try:
        lock = FileLock(lock_file).acquire(timeout=0)  # it dies with its process
    except Timeout:
        raise FakeganError(f"another process is writing {path}: wait for it, or choose another folder") from None
    with lock:
        try:
            for leftover in leftovers(path):
                _settle(leftover, path, last)
            building.mkdir()
            yield building
            if durable:
                for built in (*building.iterdir(), building):
                    _flush(built)
            if place == path:
                aside.mkdir()
                for name in sorted(entries(path), key=lambda name: name != last):
                    (path / name).replace(aside / name)
                _move_up(building, path, last)
            else:
                with suppress(FileNotFoundError):
                    path.rename(aside)
                building.rename(path)
            if durable:
                _flush(place)
        finally:
            for leftover in (aside, building):
                _settle(leftover, path, last)
            lock_file.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """The folders that `building_folder` has left beside `path` and in it, if its process was killed."""
    found: list[Path] = []
    for place in (path.parent, path):
        with suppress(OSError):  # not there, a file, or closed to us
            found += [entry for entry in place.iterdir() if _is_own(entry.name, path) and entry.is_dir()]
    return found


def _is_own(name: str, path: Path) -> bool:
    """Whether `building_folder` makes this name for `path`; earlier versions added a process's number and four digits.

    The whole name counts: a store "faces.replaced" is built in a folder whose name begins like that of "faces".
    """
    own = rf"\.{re.escape(path.name)}\.(building|replaced)(\.lock|-\d+-[0-9a-f]{{4}})?"
    return re.fullmatch(own, name) is not None


def _settle(leftover: Path, path: Path, last: str) -> None:
    """Put an old folder that was set aside back, unless a new one has taken its place; remove what is left."""
    if leftover.is_symlink():  # in a folder from elsewhere: the files behind it are not ours to move
        leftover.unlink()
    elif leftover.name.startswith(f".{path.name}.replaced") and leftover.exists():
        if leftover.parent == path and not (path / last).exists():
            _move_up(leftover, path, last)
        elif not path.exists():
            leftover.rename(path)
    shutil.rmtree(leftover, ignore_errors=True)


def _move_up(folder: Path, path: Path, last: str) -> None:
    """Move all files of a folder into `path`, in which it is; the file that says that all are there comes last."""
    for name in sorted(os.listdir(folder), key=lambda name: name == last):
        (folder / name).replace(path / name)


def _flush(path: Path) -> None:
    """Have a file's content, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_be_renamed(folder: Path) -> bool:
    """Whether a folder is there that cannot be renamed: a mount point, such as a container's volume, above all.

    The system is asked by a rename that cannot succeed, since the other folder is not empty: its error tells.
    """
    if not folder.is_dir():
        return False
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.asked-", dir=folder.parent) as other:
            (Path(other) / "not_empty").touch()
            os.rename(folder, other)
    except OSError as error:
        return error.errno not in (errno.ENOTEMPTY, errno.EEXIST)
    return False


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """An error of the disk within the block becomes a FakeganError: one sentence that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = f"the disk that holds {path} is full: nothing was written; free some space or choose another --out"
            raise FakeganError(full) from error
        raise FakeganError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be made in a folder, in a few words; None where one can."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".asked-", dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def entries(folder: Path) -> set[str]:
    """The names in a folder, without the names that a new file system has and that `building_folder` makes."""
    return {name for name in os.listdir(folder) if not _is_own(name, folder)} - _OF_A_DISK


@contextmanager
def csv_table(
    path: Path,
    header: Sequence[str],
    errors: str = "surrogateescape",  # file names that are not UTF-8 keep their bytes; "backslashreplace": all is text
    append: bool = False,  # to the rows that are there; only a new file begins with the header
) -> Iterator[Any]:
    """A writer of rows, with `writerow` and `writerows`, into a table of comma-separated values."""
    with path.open("a" if append else "w", encoding="utf-8", errors=errors, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(header)
        yield writer


def read_csv(path: Path, errors: str = "surrogateescape") -> list[dict[str, str]]:
    """A table's rows, by the names in its first line; None for what a short row lacks.

    Raises a ValueError: it is no table.
    """
    with path.open(encoding="utf-8", errors=errors, newline="") as lines:
        try:
            return list(csv.DictReader(lines))
        except csv.Error as error:
            raise ValueError(f"{path} is no table") from error
