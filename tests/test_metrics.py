import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_calibration_error

from fakegan.errors import FakeganError
from fakegan.evaluation import metrics
from fakegan.evaluation.metrics import choose_threshold, equal_error_rate, measures, roc, tpr_at_fpr

SCORES = np.array([0.1, 0.4, 0.35, 0.8])
LABELS = np.array([0, 0, 1, 1])


def test_roc_auroc_and_average_precision_by_hand() -> None:
    fpr, tpr, thresholds = roc(SCORES, LABELS)
    assert fpr.tolist() == [0, 0, 0.5, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 0.5, 1, 1]
    assert thresholds.tolist() == [np.inf, 0.8, 0.4, 0.35, 0.1]
    assert metrics.auroc(SCORES, LABELS) == pytest.approx(0.75)
    assert metrics.average_precision(SCORES, LABELS) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_higher_score_means_fake() -> None:
    assert metrics.auroc(np.array([0.1, 0.2, 0.8, 0.9]), LABELS) == 1.0
    assert metrics.auroc(np.array([0.9, 0.8, 0.2, 0.1]), LABELS) == 0.0


def test_ties_count_half() -> None:
    assert metrics.auroc(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5
    assert metrics.auroc(np.array([0.5, 0.5, 0.9]), np.array([0, 1, 1])) == pytest.approx(0.75)


def test_equal_error_rate_and_tpr_at_fpr_by_hand() -> None:
    fpr, tpr, _ = roc(SCORES, LABELS)
    assert equal_error_rate(fpr, tpr) == pytest.approx(0.5)
    assert tpr_at_fpr(fpr, tpr, 0.01) == 0.5
    assert tpr_at_fpr(fpr, tpr, 0.5) == 1.0
    between = equal_error_rate(np.array([0, 0.2, 1]), np.array([0, 0.4, 1.0]))  # fpr - fnr: -1, -0.4, 1
    assert between == pytest.approx(0.2 + 0.8 * 0.4 / 1.4)


def test_calibration_and_brier_by_hand() -> None:
    scores, labels = np.array([0.05, 0.05, 0.95, 0.95]), np.array([0, 0, 1, 0])
    assert metrics.expected_calibration_error(scores, labels) == pytest.approx((0.05 + 0.45) / 2)
    assert measures(scores, labels, np.array(["a", "a", "b", "a"]), 0.5)["brier"]["value"] == pytest.approx(
        (3 * 0.05**2 + 0.95**2) / 4
    )


def test_the_same_as_torchmetrics_on_random_scores_with_ties() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = np.round(rng.random(500) * 0.7 + labels * 0.3, 2)
    s, y = torch.from_numpy(scores), torch.from_numpy(labels)
    assert metrics.auroc(scores, labels) == pytest.approx(float(binary_auroc(s, y)), abs=1e-6)
    assert metrics.average_precision(scores, labels) == pytest.approx(float(binary_average_precision(s, y)), abs=1e-6)
    rough = rng.random(500)
    expected = float(binary_calibration_error(torch.from_numpy(rough), y, n_bins=15))
    assert metrics.expected_calibration_error(rough, labels) == pytest.approx(expected, abs=1e-6)


def test_threshold_sits_in_the_middle_of_the_gap() -> None:
    assert choose_threshold(np.array([0.1, 0.2, 0.6, 0.9]), LABELS) == pytest.approx(0.4)
    assert choose_threshold(np.array([0.1, 0.5, 0.2, 0.9]), LABELS) in (pytest.approx(0.15), pytest.approx(0.7))


def test_measures_by_hand() -> None:
    sources = np.array(["camera", "phone", "gan", "gan"])
    m = measures(SCORES, LABELS, sources, threshold=0.4)  # a score at the threshold is called fake
    assert m["accuracy"]["value"] == 0.5
    assert m["real_accuracy"]["value"] == 0.5
    assert m["fake_accuracy"]["value"] == 0.5
    assert (m["n_real"], m["n_fake"]) == (2, 2)
    assert set(m["by_source"]) == {"camera", "phone", "gan"}
    assert m["by_source"]["camera"]["accuracy"]["value"] == 1.0
    assert m["by_source"]["phone"]["auroc"]["value"] == 0.5
    assert m["by_source"]["gan"] | {"mean_score": None} == {
        "label": "fake",
        "n": 2,
        "accuracy": {"value": 0.5, "low": None, "high": None},
        "auroc": {"value": 0.75, "low": None, "high": None},
        "mean_score": None,
    }


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_an_error(label: int) -> None:
    only = np.full(4, label)
    with pytest.raises(FakeganError, match="real" if label else "fake"):
        measures(SCORES, only, np.array(["a"] * 4), 0.5)
    with pytest.raises(FakeganError):
        choose_threshold(SCORES, only)


def test_scores_that_are_no_probabilities_are_an_error() -> None:
    with pytest.raises(FakeganError, match="diverged"):
        measures(np.array([0.1, np.nan, 0.3, 0.4]), LABELS, np.array(["a", "a", "b", "b"]), 0.5)
