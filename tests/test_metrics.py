from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_calibration_error

from fakegan.errors import FakeganError
from fakegan.evaluation import metrics
from fakegan.evaluation.metrics import (
    WeightedValues,
    choose_threshold,
    equal_error_rate,
    judged,
    measures,
    point_values,
    roc,
    tpr_at_fpr,
)

SCORES = np.array([0.1, 0.4, 0.35, 0.8])
LABELS = np.array([0, 0, 1, 1])
ALONE = np.array(["a", "b", "c", "d"])  # each face its own group


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
    assert measures(scores, labels, np.array(["a", "a", "b", "c"]), ALONE, 0.5)["brier"]["value"] == pytest.approx(
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
    m = measures(SCORES, LABELS, sources, ALONE, threshold=0.4)  # a score at the threshold is called fake
    assert m["accuracy"]["value"] == 0.5
    assert m["real_accuracy"]["value"] == 0.5
    assert m["fake_accuracy"]["value"] == 0.5
    assert (m["n_real"], m["n_fake"]) == (2, 2)
    assert set(m["by_source"]) == {"camera", "phone", "gan"}
    assert m["by_source"]["camera"]["accuracy"]["value"] == 1.0
    assert m["by_source"]["phone"]["auroc"]["value"] == 0.5
    gan = m["by_source"]["gan"]
    assert (gan["label"], gan["n"]) == ("fake", 2)
    assert gan["accuracy"]["value"] == 0.5
    assert gan["auroc"]["value"] == 0.75
    assert gan["mean_score"]["value"] == pytest.approx(0.575)


def test_over_generators_each_counts_the_same() -> None:
    scores = np.array([0.2, 0.4, 0.9, 0.9, 0.9, 0.3])  # AUROC of many: 1, of few: 0.5; accuracies 1 and 0
    labels = np.array([0, 0, 1, 1, 1, 1])
    sources = np.array(["camera", "camera", "many", "many", "many", "few"])
    m = measures(scores, labels, sources, np.array(list("abcdef")), 0.5)
    over = m["over_generators"]
    assert over["mean_auroc"]["value"] == pytest.approx(0.75)
    assert over["mean_accuracy"]["value"] == pytest.approx(0.5)
    assert over["worst"] == "few"
    assert over["worst_auroc"] == m["by_source"]["few"]["auroc"]
    assert over["worst_accuracy"] == m["by_source"]["few"]["accuracy"]
    assert m["auroc"]["value"] == pytest.approx((3 * 1 + 0.5) / 4)


def test_scores_before_the_temperature_are_measured_too() -> None:
    before = np.array([0.05, 0.05, 0.95, 0.05])
    m = measures(SCORES, LABELS, np.array(["a", "a", "b", "b"]), ALONE, 0.5, uncalibrated=before)
    assert m["brier_uncalibrated"]["value"] == pytest.approx((3 * 0.05**2 + 0.95**2) / 4)
    assert m["ece_uncalibrated"]["value"] == pytest.approx((0.85 + 0.05) / 4)  # three of 0.05, one of them fake
    assert "brier_uncalibrated" not in measures(SCORES, LABELS, np.array(["a", "a", "b", "b"]), ALONE, 0.5)


def _faces(n: int = 90) -> tuple[Any, Any, Any, Any]:
    """Scores with ties, also between the classes, before and after a temperature; two sources a class."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], n // 2)
    scores = np.round(np.clip(0.35 + 0.3 * labels + 0.2 * rng.normal(size=n), 0, 1), 2)
    sources = np.char.add(np.where(labels == 1, "gan_", "cam_"), rng.integers(0, 2, n).astype(np.str_))
    return scores, labels, sources, np.clip(scores + rng.normal(size=n) / 9, 0, 1)


def test_weights_of_one_give_the_plain_values() -> None:
    scores, labels, sources, before = _faces()
    plain = point_values(scores, labels, sources, 0.5, before)
    weighted = WeightedValues(scores, labels, sources, 0.5, before)(np.ones((2, len(scores))))
    assert set(weighted) == set(plain)
    for key, value in plain.items():
        assert weighted[key] == pytest.approx([value, value], abs=1e-12), key


def test_whole_weights_give_the_plain_values_of_repeated_faces() -> None:
    scores, labels, sources, before = _faces()
    weights = np.random.default_rng(2).integers(0, 4, (8, len(scores)))
    weighted = WeightedValues(scores, labels, sources, 0.5, before)(weights.astype(np.float64))
    for row, times in enumerate(weights):
        again = [np.repeat(x, times) for x in (scores, labels, sources, before)]
        plain = point_values(again[0], again[1], again[2], 0.5, again[3])
        assert len({v for (source, _), v in plain.items() if source}) > 8  # the sources do differ
        for key, value in plain.items():
            assert weighted[key][row] == pytest.approx(value, abs=1e-12), key


def test_a_source_that_a_resample_lacks_has_no_value_there() -> None:
    scores, labels, sources, _ = _faces()
    weights = np.where(sources == "gan_0", 0.0, 1.0)[None]
    weighted = WeightedValues(scores, labels, sources, 0.5, None)(weights)
    assert np.isnan(weighted["gan_0", "auroc"]).all()
    assert not np.isnan(weighted["gan_1", "auroc"]).any()


def _every_measure(m: dict[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for name, x in m.items():
        if isinstance(x, dict):
            found |= {name: x} if "value" in x else {f"{name}/{k}": v for k, v in _every_measure(x).items()}
    return found


def test_every_measure_has_an_interval_that_holds_it_and_is_repeatable() -> None:
    scores, labels, sources, before = _faces()
    groups = (np.arange(len(scores)) // 2).astype(np.str_)
    m = measures(scores, labels, sources, groups, 0.5, uncalibrated=before, resamples=200)
    every = _every_measure(m)
    assert len(every) == 13 + 4 * 3 + 4
    for name, x in every.items():
        assert 0 <= x["low"] <= x["value"] <= x["high"] <= 1, name
        assert x["high"] - x["low"] > 0.01, name
    assert m == measures(scores, labels, sources, groups, 0.5, uncalibrated=before, resamples=200)
    assert m != measures(scores, labels, sources, groups, 0.5, uncalibrated=before, resamples=200, seed=1)


def test_a_perfect_result_does_not_claim_certainty() -> None:
    scores, labels = np.array([0.1] * 6 + [0.9] * 10), np.array([0] * 6 + [1] * 10)
    sources = np.array(["camera"] * 6 + ["gan_a"] * 9 + ["gan_b"])
    groups = np.array(["a", "a", "b", "c", "d", "e"] + [f"{i}" for i in range(10)])  # five reals, ten fakes
    m = measures(scores, labels, sources, groups, 0.5, resamples=100)
    assert m["accuracy"] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 15)), "high": 1.0}
    assert m["auroc"] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 5)), "high": 1.0}
    assert m["eer"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 5))}
    assert m["real_accuracy"]["low"] == pytest.approx(0.025 ** (1 / 5))
    assert m["fake_accuracy"]["low"] == pytest.approx(0.025 ** (1 / 10))
    assert m["by_source"]["gan_a"]["auroc"]["low"] == pytest.approx(0.025 ** (1 / 5))
    assert m["by_source"]["gan_b"]["auroc"]["low"] == pytest.approx(0.025)  # one face says next to nothing
    assert m["by_source"]["gan_b"]["mean_score"]["low"] == pytest.approx(0.9 * 0.025)
    mean = (0.025 ** (1 / 9) + 0.025) / 2
    assert m["over_generators"]["mean_accuracy"] == {"value": 1.0, "low": pytest.approx(mean), "high": 1.0}


def test_a_generator_of_one_face_leaves_the_mean_open() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.6, 0.5]), np.array([0, 0, 0, 0, 1])
    m = measures(scores, labels, np.array(["camera"] * 4 + ["gan"]), np.array(list("abcde")), 0.5, resamples=100)
    gan = m["by_source"]["gan"]["auroc"]  # resamples do differ, but by the reals alone
    assert gan == {"value": 0.75, "low": pytest.approx(0.75 * 0.025), "high": pytest.approx(1 - 0.25 * 0.025)}
    assert m["over_generators"]["mean_auroc"] == m["over_generators"]["worst_auroc"] == gan


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_an_error(label: int) -> None:
    only = np.full(4, label)
    with pytest.raises(FakeganError, match="real" if label else "fake"):
        measures(SCORES, only, np.array(["a"] * 4), ALONE, 0.5)
    with pytest.raises(FakeganError):
        choose_threshold(SCORES, only)


def test_scores_that_are_no_probabilities_are_an_error() -> None:
    with pytest.raises(FakeganError, match="diverged"):
        measures(np.array([0.1, np.nan, 0.3, 0.4]), LABELS, np.array(["a", "a", "b", "b"]), ALONE, 0.5)
    with pytest.raises(FakeganError, match="diverged"):
        measures(SCORES, LABELS, np.array(["a", "a", "b", "b"]), ALONE, 0.5, uncalibrated=SCORES + 1)


def test_seen_and_unseen_generators_are_measured_apart_by_hand() -> None:
    """Two reals at 0.4; the generator learnt from scores above both, the other below both."""
    scores, labels = np.array([0.4, 0.4, 0.9, 0.8, 0.1, 0.2]), np.array([0, 0, 1, 1, 1, 1])
    sources = np.array(["camera", "camera", "known", "known", "new", "new"])
    groups = np.arange(6).astype(str)
    found = measures(scores, labels, sources, groups, 0.5, learnt_from=("camera", "known"))
    assert [found["by_source"][name]["seen"] for name in ("camera", "known", "new")] == [True, True, False]
    assert [found[part]["auroc"]["value"] for part in ("seen", "unseen")] == [1.0, 0.0]
    assert [found[part]["fake_accuracy"]["value"] for part in ("seen", "unseen")] == [1.0, 0.0]
    assert [(found[part]["n_real"], found[part]["n_fake"]) for part in ("seen", "unseen")] == [(2, 2), (2, 2)]
    assert found["auroc"]["value"] == 0.5  # taken together: what the fixed keys have always said
    assert "seen" not in measures(scores, labels, sources, groups, 0.5, learnt_from=("camera",))


@pytest.mark.parametrize(
    ("low", "high", "how"), [(0.51, 0.9, 1), (0.1, 0.49, -1), (0.4, 0.6, 0), (0.5, 0.9, 0), (None, None, 0)]
)
def test_an_auroc_is_judged_by_its_interval(low: float | None, high: float | None, how: int) -> None:
    assert judged({"value": 0.3, "low": low, "high": high}) == how
