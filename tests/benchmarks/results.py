"""What a case yields: ratios, shares of a limit, bounds, profiles, points of a curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median


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


@dataclass(frozen=True)
class Share(Row):
    """FakeGAN beside a limit of the machine: `theirs` is the time that the limit allows, the ratio a share of it."""


@dataclass(frozen=True)
class Bound:
    """A value with the most it may be."""

    what: str
    unit: str  # s, MB; empty for a mere number
    values: tuple[float, ...]  # one a round
    at_most: float
    note: str = ""
    if_missed: str = ""  # as a Row's

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def reached(self) -> bool:
        """Whether it stays within."""
        return self.value <= self.at_most


@dataclass(frozen=True)
class Operator:
    """One line of a profile."""

    name: str  # torch's: aten::convolution_backward
    share: float  # of the step's time
    calls: float  # a step


@dataclass(frozen=True)
class Profile:
    """Where a module's step spends its time, the largest first."""

    what: str
    device: str  # CPU or GPU, and the precision
    seconds: float  # of operators, a step
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Point:
    """What something costs for so many faces, measured once in a process of its own."""

    what: str
    faces: int
    seconds: float
    # None: the system does not say.
    peak: float | None  # MB, of the process: the kernel's high-water mark, mapped files and shared libraries included
    own: float | None  # MB, the most of it that was its own (anonymous): without the pages of files
    child: float | None  # MB, the high-water mark of its largest worker process; None without any, too

    def growth_from(self, smaller: Point) -> float:
        """The exponent p of time ~ faces^p between the two."""
        return math.log(self.seconds / smaller.seconds) / math.log(self.faces / smaller.faces)


@dataclass(frozen=True)
class NotMeasured:
    """A case that this machine cannot run, or that failed."""

    what: str
    why: str


Result = Row | Bound | Profile | Point | NotMeasured
