"""robustness.json: what degraded faces do to a run's scores; how it is written, read, and told on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fakegan.config.typed import from_mapping
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import ROBUSTNESS_FILE
from fakegan.runs.results import read_json
from fakegan.system.columns import in_columns

MEASURES = {  # of a setting: its AUROC by which faces are degraded, and the right verdicts
    "both": "AUROC, both classes degraded",
    "reals": "AUROC, reals alone degraded",
    "fakes": "AUROC, fakes alone degraded",
    "real_accuracy": "degraded reals called real",
    "fake_accuracy": "degraded fakes called fake",
}
ALL = "all"  # the part with every generator, where not some were seen in training and others not
WORDS = {"both": "both classes", "reals": "reals only", "fakes": "fakes only"}  # which faces are degraded


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Sides:
    """A number by which faces are degraded."""

    both: Estimate
    reals: Estimate
    fakes: Estimate


@dataclass(frozen=True)
class Clean:
    """The faces as they are."""

    auroc: Estimate
    real_accuracy: Estimate
    fake_accuracy: Estimate


@dataclass(frozen=True)
class Degraded:
    """A kind of degradation at one strength."""

    kind: str
    strength: float
    auroc: Sides
    real_accuracy: Estimate  # of degraded real faces
    fake_accuracy: Estimate


@dataclass(frozen=True)
class Worst:
    """The largest drop of the AUROC."""

    kind: str
    strength: float
    side: str
    drop: Estimate

    def __str__(self) -> str:
        return f"{self.drop}: {self.kind} {self.strength:g}, {WORDS.get(self.side, self.side)}"


@dataclass(frozen=True)
class Part:
    """All real faces and the fakes of some generators."""

    n_real: int
    n_fake: int
    generators: tuple[str, ...]
    clean: Clean
    mean_drop: Sides
    worst: Worst
    settings: tuple[Degraded, ...]

    def kinds(self) -> dict[str, list[Degraded]]:
        """The settings of each kind, in order."""
        found: dict[str, list[Degraded]] = {}
        for setting in self.settings:
            found.setdefault(setting.kind, []).append(setting)
        return found


def measure(of: Degraded | Clean, name: str) -> Estimate:
    """One of MEASURES; faces as they are have one AUROC, whichever side it is asked for."""
    if isinstance(of, Clean) and name in WORDS:
        return of.auroc
    found: Estimate = getattr(of.auroc if name in WORDS else of, name)
    return found


@dataclass(frozen=True)
class Robustness:
    """The whole file."""

    originals: bool  # whether the original files were degraded, not the store's pixels
    parts: dict[str, Part]  # ALL, or seen and unseen

    def headline(self) -> dict[str, float]:
        """The AUROC's mean drop with both classes degraded, and the worst drop of all, for loggers."""
        found: dict[str, float] = {}
        for name, part in self.parts.items():
            found |= {
                f"{_at(name)}mean_drop": part.mean_drop.both.value,
                f"{_at(name)}worst_drop": part.worst.drop.value,
            }
        return found

    def steps(self) -> list[dict[str, float]]:
        """Curves for loggers: the faces as they are, then each kind at its first strength, its second, ..."""
        steps: list[dict[str, float]] = []
        for at, part in ((_at(name), part) for name, part in self.parts.items()):
            for kind, settings in part.kinds().items():
                every: list[Clean | Degraded] = [part.clean, *settings]
                for step, of in enumerate(every):
                    steps += [{}] if step == len(steps) else []
                    steps[step] |= {f"{at}{kind}/{name}": measure(of, name).value for name in MEASURES}
        return steps

    def lines(self) -> list[str]:
        """For a terminal: the AUROC's mean drop, by which faces are degraded, and its worst."""
        of = "original files" if self.originals else "faces"
        lines = [f"robustness, {of} degraded: how far the AUROC drops"]
        for name, part in self.parts.items():
            rows = [(f"  {words}, mean", str(getattr(part.mean_drop, side))) for side, words in WORDS.items()]
            lines += [] if name == ALL else [f" {name} generators:"]
            lines += in_columns([*rows, ("  worst", str(part.worst))])
        return lines


def _at(part: str) -> str:
    return "robustness/" if part == ALL else f"{part}/robustness/"


def read_robustness(
    folder: Path,  # of a run, or of an evaluation
) -> Robustness | None:
    """What its robustness.json says; None without one. Raises a FakeganError for a damaged file."""
    path, cure = folder / ROBUSTNESS_FILE, "score the run again with robustness=true"
    if not path.is_file():
        return None
    try:
        return from_mapping(Robustness, read_json(path, cure))
    except UsageError as error:
        raise FakeganError(f"{path} is damaged or of another version ({error!s:.200}): {cure}") from error
