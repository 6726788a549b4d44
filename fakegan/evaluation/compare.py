"""Which of several configurations is better on exactly the same faces: bootstrap, Student's t, McNemar, Holm.

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
from fakegan.evaluation.intervals import (
    NO_WIDTH,
    Groups,
    Ranking,
    bounds,
    resample_weights,
    student_p,
    student_reach,
    tell_nothing,
)
from fakegan.evaluation.metrics import Bounded, Labels, Scores, auroc, require_both_classes

FLIPS = 10_000


@dataclass(frozen=True)
class Scored:
    """What one configuration said of the faces, one row a seed."""

    name: str
    scores: Scores  # (S, N), P(fake)
    called_fake: npt.NDArray[np.bool_]  # (S, N), each seed by its own threshold


@dataclass(frozen=True)
class Comparison:
    """Configuration a against b: differences are a - b of means over seeds, `_holm` allows for all the pairs.

    McNemar's test is on the verdicts of the trained nets as they are. Several seeds, or several faces in a group, have
    its counterpart by sign flips in `p_mcnemar`.
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

    Each resample draws groups of faces; its value is the mean over all seeds of an entry. Where both of a pair have
    one seed, interval and p are those of the resamples: the verdict is on these trained nets, not on how they would be
    trained again. Where one has several, what they differ by is added and Student's t taken: the verdict is on training
    again, with a single seed beside them still standing for itself alone.

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
    areas = [np.array([auroc(scores, labels) for scores in entry.scores]) for entry in entries]  # (S,) each
    aurocs, accuracies = _resampled(entries, right, labels, groups, resamples, seed)  # (K, R) each
    fewest = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    every = len(np.unique(groups))
    found = []
    for i, j in combinations(range(len(entries)), 2):
        by_area, p_auroc = _tested(areas[i], areas[j], aurocs[i] - aurocs[j], fewest)
        by_verdict, _ = _tested(right[i].mean(axis=1), right[j].mean(axis=1), accuracies[i] - accuracies[j], every)
        p_mcnemar = _mcnemar(right[i], right[j], groups, seed)
        found.append(
            Comparison(
                a=names[i],
                b=names[j],
                auroc_difference=by_area,
                p_auroc=p_auroc,
                p_auroc_holm=p_auroc,
                accuracy_difference=by_verdict,
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

    Twice the share of resamples on the rarer side of 0, one added to both counts (Davison & Hinkley 1997), so never 0.
    Where no resample is on that side, their number alone would decide, and Holm's correction over many pairs would ask
    more of it than it can: there the tail of a normal distribution with the resamples' mean and spread is taken, where
    it is smaller.
    """
    rarer = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    counted = min(1.0, 2 * (rarer + 1) / (len(differences) + 1))
    spread = float(np.std(differences))
    if rarer > 0 or spread < NO_WIDTH:
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
    return (2 * sum(ways) - ways[-1]) / (1 << n)


def sign_flip_p(
    differences: npt.NDArray[np.int64],  # (G,), of each group, in units that make them whole: ties stay ties
    seed: int = 0,  # of the flips
) -> float:
    """Two-sided mid-p that differences lean to neither side, by flipping their signs at random; never 0.

    If neither of two is better, a group's difference might as well have been the opposite (Fisher's randomisation). A
    sum just as far from 0 as the observed one counts half; the observed one counts among the flips. With differences
    of -1, 0 and 1 it is McNemar's test, up to how many flips there are.
    """
    observed = int(differences.sum())
    totals = np.zeros(FLIPS, dtype=np.int64)
    rng = np.random.default_rng(seed)
    for size, n in zip(*np.unique(np.abs(differences[differences != 0]), return_counts=True), strict=True):
        totals += size * (2 * rng.binomial(n, 0.5, FLIPS) - n)  # n groups of one size at once: how many keep their sign
    totals, far = np.append(totals, observed), abs(observed)
    return 1 - float(np.mean(np.sign(totals + far) - np.sign(totals - far))) / 2  # 0 within, a half at, 1 beyond `far`


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
    """AUROC and accuracy of each entry in each resample, (K, R) each: means over its seeds."""
    rng = np.random.default_rng(seed)
    rankings = [[Ranking(scores, labels) for scores in entry.scores] for entry in entries]
    mean_right = np.stack([r.mean(axis=0) for r in right])  # (K, N)
    aurocs, accuracies = [], []
    for weights in resample_weights(groups, labels, resamples, rng):
        aurocs.append([np.mean([ranking.curves(weights).auroc() for ranking in ranked], axis=0) for ranked in rankings])
        accuracies.append(mean_right @ weights.T / weights.sum(axis=1))
    return np.concatenate(aurocs, axis=1), np.concatenate(accuracies, axis=1)


def _tested(
    of_a: Scores,  # (S,), the measure of each seed on all faces
    of_b: Scores,
    resampled: Scores,  # (R,), differences of the means over seeds
    groups: int,  # how many independent groups bear on it
) -> tuple[Bounded, float]:
    """The difference of means over seeds with its 95% interval, and the p-value that it is 0.

    With several seeds its variance is that of the resamples and s^2 / S of each entry with S of them; Student's t has
    the degrees of freedom of Welch & Satterthwaite, those of the faces taken as infinite. What a choice of faces does
    to each seed apart is in both parts, so that their sum is on average a little too large, never too small.
    """
    value = float(of_a.mean() - of_b.mean())
    low, high = bounds(value, resampled, groups, floor=-1.0)
    p = bootstrap_p(resampled)
    exact = tell_nothing(resampled, groups)
    of_seeds = [(float(np.var(v, ddof=1)) / len(v), len(v) - 1) for v in (of_a, of_b) if len(v) > 1]
    variance = (0.0 if exact else float(np.var(resampled))) + sum(v for v, _ in of_seeds)
    if of_seeds and variance > NO_WIDTH**2:
        unsure = sum(v**2 / freedom for v, freedom in of_seeds)
        freedom = variance**2 / unsure if unsure > 0 else math.inf
        error = math.sqrt(variance)
        reach, p = student_reach(freedom) * error, student_p(value / error, freedom)
        # Where the faces' part is not in the variance, the interval holds their exact bounds, too.
        low, high = (min(low, value - reach), max(high, value + reach)) if exact else (value - reach, value + reach)
    if exact and low <= 0 <= high:
        p = 1.0  # the number of resamples, which agree, says nothing
    return {"value": value, "low": max(low, -1.0), "high": min(high, 1.0)}, p


def _mcnemar(right_a: Scores, right_b: Scores, groups: Groups, seed: int) -> float:  # (S, N) each, (N,)
    names, group = np.unique(groups, return_inverse=True)
    if len(right_a) == len(right_b) == 1 and len(names) == len(groups):
        return mcnemar_midp(int((right_a > right_b).sum()), int((right_a < right_b).sum()))
    by_face = len(right_b) * right_a.sum(axis=0) - len(right_a) * right_b.sum(axis=0)  # S_a S_b times that of means
    return sign_flip_p(np.bincount(group, weights=by_face).astype(np.int64), seed)
