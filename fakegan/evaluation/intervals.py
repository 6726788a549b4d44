"""How far a number may be off: bootstrap over groups, Student's t, and the ROC of many resamples at once.

A group (a person, an origin) is one draw with all its faces; a resample is a whole weight for each face.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]  # values (N,), weights of resamples (R, N), or a statistic of each (R,)
Labels = npt.NDArray[np.int64]  # (N,), 0 real and 1 fake
Groups = npt.NDArray[np.str_]  # (N,)

OUTSIDE = 0.025  # of the resamples on either side of a 95% interval
CHUNK = 100_000  # weights drawn at once: each array of a chunk takes less than a megabyte
NO_WIDTH = 1e-9  # below it an interval's width is rounding
NORMAL_FROM = 1e5  # degrees of freedom from which on Student's t is the normal, to 0.2% of a p of 1e-6


def resample_weights(
    groups: Groups,
    labels: Labels,
    resamples: int,
    rng: np.random.Generator,
) -> Iterator[Floats]:
    """Resamples in chunks, (R, N) each: how often each face is drawn, the same for all faces of a group.

    Groups of real faces only, of fakes only and of both are drawn apart, each as often as there are: no resample
    lacks a class. Each kind has a stream of its own, so that how many fit into a chunk changes no resample.
    """
    names, group = np.unique(groups, return_inverse=True)  # (G,), and for each face which of them
    has_real, has_fake = (np.bincount(group[labels == label], minlength=len(names)) > 0 for label in (0, 1))
    strata = [np.flatnonzero(s) for s in (has_real & ~has_fake, has_fake & ~has_real, has_real & has_fake) if s.any()]
    streams = rng.spawn(len(strata))
    chunk = max(1, CHUNK // len(labels))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = np.empty((size, len(names)))
        for stratum, stream in zip(strata, streams, strict=True):
            n = len(stratum)
            picked = stream.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
            drawn[:, stratum] = np.bincount(picked.ravel(), minlength=size * n).reshape(size, n)
        yield np.take(drawn, group, axis=1)


def interval(values: Floats) -> tuple[float, float]:
    """The 95% percentile interval of a statistic's resamples, (R,); leaves out those without a value (NaN)."""
    low, high = np.quantile(values[~np.isnan(values)], (OUTSIDE, 1 - OUTSIDE))
    return float(low), float(high)


def bounds(
    value: float,
    values: Floats,  # (R,), the same statistic of each resample
    groups: int,  # how many independent groups bear on it
    floor: float = 0.0,  # the least value it can have; the largest is 1
) -> tuple[float, float]:
    """A 95% interval that holds `value`: the percentile interval, or an exact one where that would have no width.

    Where the middle 95% of the resamples agree (an accuracy of 1), or one group is all there is, resampling says
    nothing of what was not seen. n groups without an exception still leave 1 - 0.025^(1/n) of all groups that may be
    exceptions (the binomial bound of Clopper & Pearson 1934 at no success); the interval reaches as far as these can
    move the value.
    For the AUROC n is the number of groups of the smaller class.
    """
    if tell_nothing(values, groups):
        exceptions = 1 - OUTSIDE ** (1 / groups)
        return value - exceptions * (value - floor), value + exceptions * (1 - value)
    low, high = interval(values)
    return min(low, value), max(high, value)


def tell_nothing(values: Floats, groups: int) -> bool:  # (R,)
    """Whether a statistic's resamples say nothing of its error: they nearly all agree, or rest on one group."""
    some = values[~np.isnan(values)]
    if groups == 1 or some.size == 0:
        return True
    low, high = interval(some)
    return bool(high - low < NO_WIDTH)


def student_p(t: float, freedom: float) -> float:
    """Two-sided p-value of Student's t with so many degrees of freedom; an infinite number is the normal's."""
    if freedom > NORMAL_FROM:
        return math.erfc(abs(t) / math.sqrt(2))
    inside = t * t / (freedom + t * t)
    if inside < 3 / (freedom + 5):  # each side of it, the fraction of the other converges slowly
        return 1 - _incomplete_beta(inside, 0.5, freedom / 2)
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def student_reach(freedom: float) -> float:
    """How many standard errors a 95% interval by Student's t reaches to either side: the t whose p is 0.05."""
    low, high = 0.0, 2.0
    while student_p(high, freedom) > 2 * OUTSIDE:
        low, high = high, 2 * high
    while high - low > NO_WIDTH:
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > 2 * OUTSIDE else (low, middle)
    return high


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, x below (a + 1) / (a + b + 2), by its continued fraction."""
    if x == 0:
        return 0.0
    fraction = 1.0
    for k in range(20 + int(4 * math.sqrt(a + b)), 0, -1):  # from far inside; the terms beyond no longer matter
        m = k // 2
        term = m * (b - m) if k % 2 == 0 else -(a + m) * (a + b + m)
        fraction = 1 + term * x / ((a + k - 1) * (a + k)) / fraction
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / (a * fraction)


class Ranking:
    """Scores sorted once, so that the ROC of many resamples costs a few passes over their weights."""

    def __init__(
        self,
        scores: Floats,  # (N,), P(fake)
        labels: Labels,
    ) -> None:
        self.order = np.argsort(-scores, kind="stable")  # strictest threshold first
        ranked = scores[self.order]
        self.fake = (labels[self.order] == 1).astype(np.float64)
        ends = np.append(np.diff(ranked) != 0, True)
        self.last_of_tie = np.flatnonzero(ends)  # (U,), one for each distinct score
        self.level = np.empty(len(scores), dtype=np.int64)  # which of the distinct scores each face has
        self.level[self.order] = np.cumsum(ends) - ends

    def curves(self, weights: Floats) -> Curves:
        """The ROC of each resample from the weights (R, N) of its faces, in the order the scores came in."""
        ranked = np.take(weights, self.order, axis=1)
        called = np.cumsum(ranked, axis=1)
        found = np.cumsum(np.multiply(ranked, self.fake, out=ranked), axis=1)
        if len(self.last_of_tie) < len(self.order):
            called, found = (np.take(x, self.last_of_tie, axis=1) for x in (called, found))
        return Curves(found, called - found)


@dataclass(frozen=True)
class Curves:
    """The ROC of R resamples at U distinct scores, strictest first; the weighted form of the functions in metrics."""

    found: Floats  # (R, U), fakes at or above each score
    alarms: Floats  # (R, U), reals at or above each score

    @property
    def fakes(self) -> Floats:
        """Weight of all fakes, (R, 1)."""
        return self.found[:, -1:]

    @property
    def reals(self) -> Floats:
        """Weight of all reals, (R, 1)."""
        return self.alarms[:, -1:]

    def beaten(self) -> tuple[Floats, Floats]:
        """Share of reals below each score and of fakes above it, ties counting half: (R, U) each."""
        below = 1 - (_from_zero(self.alarms)[:, :-1] + self.alarms) / (2 * self.reals)
        above = (_from_zero(self.found)[:, :-1] + self.found) / (2 * self.fakes)
        return below, above

    def auroc(self) -> Floats:
        """Area under each ROC, (R,)."""
        here = np.diff(self.found, axis=1, prepend=0)  # fakes at each score
        not_below = _from_zero(self.alarms)[:, :-1] + self.alarms  # reals above it, twice, and those at it
        lost: Floats = np.einsum("ru,ru->r", here, not_below) / (2 * self.reals * self.fakes)[:, 0]
        return 1 - lost

    def average_precision(self) -> Floats:
        """Precision averaged over the fakes found, (R,)."""
        here = np.diff(self.found, axis=1, prepend=0)
        precision = self.found / np.maximum(self.found + self.alarms, 1)  # no face yet: none found either
        average: Floats = np.einsum("ru,ru->r", here, precision) / self.fakes[:, 0]
        return average

    def equal_error_rate(self) -> Floats:
        """Where as many reals are called fake as fakes are missed, (R,)."""
        fpr, tpr = _from_zero(self.alarms / self.reals), _from_zero(self.found / self.fakes)
        gap = fpr - (1 - tpr)  # rises from -1 to 1
        rows = np.arange(len(gap))
        after = np.argmax(gap >= 0, axis=1)
        before = after - 1
        share = -gap[rows, before] / (gap[rows, after] - gap[rows, before])
        rate: Floats = fpr[rows, before] + share * (fpr[rows, after] - fpr[rows, before])
        return rate

    def tpr_at_fpr(self, limit: float) -> Floats:
        """Share of fakes found while at most `limit` of the reals are called fake, (R,)."""
        points = np.count_nonzero(self.alarms / self.reals <= limit, axis=1)
        found: Floats = _from_zero(self.found / self.fakes)[np.arange(len(points)), points]
        return found


def _from_zero(points: Floats) -> Floats:
    """The same points after one at zero: (R, U) -> (R, U + 1)."""
    return np.concatenate([np.zeros((len(points), 1)), points], axis=1)
