"""A linear probe: how much of real or fake a straight cut through some features can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import Groups, Ranking
from fakegan.evaluation.metrics import Labels, Scores, auroc
from fakegan.evaluation.statistics import UNKNOWN, resampled, share, smaller_class

Features = npt.NDArray[np.float64]  # (N, K)

L2 = 0.01  # times half the squared weights, against the mean log loss: a separable set has a finite best, too
STEPS = 50


@dataclass(frozen=True)
class Probe:
    """Logistic regression on standardised features; `fit_probe` makes it."""

    centre: npt.NDArray[np.float64]  # (K,), of the training faces
    scale: npt.NDArray[np.float64]  # (K,), theirs too
    weights: npt.NDArray[np.float64]  # (K + 1,): the last one is the bias

    def scores(self, features: Features) -> Scores:  # (N, K) -> (N,)
        """P(fake), with both classes equally likely beforehand."""
        return _sigmoid(_inputs(features, self.centre, self.scale) @ self.weights)


def fit_probe(features: Features, labels: Labels) -> Probe:  # (N, K), (N,)
    """The L2-regularised logistic regression of these faces, by Newton's method; each class weighs one half.

    Raises:
        FakeganError: one class only.
    """
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise FakeganError("a probe learns from real and fake faces: one of the two is missing")
    centre, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 1e-8 * np.abs(centre), spread, 1.0)  # a feature that never changes stays at 0
    x, share = _inputs(features, centre, scale), 0.5 / counts[labels]
    penalty = np.append(np.full(features.shape[1], L2), 0.0)  # the bias is free
    weights = np.zeros(x.shape[1])
    loss = _loss(x, labels, share, penalty, weights)
    for _ in range(STEPS):
        p = _sigmoid(x @ weights)
        gradient = x.T @ (share * (p - labels)) + penalty * weights
        curvature = (x.T * (share * p * (1 - p))) @ x + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while (lower := _loss(x, labels, share, penalty, weights - length * step)) > loss and length > 1e-6:
            length /= 2  # Newton's full step may leap over the valley
        if loss - lower < 1e-10:
            break
        weights, loss = weights - length * step, lower
    return Probe(centre, scale, weights)


def probed(
    features: Features,  # (M, K), to learn from
    labels: Labels,  # (M,)
    test_features: Features,  # (N, K)
    test_labels: Labels,  # (N,)
    test_groups: Groups,  # (N,)
) -> dict[str, Any]:
    """AUROC and accuracy (called fake from P(fake) = 0.5 on) of a probe on other faces, with 95% intervals.

    The intervals are those of the test faces; the probe itself stays as it was learnt.
    """
    scores = None if len(np.unique(labels)) < 2 else fit_probe(features, labels).scores(test_features)
    return {**separates(scores, test_labels, test_groups), "features": features.shape[1], "n_train": len(labels)}


def separates(
    scores: Scores | None,  # (N,), P(fake) by a probe; None: it had one class to learn from
    labels: Labels,  # (N,)
    groups: Groups,  # (N,)
) -> dict[str, Any]:
    """AUROC and accuracy of a probe's scores, with the 95% intervals of these faces."""
    if scores is None or len(np.unique(labels)) < 2:
        return {"auroc": UNKNOWN, "accuracy": UNKNOWN}
    ranking, right = Ranking(scores, labels), ((scores >= 0.5) == (labels == 1)).astype(np.float64)
    areas = resampled(lambda weights: ranking.curves(weights).auroc(), labels, groups)
    shares = resampled(lambda weights: weights @ right / weights.sum(axis=1), labels, groups)
    return {
        "auroc": share(auroc(scores, labels), areas, smaller_class(labels, groups)),
        "accuracy": share(float(right.mean()), shares, len(np.unique(groups))),
    }


def _inputs(features: Features, centre: Scores, scale: Scores) -> Features:  # (N, K) -> (N, K + 1)
    return np.column_stack([(features - centre) / scale, np.ones(len(features))])


def _sigmoid(margin: Scores) -> Scores:
    return 0.5 * (1 + np.tanh(margin / 2))  # never overflows


def _loss(x: Features, labels: Labels, share: Scores, penalty: Scores, weights: Scores) -> float:
    margin = np.where(labels == 1, 1, -1) * (x @ weights)
    return float(share @ np.logaddexp(0, -margin) + 0.5 * penalty @ weights**2)
