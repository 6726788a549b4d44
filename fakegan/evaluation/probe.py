"""A linear probe: how well a straight cut through some features tells real from fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import Bounded, Floats, Groups, Labels, bounded, resampled
from fakegan.evaluation.roc import Ranking
from fakegan.evaluation.statistics import UNKNOWN

L2 = 0.01  # times half the squared weights, against the mean log loss: a separable set has a finite best, too
STEPS = 50
FOLDS = 5  # of a cross-validation


@dataclass(frozen=True)
class Probe:
    """Logistic regression on standardised features; `fit_probe` makes it."""

    centre: Floats  # (K,), mean of the training faces
    scale: Floats  # (K,), their standard deviation
    weights: Floats  # (K + 1,): the last one is the bias

    def scores(self, features: Floats) -> Floats:  # (N, K) -> (N,)
        """P(fake), with both classes equally likely beforehand."""
        return _sigmoid((features - self.centre) / self.scale @ self.weights[:-1] + self.weights[-1])


def fit_probe(features: Floats, labels: Labels) -> Probe:  # (N, K), (N,)
    """The L2-regularised logistic regression of these faces, by Newton's method; each class weighs one half.

    Raises:
        FakeganError: one class only.
    """
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        raise FakeganError("a probe learns from real and fake faces: one of the two is missing")
    centre, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 1e-8 * np.abs(centre), spread, 1.0)  # a feature that never changes stays at 0
    x, share = np.column_stack([(features - centre) / scale, np.ones(len(features))]), 0.5 / counts[labels]
    penalty = np.append(np.full(features.shape[1], L2), 0.0)  # the bias is free

    def loss_of(weights: Floats) -> float:
        margin = np.where(labels == 1, 1, -1) * (x @ weights)
        return float(share @ np.logaddexp(0, -margin) + 0.5 * penalty @ weights**2)

    weights = np.zeros(x.shape[1])
    loss = loss_of(weights)
    for _ in range(STEPS):
        p = _sigmoid(x @ weights)
        gradient = x.T @ (share * (p - labels)) + penalty * weights
        curvature = (x.T * (share * p * (1 - p))) @ x + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while (lower := loss_of(weights - length * step)) > loss and length > 1e-6:
            length /= 2  # Newton's full step may leap over the valley
        if loss - lower < 1e-10:
            break
        weights, loss = weights - length * step, lower
    return Probe(centre, scale, weights)


def cross_validated(features: Floats, labels: Labels, groups: Groups) -> Floats:  # (N, K), (N,), (N,) -> (N,)
    """P(fake) of each face by the probe of the faces in other folds; a group is in one fold, folds are alike in class.

    Raises:
        FakeganError: the faces of some folds are of one class only.
    """
    names, first, group = np.unique(groups, return_index=True, return_inverse=True)  # (G,), (G,), (N,)
    drawn = np.random.default_rng(0).permutation(len(names))
    by_class = drawn[np.argsort(labels[first][drawn], kind="stable")]
    fold = np.empty(len(names), dtype=np.int64)
    fold[by_class] = np.arange(len(names)) % FOLDS
    scores = np.empty(len(labels))
    for number in range(FOLDS):
        held_out = fold[group] == number
        scores[held_out] = fit_probe(features[~held_out], labels[~held_out]).scores(features[held_out])
    return scores


def areas(scores: Sequence[Floats], labels: Labels, groups: Groups) -> list[Bounded]:  # (N,) each
    """AUROC of each of these scores of both classes, with the faces' 95% interval."""
    if not scores:
        return []
    rankings = [Ranking(each, labels) for each in scores]
    drawn = resampled(lambda weights: np.stack([r.curves(weights).auroc() for r in rankings]), labels, groups)
    smaller_class = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    return [
        bounded(float(ranking.curves().auroc()[0]), own, smaller_class)
        for ranking, own in zip(rankings, drawn, strict=True)
    ]


def separates(
    scores: Floats | None,  # (N,), P(fake) by a probe; None: it had one class to learn from
    labels: Labels,  # (N,)
    groups: Groups,  # (N,)
) -> dict[str, Any]:
    """AUROC and accuracy (called fake from P(fake) = 0.5 on) of a probe's scores, with the faces' 95% intervals."""
    if scores is None or len(np.unique(labels)) < 2:
        return {"auroc": UNKNOWN, "accuracy": UNKNOWN}
    right = ((scores >= 0.5) == (labels == 1)).astype(np.float64)
    shares = resampled(lambda weights: weights @ right / weights.sum(axis=1), labels, groups)
    return {
        "auroc": areas([scores], labels, groups)[0],
        "accuracy": bounded(float(right.mean()), shares, len(np.unique(groups))),
    }


def _sigmoid(margin: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(margin / 2))  # never overflows
