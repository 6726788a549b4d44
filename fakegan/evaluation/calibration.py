"""From a classifier's log odds to scores that can be read as probabilities, and to a verdict of "unsure".

All of it is fitted on validation faces; scores are P(fake), label 1 is fake.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.intervals import Bounded, Floats, Groups, Labels, bounded, resampled
from fakegan.evaluation.metrics import CALIBRATION_BINS, calibration_bins, require_both_classes
from fakegan.evaluation.roc import Ranking

COLDEST, HOTTEST = 0.05, 100.0  # the range of temperatures
HALVINGS = 60  # of the interval of 1/T: beyond float64's precision
WRONG = 0.1  # share of the faces of a class that may get the other class's verdict
ROUNDING = 1e-9  # of sums of weights


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


@dataclass(frozen=True)
class Validation:
    """Scores of validation faces: how often a verdict is wrong on faces like them.

    Split conformal prediction for each class apart (Vovk's Mondrian predictors, arXiv:1209.2673; Angelopoulos & Bates
    2021, arXiv:2107.07511, class-conditional coverage). A face of a class lies beyond a level in at most so many of a
    hundred cases, whatever the classifier and whatever the distribution of its scores, if it and the validation faces
    of its class come in no special order. The probability is over validation faces and new face together; it says
    nothing of generators, cameras and files unlike those of validation. As the faces of a group (a person, an origin)
    are alike, a group counts once, and its faces share its weight (Lee, Barber & Willett 2023, arXiv:2306.06342).
    """

    scores: Floats  # (V,), P(fake)
    labels: Labels  # (V,)
    groups: npt.NDArray[np.int64]  # (V,), a number for each person or origin

    def __post_init__(self) -> None:
        shape, kinds = (len(self.scores),), (np.float64, np.int64, np.int64)
        for column, kind in zip((self.scores, self.labels, self.groups), kinds, strict=True):
            if column.dtype != kind or column.shape != shape:
                raise ValueError("validation scores, labels and groups are no lists of one length")
        if not ((self.scores >= 0) & (self.scores <= 1)).all() or set(self.labels.tolist()) != {0, 1}:
            raise ValueError("validation scores are from 0 to 1, of both classes")

    @classmethod
    def of(cls, scores: Floats, labels: Labels, groups: Groups) -> Validation:
        """From groups by name; a FakeganError for one class only."""
        require_both_classes(labels)
        return cls(scores, labels, np.unique(groups, return_inverse=True)[1].astype(np.int64))

    def band(
        self,
        threshold: float,
        wrong: float = WRONG,  # share of the faces of each class that may get the other class's verdict
    ) -> tuple[float, float]:
        """The band (low, high) around the threshold inside which a verdict is "unsure".

        A fake scores below `low` with a probability of at most `wrong`, a real face at `high` or above with the same.
        A threshold beyond these levels widens the band, so that no verdict contradicts the call. A classifier that
        errs more seldom at its threshold has no band. With K groups of a class, its level is that of about
        wrong - 1 / K of the faces; with fewer than 1 / wrong - 1 groups there is none: low is 0.0, or high is 1.0,
        and `unsure` covers that whole side.
        """
        low, high = -self._level(-self.scores, 1, wrong), self._level(self.scores, 0, wrong)
        return max(min(low, threshold), 0.0), min(max(float(np.nextafter(high, np.inf)), threshold), 1.0)

    def auroc(self) -> Bounded:
        """With its 95% interval over groups; a little high, since the epoch was chosen on these faces."""
        ranking = Ranking(self.scores, self.labels)
        drawn = resampled(lambda weights: ranking.curves(weights).auroc(), self.labels, self.groups.astype(np.str_))
        groups = min(len(np.unique(self.groups[self.labels == label])) for label in (0, 1))
        return bounded(float(ranking.curves().auroc()[0]), drawn, groups)

    def threshold_at(
        self,
        false_alarms: float,  # share of the real faces that may be called fake
    ) -> float:
        """The lowest threshold that a real face reaches with a probability of at most `false_alarms`.

        Raises:
            UsageError: no share, or there are too few validation faces to know such a threshold.
        """
        if not 0 < false_alarms < 1:
            raise UsageError(f"max_false_alarms must be above 0 and below 1, not {false_alarms}")
        own = self.groups[self.labels == 0]
        groups, needed = len(np.unique(own)), math.ceil(1 / false_alarms - 1 - ROUNDING)
        threshold = float(np.nextafter(self._level(self.scores, 0, false_alarms), np.inf))
        if threshold <= 1:
            return threshold
        what = "real validation faces" if groups == len(own) else "groups of real validation faces"
        if groups < needed:
            least = math.ceil(1000 / (groups + 1)) / 1000
            raise UsageError(
                f"max_false_alarms={false_alarms} takes {needed:,} {what} to know, and this run has {groups:,}: "
                f"allow {least} or more, or train with more validation faces"
            )
        raise UsageError(
            f"max_false_alarms={false_alarms}: too many {what} have the score 1, and no threshold is above it"
        )

    def _level(self, scores: Floats, label: int, share: float) -> float:
        """The lowest level above which a new face of this class scores in at most this share of cases; may be inf.

        Each of its K groups weighs 1 / (K + 1), and the new face, which may lie anywhere, as much.
        """
        own = scores[self.labels == label]
        _, group, faces = np.unique(self.groups[self.labels == label], return_inverse=True, return_counts=True)
        order = np.argsort(own)
        weight = np.cumsum((1 / faces[group])[order])  # of the faces up to each score; a group weighs 1
        reached = weight >= (1 - share) * (len(faces) + 1) - ROUNDING
        return float(own[order][np.argmax(reached)]) if reached.any() else math.inf


def chosen(
    threshold: float | None,
    max_false_alarms: float | None,  # share of the real faces, which chooses the threshold instead
    band: tuple[float, float],  # of a detector
    validation: Validation | None,  # of the same detector; None where its file is of an earlier version
) -> tuple[float, tuple[float, float]]:
    """A threshold of the user's, and the band around it.

    Raises:
        UsageError: both are given, one is out of range, or validation is too small to know such a threshold.
        FakeganError: there are no validation scores to choose by.
    """
    if threshold is not None and max_false_alarms is not None:
        raise UsageError("give threshold, or max_false_alarms, which chooses it, not both")
    if max_false_alarms is not None:
        if validation is None:
            raise FakeganError(
                "this run is of an earlier version, and its detector holds no validation scores by which "
                "max_false_alarms could choose: train it again, or give a threshold"
            )
        threshold = validation.threshold_at(max_false_alarms)
    if threshold is None or not 0 <= threshold <= 1:  # also true for NaN
        raise UsageError(f"threshold must be from 0 to 1, not {threshold}")
    low, high = band
    return threshold, validation.band(threshold) if validation else (min(low, threshold), max(high, threshold))


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
