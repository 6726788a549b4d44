"""Finished runs brought together for a report: configurations that were scored on exactly the same faces, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.compare import Comparison, Scored, compare
from fakegan.evaluation.metrics import Measure
from fakegan.evaluation.results import FaceScores
from fakegan.pipeline.finished import Configuration, FinishedRun, configurations, same_faces


@dataclass(frozen=True)
class Group:
    """Configurations with the same faces, and every pair of them compared."""

    configurations: tuple[Configuration, ...]

    @cached_property
    def runs(self) -> list[FinishedRun]:
        """Of all configurations."""
        return [run for configuration in self.configurations for run in configuration.runs]

    @cached_property
    def faces(self) -> FaceScores:
        """The faces, with the first run's scores."""
        return same_faces(self.runs)

    @cached_property
    def unseen(self) -> frozenset[str]:
        """Sources that no run of the group has trained on, by its own settings."""
        named = [frozenset(run.settings.data.split.unseen) for run in self.runs]
        return frozenset.intersection(*named)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every pair, in the order of the configurations; corrected for all of them."""
        entries = [Scored(c.name, scores(c), called_fake(c)) for c in self.configurations]
        if len(entries) < 2:
            return []
        return compare(entries, self.faces.labels, self.faces.groups)

    def difference(self, a: Configuration, b: Configuration) -> Comparison:
        """a against b."""
        for found in self.comparisons:
            if (found.a, found.b) == (a.name, b.name):
                return found
            if (found.a, found.b) == (b.name, a.name):
                return replace(
                    found,
                    a=found.b,
                    b=found.a,
                    auroc_difference=_negative(found.auroc_difference),
                    accuracy_difference=_negative(found.accuracy_difference),
                )
        raise KeyError((a.name, b.name))


def grouped(runs: Sequence[FinishedRun]) -> list[Group]:
    """Runs that classify, by the faces they were scored on, in order of appearance.

    Raises:
        UsageError: the same configuration and seed twice on the same faces.
    """
    together: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        if run.classifies:
            together.setdefault(_faces_key(run), []).append(run)
    return [Group(tuple(configurations(alike))) for alike in together.values()]


def scores(configuration: Configuration) -> npt.NDArray[np.float64]:  # (S, N)
    """P(fake) by seed and face."""
    return np.stack([run.scores.scores for run in configuration.runs])


def called_fake(configuration: Configuration) -> npt.NDArray[np.bool_]:  # (S, N)
    """Verdicts by seed and face."""
    return np.stack([run.scores.called_fake for run in configuration.runs])


def of_seeds(configuration: Configuration, name: str, split: str = "test") -> list[Measure]:
    """A measure of metrics.json, one a seed; none where the runs have no such split."""
    return [run.metrics[split][name] for run in configuration.runs if split in run.metrics]


def fingerprint(run: FinishedRun) -> str:
    """Of the store that the run's test faces came from."""
    return str(run.metrics.get("data_fingerprint", ""))


def _faces_key(run: FinishedRun) -> tuple[str, ...]:
    faces = run.scores
    return (fingerprint(run), *faces.files.tolist(), faces.labels.astype(np.uint8).tobytes().hex())


def _negative(difference: Mapping[str, float]) -> dict[str, float]:
    return {"value": -difference["value"], "low": -difference["high"], "high": -difference["low"]}
