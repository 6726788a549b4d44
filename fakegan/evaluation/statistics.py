"""Do real and fake faces differ in a number? Effect sizes and rank statistics, and how far they may be off.

Weights (R, N) say how often each face was drawn in each of R resamples. Positive, or above 0.5, always means that
fakes have the larger values. An undefined statistic (no spread, a class missing) is NaN in arrays, None in measures.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fakegan.evaluation import intervals
from fakegan.evaluation.intervals import NO_WIDTH, Floats, Groups, Labels, Measure, Sources, Statistic, resampled
from fakegan.evaluation.roc import Ranking

UNKNOWN: Measure = {"value": None, "low": None, "high": None}


def by_source(values: Floats, labels: Labels, sources: Sources, groups: Groups) -> dict[str, Any]:  # (N,) each
    """How a number is distributed: by source, real against all fakes, and against each generator alone."""
    found: dict[str, Any] = {"by_source": {}, "real_vs_fake": difference(values, labels, groups), "by_generator": {}}
    for source in np.unique(sources):
        own = sources == source
        fake = bool(labels[own][0])
        found["by_source"][str(source)] = {
            "label": "fake" if fake else "real",
            "n": int(own.sum()),
            "mean": mean(values[own], labels[own], groups[own]),
            "median": float(np.median(values[own])),
        }
        if fake:
            among = own | (labels == 0)
            found["by_generator"][str(source)] = difference(values[among], labels[among], groups[among])
    return found


def difference(values: Floats, labels: Labels, groups: Groups) -> dict[str, Any]:  # (N,) each
    """Cohen's d, Mann-Whitney's AUC and Kolmogorov-Smirnov's D between fakes and reals, with 95% intervals.

    AUC is the chance that a fake has a larger value than a real face, ties counting half; D the largest distance
    between the two cumulated distributions. Sampling only ever adds to D, and resampling adds again: its interval
    is D give or take the distance that 95% of the resamples move the distributions at any one place.

    The p-values are by group as well: AUC's from its resamples where groups hold several faces, D's as if each group
    were a single face, which says too little, never too much, where the faces of a group differ.
    """
    if len(np.unique(labels)) < 2:
        return {
            "cohens_d": UNKNOWN,
            "mann_whitney": {"auc": UNKNOWN, "p": None},
            "kolmogorov_smirnov": {"d": UNKNOWN, "p": None},
        }
    ranking = Ranking(values, labels)
    whole = ranking.curves()
    distance = np.diff(whole.rates, axis=0)[0]  # (1, U + 1)

    def statistics(weights: Floats) -> Floats:  # (R, N) -> (3, R)
        curves = ranking.curves(weights)
        moved = np.diff(curves.rates, axis=0)[0] - distance
        return np.stack([cohens_d(values, labels, weights), curves.auroc(), np.abs(moved).max(axis=1)])

    drawn_d, drawn_auc, moved = resampled(statistics, labels, groups)
    auc, d = float(whole.auroc()[0]), float(np.abs(distance).max())
    n_real, n_fake = (len(np.unique(groups[labels == label])) for label in (0, 1))
    n = min(n_real, n_fake)
    reach = float(np.quantile(moved, 1 - 2 * intervals.OUTSIDE))
    low, high = (d - reach, d + reach) if n > 1 and reach > NO_WIDTH else intervals.bounds(d, np.zeros(1), n)
    if len(np.unique(groups)) == len(groups):
        p_auc = mann_whitney_p(values, labels, auc)
    else:
        p_auc = grouped_mann_whitney_p(auc, drawn_auc, n_real, n_fake)
    return {
        "cohens_d": _unbounded(cohens_d(values, labels, np.ones((1, len(values))))[0], drawn_d),
        "mann_whitney": {"auc": intervals.bounded(auc, drawn_auc, n), "p": p_auc},
        "kolmogorov_smirnov": {
            "d": {"value": d, "low": max(low, 0.0), "high": min(high, 1.0)},
            "p": kolmogorov_smirnov_p(d, n_real, n_fake),
        },
    }


def mean(values: Floats, labels: Labels, groups: Groups) -> Measure:  # (N,) each
    """The mean with its 95% interval."""
    return _estimated(lambda weights: weights @ values / weights.sum(axis=1), labels, groups)


def correlation(a: Floats, b: Floats, labels: Labels, groups: Groups) -> Measure:  # (N,) each
    """Spearman's rank correlation with its 95% interval."""
    of_a, of_b = Ranks(a), Ranks(b)
    return _estimated(lambda weights: spearman(of_a, of_b, weights), labels, groups)


def standardised_difference(values: Floats, labels: Labels, groups: Groups) -> Measure:  # (N,) each
    """Cohen's d alone, with its 95% interval."""
    if len(np.unique(labels)) < 2:
        return UNKNOWN
    return _estimated(lambda weights: cohens_d(values, labels, weights), labels, groups)


def _estimated(statistic: Statistic, labels: Labels, groups: Groups) -> Measure:
    """A statistic without a least or largest value, with its 95% interval; UNKNOWN without faces."""
    if not len(labels):
        return UNKNOWN
    return _unbounded(statistic(np.ones((1, len(labels))))[0], resampled(statistic, labels, groups))


def _unbounded(value: float, drawn: Floats) -> Measure:  # (), (R,)
    """A measure without an interval where no two resamples differ, for that shows nothing of its error."""
    value, defined = float(value), drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or not len(defined) or np.ptp(defined) < NO_WIDTH * max(1.0, abs(value)):
        return {**UNKNOWN, "value": value if math.isfinite(value) else None}
    low, high = intervals.interval(defined)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def cohens_d(values: Floats, labels: Labels, weights: Floats) -> Floats:  # (N,), (N,), (R, N) -> (R,)
    """Mean of the fakes less the mean of the reals, in pooled standard deviations (Cohen 1988)."""
    from_centre = values - values.mean()  # a sum of squares far from 0 would lose its digits
    real, fake = (weights * (labels == label) for label in (0, 1))
    n_real, n_fake = real.sum(axis=1), fake.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_real, mean_fake = real @ from_centre / n_real, fake @ from_centre / n_fake
        squares = weights @ from_centre**2 - n_real * mean_real**2 - n_fake * mean_fake**2
        variance = squares / (n_real + n_fake - 2)
        rounding = 1e-10 * np.abs(values).max()
        d: Floats = (mean_fake - mean_real) / np.sqrt(np.where(variance > rounding**2, variance, np.nan))
    return d


def mann_whitney_p(values: Floats, labels: Labels, auc: float) -> float:
    """Two-sided p of the AUC by the normal approximation, corrected for ties and continuity; both classes needed.

    It takes every face for independent: right where each is a group of its own.
    """
    n, n_real, n_fake = len(labels), int((labels == 0).sum()), int((labels == 1).sum())
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    variance = n_real * n_fake / 12 * (n + 1 - float((ties**3 - ties).sum()) / (n * (n - 1)))
    if variance <= 0:  # all values are equal
        return 1.0
    away = abs(auc - 0.5) * n_real * n_fake
    return math.erfc(max(away - 0.5, 0) / math.sqrt(2 * variance))


def grouped_mann_whitney_p(auc: float, drawn: Floats, n_real: int, n_fake: int) -> float:
    """Two-sided p of the AUC by Student's t, from the spread of its resamples (R,) by group; the counts are of groups.

    The smaller class' groups less one are its degrees of freedom. Where resamples tell nothing, as when fakes and reals
    do not overlap, the spread is that of the AUC of as many independent faces if the classes are alike.
    """
    if intervals.tell_nothing(drawn, min(n_real, n_fake)):
        spread = math.sqrt((n_real + n_fake + 1) / (12 * n_real * n_fake))
        return intervals.student_p((auc - 0.5) / spread, math.inf)
    return intervals.student_p((auc - 0.5) / float(np.std(drawn)), min(n_real, n_fake) - 1)


def kolmogorov_smirnov_p(d: float, n_real: int, n_fake: int) -> float:
    """Two-sided p of D by Kolmogorov's limit with Stephens' correction for finite counts (Stephens 1970).

    The counts are of independent groups, not of the faces in them.
    """
    root = math.sqrt(n_real * n_fake / (n_real + n_fake))
    x = (root + 0.12 + 0.11 / root) * d
    if x < 0.2:  # the series converges slowly here, to 1 in its first eleven digits
        return 1.0
    return max(2 * math.fsum((-1.0) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101)), 0.0)


class Ranks:
    """Values sorted once, so that their ranks in many resamples cost a few passes over the weights."""

    def __init__(self, values: Floats) -> None:  # (N,)
        self.order = np.argsort(values, kind="stable")
        self.ends = np.flatnonzero(np.append(np.diff(values[self.order]) != 0, True))  # (U,), of each run of ties
        self.level = np.unique(values, return_inverse=True)[1]  # (N,), which run each face is in

    def __call__(self, weights: Floats) -> Floats:  # (R, N) -> (R, N)
        """Ranks less their mean; ties share theirs."""
        upto = np.cumsum(weights[:, self.order], axis=1)[:, self.ends]
        middle = upto - np.diff(upto, axis=1, prepend=0) / 2 - upto[:, -1:] / 2
        ranks: Floats = middle[:, self.level]
        return ranks


def spearman(a: Ranks, b: Ranks, weights: Floats) -> Floats:  # (R, N) -> (R,)
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one of the two has no spread."""
    x, y = a(weights), b(weights)
    xy, xx, yy = ((weights * product).sum(axis=1) for product in (x * y, x * x, y * y))
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = xy / np.sqrt(xx * yy)
    return result


def beyond_line(
    values: Floats,  # (N,)
    by: Floats,  # (N,)
    learnt_values: Floats,  # (M,), of other faces
    learnt_by: Floats,  # (M,)
) -> Floats:  # (N,)
    """Residuals of `values` from a straight line on `by`, fitted to the learnt faces; NaN with fewer than 3 of them."""
    if len(learnt_by) < 3:
        return np.full(len(values), np.nan)
    centre = learnt_by.mean()
    squares = float(((learnt_by - centre) ** 2).sum())
    slope = float((learnt_by - centre) @ learnt_values) / squares if squares > 0 else 0.0
    left: Floats = values - learnt_values.mean() - slope * (by - centre)
    return left
