"""How far a number may be off: the bootstrap over groups, and Student's t.

A group (a person, an origin) is one draw with all its faces; a resample is a whole weight for each face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]  # values (N,), weights of resamples (R, N), or a statistic of each resample (R,)
Labels = npt.NDArray[np.int64]  # (N,), 0 real and 1 fake
Sources = npt.NDArray[np.str_]  # (N,)
Groups = npt.NDArray[np.str_]  # (N,)
Measure = dict[str, float | None]  # value, low, high: the bounds of a 95% interval, None where there is none
Bounded = dict[str, float]  # a measure whose interval is known
Resampled = tuple[Bounded, Floats, int]  # with its resamples (R,), and how many independent groups bear on it
Statistic = Callable[[Floats], Floats]  # weights (R, N) -> (R,), or (..., R) for several statistics at once

OUTSIDE = 0.025  # share of the resamples on either side of a 95% interval
CHUNK = 100_000  # weights drawn at once: each array of a chunk takes less than a megabyte
NO_WIDTH = 1e-9  # below it an interval's width is rounding
NORMAL_FROM = 1e5  # degrees of freedom from which on Student's t is the normal, to 0.2% of a p of 1e-6


def resampled(statistic: Statistic, labels: Labels, groups: Groups, resamples: int = 1000, seed: int = 0) -> Floats:
    """The statistic in each resample, (R,) or (..., R): always the same resamples for the same groups and seed."""
    chunks = resample_weights(groups, labels, resamples, seed)
    return np.concatenate([statistic(weights) for weights in chunks], axis=-1)


def resample_weights(groups: Groups, labels: Labels, resamples: int, seed: int) -> Iterator[Floats]:
    """Resamples in chunks, (R, N) each: how often each face is drawn, the same for all faces of a group.

    Groups of reals, groups of fakes and mixed groups are drawn separately, each kind as often as there are groups of
    it, so that no resample lacks a class. Each kind has its own random stream: the size of a chunk changes no resample.
    """
    names, group = np.unique(groups, return_inverse=True)  # (G,), and the group of each face
    has_real, has_fake = (np.bincount(group[labels == label], minlength=len(names)) > 0 for label in (0, 1))
    strata = [np.flatnonzero(s) for s in (has_real & ~has_fake, has_fake & ~has_real, has_real & has_fake) if s.any()]
    streams = np.random.default_rng(seed).spawn(len(strata))
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
    """The 95% percentile interval of a statistic's resamples, (R,); leaves out resamples without a value (NaN)."""
    low, high = np.quantile(values[~np.isnan(values)], (OUTSIDE, 1 - OUTSIDE))
    return float(low), float(high)


def bounds(
    value: float,
    values: Floats,  # (R,), the same statistic of each resample
    groups: int,  # how many independent groups bear on it
    floor: float = 0.0,  # the least value it can have; the largest is 1
) -> tuple[float, float]:
    """A 95% interval that holds `value`: the percentile interval, or an exact one where resampling tells nothing.

    n groups without an exception still leave 1 - 0.025^(1/n) of all groups that may be exceptions (the binomial bound
    of Clopper & Pearson 1934 at no success); the exact interval reaches as far as these can move the value. For the
    AUROC n is the number of groups of the smaller class.
    """
    if tell_nothing(values, groups):
        exceptions = 1 - OUTSIDE ** (1 / groups)
        return value - exceptions * (value - floor), value + exceptions * (1 - value)
    low, high = interval(values)
    return min(low, value), max(high, value)


def bounded(value: float, values: Floats, groups: int) -> Bounded:
    """A statistic between 0 and 1 with its `bounds`."""
    low, high = bounds(value, values, groups)
    return {"value": value, "low": low, "high": high}


def mean(parts: Sequence[Resampled]) -> Bounded:
    """The mean of several statistics, which all have the same resamples; NaN is where a resample lacks a statistic.

    A resample that lacks some of them has the mean over the others. Where resamples tell nothing of the mean, or of a
    part that rests on one group, the parts' own bounds are averaged.
    """
    value, low, high = (float(np.mean([part[name] for part, *_ in parts])) for name in ("value", "low", "high"))
    drawn = np.stack([values for _, values, _ in parts])
    means = np.nanmean(drawn[:, ~np.isnan(drawn).all(axis=0)], axis=0)
    if len(means) and not tell_nothing(means, min(groups for *_, groups in parts)):
        low, high = interval(means)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def tell_nothing(values: Floats, groups: int) -> bool:  # (R,)
    """Whether resamples say nothing of a statistic's error: their middle 95% agree, or they rest on one group."""
    if groups == 1 or np.isnan(values).all():
        return True
    low, high = interval(values)
    return high - low < NO_WIDTH


def student_p(t: float, freedom: float) -> float:
    """Two-sided p-value of Student's t with so many degrees of freedom; infinite degrees are the normal's."""
    if freedom > NORMAL_FROM:
        return math.erfc(abs(t) / math.sqrt(2))
    inside = t * t / (freedom + t * t)
    if inside < 3 / (freedom + 5):  # beyond it the continued fraction converges slowly, and the other tail is taken
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
