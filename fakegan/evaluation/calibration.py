"""From a classifier's log odds to scores that can be read as probabilities, and to a verdict of "unsure".

All of it is fitted on validation faces; scores are P(fake), label 1 is fake.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import Floats, Labels
from fakegan.evaluation.metrics import CALIBRATION_BINS, calibration_bins, require_both_classes

COLDEST, HOTTEST = 0.05, 100.0  # the range of temperatures
HALVINGS = 60  # of the interval of 1/T: beyond float64's precision


def probability(margins: Floats, temperature: float) -> Floats:
    """P(fake), (N,): the sigmoid of log odds / temperature, without overflow at either end."""
    scaled = margins / temperature
    small = np.exp(-np.abs(scaled))
    scores: Floats = np.where(scaled >= 0, 1.0, small) / (1 + small)
    return scores


def fit_temperature(margins: Floats, labels: Labels) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017, arXiv:1706.04599), in [0.05, 100].

    The likelihood is convex in 1/T, so its slope changes sign once, and bisection finds the place. Where every margin
    lies on its label's side, the likelihood grows without end as T falls: T is then 1.0, and the scores stay.

    Raises:
        FakeganError: one class only, or a margin that is not finite.
    """
    require_both_classes(labels)
    if not np.isfinite(margins).all():
        raise FakeganError("some margins are not finite: the classifier has diverged")
    if (np.where(labels == 1, margins, -margins) >= 0).all():
        return 1.0
    low, high = 1 / HOTTEST, 1 / COLDEST  # of 1/T
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = float(np.mean((probability(margins, 1 / middle) - labels) * margins))
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


def choose_band(
    scores: Floats,
    labels: Labels,
    threshold: float,
    error: float = 0.1,  # share of wrong verdicts allowed on either side of the band
) -> tuple[float, float]:
    """The band (low, high) around the threshold inside which a verdict is "unsure"; for validation scores only.

    `low` is the largest level below which at most `error` of the faces are fake, if both classes weigh the same;
    `high` is the smallest level from which on at most `error` are real. low <= threshold <= high; a level with no face
    beyond it does not count. Without such a level, low is 0.0 or high is 1.0, and `unsure` covers that whole side.

    Raises:
        FakeganError: one class only.
    """
    require_both_classes(labels)
    levels = np.union1d(scores, threshold)
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    fakes_below, reals_below = np.searchsorted(fakes, levels), np.searchsorted(reals, levels)
    missed, passed = fakes_below / len(fakes), reals_below / len(reals)  # shares below each level
    found, alarms = (len(fakes) - fakes_below) / len(fakes), (len(reals) - reals_below) / len(reals)
    is_low = (levels <= threshold) & (missed + passed > 0) & (missed <= error * (missed + passed))
    is_high = (levels >= threshold) & (found + alarms > 0) & (alarms <= error * (found + alarms))
    return float(max(levels[is_low], default=0.0)), float(min(levels[is_high], default=1.0))


def unsure(scores: Floats, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Whether each score is inside the band, (N,): low <= score < high, and up to 1 itself where high is 1."""
    return (scores >= low) & ((scores < high) | (high >= 1))


def reliability(scores: Floats, labels: Labels) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Mean score, share of fakes and count of each of the bins of equal width; NaN where a bin is empty."""
    bin_of = calibration_bins(scores)
    count = np.bincount(bin_of, minlength=CALIBRATION_BINS)
    some = np.where(count, count, np.nan)
    mean_score, share = (np.bincount(bin_of, values, CALIBRATION_BINS) / some for values in (scores, labels))
    return mean_score, share, count
