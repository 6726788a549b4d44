"""Numbers from scores, labels and sources; knows nothing of nets or pictures.

Label 1 is fake and a score is P(fake), everywhere. A measure is {"value", "low", "high"}, with a 95% interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation import intervals
from fakegan.evaluation.intervals import Bounded, Floats, Groups, Labels, Sources
from fakegan.evaluation.roc import Ranking

Key = tuple[str, str]  # a source, or WHOLE, and the name of a measure

WHOLE = ""
GUESSING = 0.5  # the AUROC of guessing
CALIBRATION_BINS = 15
# These measures compare the classes: they are as sure as the smaller class.
COMPARING = {"balanced_accuracy", "auroc", "average_precision", "eer", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"}


def calibration_bins(scores: Floats) -> npt.NDArray[np.int64]:
    """Which of the bins of equal width each score is in, (N,)."""
    return np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def choose_threshold(scores: Floats, labels: Labels) -> float:
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
    return float((levels[best] + levels[max(best - 1, 0)]) / 2)


def measures(
    scores: Floats,
    labels: Labels,
    sources: Sources,
    groups: Groups,  # (N,), persons or origins: the faces of a group are drawn together
    threshold: float,  # a score at or above it is called fake
    *,
    uncalibrated: Floats | None = None,  # the same faces' scores before the temperature
    learnt_from: Collection[str] | None = None,  # sources that took part in training; None: not known
    verdicts: npt.NDArray[np.str_] | None = None,  # (N,), which each source then counts
    resamples: int = 1000,
    seed: int = 0,  # of the resamples
) -> dict[str, Any]:
    """Everything that metrics.json says of one split, with 95% bootstrap intervals over groups.

    With `learnt_from`, each source says whether it was `seen`. Where some sources were and others were not, "seen" and
    "unseen" hold the measures of each kind of fakes, as `seen_and_unseen` divides them. A real source has its share of
    false alarms. Resampling raises the calibration error (ece), so its interval lies mostly above its value.

    Raises:
        FakeganError: one class only, or a score that is not a probability.
    """
    require_both_classes(labels)
    for given in (scores,) if uncalibrated is None else (scores, uncalibrated):
        if not ((given >= 0) & (given <= 1)).all():  # also false for NaN
            raise FakeganError("some scores are not probabilities: the classifier has diverged")
    weighted = WeightedMeasures(scores, labels, sources, threshold, uncalibrated)
    values = {key: float(value[0]) for key, value in weighted(np.ones((1, len(scores)))).items()}
    drawn = intervals.resampled(lambda w: np.stack(list(weighted(w).values())), labels, groups, resamples, seed)
    resampled = dict(zip(values, drawn, strict=True))  # (R,) each
    bearing = _groups_bearing(values, labels, sources, groups)
    found = {key: intervals.bounded(value, resampled[key], bearing[key]) for key, value in values.items()}
    apart = {}
    for name, part in seen_and_unseen(labels, sources, learnt_from).items():
        faces = (scores[part], labels[part], sources[part], groups[part], threshold)
        before = None if uncalibrated is None else uncalibrated[part]
        apart[name] = measures(*faces, uncalibrated=before, resamples=resamples, seed=seed)
        del apart[name]["by_source"]
    fakes = list(map(str, np.unique(sources[labels == 1])))
    return {
        **{name: measure for (source, name), measure in found.items() if source == WHOLE},
        **apart,
        "n_real": int((labels == 0).sum()),
        "n_fake": int((labels == 1).sum()),
        "by_source": {
            source: {
                "label": "fake" if source in fakes else "real",
                "n": int((sources == source).sum()),
                **({} if learnt_from is None else {"seen": source in learnt_from}),
                **{name: found[source, name] for name in ("accuracy", "auroc", "mean_score")},
                **({} if verdicts is None else {"verdicts": dict(Counter(verdicts[sources == source].tolist()))}),
                **({} if source in fakes else {"false_alarms": complement(found[source, "accuracy"])}),
            }
            for source in map(str, np.unique(sources))
        },
        "over_generators": _over_generators(fakes, found, resampled, bearing),
    }


def seen_and_unseen(
    labels: Labels, sources: Sources, learnt_from: Collection[str] | None
) -> dict[str, npt.NDArray[np.bool_]]:  # (N,) each
    """Fakes of generators seen in training, and of others, each with the real faces; empty where all are alike.

    One number for both kinds would describe neither: a generator never seen is often called real. Nor do real faces of
    a source never seen stand beside those of a source that was: they are in neither part, and have their false alarms.
    """
    if learnt_from is None:
        return {}
    fake, known = labels == 1, np.isin(sources, np.array(sorted(learnt_from), dtype=np.str_))
    apart = (~fake & known).any() and (~fake & ~known).any()
    real = ~fake & known if apart else ~fake
    parts = {name: real | own for name, own in (("seen", fake & known), ("unseen", fake & ~known)) if own.any()}
    return parts if apart or len(parts) > 1 else {}


def complement(share: Mapping[str, float]) -> Bounded:
    """1 less a share, with its interval: false alarms of real faces called real."""
    return {"value": 1 - share["value"], "low": 1 - share["high"], "high": 1 - share["low"]}


GUESSING_WORDS = {0: "not shown to be better than guessing", -1: "worse than guessing (AUROC below 0.5)"}


def judged(measure: Mapping[str, float | None]) -> int:
    """1 where the whole interval of an AUROC lies above guessing (0.5), -1 where below, else 0, as without interval."""
    low, high = measure["low"], measure["high"]
    if low is not None and low > GUESSING:
        return 1
    return -1 if high is not None and high < GUESSING else 0


def require_both_classes(labels: Labels) -> None:
    """Raises FakeganError where there are no real or no fake faces."""
    for label, name in ((0, "real"), (1, "fake")):
        if not (labels == label).any():
            raise FakeganError(f"there are no {name} faces to score: metrics need both classes")


class WeightedMeasures:
    """The measures of many resamples at once: weights of the faces (R, N) -> each measure (R,).

    The measures of all faces come first, then each source's; its AUROC is against all faces of the other class.
    """

    def __init__(
        self, scores: Floats, labels: Labels, sources: Sources, threshold: float, uncalibrated: Floats | None
    ) -> None:
        self.scores, self.labels = scores, labels
        self.errors = _calibration_errors(scores, labels)
        self.errors_before = None if uncalibrated is None else _calibration_errors(uncalibrated, labels)
        self.right = ((scores >= threshold) == (labels == 1)).astype(np.float64)
        self.rows = {str(source): np.flatnonzero(sources == source) for source in np.unique(sources)}
        self.ranking = Ranking(scores, labels)

    def __call__(self, weights: Floats) -> dict[Key, Floats]:
        """Each measure of each resample; NaN for a source that the resample lacks."""
        total = weights.sum(axis=1)
        curves = self.ranking.curves(weights)
        errors = weights @ self.errors / total[:, None]  # (R, 1 + bins)
        real, fake = ((weights @ (self.right * (self.labels == y))) / (weights @ (self.labels == y)) for y in (0, 1))
        values = {
            (WHOLE, "accuracy"): weights @ self.right / total,
            (WHOLE, "balanced_accuracy"): (real + fake) / 2,
            (WHOLE, "auroc"): curves.auroc(),
            (WHOLE, "average_precision"): curves.average_precision(),
            (WHOLE, "eer"): curves.equal_error_rate(),
            (WHOLE, "tpr_at_fpr_0.01"): curves.tpr_at_fpr(0.01),
            (WHOLE, "tpr_at_fpr_0.05"): curves.tpr_at_fpr(0.05),
            (WHOLE, "brier"): errors[:, 0],
            (WHOLE, "ece"): np.abs(errors[:, 1:]).sum(axis=1),
            (WHOLE, "real_accuracy"): real,
            (WHOLE, "fake_accuracy"): fake,
        }
        if self.errors_before is not None:
            errors = weights @ self.errors_before / total[:, None]
            values[WHOLE, "brier_uncalibrated"] = errors[:, 0]
            values[WHOLE, "ece_uncalibrated"] = np.abs(errors[:, 1:]).sum(axis=1)
        below, above = curves.beaten()
        for source, rows in self.rows.items():
            own = weights[:, rows]  # (R, n)
            beaten = (below if self.labels[rows[0]] else above)[:, self.ranking.level[rows]]
            with np.errstate(invalid="ignore"):  # 0 / 0: not in this resample
                values[source, "accuracy"] = own @ self.right[rows] / own.sum(axis=1)
                values[source, "auroc"] = np.einsum("rn,rn->r", own, beaten) / own.sum(axis=1)
                values[source, "mean_score"] = own @ self.scores[rows] / own.sum(axis=1)
        return values


def _calibration_errors(scores: Floats, labels: Labels) -> Floats:  # (N,), (N,) -> (N, 1 + CALIBRATION_BINS)
    """Squared error of each face, then score less label in the column of its bin.

    Their means give Brier's score, and the calibration error as the sum of the bins' absolute values: the mean distance
    between P(fake) and the share of fakes (Naeini et al. 2015).
    """
    errors = np.zeros((len(scores), 1 + CALIBRATION_BINS))
    errors[:, 0] = (scores - labels) ** 2
    errors[np.arange(len(scores)), 1 + calibration_bins(scores)] = scores - labels
    return errors


def _groups_bearing(keys: Iterable[Key], labels: Labels, sources: Sources, groups: Groups) -> dict[Key, int]:
    """How many independent groups each measure rests on; if it compares classes, the groups of the smaller class."""
    group = np.unique(groups, return_inverse=True)[1]
    everywhere = np.ones(len(labels), dtype=bool)
    bearing = {}
    for source, name in keys:
        own = sources == source if source != WHOLE else everywhere
        if name in COMPARING:
            among = own | (labels != labels[own][0])
            bearing[source, name] = min(len(np.unique(group[among & (labels == label)])) for label in (0, 1))
        else:
            own = {"real_accuracy": labels == 0, "fake_accuracy": labels == 1}.get(name, own)
            bearing[source, name] = len(np.unique(group[own]))
    return bearing


def _over_generators(
    fakes: Sequence[str], found: Mapping[Key, Bounded], resampled: Mapping[Key, Floats], bearing: Mapping[Key, int]
) -> dict[str, Any]:
    """Means that give each generator the same weight, however many faces it has, and the generator of lowest AUROC.

    Nothing in the worst generator's interval allows for its selection.
    """
    parts = {
        name: [(found[key], resampled[key], bearing[key]) for key in ((fake, name) for fake in fakes)]
        for name in ("auroc", "accuracy")
    }
    over: dict[str, Any] = {f"mean_{name}": intervals.mean(of_fakes) for name, of_fakes in parts.items()}
    worst = min(fakes, key=lambda source: found[source, "auroc"]["value"])
    return over | {"worst": worst, **{f"worst_{name}": found[worst, name] for name in ("auroc", "accuracy")}}
