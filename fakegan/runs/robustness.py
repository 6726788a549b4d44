"""robustness.json: what degraded faces do to a run's scores; how it is read, logged, and told on a terminal."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fakegan.config.typed import from_mapping
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import ROBUSTNESS_FILE
from fakegan.runs.results import read_json
from fakegan.system.columns import in_columns

SIDES = {"both": "both classes", "reals": "reals only", "fakes": "fakes only"}  # which faces are degraded
RIGHT = {"real_accuracy": "degraded reals called real", "fake_accuracy": "degraded fakes called fake"}
MEASURES = {**{side: f"AUROC, {words} degraded" for side, words in SIDES.items()}, **RIGHT}
ALL = "all"  # the part with every generator, where not some were seen in training and others not
_MOST = 200  # settings: a file may come from elsewhere, and each kind is a panel of a picture


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(abs(number) < 1.01 for number in (self.value, self.low, self.high)):  # also for NaN
            raise ValueError("a measure is from -1 to 1")

    def __str__(self) -> str:
        low, high = (round(bound, 2) + 0.0 for bound in (self.low, self.high))  # + 0.0: no bound is "-0.00"
        return f"{round(self.value, 3) + 0.0:.3f} [{low:.2f}, {high:.2f}]"


def _refuse_odd(kind: str, strength: float) -> None:
    """Raise a ValueError for what no picture can have as text, or on its axis."""
    if not (re.fullmatch(r"\w{1,40}", kind) and abs(strength) < 1e6):
        raise ValueError("a kind is a word, and a strength a number")


@dataclass(frozen=True)
class Setting:
    """A kind of degradation at one strength."""

    kind: str
    strength: float
    measures: dict[str, Estimate]  # MEASURES

    def __post_init__(self) -> None:
        _refuse_odd(self.kind, self.strength)
        if not self.measures.keys() >= MEASURES.keys():
            raise ValueError("a setting lacks a measure")


@dataclass(frozen=True)
class Worst:
    """The largest drop of the AUROC."""

    kind: str
    strength: float
    side: str
    drop: Estimate

    def __post_init__(self) -> None:
        _refuse_odd(self.kind, self.strength)
        if self.side not in SIDES:
            raise ValueError(f"a side is {', '.join(SIDES)}")

    def __str__(self) -> str:
        return f"{self.drop}: {self.kind} {self.strength:g}, {SIDES[self.side]}"


@dataclass(frozen=True)
class Part:
    """All real faces and the fakes of some generators."""

    n_real: int
    n_fake: int
    generators: tuple[str, ...]
    clean: Setting  # the faces as they are
    settings: tuple[Setting, ...]
    mean_drop: dict[str, Estimate]  # of the AUROC, by SIDES
    worst: Worst

    def __post_init__(self) -> None:
        if not self.mean_drop.keys() >= SIDES.keys():
            raise ValueError("mean_drop lacks a side")
        if not 1 <= len(self.settings) <= _MOST:
            raise ValueError(f"there are 1 to {_MOST} settings")

    def strengths(self) -> tuple[tuple[str, float], ...]:
        """Kind and strength of each setting, in order."""
        return tuple((setting.kind, setting.strength) for setting in self.settings)

    def kinds(self) -> dict[str, list[Setting]]:
        """The settings of each kind, in order, after the faces as they are."""
        return {kind: [self.clean, *own] for kind, own in groupby(self.settings, lambda setting: setting.kind)}


@dataclass(frozen=True)
class Robustness:
    """The whole file."""

    originals: bool  # whether the original files were degraded, not the store's pixels
    parts: dict[str, Part]  # ALL, or seen and unseen

    def __post_init__(self) -> None:
        if not self.parts or not self.parts.keys() <= {ALL, "seen", "unseen"}:
            raise ValueError(f"parts are {ALL}, or seen and unseen")

    def drops(self) -> dict[str, float]:
        """For loggers: the AUROC's mean drop with both classes degraded, and its worst drop of all."""
        found: dict[str, float] = {}
        for at, part in self._placed():
            found |= {f"{at}/mean_drop": part.mean_drop["both"].value, f"{at}/worst_drop": part.worst.drop.value}
        return found

    def steps(self) -> list[dict[str, float]]:
        """Curves for loggers: the faces as they are, then each kind at its first strength, its second, ..."""
        steps: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for at, part in self._placed():
            for kind, settings in part.kinds().items():
                for step, setting in enumerate(settings):
                    steps[step] |= {f"{at}/{kind}/{name}": found.value for name, found in setting.measures.items()}
        return list(steps.values())

    def _placed(self) -> list[tuple[str, Part]]:
        return [("robustness" if name == ALL else f"{name}/robustness", part) for name, part in self.parts.items()]

    def lines(self) -> list[str]:
        """For a terminal: the AUROC's mean drop, by which faces are degraded, and its worst."""
        of = "original files" if self.originals else "faces"
        lines = [f"robustness, {of} degraded: how far the AUROC drops"]
        for name, part in self.parts.items():
            rows = [(f"  {words}, mean", str(part.mean_drop[side])) for side, words in SIDES.items()]
            lines += [] if name == ALL else [f" {name} generators:"]
            lines += in_columns([*rows, ("  worst", str(part.worst))])
        return lines


def read_robustness(
    folder: Path,  # of a run, or of an evaluation
) -> Robustness | None:
    """What its robustness.json says; None without one. Raises a FakeganError for a damaged file."""
    path, cure = folder / ROBUSTNESS_FILE, "delete it; evaluate.py run=... robustness=true makes another"
    if not path.is_file():
        return None
    try:
        return from_mapping(Robustness, read_json(path, cure))
    except (UsageError, OverflowError) as error:
        raise FakeganError(f"{path} is damaged or of another version ({error!s:.200}): {cure}") from error
