"""What a case yields: ratios, bounds, profiles, points of a curve; each is a line on the terminal and of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median


def shown_time(seconds: float) -> str:
    """Seconds for people."""
    if seconds >= 1:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{1000 * seconds:.3g} ms"


def shown_memory(megabytes: float) -> str:
    return "-" if math.isnan(megabytes) else f"{megabytes:.0f} MB"


def _reached(reached: bool | None, if_missed: str) -> str:
    if reached is False:
        return f"**no**: {if_missed}" if if_missed else "**no**"
    return "yes" if reached else "-"


@dataclass(frozen=True)
class Row:
    """FakeGAN beside another way to do the same."""

    what: str
    against: str
    unit: str  # what the seconds are for: batch, step, epoch, face
    ours: tuple[float, ...]  # seconds a unit, one a round
    theirs: tuple[float, ...]  # the same rounds of the other side
    bar: float | None = None  # the ratio to reach
    if_missed: str = ""  # why, and what would be needed: for the page, where the bar is not reached

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster, round by round: a drift of the machine hits both sides of a round."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """None where there is no bar."""
        return None if self.bar is None else self.ratio >= self.bar

    def shown(self, ratio: float) -> str:
        """A ratio for people; below 1 with three digits, so that a bar of 1 / 1.15 differs from a near miss."""
        return f"{ratio:.0f}x" if ratio >= 20 else f"{ratio:.2f}x" if ratio >= 1 else f"{ratio:.3f}x"

    def shown_bar(self, bar: float) -> str:
        return f"{bar:.3g}x" if bar >= 1 else self.shown(bar)

    def cells(self) -> tuple[str, ...]:
        spread = f"{self.shown(min(self.ratios))} - {self.shown(max(self.ratios))}"
        sides = (f"{shown_time(median(side))} / {self.unit}" for side in (self.ours, self.theirs))
        bar = "-" if self.bar is None else self.shown_bar(self.bar)
        reached = _reached(self.reached, self.if_missed)
        return self.what, self.against, bar, f"**{self.shown(self.ratio)}**", spread, *sides, reached

    def __str__(self) -> str:
        spread = f"{self.shown(min(self.ratios))} - {self.shown(max(self.ratios))}"
        missed = ": NOT reached" if self.reached is False else ""
        return f"{self.what}, against {self.against}: {self.shown(self.ratio)} ({spread}){missed}"


class Share(Row):
    """FakeGAN beside a limit of the machine: `theirs` is the time that the limit allows, the ratio a share of it."""

    def shown(self, ratio: float) -> str:
        return f"{ratio:.0%}"

    shown_bar = shown


@dataclass(frozen=True)
class Bound:
    """A value with the most it may be."""

    what: str
    unit: str  # s, MB; empty for a mere number
    values: tuple[float, ...]  # one a round
    at_most: float
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def reached(self) -> bool:
        """Whether it stays within."""
        return self.value <= self.at_most

    def cells(self) -> tuple[str, ...]:
        unit = f" {self.unit}" if self.unit else ""
        spread = f"{min(self.values):.3g} - {max(self.values):.3g}" if len(self.values) > 1 else "-"
        measured = f"**{self.value:.3g}{unit}**"
        return self.what, f"{self.at_most:g}{unit}", measured, spread, _reached(self.reached, ""), self.note

    def __str__(self) -> str:
        missed = "" if self.reached else ": NOT reached"
        return f"{self.what}: {self.value:.2f} {self.unit}, at most {self.at_most:g}{missed}"


@dataclass(frozen=True)
class Profile:
    """Where a module's step spends its time, the largest first."""

    what: str
    device: str  # CPU or GPU, and the precision
    seconds: float  # of operators, a step
    operators: tuple[tuple[str, float, float], ...]  # torch's name, the share of the step's time, calls a step

    def __str__(self) -> str:
        top = ", ".join(f"{name} {share:.0%}" for name, share, _ in self.operators[:3])
        return f"profile of {self.what}, {self.device}: {top}"


@dataclass(frozen=True)
class Point:
    """What something costs for so many faces, measured once in a process of its own."""

    what: str
    faces: int
    seconds: float
    # NaN: the system does not say.
    peak: float  # MB, of the process: the kernel's high-water mark, mapped files and shared libraries included
    own: float  # MB, the most of it that was its own (anonymous): without the pages of files
    child: float  # MB, the high-water mark of its largest worker process; NaN without any, too

    def growth_from(self, smaller: Point) -> float:
        """The exponent p of time ~ faces^p between the two."""
        return math.log(self.seconds / smaller.seconds) / math.log(self.faces / smaller.faces)

    def cells(self, smaller: Point | None) -> tuple[str, ...]:
        growth = "-" if smaller is None else f"{self.growth_from(smaller):.2f}"
        times = (shown_time(self.seconds), shown_time(1000 * self.seconds / self.faces))
        memory = (shown_memory(megabytes) for megabytes in (self.peak, self.own, self.child))
        return self.what, f"{self.faces:,}", *times, growth, *memory

    def __str__(self) -> str:
        return f"{self.what}, {self.faces:,} faces: {shown_time(self.seconds)}, peak {shown_memory(self.peak)}"


@dataclass(frozen=True)
class NotMeasured:
    """A case that this machine cannot run, or that failed."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: not measured: {self.why}"


Result = Row | Bound | Profile | Point | NotMeasured
