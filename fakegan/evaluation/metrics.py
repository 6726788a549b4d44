"""Numbers from scores, labels and sources; knows nothing of nets or pictures.

Label 1 is fake and a score is P(fake), everywhere. A measure is {"value", "low", "high"}: the bounds are those of
a 95% interval, or None where there is none.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import NO_WIDTH, Groups, Ranking, bounds, interval, resample_weights

Scores = npt.NDArray[np.float64]  # (N,), P(fake)
Labels = npt.NDArray[np.int64]  # (N,), 0 real and 1 fake
Sources = npt.NDArray[np.str_]  # (N,)
Measure = dict[str, float | None]
Bounded = dict[str, float]  # a measure whose interval is known
Key = tuple[str, str]  # a source, or WHOLE, and a measure of it

WHOLE = ""
GUESSING = 0.5  # the AUROC of it
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
    gap = np.bincount(calibration_bins(scores, bins), scores - labels, bins)  # count of a bin times its distance
    return float(np.abs(gap).sum() / len(scores))


def calibration_bins(scores: Scores, bins: int) -> npt.NDArray[np.int64]:
    """Which of `bins` bins of equal width each score is in, (N,)."""
    return np.minimum((scores * bins).astype(np.int64), bins - 1)


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
    require_both_classes(labels)
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
    sources: Sources,
    groups: Groups,  # (N,), persons or origins: the faces of one are drawn together
    threshold: float,  # a score at or above it is called fake
    *,
    uncalibrated: Scores | None = None,  # the same faces' scores before the temperature
    learnt_from: Collection[str] | None = None,  # sources that took part in training; None: not known
    resamples: int = 1000,
    seed: int = 0,  # of the resamples
) -> dict[str, Any]:
    """Everything that metrics.json says of one split, with 95% bootstrap intervals over groups.

    `over_generators` gives each generator the same weight, however many faces it has. Its `worst` is the one of
    lowest AUROC among these faces, with the interval of that one source: nothing there allows for having picked it.
    Resampling raises the calibration error (ece), so its interval lies mostly above its value.

    With `learnt_from`, each source says whether it was `seen`. Where some generators were and others were not, "seen"
    and "unseen" hold the measures of the one kind of fakes and of the other, each beside all real faces.

    Raises:
        FakeganError: one class only, or a score that is not a probability.
    """
    require_both_classes(labels)
    for given in (scores,) if uncalibrated is None else (scores, uncalibrated):
        if not ((given >= 0) & (given <= 1)).all():  # also false for NaN
            raise FakeganError("some scores are not probabilities: the classifier has diverged")
    values = point_values(scores, labels, sources, threshold, uncalibrated)
    weighted = WeightedValues(scores, labels, sources, threshold, uncalibrated)
    weights = resample_weights(groups, labels, resamples, np.random.default_rng(seed))
    chunks = [weighted(w) for w in weights]
    resampled = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in values}
    bearing = _groups_bearing(labels, sources, groups)
    found = {key: _measure(value, resampled[key], bearing[key]) for key, value in values.items()}
    fakes = [str(source) for source in np.unique(sources[labels == 1])]
    worst = min(fakes, key=lambda source: values[source, "auroc"])
    by_seen = {
        name: measures(
            scores[part],
            labels[part],
            sources[part],
            groups[part],
            threshold,
            uncalibrated=None if uncalibrated is None else uncalibrated[part],
            resamples=resamples,
            seed=seed,
        )
        for name, part in seen_and_unseen(labels, sources, learnt_from).items()
    }
    return {
        **{name: bounded for (source, name), bounded in found.items() if source == WHOLE},
        **{name: {key: m[key] for key in m if key != "by_source"} for name, m in by_seen.items()},
        "n_real": int((labels == 0).sum()),
        "n_fake": int((labels == 1).sum()),
        "by_source": {
            str(source): {
                "label": "fake" if source in fakes else "real",
                "n": int((sources == source).sum()),
                **({} if learnt_from is None else {"seen": str(source) in learnt_from}),
                **{name: found[str(source), name] for name in ("accuracy", "auroc", "mean_score")},
            }
            for source in np.unique(sources)
        },
        "over_generators": {
            **{f"mean_{name}": _mean_measure(name, fakes, found, resampled, bearing) for name in ("auroc", "accuracy")},
            "worst": worst,
            "worst_auroc": found[worst, "auroc"],
            "worst_accuracy": found[worst, "accuracy"],
        },
    }


def seen_and_unseen(
    labels: Labels,
    sources: Sources,
    learnt_from: Collection[str] | None,
) -> dict[str, npt.NDArray[np.bool_]]:  # (N,) each
    """Fakes of generators seen in training, and of others, each with all real faces; empty where all are alike.

    Taken together they would say nothing of either: a generator never seen is often called real.
    """
    if learnt_from is None:
        return {}
    fake, known = labels == 1, np.isin(sources, np.array(sorted(learnt_from), dtype=np.str_))
    if not (fake & known).any() or not (fake & ~known).any():
        return {}
    return {"seen": ~fake | known, "unseen": ~fake | ~known}


def judged(measure: Measure) -> int:
    """1 where the whole interval of an AUROC lies above guessing (0.5), -1 where below, else 0, as without interval."""
    low, high = measure["low"], measure["high"]
    if low is not None and low > GUESSING:
        return 1
    return -1 if high is not None and high < GUESSING else 0


def point_values(
    scores: Scores,
    labels: Labels,
    sources: Sources,
    threshold: float,
    uncalibrated: Scores | None,
) -> dict[Key, float]:
    """The measures of the whole, then those of each source, whose AUROC is against all faces of the other class."""
    fpr, tpr, _ = roc(scores, labels)
    right = (scores >= threshold) == (labels == 1)
    real_accuracy, fake_accuracy = (float(right[labels == label].mean()) for label in (0, 1))
    values = {
        (WHOLE, "accuracy"): float(right.mean()),
        (WHOLE, "balanced_accuracy"): (real_accuracy + fake_accuracy) / 2,
        (WHOLE, "auroc"): auroc(scores, labels),
        (WHOLE, "average_precision"): average_precision(scores, labels),
        (WHOLE, "eer"): equal_error_rate(fpr, tpr),
        (WHOLE, "tpr_at_fpr_0.01"): tpr_at_fpr(fpr, tpr, 0.01),
        (WHOLE, "tpr_at_fpr_0.05"): tpr_at_fpr(fpr, tpr, 0.05),
        (WHOLE, "brier"): float(((scores - labels) ** 2).mean()),
        (WHOLE, "ece"): expected_calibration_error(scores, labels),
        (WHOLE, "real_accuracy"): real_accuracy,
        (WHOLE, "fake_accuracy"): fake_accuracy,
    }
    if uncalibrated is not None:
        values[WHOLE, "brier_uncalibrated"] = float(((uncalibrated - labels) ** 2).mean())
        values[WHOLE, "ece_uncalibrated"] = expected_calibration_error(uncalibrated, labels)
    for source in np.unique(sources):
        own = sources == source
        against = own | (labels != labels[own][0])
        values[str(source), "accuracy"] = float(right[own].mean())
        values[str(source), "auroc"] = auroc(scores[against], labels[against])
        values[str(source), "mean_score"] = float(scores[own].mean())
    return values


class WeightedValues:
    """`point_values` of many resamples at once: weights of the faces (R, N) -> each measure (R,)."""

    def __init__(
        self,
        scores: Scores,
        labels: Labels,
        sources: Sources,
        threshold: float,
        uncalibrated: Scores | None,
    ) -> None:
        self.scores, self.labels = scores, labels
        self.right = ((scores >= threshold) == (labels == 1)).astype(np.float64)
        self.rows = {str(source): np.flatnonzero(sources == source) for source in np.unique(sources)}
        self.ranking = Ranking(scores, labels)
        self.probabilities = {"": scores} if uncalibrated is None else {"": scores, "_uncalibrated": uncalibrated}
        self.gaps = {suffix: _gaps(p, labels) for suffix, p in self.probabilities.items()}

    def __call__(self, weights: Scores) -> dict[Key, Scores]:
        """Each measure of each resample; NaN for a source that the resample lacks."""
        total = weights.sum(axis=1)
        curves = self.ranking.curves(weights)
        real, fake = ((weights @ (self.right * (self.labels == y))) / (weights @ (self.labels == y)) for y in (0, 1))
        values = {
            (WHOLE, "accuracy"): weights @ self.right / total,
            (WHOLE, "balanced_accuracy"): (real + fake) / 2,
            (WHOLE, "auroc"): curves.auroc(),
            (WHOLE, "average_precision"): curves.average_precision(),
            (WHOLE, "eer"): curves.equal_error_rate(),
            (WHOLE, "tpr_at_fpr_0.01"): curves.tpr_at_fpr(0.01),
            (WHOLE, "tpr_at_fpr_0.05"): curves.tpr_at_fpr(0.05),
            (WHOLE, "real_accuracy"): real,
            (WHOLE, "fake_accuracy"): fake,
        }
        for suffix, probabilities in self.probabilities.items():
            values[WHOLE, f"brier{suffix}"] = weights @ (probabilities - self.labels) ** 2 / total
            values[WHOLE, f"ece{suffix}"] = np.abs(weights @ self.gaps[suffix]).sum(axis=1) / total
        below, above = curves.beaten()
        for source, rows in self.rows.items():
            own = weights[:, rows]  # (R, n)
            beaten = (below if self.labels[rows[0]] else above)[:, self.ranking.level[rows]]
            with np.errstate(invalid="ignore"):  # 0 / 0: not in this resample
                values[source, "accuracy"] = own @ self.right[rows] / own.sum(axis=1)
                values[source, "auroc"] = np.einsum("rn,rn->r", own, beaten) / own.sum(axis=1)
                values[source, "mean_score"] = own @ self.scores[rows] / own.sum(axis=1)
        return values


def _gaps(scores: Scores, labels: Labels) -> Scores:
    """Score minus label of each face in the column of its bin, (N, bins): weights @ gaps is a bin's weighted gap."""
    gaps = np.zeros((len(scores), CALIBRATION_BINS))
    gaps[np.arange(len(scores)), calibration_bins(scores, CALIBRATION_BINS)] = scores - labels
    return gaps


def _groups_bearing(labels: Labels, sources: Sources, groups: Groups) -> dict[Key, int]:
    """How many independent groups bear on each measure; where it compares the classes, those of the smaller one."""
    real, fake = (len(np.unique(groups[labels == label])) for label in (0, 1))
    every = len(np.unique(groups))
    of_each_face = ("accuracy", "brier", "ece", "brier_uncalibrated", "ece_uncalibrated")
    of_both = ("balanced_accuracy", "auroc", "average_precision", "eer", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05")
    bearing = {
        **{(WHOLE, name): every for name in of_each_face},
        **{(WHOLE, name): min(real, fake) for name in of_both},
        (WHOLE, "real_accuracy"): real,
        (WHOLE, "fake_accuracy"): fake,
    }
    for source in np.unique(sources):
        own = sources == source
        n = len(np.unique(groups[own]))
        others = real if labels[own][0] else fake
        bearing |= {(str(source), name): n for name in ("accuracy", "mean_score")}
        bearing[str(source), "auroc"] = min(n, others)
    return bearing


def _measure(value: float, resampled: Scores, groups: int) -> Bounded:
    low, high = bounds(value, resampled, groups)
    return {"value": value, "low": low, "high": high}


def _mean_measure(
    name: str,
    fakes: list[str],
    found: dict[Key, Bounded],
    resampled: dict[Key, Scores],
    bearing: dict[Key, int],
) -> Bounded:
    """The mean over generators; in a resample that lacks some of them, over the others.

    Where resampling cannot tell, as `bounds` has it, the generators' own bounds are averaged.
    """
    value, low, high = (
        float(np.mean([found[fake, name][part] for fake in fakes])) for part in ("value", "low", "high")
    )
    means = np.nanmean([resampled[fake, name] for fake in fakes], axis=0)  # (R,)
    if np.ptp(means) >= NO_WIDTH and all(bearing[fake, name] > 1 for fake in fakes):
        low, high = interval(means)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def require_both_classes(labels: Labels) -> None:
    """Raises FakeganError where there are no real or no fake faces."""
    for label, name in ((0, "real"), (1, "fake")):
        if not (labels == label).any():
            raise FakeganError(f"there are no {name} faces to score: metrics need both classes")
