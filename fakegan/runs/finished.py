"""Finished runs as a report or a comparison takes them: settings, numbers, scores of each face."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.config.overrides import short_target
from fakegan.config.typed import flat as flat_values
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.metrics import measures
from fakegan.runs.began import size_at_start
from fakegan.runs.folder import METRICS_FILE, SCORES_FILE
from fakegan.runs.results import FaceScores, read_metrics, read_scores
from fakegan.runs.settings import RunSettings
from fakegan.system.shell import local_path

# In metrics.json:
LEARNT_FROM = "learnt_from"  # the sources whose faces trained or validated the classifier
USUAL_BUDGET = "quick"  # of conf/train.yaml
SCORED = "scored"  # of an evaluation: which faces, in words


@dataclass(frozen=True)
class FinishedRun:
    """A run with its results on some faces: its own test split, or the faces of an evaluation."""

    settings: RunSettings
    folder: Path  # of metrics.json and scores.csv: the run's own, or one under its evaluations/

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return read_metrics(self.folder / METRICS_FILE)

    @cached_property
    def scores(self) -> FaceScores:
        """scores.csv, with the group of each face."""
        return read_scores(self.folder / SCORES_FILE)

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.settings.paths.run_dir

    @property
    def scored(self) -> str:
        """The faces that the run was scored on, in words."""
        earlier = f"faces of {Path(self.metrics['store']).name}" if "store" in self.metrics else "test split"
        return str(self.metrics.get(SCORED, earlier))

    @property
    def learnt_from(self) -> frozenset[str]:
        """The sources that its classifier has learnt from."""
        return learnt_from(self.metrics)

    @property
    def classifies(self) -> bool:
        """Whether the run ends with scores: pipeline=autoencoder does not."""
        return "test" in self.metrics


@dataclass(frozen=True)
class PartOfRun(FinishedRun):
    """A finished run as if it had been scored on some of its faces alone: measures and scores are theirs."""

    whole: FinishedRun
    keep: npt.NDArray[np.bool_]  # (N,), of the whole run's faces

    @cached_property
    def scores(self) -> FaceScores:
        """The scores of these faces."""
        return self.whole.scores.kept(self.keep)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json, with the test measured again on these faces."""
        found, said = self.scores, self.whole.metrics
        faces = (found.scores, found.labels, found.sources, found.groups, said["threshold"])
        return {**said, "test": measures(*faces, learnt_from=self.whole.learnt_from)}


def exported_learnt_from(content: Mapping[str, Any]) -> list[str]:
    """The sources that the content of an exported detector says it has learnt from; none where it does not say."""
    names = content.get(LEARNT_FROM)
    found = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return list(names) if found and names else []


def learnt_from(metrics: dict[str, Any]) -> frozenset[str]:
    """The sources whose faces trained or validated a run's classifier; for old runs, the sources of validation."""
    return frozenset(metrics.get(LEARNT_FROM) or metrics.get("val", {}).get("by_source", ()))


@dataclass(frozen=True)
class Configuration:
    """Runs that differ by their seed alone."""

    name: str
    runs: tuple[FinishedRun, ...]  # by seed

    @property
    def settings(self) -> RunSettings:
        """The settings of the first run; the other runs have the same, but for the seed."""
        return self.runs[0].settings


def configurations(runs: Sequence[FinishedRun]) -> list[Configuration]:
    """Runs of one configuration, on faces of the same content, brought together; each group has a name of its own.

    Raises a UsageError, which names them, for two runs of the same configuration and seed.
    """
    together: list[tuple[Any, list[FinishedRun]]] = []  # with the store's fingerprint and the settings that they share
    for run in runs:
        shared = run.metrics.get("data_fingerprint"), run.settings.configuration()
        alike = next((group for key, group in together if key == shared), None)
        if alike is None:
            together.append((shared, [run]))
            continue
        twin = next((other for other in alike if other.settings.seed == run.settings.seed), None)
        if twin is not None:
            raise UsageError(f"{run.path} and {twin.path} are the same configuration and seed: name one of them")
        alike.append(run)
    groups = [sorted(group, key=lambda run: run.settings.seed) for _, group in together]
    names = names_of([group[0].settings for group in groups])
    return [Configuration(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def names_of(settings: Sequence[RunSettings]) -> list[str]:
    """The label of each, with another budget than the default's (debug has one).

    Where several have the same, the keys that differ between them are added with their values.
    """
    budgets = ["" if s.budget.name == USUAL_BUDGET else f" budget={s.budget.name}" for s in settings]
    labels = [s.label() + budget for s, budget in zip(settings, budgets, strict=True)]
    tables = [dict(short_target(key, value) for key, value in flat(s.configuration()).items()) for s in settings]
    names = []
    for label, table in zip(labels, tables, strict=True):
        same = [other for other, its_label in zip(tables, labels, strict=True) if its_label == label]
        differing = sorted(key for key in table if any(other.get(key) != table[key] for other in same))
        leaves = [key.rsplit(".", 1)[-1] for key in differing]
        short = [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(differing, leaves, strict=True)]
        values = [f"{word}={_as_typed(table[key])}" for word, key in zip(short, differing, strict=True)]
        names.append(" ".join([label, *values]))
    return names


def told_apart(names: Sequence[str]) -> tuple[str, list[str]]:
    """What names begin and end with alike, as "classify · ...", and the rest of each: where all are long, it is short.

    Every rest has a word; a single name is its own.
    """
    words = [name.split(" ") for name in names]
    fewest = min(map(len, words)) - 1 if len(words) > 1 else 0

    def alike(lists: Sequence[Sequence[str]], most: int) -> int:
        columns = list(zip(*lists, strict=False))[:most]
        return next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(columns))

    first = alike(words, fewest)
    last = alike([own[::-1] for own in words], fewest - first)
    rests = [" ".join(own[first : len(own) - last]).strip("· ") for own in words]
    if not (first or last) or not all(rests):
        return "", list(names)
    return " ".join([*words[0][:first], "...", *words[0][len(words[0]) - last :]]), rests


def _as_typed(value: object) -> str:
    """A value as a command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_as_typed, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def same_faces(runs: Sequence[FinishedRun]) -> FaceScores:
    """The faces that all runs were scored on, with the first run's scores. Raises a FakeganError: other faces."""
    first = runs[0].scores
    for run in runs[1:]:
        ours, theirs = set(first.files), set(run.scores.files)
        if ours != theirs:
            raise FakeganError(
                f"{runs[0].folder} and {run.folder} were scored on different faces ({len(ours - theirs)} and "
                f"{len(theirs - ours)} of their own){_reason(runs[0], run)}: compare runs of one store and split, "
                "or add data=faces data.root=DIR"
            )
        same_store = run.metrics["data_fingerprint"] == runs[0].metrics["data_fingerprint"]
        if not same_store or not np.array_equal(first.labels, run.scores.labels):
            here, there = size_at_start(runs[0].path), size_at_start(run.path)
            if here != there:
                raise FakeganError(
                    f"{runs[0].folder} has faces of {here}x{here} pixels, {run.folder} of {there}x{there}: "
                    "compare runs of one size"
                )
            raise FakeganError(
                f"{runs[0].folder} and {run.folder} name the same faces, but come from stores of other content: "
                "compare runs of one store, or add data=faces data.root=DIR"
            )
    return first


def hold_out_alone(runs: Sequence[FinishedRun]) -> bool:
    """Whether runs of one store differ in no data option but those that hold sources out, as one sweep makes them."""
    tables = [flat(run.settings.configuration()["data"], "data") for run in runs]
    for table in tables:
        for key in ("data.split.unseen", "data.split.learn_from"):
            table.pop(key, None)
    stores = {run.metrics["data_fingerprint"] for run in runs}
    return len(stores) == 1 and all(table == tables[0] for table in tables)


def _reason(one: FinishedRun, other: FinishedRun) -> str:
    """Why their faces differ, as far as the data's settings say."""
    ours, theirs = (flat(run.settings.configuration()["data"], "data") for run in (one, other))
    why = differences_of(ours, theirs)
    if one.metrics.get("data_fingerprint") != other.metrics.get("data_fingerprint"):
        roots = [run.settings.data.root for run in (one, other)]
        places = " against ".join("the built-in faces" if root is None else str(root) for root in roots)
        why = [f"stores of other content ({places})", *why]
    return f", because of {'; '.join(why)}" if why else ""


def differences_of(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys in which two flat tables differ, with both values as the command line takes them."""
    return [
        f"{key}={_as_typed(one.get(key))} against {_as_typed(other.get(key))}"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def flat(content: Any, at: str = "") -> dict[str, Any]:
    """Nested tables as one, with keys as the command line has them (model.net.depth); empty tables are left out."""
    return {key: value for key, value in flat_values(content, at) if value != {}}


def shown_path(path: Path) -> str:
    """The path as one types it in the current folder."""
    return local_path(path.absolute())
