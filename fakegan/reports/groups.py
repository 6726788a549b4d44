"""Finished runs brought together for a report: configurations that were scored on exactly the same faces, compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.compare import Comparison, Scored, compare
from fakegan.evaluation.intervals import Measure
from fakegan.evaluation.metrics import seen_and_unseen
from fakegan.runs.finished import Configuration, FinishedRun, PartOfRun, configurations, same_faces
from fakegan.runs.results import FaceScores

_KIND = re.compile(r"(?:^|, )((?:un)?seen generators)$")  # how `grouped` ends the name of a part


@dataclass(frozen=True)
class Group:
    """Configurations with the same faces, and every pair of them compared."""

    configurations: tuple[Configuration, ...]
    called: str = ""  # how a title tells these faces from those of the report's other groups

    @property
    def where(self) -> str:
        """The end of a title; empty where there is one group only."""
        return f" ({self.called})" if self.called else ""

    @property
    def kind(self) -> str:
        """Seen generators or unseen generators, where the faces were taken apart; else empty."""
        found = _KIND.search(self.called)
        return found[1] if found else ""

    @property
    def of_runs(self) -> str:
        """How the title tells these runs from the report's others, seen and unseen generators together."""
        return _KIND.sub("", self.called)

    @cached_property
    def runs(self) -> list[FinishedRun]:
        """The runs of all configurations."""
        return [run for configuration in self.configurations for run in configuration.runs]

    @cached_property
    def faces(self) -> FaceScores:
        """The faces, with the first run's scores."""
        return same_faces(self.runs)

    @cached_property
    def unseen(self) -> frozenset[str]:
        """Sources of these faces that no run of the group has learnt from."""
        return frozenset(self.faces.sources.tolist()) - _learnt_from(self.runs)

    @property
    def described(self) -> str:
        """How many and which faces these are: 160 faces (unseen generators): test split."""
        return f"{len(self.faces)} faces{self.where}: {self.scored}"

    @property
    def scored(self) -> str:
        """Which faces these are, in words."""
        return "; ".join(dict.fromkeys(run.scored for run in self.runs))

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every pair, in the order of the configurations; corrected for all of them."""
        entries = [Scored(c.name, scores(c), called_fake(c)) for c in self.configurations]
        return compare(entries, self.faces.labels, self.faces.groups) if len(entries) > 1 else []

    def difference(self, a: Configuration, b: Configuration) -> Comparison:
        """The comparison of a against b."""
        found = next(c for c in self.comparisons if {c.a, c.b} == {a.name, b.name})
        if found.a == a.name:
            return found
        auroc, accuracy = (
            {"value": -difference["value"], "low": -difference["high"], "high": -difference["low"]}
            for difference in (found.auroc_difference, found.accuracy_difference)
        )
        return replace(found, a=found.b, b=found.a, auroc_difference=auroc, accuracy_difference=accuracy)


def grouped(runs: Sequence[FinishedRun]) -> list[Group]:
    """Runs that classify, by the faces they were scored on, in order of appearance.

    Where some of the generators were seen in training, by any of the runs, and others were not, the seen and the unseen
    generators make two groups, as `seen_and_unseen` divides them: one number for both kinds would describe neither.

    Raises:
        UsageError: the same configuration and seed twice on the same faces.
    """
    by_faces: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run in runs:
        if run.classifies:
            key = (fingerprint(run), *run.scores.files.tolist(), *map(str, run.scores.labels))
            by_faces.setdefault(key, []).append(run)
    groups = []
    for alike, words in zip(by_faces.values(), _called(list(by_faces.values())), strict=True):
        called = [words] if words else []
        faces = alike[0].scores
        parts = seen_and_unseen(faces.labels, faces.sources, _learnt_from(alike))
        if not parts:
            groups.append(Group(tuple(configurations(alike)), words))
        for kind, part in parts.items():
            part_of_runs = [PartOfRun(run.settings, run.folder, run, part) for run in alike]
            groups.append(Group(tuple(configurations(part_of_runs)), ", ".join([*called, f"{kind} generators"])))
    return groups


def together(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of the same runs: seen and unseen generators, which `grouped` takes apart."""
    found: dict[frozenset[Path], list[Group]] = {}
    for group in groups:
        found.setdefault(frozenset(run.folder for run in group.runs), []).append(group)
    return list(found.values())


def one_by_one(alike: Sequence[Group]) -> list[Configuration]:
    """The configurations of groups of the same runs, with all the faces of each run."""
    return [
        replace(c, runs=tuple(run.whole if isinstance(run, PartOfRun) else run for run in c.runs))
        for c in alike[0].configurations
    ]


def _called(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """How groups of runs on different faces are told apart: by what they learnt from if that differs, else by letters.

    Nothing tells a single group.
    """
    if len(groups) < 2:
        return [""] * len(groups)
    faces = [alike[0].scores for alike in groups]
    generators = {*np.concatenate([f.sources[f.labels == 1] for f in faces]).tolist()}
    words = [learnt_words(_learnt_from(alike), generators) for alike in groups]
    one_store = len({fingerprint(run) for alike in groups for run in alike}) == 1
    told = one_store and len(set(words)) == len(words)
    return [f"learnt from {w}" for w in words] if told else [f"faces {group_letter(i)}" for i in range(len(groups))]


def learnt_words(learnt_from: Collection[str], generators: Collection[str]) -> str:
    """Which of these generators a run has learnt from: all generators; all but a; a alone; a, b; no generator."""
    own, missing = sorted({*generators} & {*learnt_from}), sorted({*generators} - {*learnt_from})
    if not missing:
        return "all generators"
    if len(own) == 1:
        return f"{own[0]} alone"
    return f"all but {missing[0]}" if len(missing) == 1 and own else ", ".join(own) or "no generator"


def group_letter(index: int) -> str:
    """A, B, C: the names of several groups of faces."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _learnt_from(runs: Sequence[FinishedRun]) -> frozenset[str]:
    return frozenset[str]().union(*(run.learnt_from for run in runs))


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
