"""Numbers from scores, labels and sources; knows nothing of nets or pictures.

Label 1 is fake and a score is P(fake), everywhere. A measure is {"value", "low", "high"}: the bounds are those of
a 95% interval, or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError

Scores = npt.NDArray[np.float64]  # (N,), P(fake)
Labels = npt.NDArray[np.int64]  # (N,), 0 real and 1 fake
Measure = dict[str, float | None]

CALIBRATION_BINS = 15


def roc(scores: Scores, labels: Labels) -> tuple[Scores, Scores, Scores]:
    """False and true positive rates and thresholds, strictest first; a positive is a fake.

    One point for each distinct score, after (0, 0) at an infinite threshold: ties move both rates at once.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, fakes = scores[order], labels[order] == 1
    last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    found = np.cumsum(fakes)[last_of_tie]
    called = last_of_tie + 1
    fpr = np.concatenate([[0.0], (called - found) / max((~fakes).sum(), 1)])
    tpr = np.concatenate([[0.0], found / max(fakes.sum(), 1)])
    return fpr, tpr, np.concatenate([[np.inf], ranked[last_of_tie]])


def auroc(scores: Scores, labels: Labels) -> float:
    """Chance that a random fake scores above a random real, ties counting half: the area under the ROC."""
    fpr, tpr, _ = roc(scores, labels)
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Precision averaged over the fakes found: the sum of (R_n - R_n-1) P_n over thresholds."""
    fpr, tpr, _ = roc(scores, labels)
    n_fake, n_real = (labels == 1).sum(), (labels == 0).sum()
    precision = tpr[1:] * n_fake / (tpr[1:] * n_fake + fpr[1:] * n_real)
    return float(np.sum(np.diff(tpr) * precision))


def expected_calibration_error(scores: Scores, labels: Labels, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance between P(fake) and the share of fakes, in bins of equal width (Naeini et al. 2015)."""
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    gap = np.bincount(which, scores - labels, bins)  # count of a bin times its distance
    return float(np.abs(gap).sum() / len(scores))


def equal_error_rate(fpr: Scores, tpr: Scores) -> float:
    """Where as many reals are called fake as fakes are missed, between two points of the ROC by a straight line."""
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    if after == 0 or gap[after] == 0:
        return float(fpr[after])
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def tpr_at_fpr(fpr: Scores, tpr: Scores, limit: float) -> float:
    """Share of fakes found while at most `limit` of the reals are called fake."""
    return float(tpr[fpr <= limit].max())


def choose_threshold(scores: Scores, labels: Labels) -> float:
    """The threshold of highest balanced accuracy, in the middle of its gap; for validation scores only.

    Raises:
        FakeganError: one class only.
    """
    _both_classes(labels)
    levels = np.unique(scores)
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    missed = np.searchsorted(fakes, levels) / len(fakes)  # fakes below each level
    passed = np.searchsorted(reals, levels) / len(reals)  # reals below each level
    best = int(np.argmax(passed - missed))
    below = levels[best - 1] if best > 0 else levels[0]
    return float((levels[best] + below) / 2)


def measures(
    scores: Scores,
    labels: Labels,
    sources: npt.NDArray[np.str_],  # (N,)
    threshold: float,  # a score at or above it is called fake
) -> dict[str, Any]:
    """Everything that metrics.json says of one split.

    Raises:
        FakeganError: one class only, or a score that is not a probability.
    """
    _both_classes(labels)
    if not ((scores >= 0) & (scores <= 1)).all():  # also false for NaN
        raise FakeganError("some scores are not probabilities: the classifier has diverged")
    fpr, tpr, _ = roc(scores, labels)
    called_fake = scores >= threshold
    real_accuracy = 1 - float(called_fake[labels == 0].mean())
    fake_accuracy = float(called_fake[labels == 1].mean())
    values = {
        "accuracy": float((called_fake == (labels == 1)).mean()),
        "balanced_accuracy": (real_accuracy + fake_accuracy) / 2,
        "auroc": auroc(scores, labels),
        "average_precision": average_precision(scores, labels),
        "eer": equal_error_rate(fpr, tpr),
        "tpr_at_fpr_0.01": tpr_at_fpr(fpr, tpr, 0.01),
        "tpr_at_fpr_0.05": tpr_at_fpr(fpr, tpr, 0.05),
        "brier": float(((scores - labels) ** 2).mean()),
        "ece": expected_calibration_error(scores, labels),
        "real_accuracy": real_accuracy,
        "fake_accuracy": fake_accuracy,
    }
    return {
        **{name: measure(value) for name, value in values.items()},
        "n_real": int((labels == 0).sum()),
        "n_fake": int((labels == 1).sum()),
        "by_source": {
            str(source): _of_source(str(source), scores, labels, sources, called_fake) for source in np.unique(sources)
        },
    }


def measure(value: float | None) -> Measure:
    """A number without an interval yet."""
    return {"value": value, "low": None, "high": None}


def _of_source(
    source: str,
    scores: Scores,
    labels: Labels,
    sources: npt.NDArray[np.str_],
    called_fake: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """A source's share of right verdicts; its AUROC is against all faces of the other class."""
    own = sources == source
    label = int(labels[own][0])
    against = own | (labels != label)
    return {
        "label": "fake" if label else "real",
        "n": int(own.sum()),
        "accuracy": measure(float((called_fake[own] == bool(label)).mean())),
        "auroc": measure(auroc(scores[against], labels[against])),
        "mean_score": measure(float(scores[own].mean())),
    }


def _both_classes(labels: Labels) -> None:
    for label, name in ((0, "real"), (1, "fake")):
        if not (labels == label).any():
            raise FakeganError(f"there are no {name} faces to score: metrics need both classes")
