"""From a classifier's log odds to scores that can be read as probabilities, and to a verdict of "unsure".

All of it is fitted on validation faces; scores are P(fake), label 1 is fake.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation.metrics import CALIBRATION_BINS, Labels, Scores, calibration_bins, require_both_classes

Margins = npt.NDArray[np.float64]  # (N,), log odds of fake

COLDEST, HOTTEST = 0.05, 100.0  # temperatures between which one is looked for
HALVINGS = 60  # of the interval of 1/T: beyond float64's precision


def probability(margins: Margins, temperature: float) -> Scores:
    """P(fake), (N,): the sigmoid of margins / temperature, without overflow at either end."""
    scaled = margins / temperature
    small = np.exp(-np.abs(scaled))
    scores: Scores = np.where(scaled >= 0, 1.0, small) / (1 + small)
    return scores


def fit_temperature(margins: Margins, labels: Labels) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017, arXiv:1706.04599), in [0.05, 100].

    The likelihood is convex in 1/T, so its slope there changes sign once and halving finds where. It is 1.0, the
    scores stay as they are, where every margin is on its label's side: the likelihood then grows without end as T
    falls, and nothing says where to stop.

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
    scores: Scores,
    labels: Labels,
    threshold: float,
    error: float = 0.1,  # share of wrong verdicts allowed on either side of the band
) -> tuple[float, float]:
    """The band (low, high) around the threshold inside which a verdict is "unsure"; for validation scores only.

    Below `low`, the largest such level, at most `error` of the faces are fake if both classes weigh the same; at or
    above `high`, the smallest, at most `error` are real. low <= threshold <= high; a level with no face beyond it
    does not count. Where no level will do, low is 0.0 or high is 1.0, and `unsure` then covers that whole side.

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


def unsure(scores: Scores, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Whether each score is inside the band, (N,): low <= score < high, and up to 1 itself where high is 1."""
    return (scores >= low) & ((scores < high) | (high >= 1))


def reliability(
    scores: Scores,
    labels: Labels,
    bins: int = CALIBRATION_BINS,
) -> tuple[Scores, Scores, npt.NDArray[np.int64]]:
    """Mean score, share of fakes and count of each bin of equal width, (bins,) each; NaN where a bin is empty."""
    which = calibration_bins(scores, bins)
    count = np.bincount(which, minlength=bins)
    some = np.where(count, count, np.nan)
    return np.bincount(which, scores, bins) / some, np.bincount(which, labels, bins) / some, count
