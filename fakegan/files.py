"""Files that are written whole: a process that is killed, or a disk that fills up, leaves the last good one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
