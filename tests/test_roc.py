"""The ROC of faces and of their resamples, by hand."""

import numpy as np
import pytest

from fakegan.evaluation.roc import Curves, Ranking, auroc, roc

SCORES, LABELS = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])


def test_roc_by_hand() -> None:
    fpr, tpr = roc(SCORES, LABELS)
    assert fpr.tolist() == [0, 0, 0.5, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 0.5, 1, 1]
    curves = Ranking(SCORES, LABELS).curves()
    assert [curves.tpr_at_fpr(limit)[0] for limit in (0.01, 0.5)] == [0.5, 1.0]


def test_auroc_by_hand() -> None:
    assert auroc(np.array([0.1, 0.2, 0.8, 0.9]), LABELS) == 1.0  # a higher score means fake
    assert auroc(np.array([0.5, 0.5, 0.9]), np.array([0, 1, 1])) == 0.75  # ties count half


def test_equal_error_rate_lies_between_two_points() -> None:
    curves = Curves(found=np.array([[4.0, 10]]), alarms=np.array([[2.0, 10]]))  # fpr - fnr: -1, -0.4, 1
    assert curves.equal_error_rate() == pytest.approx([0.2 + 0.8 * 0.4 / 1.4])
