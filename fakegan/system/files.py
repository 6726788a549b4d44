"""Files that are written whole: a process that is killed, or a disk that fills up, leaves the last good one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OF_A_DISK = {"lost+found"}  # what a file system's own top folder may hold before anyone writes there


def new_folder(wanted: Path) -> Path:
    """A folder that this call makes: `wanted`, or with -2 and so on behind it where something is there already."""
    number, folder = 1, wanted
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return folder


@contextmanager
def replacing(
    path: Path,
    durable: bool = False,  # on the disk before it takes its place: survives a power cut, too; costs milliseconds
) -> Iterator[Path]:
    """Write to the path that this gives; at the end of the block it becomes `path`, after an error it is removed.

    For one writer of a path at a time; what a killed one has left, the next one replaces.
    """
    building = path.with_name(f".{path.name}.building")
    try:
        yield building
        if durable:
            with building.open("rb+") as file:
                os.fsync(file.fileno())
        building.replace(path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise


def stays(folder: Path) -> bool:
    """Whether a folder is there that cannot be renamed: a mount point, such as a container's volume, above all.

    The system is asked by a rename that cannot succeed, since the other folder is not empty: what refuses it tells.
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


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be made in a folder, in a few words; None where one can."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".asked-", dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def entries(folder: Path) -> set[str]:
    """The names in a folder, but for what a new disk has in it."""
    return {entry.name for entry in folder.iterdir()} - _OF_A_DISK
