"""Finished runs brought together for a report: configurations that were scored on exactly the same faces, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.compare import Comparison, Scored, compare
from fakegan.evaluation.metrics import Measure, seen_and_unseen
from fakegan.runs.finished import Configuration, FinishedRun, PartOfRun, configurations, same_faces
from fakegan.runs.results import FaceScores


@dataclass(frozen=True)
class Group:
    """Configurations with the same faces, and every pair of them compared."""

    configurations: tuple[Configuration, ...]
    called: str = ""  # how these faces are told from those of the report's other groups

    @property
    def where(self) -> str:
        """What to add to a title; empty where there is one group only."""
        return f" ({self.called})" if self.called else ""

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
        """Sources of these faces that no run of the group has learnt from."""
        learnt = frozenset[str]().union(*(run.learnt_from for run in self.runs))
        return frozenset(self.faces.sources.tolist()) - learnt

    @property
    def scored(self) -> str:
        """Which faces these are, in words."""
        return "; ".join(dict.fromkeys(run.scored for run in self.runs))

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

    Where some of the generators were seen in training, by any of the runs, and others were not, those are groups of
    their own, each with all real faces: taken together they would say nothing of either.

    Raises:
        UsageError: the same configuration and seed twice on the same faces.
    """
    together: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        if run.classifies:
            together.setdefault(_faces_key(run), []).append(run)
    groups = []
    for i, alike in enumerate(together.values()):
        called = f"faces {group_letter(i)}" if len(together) > 1 else ""
        for kind, part in _by_seen(alike).items():
            words = [word for word in (called, f"{kind} generators" if kind else "") if word]
            groups.append(Group(tuple(configurations(part)), ", ".join(words)))
    return groups


def group_letter(index: int) -> str:
    """A, B, C: how lots of faces are called where there are several."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _by_seen(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs on the same faces as they are, or twice: with the fakes that were seen in training, and with the others."""
    faces = runs[0].scores
    learnt = frozenset[str]().union(*(run.learnt_from for run in runs))
    parts = seen_and_unseen(faces.labels, faces.sources, learnt)
    if not parts:
        return {"": list(runs)}
    sources = {kind: tuple(np.unique(faces.sources[part]).tolist()) for kind, part in parts.items()}
    return {kind: [PartOfRun(r.settings, r.folder, r, sources[kind]) for r in runs] for kind in parts}


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
