"""The probe against what can be worked out by hand, and on sets that have no finite logistic regression."""

import numpy as np
import pytest

from fakegan.errors import FakeganError
from fakegan.evaluation.probe import L2, fit_probe, separates


def test_one_feature_by_hand() -> None:
    """Two faces at -1 and 1: the weight w solves sigmoid(-w) = L2 * w, and the bias is 0."""
    probe = fit_probe(np.array([[3.0], [7.0]]), np.array([0, 1]))
    assert (probe.centre.tolist(), probe.scale.tolist()) == ([5], [2])
    weight, bias = probe.weights
    assert 1 / (1 + np.exp(weight)) == pytest.approx(L2 * weight, rel=1e-4)
    assert bias == pytest.approx(0, abs=1e-9)
    assert probe.scores(np.array([[5.0]])) == pytest.approx([0.5])


def test_it_is_where_the_gradient_vanishes_with_both_classes_weighing_one_half() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.3).astype(np.int64)
    features = rng.normal(size=(300, 5)) * [1, 10, 0.1, 1, 1] + labels[:, None] * [1, 0, 0, 0.5, 0]
    probe = fit_probe(features, labels)
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    error = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (labels == 0).sum()) * (probe.scores(features) - labels)
    assert np.abs(x.T @ error + L2 * probe.weights[:-1]).max() < 1e-4
    assert abs(error.sum()) < 1e-4  # the bias is not held back


def test_separable_sets_converge() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 20)
    features = rng.normal(size=(40, 200)) + 8 * labels[:, None]  # more features than faces, and far apart
    features[:, 7] = 5.0  # a feature that never changes
    scores = fit_probe(features, labels).scores(features)
    assert np.isfinite(scores).all()
    assert ((scores >= 0.5) == labels).all()
    assert fit_probe(features, labels).weights[7] == pytest.approx(0)


def test_a_probe_tells_the_truth_on_other_faces() -> None:
    rng = np.random.default_rng(3)
    labels, test_labels = np.arange(2000) % 2, np.arange(1000) % 2
    features, test_features = (rng.normal(size=(len(y), 3)) + y[:, None] * [1.5, 0, 0] for y in (labels, test_labels))
    learnt_from = (labels, rng.permutation(labels))
    right, shuffled = (
        separates(fit_probe(features, y).scores(test_features), test_labels, np.arange(1000).astype(str))
        for y in learnt_from
    )
    for name, truth in (("auroc", 0.8556), ("accuracy", 0.7734)):  # Phi(1.5 / sqrt 2) and Phi(0.75)
        assert right[name]["value"] == pytest.approx(truth, abs=0.03)
        assert right[name]["low"] < right[name]["value"] < right[name]["high"]
    assert shuffled["auroc"]["value"] < right["auroc"]["value"]


def test_one_class_has_no_probe() -> None:
    groups, unknown = np.array(["a", "b"]), {"value": None, "low": None, "high": None}
    for scores, labels in ((None, np.array([0, 1])), (np.array([0.1, 0.9]), np.array([0, 0]))):
        assert separates(scores, labels, groups) == {"auroc": unknown, "accuracy": unknown}
    with pytest.raises(FakeganError, match="one of the two is missing"):
        fit_probe(np.arange(3.0)[:, None], np.zeros(3, dtype=np.int64))
