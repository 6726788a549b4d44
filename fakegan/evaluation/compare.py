"""Which of several configurations is better on exactly the same faces: bootstrap, Student's t, McNemar, Holm.

All configurations take part in the same resamples of the faces' groups; p-values are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import UsageError
from fakegan.evaluation import intervals
from fakegan.evaluation.intervals import NO_WIDTH, Bounded, Floats, Groups, Labels
from fakegan.evaluation.metrics import require_both_classes
from fakegan.evaluation.roc import Ranking, auroc

ALPHA = 0.05  # a p-value below it, after Holm's correction, is called a difference
FLIPS = 10_000


@dataclass(frozen=True)
class Scored:
    """The scores and calls of one configuration, a row for each seed."""

    name: str
    scores: Floats  # (S, N), P(fake)
    called_fake: npt.NDArray[np.bool_]  # (S, N), each seed by its own threshold


@dataclass(frozen=True)
class Comparison:
    """Configuration a against b: differences are a - b of means over seeds, `_holm` corrects for all the pairs.

    McNemar's test is on the calls of the trained nets as they are. With several seeds, or several faces in a group,
    `p_mcnemar` comes from a test by sign flips instead.
    """

    a: str
    b: str
    auroc_difference: Bounded
    p_auroc: float
    p_auroc_holm: float
    accuracy_difference: Bounded
    p_mcnemar: float
    p_mcnemar_holm: float

    @property
    def outcome(self) -> int:
        """1 where the AUROC of a is significantly higher, -1 where lower, else 0."""
        if self.p_auroc_holm >= ALPHA:
            return 0
        return 1 if self.auroc_difference["value"] > 0 else -1


def compare(
    entries: Sequence[Scored],
    labels: Labels,
    groups: Groups,  # (N,), persons or origins: the faces of a group are drawn together
    resamples: int = 2000,
    seed: int = 0,  # of the resamples
) -> list[Comparison]:
    """Every pair of entries, in their order.

    Where both of a pair have one seed, interval and p come from the resamples of faces: the answer is on these trained
    nets. Where one has several, the seeds' variance is added and Student's t taken: the answer is on training again;
    a single seed beside them still stands for itself alone.

    Raises:
        FakeganError: one class only.
        UsageError: two entries of one name, or an entry that was scored on other faces.
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
    shares = [r.mean(axis=1) for r in right]  # (S,) each
    aurocs, accuracies = _resampled(entries, right, labels, groups, resamples, seed)  # (K, R) each
    every, fewest = len(np.unique(groups)), min(len(np.unique(groups[labels == label])) for label in (0, 1))
    pairs = list(combinations(range(len(entries)), 2))
    by_area = [_tested(areas[i], areas[j], aurocs[i] - aurocs[j], fewest) for i, j in pairs]
    by_verdict = [_tested(shares[i], shares[j], accuracies[i] - accuracies[j], every)[0] for i, j in pairs]
    p_auroc, p_mcnemar = [p for _, p in by_area], [_mcnemar(right[i], right[j], groups, seed) for i, j in pairs]
    columns = ([d for d, _ in by_area], p_auroc, holm(p_auroc), by_verdict, p_mcnemar, holm(p_mcnemar))
    return [
        Comparison(names[i], names[j], *numbers)  # the columns are in the order of its fields
        for (i, j), *numbers in zip(pairs, *columns, strict=True)
    ]


def wins(comparisons: Sequence[Comparison], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """1 where the row's AUROC is significantly above the column's after Holm, -1 where below, else 0: (K, K)."""
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    for c in comparisons:
        a, b = names.index(c.a), names.index(c.b)
        table[a, b], table[b, a] = c.outcome, -c.outcome
    return table


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """The mean of a measure over seeds and its spread: the sample standard deviation, None for one seed."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "spread": spread, "values": list(values)}


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p-value that a difference is 0, from its resamples (R,).

    Twice the share of resamples on the rarer side of 0, one added to both counts (Davison & Hinkley 1997), so never 0.
    Where no resample is on that side, p would only say how many resamples there are, too few for Holm's correction over
    many pairs: there the tail of a normal distribution with their mean and spread is taken, where it is smaller.
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

    If neither entry is better, a group's difference might as well have been the opposite (Fisher's randomisation). A
    sum just as far from 0 as the observed sum counts half; the observed sum counts among the flips. With differences
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
    """p-values corrected for how many there are (Holm 1979), in the order they came in."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _resampled(
    entries: Sequence[Scored],
    right: Sequence[Floats],  # (S, N) of each entry
    labels: Labels,
    groups: Groups,
    resamples: int,
    seed: int,
) -> Floats:
    """AUROC and accuracy of each entry in each resample, means over its seeds: (2, K, R)."""
    rankings = [[Ranking(scores, labels) for scores in entry.scores] for entry in entries]
    mean_right = np.stack([r.mean(axis=0) for r in right])  # (K, N)

    def measured(weights: Floats) -> Floats:  # (R, N) -> (2, K, R)
        aurocs = [np.mean([ranking.curves(weights).auroc() for ranking in ranked], axis=0) for ranked in rankings]
        return np.stack([aurocs, mean_right @ weights.T / weights.sum(axis=1)])

    return intervals.resampled(measured, labels, groups, resamples, seed)


def _tested(
    of_a: Floats,  # (S,), the measure of each seed on all faces
    of_b: Floats,
    resampled: Floats,  # (R,), differences of the means over seeds
    groups: int,  # how many independent groups bear on it
) -> tuple[Bounded, float]:
    """The difference of means over seeds with its 95% interval, and the p-value that it is 0.

    With several seeds its variance is the resamples' plus s^2 / S of each entry with S seeds; Student's t has the
    degrees of freedom of Welch & Satterthwaite, with infinite degrees for the faces. What a choice of faces does to
    each seed alone is in both parts, so that their sum is on average a little too large, never too small.
    """
    value = float(of_a.mean() - of_b.mean())
    low, high = intervals.bounds(value, resampled, groups, floor=-1.0)
    p = bootstrap_p(resampled)
    exact = intervals.tell_nothing(resampled, groups)
    of_seeds = [(float(np.var(v, ddof=1)) / len(v), len(v) - 1) for v in (of_a, of_b) if len(v) > 1]
    variance = (0.0 if exact else float(np.var(resampled))) + sum(v for v, _ in of_seeds)
    if of_seeds and variance > NO_WIDTH**2:
        unsure = sum(v**2 / freedom for v, freedom in of_seeds)
        freedom = variance**2 / unsure if unsure > 0 else math.inf
        error = math.sqrt(variance)
        reach, p = intervals.student_reach(freedom) * error, intervals.student_p(value / error, freedom)
        # Where the faces' part is not in the variance, the interval holds their exact bounds, too.
        low, high = (min(low, value - reach), max(high, value + reach)) if exact else (value - reach, value + reach)
    if exact and low <= 0 <= high:
        p = 1.0  # the number of resamples, which agree, says nothing
    return {"value": value, "low": max(low, -1.0), "high": min(high, 1.0)}, p


def _mcnemar(right_a: Floats, right_b: Floats, groups: Groups, seed: int) -> float:  # (S, N) each, (N,)
    names, group = np.unique(groups, return_inverse=True)
    if len(right_a) == len(right_b) == 1 and len(names) == len(groups):
        return mcnemar_midp(int((right_a > right_b).sum()), int((right_a < right_b).sum()))
    by_face = len(right_b) * right_a.sum(axis=0) - len(right_a) * right_b.sum(axis=0)  # S_a S_b times that of means
    return sign_flip_p(np.bincount(group, weights=by_face).astype(np.int64), seed)
