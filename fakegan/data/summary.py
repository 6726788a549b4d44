"""What `prepare` saw of each source: how many pictures, what their files are like, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from fakegan.checks import SIZES
from fakegan.data.colour import UNUSABLE
from fakegan.data.file_facts import Files, described
from fakegan.data.formats import describe_left_out
from fakegan.data.frames import GroupBy
from fakegan.data.images import Geometry
from fakegan.data.shortcuts import Pictures
from fakegan.errors import FakeganError
from fakegan.labels import CLASS_NAMES
from fakegan.system.columns import in_columns

_COLUMNS = ["source", "class", "pictures", "rejected", "format", "size", "JPEG", "copies", "near"]  # JPEG: its quality


@dataclass
class SourceSummary:
    """Counts of one source; a few bytes a picture."""

    name: str
    label: int
    left_out: Counter[str] = field(default_factory=Counter)  # files that are clearly no pictures, by suffix
    exact: int = 0  # rows that repeat an earlier picture of any source
    near: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # of the pictures that could not be used
    count: int = 0  # pictures that could be used
    files: Files = field(default_factory=dict)  # of these, once all are read

    @property
    def rejected(self) -> int:
        """Pictures that could not be used."""
        return self.reasons.total()

    def smaller(self, size: int) -> int:
        """Pictures with a side of fewer pixels."""
        return int((np.minimum(self.files["width"], self.files["height"]) < size).sum())

    def refuse_empty(self) -> None:
        """Raises FakeganError where no picture could be used."""
        if not self.count:
            reason, times = self.reasons.most_common(1)[0]
            raise FakeganError(
                f"none of the {self.rejected} pictures of {self.name} could be used; most often: {reason} ({times})"
            )

    def cells(self) -> list[str]:
        """In the order of `_COLUMNS`."""
        facts = described(self.files)
        numbers = [str(self.count), str(self.rejected)]
        files = [facts[name] for name in ("format", "size", "JPEG")]
        return [self.name, CLASS_NAMES[self.label], *numbers, *files, str(self.exact), str(self.near)]


@dataclass
class Summary:
    """All sources, in the order given."""

    sources: list[SourceSummary]
    pictures: Pictures  # all, without their pixels
    geometry: Geometry = field(default_factory=Geometry)  # that every picture was brought to
    both_classes: int = 0  # copies or near copies with a real and a fake row
    unused_groups: int = 0  # lines of --groups that named no picture
    swept: bool = False  # what a stopped run had left was removed
    grouped: tuple[GroupBy, int] | None = None  # --group-by, and how many groups that gave
    frames: list[tuple[str, GroupBy, int]] = field(default_factory=list)  # sources to group: by what, how many groups

    @property
    def count(self) -> int:
        """Rows of the store."""
        return sum(source.count for source in self.sources)

    @property
    def classes(self) -> set[int]:
        """Labels with at least one picture."""
        return {source.label for source in self.sources if source.count}

    def lines(self) -> list[str]:
        """The table, the reasons for rejections, the warnings."""
        table = [_COLUMNS] + [source.cells() for source in self.sources]
        lines = in_columns(table)
        reasons = sum((source.reasons for source in self.sources), Counter[str]())
        lines += [f"rejected: {reason} ({times})" for reason, times in reasons.most_common(5)]
        if len(reasons) > 5:
            lines.append(f"rejected: for {len(reasons) - 5} other reasons, see rejected.csv")
        if equal := self.geometry.equalise:
            lines.append(f"equalised: all became JPEGs of {equal.side}x{equal.side} pixels, quality {equal.quality}")
        if self.grouped:
            lines.append(f"grouped by {self.grouped[0]}: {self.grouped[1]:,} groups")
        lines += [f"{source.name}: {describe_left_out(source.left_out)}" for source in self.sources if source.left_out]
        return [line.rstrip() for line in lines] + [f"warning: {warning}" for warning in self.warnings()]

    def warnings(self) -> list[str]:
        """What is wrong with the pictures; `shortcuts` says whether their files tell the classes apart."""
        warnings = []
        size, first = self.geometry.size, self.geometry.first_side
        if smaller := self._smaller(size):
            choice = "leave them out" if size == SIZES[0] else "leave them out, or choose a smaller --size"
            warnings.append(
                f"pictures smaller than {size}x{size}: {smaller}; they were enlarged, and "
                f"enlarged faces have no detail to judge: {choice}"
            )
        elif (equal := self.geometry.equalise) and (smaller := self._smaller(first)):
            least = min(int(source.files[side].min()) for source in self.sources for side in ("width", "height"))
            warnings.append(
                f"pictures smaller than {first}x{first}: {smaller}; they were enlarged to be equalised, and enlarged "
                f"faces are known by that: --equalise {least},{equal.quality} enlarges none"
            )
        if unusable := sum(int((source.files["profile"] == UNUSABLE).sum()) for source in self.sources):
            warnings.append(f"colour profiles that cannot be used, so that the colours count as sRGB: {unusable}")
        if self.both_classes:
            warnings.append(
                f"copies or near copies that are real in one place and fake in another: "
                f"{self.both_classes} pair{'s' * (self.both_classes > 1)}; check the sources"
            )
        if self.unused_groups:
            warnings.append(f"lines of --groups that name no picture here: {self.unused_groups}")
        for source, by, count in self.frames:
            each = "one a folder" if by == "folder" else "one a name before the number"
            warnings.append(
                f"the pictures of {source} look like frames of {count} films, {each}: a classifier would be tested on "
                f"films that it learnt from; prepare again with --group-by {by}, or name the groups with --groups"
            )
        return warnings

    def _smaller(self, side: int) -> str:
        """Pictures with a side of fewer pixels, by source; "" where there are none."""
        return ", ".join(f"{n:,} of {source.name}" for source in self.sources if (n := source.smaller(side)))
