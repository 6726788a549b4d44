"""Which folder each job of a sweep has: a new one, the one that it began in earlier, or that of a job it would repeat.

Jobs are known by configuration and seed, not by number: a sweep that is resumed may have got more values.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fakegan.runs.settings import RunSettings


@dataclass(frozen=True)
class Place:
    """Where a job belongs."""

    folder: Path
    kind: Literal["new", "begun", "repeats"]
    owner: int  # the job whose folder it is: another one where this one repeats that


class Folders:
    """The folders of a sweep, and whose they are."""

    def __init__(
        self,
        sweep_dir: Path,
        begun: Mapping[Path, RunSettings],  # runs that are there already, by folder
    ) -> None:
        self.sweep_dir = sweep_dir
        self.folders = {settings.identity(): folder for folder, settings in begun.items()}
        self.owners: dict[Path, int] = {}
        self.taken = {path.name for path in sweep_dir.glob("*")} | {path.name for path in begun}

    def place(self, number: int, settings: RunSettings, name: Callable[[int], str]) -> Place:
        """The place of a job; `name` is what its folder would be called under a number."""
        identity = settings.identity()
        if identity in self.folders:
            folder = self.folders[identity]
            owner = self.owners.setdefault(folder, number)
            return Place(folder, "begun" if owner == number else "repeats", owner)
        folder = self.sweep_dir / self._free(number, name)
        self.taken.add(folder.name)
        self.folders[identity], self.owners[folder] = folder, number
        return Place(folder, "new", number)

    def begun(self, settings: RunSettings) -> Path | None:
        """The folder that a job of these settings has already, in this start or since an earlier one."""
        return self.folders.get(settings.identity())

    def _free(self, number: int, name: Callable[[int], str]) -> str:
        """The wanted name, or that with the next number that no folder has."""
        if name(number) == name(number + 1):  # hydra.sweep.subdir is without a number
            names = (name(number) if i == 1 else f"{name(number)}_{i}" for i in itertools.count(1))
            return next(n for n in names if n not in self.taken)
        numbers = {_number(taken) for taken in self.taken} - {None}
        names = (name(i) for i in itertools.count(number))
        return next(n for n in names if n not in self.taken and _number(n) not in numbers)


def _number(name: str) -> str | None:
    found = re.match(r"\d+(?=_)", name)
    return None if found is None else found.group()
