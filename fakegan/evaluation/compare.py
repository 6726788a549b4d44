"""Which of several configurations is better on exactly the same faces: paired bootstrap, McNemar, Holm.

All take part in the same resamples of the faces' groups; p-values are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import UsageError
from fakegan.evaluation.intervals import NO_WIDTH, Groups, Ranking, bounds, resample_weights
from fakegan.evaluation.metrics import Bounded, Labels, Scores, auroc, require_both_classes

COUNTED = 10  # resamples beyond 0 from which on their number is a p-value


@dataclass(frozen=True)
class Scored:
    """What one configuration said of the faces, one row a seed."""

    name: str
    scores: Scores  # (S, N), P(fake)
    called_fake: npt.NDArray[np.bool_]  # (S, N), each seed by its own threshold


@dataclass(frozen=True)
class Comparison:
    """Configuration a against b: differences are a - b of means over seeds, `_holm` allows for all the pairs.

    McNemar's test is on the verdicts; it takes the seeds as they are, and their mean.
    """

    a: str
    b: str
    auroc_difference: Bounded
    p_auroc: float
    p_auroc_holm: float
    accuracy_difference: Bounded
    p_mcnemar: float
    p_mcnemar_holm: float


def compare(
    entries: Sequence[Scored],
    labels: Labels,
    groups: Groups,  # (N,), persons or origins: the faces of one are drawn together
    resamples: int = 2000,
    seed: int = 0,  # of the resamples
) -> list[Comparison]:
    """Every pair of entries, in their order.

    Each resample draws groups of faces, and of each entry's S seeds it draws S - 1 with replacement, which gives a
    mean over seeds the variance it has (Rao & Wu 1988); drawing S would make it too small by 1 / S. One seed stands
    for itself alone: the verdict is then on these trained nets, not on how they would be trained again.

    Raises:
        FakeganError: one class only.
        UsageError: two entries of one name, or not of these faces.
    """
    require_both_classes(labels)
    names = [entry.name for entry in entries]
    for entry in entries:
        if names.count(entry.name) > 1:
            raise UsageError(f"two of the runs to compare are called {entry.name!r}: give each its own name")
        if entry.scores.shape[1:] != labels.shape or entry.called_fake.shape != entry.scores.shape:
            raise UsageError(f"{entry.name!r} was not scored on the same {len(labels)} faces: score it on them first")
    right = [(entry.called_fake == (labels == 1)).astype(np.float64) for entry in entries]  # (S, N) each
    aurocs, accuracies = _resampled(entries, right, labels, groups, resamples, seed)  # (K, R) each
    fewest = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    every = len(np.unique(groups))
    found = []
    for i, j in combinations(range(len(entries)), 2):
        by_area = np.mean([auroc(s, labels) for s in entries[i].scores]) - np.mean(
            [auroc(s, labels) for s in entries[j].scores]
        )
        by_verdict = right[i].mean() - right[j].mean()
        p_auroc = bootstrap_p(aurocs[i] - aurocs[j])
        p_mcnemar = _mcnemar(right[i], right[j], groups)
        found.append(
            Comparison(
                a=names[i],
                b=names[j],
                auroc_difference=_difference(float(by_area), aurocs[i] - aurocs[j], fewest),
                p_auroc=p_auroc,
                p_auroc_holm=p_auroc,
                accuracy_difference=_difference(float(by_verdict), accuracies[i] - accuracies[j], every),
                p_mcnemar=p_mcnemar,
                p_mcnemar_holm=p_mcnemar,
            )
        )
    by_auroc, by_mcnemar = holm([c.p_auroc for c in found]), holm([c.p_mcnemar for c in found])
    return [replace(c, p_auroc_holm=p, p_mcnemar_holm=q) for c, p, q in zip(found, by_auroc, by_mcnemar, strict=True)]


def wins(comparisons: Sequence[Comparison], names: Sequence[str], alpha: float = 0.05) -> npt.NDArray[np.int64]:
    """1 where the row's AUROC is significantly above the column's after Holm, -1 where below, else 0: (K, K)."""
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    place = {name: i for i, name in enumerate(names)}
    for c in comparisons:
        if c.p_auroc_holm < alpha:
            better = 1 if c.auroc_difference["value"] > 0 else -1
            table[place[c.a], place[c.b]], table[place[c.b], place[c.a]] = better, -better
    return table


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """The mean of a measure over seeds and its spread: the sample standard deviation, None for one seed."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "spread": spread, "values": list(values)}


def bootstrap_p(differences: Scores) -> float:
    """Two-sided p-value that a difference is 0, from its resamples (R,).

    Twice the share of resamples on the rarer side of 0, one added to both counts (Davison & Hinkley 1997): below
    0.05 just where the 95% percentile interval leaves 0 out, and never 0. Where that side holds fewer than ten, counts
    say little, and Holm's correction over many pairs would ask more of them than they can: there the tail of a normal
    distribution with the resamples' mean and spread is taken, where it is smaller.
    """
    rarer = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    counted = min(1.0, 2 * (rarer + 1) / (len(differences) + 1))
    spread = float(np.std(differences))
    if rarer >= COUNTED or spread < NO_WIDTH:
        return counted
    return min(counted, math.erfc(abs(float(np.mean(differences))) / spread / math.sqrt(2)))


def mcnemar_midp(b: int, c: int) -> float:
    """McNemar's mid-p (Fagerland et al. 2013): b faces only the first got right, c only the second.

    Twice the chance of at most min(b, c) heads in b + c tosses, less the chance of just as many.
    """
    n, fewer = b + c, min(b, c)
    ways = [1]  # exact whole numbers: n over 0, over 1, ...
    for k in range(fewer):
        ways.append(ways[-1] * (n - k) // (k + 1))
    return (2 * sum(ways) - ways[-1]) / 2**n if b != c else 1.0


def mcnemar_clustered(differences: Scores) -> float:
    """McNemar's test where faces come in groups (Obuchowski 1998).

    d is each group's right verdicts of the first less those of the second, (G,): (sum d)^2 / sum d^2 is chi-squared
    with one degree of freedom if neither is better.
    """
    squares = float(np.sum(differences**2))
    return math.erfc(math.sqrt(float(np.sum(differences)) ** 2 / squares / 2)) if squares else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that allow for how many there are (Holm 1979), in the order they came in."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _resampled(
    entries: Sequence[Scored],
    right: Sequence[Scores],  # (S, N) of each entry
    labels: Labels,
    groups: Groups,
    resamples: int,
    seed: int,
) -> tuple[Scores, Scores]:
    """AUROC and accuracy of each entry in each resample, (K, R) each: means over the seeds drawn."""
    faces_rng, *seeds_rngs = np.random.default_rng(seed).spawn(1 + len(entries))
    rankings = [[Ranking(scores, labels) for scores in entry.scores] for entry in entries]
    aurocs, accuracies = np.empty((len(entries), resamples)), np.empty((len(entries), resamples))
    start = 0
    for weights in resample_weights(groups, labels, resamples, faces_rng):
        rows = slice(start, start + len(weights))
        for k, ranked in enumerate(rankings):
            draws = max(len(ranked) - 1, 1)
            shares = (
                seeds_rngs[k].multinomial(draws, np.full(len(ranked), 1 / len(ranked)), len(weights)) / draws
            )  # (R, S)
            areas = np.stack([ranking.curves(weights).auroc() for ranking in ranked], axis=1)  # (R, S)
            aurocs[k, rows] = (shares * areas).sum(axis=1)
            accuracies[k, rows] = (shares * (weights @ right[k].T)).sum(axis=1) / weights.sum(axis=1)
        start += len(weights)
    return aurocs, accuracies


def _difference(value: float, resampled: Scores, groups: int) -> Bounded:
    low, high = bounds(value, resampled, groups, floor=-1.0)
    return {"value": value, "low": low, "high": high}


def _mcnemar(right_a: Scores, right_b: Scores, groups: Groups) -> float:
    names, group = np.unique(groups, return_inverse=True)
    if len(right_a) == len(right_b) == 1 and len(names) == len(groups):
        return mcnemar_midp(int((right_a > right_b).sum()), int((right_a < right_b).sum()))
    by_face: Scores = right_a.mean(axis=0) - right_b.mean(axis=0)  # (N,)
    by_group = np.zeros(len(names))
    np.add.at(by_group, group, by_face)
    return mcnemar_clustered(by_group)
