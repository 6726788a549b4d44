"""What degraded faces do to scores: AUROC and right calls in each setting, and how far the AUROC drops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fakegan.evaluation import intervals
from fakegan.evaluation.intervals import Floats, Groups, Labels
from fakegan.evaluation.metrics import require_both_classes
from fakegan.evaluation.roc import Ranking

# Which classes are degraded. Where one is, and the other not, a detector that goes by traces of editing is found out
# (arXiv:2605.31153): degrading both hides it.
SIDES = {"both": (0, 1), "reals": (0,), "fakes": (1,)}
RIGHT = ("real_accuracy", "fake_accuracy")  # of degraded faces
Setting = tuple[str, float]  # a kind of degradation, and its strength


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
    """AUROC by degraded side (`SIDES`) and `RIGHT` of the faces as they are and in each setting, with 95% intervals.

    A drop is the AUROC of the faces as they are less that of the degraded ones, on the same resamples. The mean gives
    each kind of degradation the same weight. Nothing in the worst drop's interval allows for its selection.

    Raises:
        FakeganError: one class only.
    """
    require_both_classes(labels)
    scores = np.vstack([clean, degraded])  # (1 + K, N): the faces as they are come first
    right = ((scores >= threshold) == (labels == 1)).astype(np.float64)
    mixed = [np.where(np.isin(labels, classes), scores, clean) for classes in SIDES.values()]
    rankings = [[Ranking(own, labels) for own in of_side] for of_side in mixed]
    kinds = [kind for kind, _ in settings]
    shares = np.array([0, *(1 / kinds.count(kind) / len(set(kinds)) for kind in kinds)])  # of a mean, (1 + K,)

    def measured(weights: Floats) -> Floats:  # (R, N) -> (8, 1 + K, R)
        aurocs = np.array([[ranking.curves(weights).auroc() for ranking in of_side] for of_side in rankings])
        drops = aurocs[:, :1] - aurocs
        drops[:, 0] = np.einsum("k,skr->sr", shares, drops)  # the mean, in place of a drop that is always 0
        own = [weights * (labels == label) for label in (0, 1)]
        return np.stack([*aurocs, *(right @ w.T / w.sum(axis=1) for w in own), *drops])

    values, drawn = measured(np.ones((1, len(labels)))), intervals.resampled(measured, labels, groups, resamples, seed)
    n_real, n_fake = (len(np.unique(groups[labels == label])) for label in (0, 1))
    bearing, floors = [min(n_real, n_fake)] * 8, [0.0] * 5 + [-1.0] * 3
    bearing[3:5] = n_real, n_fake

    def found(i: int, k: int) -> dict[str, float]:
        value = float(values[i, k, 0])
        low, high = intervals.bounds(value, drawn[i, k], bearing[i], floors[i])
        return {"value": value, "low": low, "high": high}

    rows = [
        {"kind": kind, "strength": strength, "measures": {name: found(i, k) for i, name in enumerate((*SIDES, *RIGHT))}}
        for k, (kind, strength) in enumerate([("none", 0.0), *settings])
    ]
    side, k = map(int, np.unravel_index(values[5:, 1:, 0].argmax(), (len(SIDES), len(settings))))
    worst = {"kind": kinds[k], "strength": settings[k][1], "side": [*SIDES][side], "drop": found(5 + side, 1 + k)}
    mean_drop = {name: found(5 + i, 0) for i, name in enumerate(SIDES)}
    counts = {"n_real": int((labels == 0).sum()), "n_fake": int((labels == 1).sum())}
    return {**counts, "clean": rows[0], "settings": rows[1:], "mean_drop": mean_drop, "worst": worst}
