"""Groups that the user declares: by a CSV (--groups), or by the names of the pictures (--group-by)."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from fakegan.data.frames import GroupBy, group_of
from fakegan.errors import UsageError

_NO_GROUP = {
    "folder": "none lies in a folder below its source's own",
    "name": "none is numbered, with a name before the number",
}


@dataclass
class Grouping:
    """Gives each picture its declared group."""

    by: GroupBy | None = None
    path: Path | None = None  # the CSV
    declared: dict[str, str] = field(default_factory=dict)  # a file, as faces.csv or its source names it: its group
    used: dict[str, str] = field(default_factory=dict)  # a file in the CSV: the file in the store

    @classmethod
    def of_recipe(cls, path: Path | None, by: GroupBy | None) -> Grouping:
        """Raises UsageError where the CSV is missing or is not such a table."""
        if path is None:
            return cls(by)
        declared: dict[str, str] = {}
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
                for row in csv.DictReader(lines):
                    file, group = row.get("file"), row.get("group")
                    if not file or not group:
                        line = len(declared) + 2
                        raise UsageError(f"{path}: line {line} lacks a file or a group; the first line is file,group")
                    if declared.setdefault(file, group) != group:
                        raise UsageError(f"{path}: {file} is in two groups, {declared[file]} and {group}")
        except (OSError, csv.Error) as error:
            raise UsageError(f"{path}: cannot be read as --groups: {getattr(error, 'strerror', error)}") from None
        if not declared:
            raise UsageError(f"{path}: names no file; its first line is file,group, then one line a file")
        return cls(by, path, declared)

    def of(self, prefix: str, name: str) -> str:
        """The group of a picture, "" where none is declared; the picture is called `prefix`/`name` in the store.

        Raises:
            UsageError: a bare name that fits pictures of two sources, which have nothing to do with each other.
        """
        if self.by:
            group = group_of(name, self.by)
            return f"{prefix}/{group}" if group else ""
        file = f"{prefix}/{name}"
        for key in (file, name):
            if key in self.declared:
                if (other := self.used.setdefault(key, file)) != file:
                    raise UsageError(f"--groups: {key} could be {other} or {file}: name the file as {file} in the CSV")
                return self.declared[key]
        return ""

    def refuse_unused(
        self,
        any_group: bool,  # whether a picture was given a group
    ) -> None:
        """Raises UsageError where not one line of the CSV, or not one name, gave a picture its group."""
        if self.declared and not self.used:
            raise UsageError(
                f"{self.path}: none of its files is among the pictures: name them as below their source's folder, "
                f"such as 0001.jpg, not {next(iter(self.declared))}"
            )
        if self.by and not any_group:
            raise UsageError(f"--group-by {self.by}: no picture has such a group: {_NO_GROUP[self.by]}")
