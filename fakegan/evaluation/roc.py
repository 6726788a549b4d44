"""The ROC of many resamples at once; label 1 is fake, a score is P(fake), and a positive is a fake."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fakegan.evaluation.intervals import Floats, Labels


def auroc(scores: Floats, labels: Labels) -> float:
    """Chance that a random fake scores above a random real, ties counting half: the area under the ROC."""
    return float(Ranking(scores, labels).curves().auroc()[0])


def roc(scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """False and true positive rates, (U + 1,) each, as `Curves.rates`."""
    fpr, tpr = Ranking(scores, labels).curves().rates
    return fpr[0], tpr[0]


class Ranking:
    """Scores sorted once, so that the ROC of many resamples costs a few passes over their weights."""

    def __init__(self, scores: Floats, labels: Labels) -> None:
        self.order = np.argsort(-scores, kind="stable")  # strictest threshold first
        self.fake = (labels[self.order] == 1).astype(np.float64)
        ends = np.append(np.diff(scores[self.order]) != 0, True)
        self.last_of_tie = np.flatnonzero(ends)  # (U,), an index for each distinct score
        self.level = np.empty(len(scores), dtype=np.int64)  # which of the distinct scores each face has
        self.level[self.order] = np.cumsum(ends) - ends

    def curves(
        self,
        weights: Floats | None = None,  # (R, N), in the order the scores came in; None: each face once
    ) -> Curves:
        """The ROC of each resample."""
        ranked = np.take(np.ones((1, len(self.order))) if weights is None else weights, self.order, axis=1)
        called = np.cumsum(ranked, axis=1)
        found = np.cumsum(np.multiply(ranked, self.fake, out=ranked), axis=1)
        if len(self.last_of_tie) < len(self.order):
            called, found = (np.take(x, self.last_of_tie, axis=1) for x in (called, found))
        return Curves(found, called - found)


@dataclass(frozen=True)
class Curves:
    """The ROC of R resamples at U distinct scores, strictest threshold first: ties move both rates at once."""

    found: Floats  # (R, U), weight of the fakes at or above each score; the last is that of all fakes
    alarms: Floats  # (R, U), weight of the reals at or above each score

    @cached_property
    def rates(self) -> tuple[Floats, Floats]:
        """False and true positive rates, (R, U + 1) each, after (0, 0) at an infinite threshold."""
        return _from_zero(self.alarms / self.alarms[:, -1:]), _from_zero(self.found / self.found[:, -1:])

    def beaten(self) -> tuple[Floats, Floats]:
        """Share of reals below each score and of fakes above it, ties counting half: (R, U) each."""
        below = 1 - (_from_zero(self.alarms)[:, :-1] + self.alarms) / (2 * self.alarms[:, -1:])
        above = (_from_zero(self.found)[:, :-1] + self.found) / (2 * self.found[:, -1:])
        return below, above

    def auroc(self) -> Floats:
        """Area under each ROC, (R,)."""
        here = np.diff(self.found, axis=1, prepend=0)  # fakes at each score
        not_below = _from_zero(self.alarms)[:, :-1] + self.alarms  # reals above it, twice, and reals at it
        lost: Floats = np.einsum("ru,ru->r", here, not_below) / (2 * self.alarms[:, -1] * self.found[:, -1])
        return 1 - lost

    def average_precision(self) -> Floats:
        """Precision averaged over the fakes found, (R,): the sum of (R_n - R_n-1) P_n over thresholds."""
        here = np.diff(self.found, axis=1, prepend=0)
        precision = self.found / np.maximum(self.found + self.alarms, 1)  # no face yet: no fake found either
        average: Floats = np.einsum("ru,ru->r", here, precision) / self.found[:, -1]
        return average

    def equal_error_rate(self) -> Floats:
        """Where as many reals are called fake as fakes are missed, (R,), between two points by a straight line."""
        fpr, tpr = self.rates
        gap = fpr - (1 - tpr)  # rises from -1 to 1
        rows, after = np.arange(len(gap)), np.argmax(gap >= 0, axis=1)
        before = after - 1
        share = -gap[rows, before] / (gap[rows, after] - gap[rows, before])
        rate: Floats = fpr[rows, before] + share * (fpr[rows, after] - fpr[rows, before])
        return rate

    def tpr_at_fpr(self, limit: float) -> Floats:
        """Share of fakes found while at most `limit` of the reals are called fake, (R,)."""
        fpr, tpr = self.rates
        found: Floats = tpr[np.arange(len(tpr)), np.count_nonzero(fpr <= limit, axis=1) - 1]
        return found


def _from_zero(points: Floats) -> Floats:
    """The same points after a point at zero: (R, U) -> (R, U + 1)."""
    return np.concatenate([np.zeros((len(points), 1)), points], axis=1)
