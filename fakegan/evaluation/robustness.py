"""What degraded faces do to scores: AUROC and right verdicts by strength, and how far the AUROC falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fakegan.evaluation import intervals
from fakegan.evaluation.intervals import Bounded, Floats, Groups, Labels
from fakegan.evaluation.metrics import require_both_classes
from fakegan.evaluation.roc import Ranking

# Which classes are degraded. Where one is, and the other not, a detector that goes by traces of editing is found out
# (arXiv:2605.31153): degrading both hides it.
SIDES = {"both": (0, 1), "reals": (0,), "fakes": (1,)}
Setting = tuple[str, float]  # a kind of degradation, and its strength
Key = tuple[str, str, int]  # a measure, the degraded side or nothing, and the number of the setting, or CLEAN
CLEAN = -1  # the faces as they are


def robustness(
    clean: Floats,  # (N,), P(fake) of the faces as they are
    degraded: Floats,  # (K, N), of the same faces in each setting
    settings: Sequence[Setting],  # K
    labels: Labels,
    groups: Groups,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,  # of the resamples
) -> dict[str, Any]:
    """AUROC by degraded side, and shares of right verdicts, in each setting; drops of the AUROC: 95% intervals of all.

    A drop is the AUROC of the faces as they are less that of the degraded ones, on the same resamples. The mean gives
    each kind of degradation the same weight. Nothing in the worst drop's interval allows for its selection.

    Raises:
        FakeganError: one class only.
    """
    require_both_classes(labels)
    weighted = _Weighted(clean, degraded, settings, labels, threshold)
    values = {key: float(value[0]) for key, value in weighted(np.ones((1, len(labels)))).items()}
    drawn = intervals.resampled(lambda w: np.stack(list(weighted(w).values())), labels, groups, resamples, seed)
    n_real, n_fake = (len(np.unique(groups[labels == label])) for label in (0, 1))
    bearing = {"real_accuracy": n_real, "fake_accuracy": n_fake}
    found = {
        key: _measure(
            value, of_resamples, bearing.get(key[0], min(n_real, n_fake)), floor=-1.0 if "drop" in key[0] else 0.0
        )
        for (key, value), of_resamples in zip(values.items(), drawn, strict=True)
    }
    return {
        "n_real": int((labels == 0).sum()),
        "n_fake": int((labels == 1).sum()),
        "clean": {name: found[name, "", CLEAN] for name in ("auroc", "real_accuracy", "fake_accuracy")},
        "mean_drop": {side: found["mean_drop", side, CLEAN] for side in SIDES},
        "worst": _worst(found, settings),
        "settings": [_row(found, i, setting) for i, setting in enumerate(settings)],
    }


def _worst(found: Mapping[Key, Bounded], settings: Sequence[Setting]) -> dict[str, Any]:
    worst = max((key for key in found if key[0] == "drop"), key=lambda key: found[key]["value"])
    kind, strength = settings[worst[2]]
    return {"kind": kind, "strength": strength, "side": worst[1], "drop": found[worst]}


def _row(found: Mapping[Key, Bounded], i: int, setting: Setting) -> dict[str, Any]:
    right = {name: found[name, "", i] for name in ("real_accuracy", "fake_accuracy")}
    auroc = {side: found["auroc", side, i] for side in SIDES}
    return {"kind": setting[0], "strength": setting[1], "auroc": auroc, **right}


class _Weighted:
    """The measures of many resamples at once: weights of the faces (R, N) -> each measure (R,)."""

    def __init__(
        self, clean: Floats, degraded: Floats, settings: Sequence[Setting], labels: Labels, threshold: float
    ) -> None:
        self.labels = labels
        self.clean = Ranking(clean, labels)
        self.rankings = {
            (side, i): Ranking(np.where(np.isin(labels, classes), scores, clean), labels)
            for side, classes in SIDES.items()
            for i, scores in enumerate(degraded)
        }
        self.right = ((np.vstack([degraded, clean]) >= threshold) == (labels == 1)).astype(np.float64)  # (K + 1, N)
        kinds = [kind for kind, _ in settings]
        self.shares = np.array([1 / kinds.count(kind) for kind in kinds]) / len(set(kinds))  # of a mean, (K,)

    def __call__(self, weights: Floats) -> dict[Key, Floats]:
        """Each measure of each resample."""
        clean = self.clean.curves(weights).auroc()
        values: dict[Key, Floats] = {("auroc", "", CLEAN): clean}
        for side in SIDES:
            aurocs = np.stack(
                [self.rankings[side, i].curves(weights).auroc() for i in range(len(self.shares))]
            )  # (K, R)
            values |= {("auroc", side, i): auroc for i, auroc in enumerate(aurocs)}
            values |= {("drop", side, i): clean - auroc for i, auroc in enumerate(aurocs)}
            values["mean_drop", side, CLEAN] = self.shares @ (clean - aurocs)
        for label, name in enumerate(("real_accuracy", "fake_accuracy")):
            own = weights * (self.labels == label)
            accuracies = self.right @ own.T / own.sum(axis=1)  # (K + 1, R)
            values |= {(name, "", i): accuracy for i, accuracy in enumerate(accuracies[:-1])}
            values[name, "", CLEAN] = accuracies[-1]
        return values


def _measure(value: float, drawn: Floats, groups: int, floor: float) -> Bounded:
    low, high = intervals.bounds(value, drawn, groups, floor)
    return {"value": value, "low": low, "high": high}
