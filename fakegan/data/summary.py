"""What `prepare` saw of each source, and what a classifier might learn from the files alone."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fakegan.checks import SIZES
from fakegan.data.colour import UNUSABLE
from fakegan.data.formats import describe_left_out
from fakegan.data.frames import GroupBy
from fakegan.data.images import Face, Geometry
from fakegan.errors import FakeganError
from fakegan.labels import CLASS_NAMES, FAKE, REAL
from fakegan.system.columns import in_columns

_STANDARD_QUANTISER_MEAN = 57.625  # libjpeg's luma table at quality 50
_OFTEN = 0.05  # formats, profiles: shares that differ by more are worth a warning
_GREY = 2  # levels that red, green and blue of a grey picture are apart at most
_MUCH = 1.1  # sizes, quantisers: so is this factor at the 10th, 50th or 90th percentile
_COLUMNS = ["source", "class", "pictures", "rejected", "format", "size", "JPEG", "copies", "near"]  # JPEG: its quality

Numbers = npt.NDArray[np.float64]


@dataclass
class SourceSummary:
    """Counts of one source; a few bytes a picture."""

    name: str
    label: int
    left_out: Counter[str] = field(default_factory=Counter)  # files that are clearly no pictures, by suffix
    exact: int = 0  # rows that repeat an earlier picture of any source
    near: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # of the pictures that could not be used
    formats: Counter[str] = field(default_factory=Counter)
    profiles: Counter[str] = field(default_factory=Counter)  # colour profiles other than sRGB, by name
    grey: int = 0
    widths: array[int] = field(default_factory=lambda: array("I"))
    heights: array[int] = field(default_factory=lambda: array("I"))
    quantisers: array[float] = field(default_factory=lambda: array("f"))  # of the JPEGs

    @property
    def count(self) -> int:
        """Pictures that could be used."""
        return len(self.widths)

    @property
    def rejected(self) -> int:
        """Pictures that could not be used."""
        return self.reasons.total()

    def add(self, face: Face) -> None:
        """Counts a picture and the properties of its file."""
        self.formats[face.format] += 1
        if face.profile:
            self.profiles[face.profile] += 1
        self.grey += bool(np.ptp(face.pixels.astype(np.int16), axis=2).max() <= _GREY)
        self.widths.append(face.width)
        self.heights.append(face.height)
        if face.jpeg_quantiser_mean == face.jpeg_quantiser_mean:  # not NaN
            self.quantisers.append(face.jpeg_quantiser_mean)

    def smaller(self, size: int) -> int:
        """Pictures with a side of fewer pixels."""
        return int((np.minimum(self.widths, self.heights) < size).sum())

    def refuse_empty(self) -> None:
        """Raises FakeganError where no picture could be used."""
        if not self.count:
            reason, times = self.reasons.most_common(1)[0]
            raise FakeganError(
                f"none of the {self.rejected} pictures of {self.name} could be used; most often: {reason} ({times})"
            )

    def cells(self) -> list[str]:
        """In the order of `_COLUMNS`."""
        formats = [f"{name}:{times}" for name, times in self.formats.most_common()]
        format = next(iter(self.formats)) if len(formats) == 1 else " ".join(formats) or "-"
        size = quality = "-"
        if self.count:
            width, height = np.asarray(self.widths, np.float64), np.asarray(self.heights, np.float64)
            ends = [f"{width[i]:.0f}x{height[i]:.0f}" for i in (np.argmin(width * height), np.argmax(width * height))]
            size = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}, median {_median_size(width, height)}"
        if self.quantisers:
            best, middle, worst = map(_quality, np.percentile(np.asarray(self.quantisers, np.float64), (0, 50, 100)))
            quality = f"{middle}" if best == worst else f"{middle} ({worst} to {best})"
        numbers = [str(self.count), str(self.rejected)]
        return [self.name, CLASS_NAMES[self.label], *numbers, format, size, quality, str(self.exact), str(self.near)]


@dataclass
class Summary:
    """All sources, in the order given."""

    sources: list[SourceSummary]
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
        """What tells the classes apart before anyone has looked at a face."""
        warnings = []
        if self.classes == {REAL, FAKE} and (differing := self._differences()):
            cure = "bring both to one format and size first (--equalise)"
            if self.geometry.equalise:
                cure = "their files are equalised now, but a lower quality or a smaller size leaves traces in pixels"
            warnings.append(
                f"real and fake pictures differ in {', '.join(differing)}: a classifier may learn just "
                f"that, and say nothing about fakes; {cure}"
            )
        size, first = self.geometry.size, self.geometry.first_side
        if smaller := self._smaller(size):
            choice = "leave them out" if size == SIZES[0] else "leave them out, or choose a smaller --size"
            warnings.append(
                f"pictures smaller than {size}x{size}: {smaller}; they were enlarged, and "
                f"enlarged faces have no detail to judge: {choice}"
            )
        elif smaller := self._smaller(first):
            least = min(min(*source.widths, *source.heights) for source in self.sources if source.count)
            warnings.append(
                f"pictures smaller than {first}x{first}: {smaller}; they were enlarged to be equalised, and enlarged "
                f"faces are known by that: --equalise {least} enlarges none"
            )
        if unusable := sum(source.profiles[UNUSABLE] for source in self.sources):
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

    def _differences(self) -> list[str]:
        both = [_Files.of([source for source in self.sources if source.label == label]) for label in (REAL, FAKE)]
        real, fake = both
        found = []
        if any(abs(real.formats[name] - fake.formats[name]) > _OFTEN for name in real.formats | fake.formats):
            shares = [[f"{share:.0%} {name}" for name, share in sorted(files.formats.items())] for files in both]
            found.append(f"format ({' + '.join(shares[0])} / {' + '.join(shares[1])})")
        if _apart(real.sides, fake.sides) or _apart(real.aspects, fake.aspects):
            found.append(f"size ({real.size} / {fake.size})")
        if len(real.quantisers) and len(fake.quantisers) and _apart(real.quantisers, fake.quantisers):
            qualities = [_quality(float(np.median(files.quantisers))) for files in both]
            found.append(f"JPEG quality (about {qualities[0]} / {qualities[1]})")
        for name in sorted(real.profiles | fake.profiles):
            if abs(real.profiles[name] - fake.profiles[name]) > _OFTEN:
                what = "grey pictures" if name == "grey" else f"colour profile {name}"
                found.append(f"{what} ({real.profiles[name]:.0%} / {fake.profiles[name]:.0%})")
        return found


@dataclass(frozen=True)
class _Files:
    """The properties of the files of one class."""

    formats: Counter[str]  # as shares; a Counter, since it gives 0 for a name that is missing
    profiles: Counter[str]  # shares of pictures with a profile, and of grey ones
    sides: Numbers  # square root of the area
    aspects: Numbers  # width / height
    quantisers: Numbers
    size: str

    @classmethod
    def of(cls, sources: list[SourceSummary]) -> _Files:
        formats = sum((source.formats for source in sources), Counter[str]())
        profiles = sum((source.profiles for source in sources), Counter[str]())
        profiles["grey"] = sum(source.grey for source in sources)
        pictures = formats.total()
        for shares in (profiles, formats):
            for name in shares:
                shares[name] /= pictures  # type: ignore[assignment]
        width, height, quantisers = (
            np.concatenate([np.asarray(getattr(source, name), dtype=np.float64) for source in sources])
            for name in ("widths", "heights", "quantisers")
        )
        sides, aspects = np.sqrt(width * height), width / height
        return cls(formats, profiles, sides, aspects, quantisers, _median_size(width, height))


def _apart(a: Numbers, b: Numbers) -> bool:
    ratio = np.percentile(a, (10, 50, 90)) / np.percentile(b, (10, 50, 90))
    return bool((np.maximum(ratio, 1 / ratio) > _MUCH).any())


def _median_size(width: Numbers, height: Numbers) -> str:
    return f"{np.median(width):.0f}x{np.median(height):.0f}"


def _quality(quantiser_mean: float) -> int:
    """The libjpeg quality whose standard table has this mean, roughly."""
    ratio = quantiser_mean / _STANDARD_QUANTISER_MEAN
    return round(100 - 50 * ratio if ratio <= 1 else 50 / ratio)
