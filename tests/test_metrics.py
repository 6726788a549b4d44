from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_calibration_error

from fakegan.errors import FakeganError
from fakegan.evaluation.metrics import WeightedMeasures, choose_threshold, judged, measures
from tests.helpers import intervals

SCORES, LABELS = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
ALONE = np.array(["a", "b", "c", "d"])  # each face its own group
SOURCES = np.array(["camera", "phone", "gan", "gan"])


def _values(found: dict[str, Any], *names: str) -> list[float]:
    return [found[name]["value"] for name in names]


def test_measures_by_hand() -> None:
    m = measures(SCORES, LABELS, SOURCES, ALONE, threshold=0.4)  # a score at the threshold is called fake
    assert _values(m, "accuracy", "real_accuracy", "fake_accuracy", "balanced_accuracy") == [0.5] * 4
    assert _values(m, "auroc", "eer", "tpr_at_fpr_0.01") == [0.75, 0.5, 0.5]
    assert m["average_precision"]["value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (m["n_real"], m["n_fake"]) == (2, 2)
    assert {s: (x["label"], x["n"]) for s, x in m["by_source"].items()} == {
        "camera": ("real", 1),
        "phone": ("real", 1),
        "gan": ("fake", 2),
    }
    assert _values(m["by_source"]["camera"], "accuracy", "auroc") == [1.0, 1.0]
    assert _values(m["by_source"]["phone"], "accuracy", "auroc") == [0.0, 0.5]
    assert _values(m["by_source"]["gan"], "accuracy", "auroc", "mean_score") == pytest.approx([0.5, 0.75, 0.575])


def test_calibration_and_brier_by_hand_before_and_after_the_temperature() -> None:
    scores, labels = np.array([0.05, 0.05, 0.95, 0.95]), np.array([0, 0, 1, 0])
    before = np.array([0.05, 0.05, 0.95, 0.05])
    m = measures(scores, labels, np.array(["a", "a", "b", "c"]), ALONE, 0.5, uncalibrated=before)
    assert _values(m, "brier", "ece") == pytest.approx([(3 * 0.05**2 + 0.95**2) / 4, (0.05 + 0.45) / 2])
    assert _values(m, "brier_uncalibrated", "ece_uncalibrated") == pytest.approx([0.05**2, 0.05])
    assert "brier_uncalibrated" not in measures(scores, labels, SOURCES, ALONE, 0.5)


def test_the_same_as_torchmetrics_on_random_scores_with_ties() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores, rough = np.round(rng.random(500) * 0.7 + labels * 0.3, 2), rng.random(500)
    sources = np.where(labels == 1, "gan", "camera")
    m = measures(scores, labels, sources, np.arange(500).astype(str), 0.5, uncalibrated=rough, resamples=10)
    s, y = torch.from_numpy(scores), torch.from_numpy(labels)
    expected = [binary_auroc(s, y), binary_average_precision(s, y)]
    expected.append(binary_calibration_error(torch.from_numpy(rough), y, n_bins=15))
    assert _values(m, "auroc", "average_precision", "ece_uncalibrated") == pytest.approx(
        list(map(float, expected)), abs=1e-6
    )


def test_threshold_sits_in_the_middle_of_the_gap() -> None:
    assert choose_threshold(np.array([0.1, 0.2, 0.6, 0.9]), LABELS) == pytest.approx(0.4)
    assert choose_threshold(np.array([0.1, 0.5, 0.2, 0.9]), LABELS) in (pytest.approx(0.15), pytest.approx(0.7))


def test_over_generators_each_counts_the_same() -> None:
    scores = np.array([0.2, 0.4, 0.9, 0.9, 0.9, 0.3])  # AUROC of many: 1, of few: 0.5; accuracies 1 and 0
    sources = np.array(["camera", "camera", "many", "many", "many", "few"])
    m = measures(scores, np.array([0, 0, 1, 1, 1, 1]), sources, np.array(list("abcdef")), 0.5)
    over = m["over_generators"]
    assert _values(over, "mean_auroc", "mean_accuracy") == pytest.approx([0.75, 0.5])
    few = m["by_source"]["few"]
    assert [over[f"worst{key}"] for key in ("", "_auroc", "_accuracy")] == ["few", few["auroc"], few["accuracy"]]
    assert m["auroc"]["value"] == pytest.approx((3 * 1 + 0.5) / 4)


def _faces(n: int = 90) -> tuple[Any, Any, Any, Any]:
    """Scores with ties, also between the classes, before and after a temperature; two sources a class."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], n // 2)
    scores = np.round(np.clip(0.35 + 0.3 * labels + 0.2 * rng.normal(size=n), 0, 1), 2)
    sources = np.char.add(np.where(labels == 1, "gan_", "cam_"), rng.integers(0, 2, n).astype(np.str_))
    return scores, labels, sources, np.clip(scores + rng.normal(size=n) / 9, 0, 1)


def test_a_weight_counts_a_face_as_often() -> None:
    """Among the weights is 0, and 1 for the sources' own values; no source is missing."""
    scores, labels, sources, before = _faces()
    weights = np.random.default_rng(2).integers(0, 4, (8, len(scores)))
    weighted = WeightedMeasures(scores, labels, sources, 0.5, before)(weights.astype(np.float64))
    assert len(weighted) == 13 + 4 * 3
    for row, times in enumerate(weights):
        s, y, names, b = (np.repeat(x, times) for x in (scores, labels, sources, before))
        repeated = WeightedMeasures(s, y, names, 0.5, b)(np.ones((1, len(s))))
        assert len({float(v[0]) for (source, _), v in repeated.items() if source}) > 8  # the sources do differ
        for key, value in repeated.items():
            assert weighted[key][row] == pytest.approx(value[0], abs=1e-12), key


def test_a_source_that_a_resample_lacks_has_no_value_there() -> None:
    scores, labels, sources, _ = _faces()
    weighted = WeightedMeasures(scores, labels, sources, 0.5, None)(np.where(sources == "gan_0", 0.0, 1.0)[None])
    assert np.isnan(weighted["gan_0", "auroc"]).all()
    assert not np.isnan(weighted["gan_1", "auroc"]).any()


def test_every_measure_has_an_interval_that_holds_it_and_is_repeatable() -> None:
    scores, labels, sources, before = _faces()
    groups = (np.arange(len(scores)) // 2).astype(np.str_)

    def measured(**seed: int) -> dict[str, Any]:
        return measures(scores, labels, sources, groups, 0.5, uncalibrated=before, resamples=200, **seed)

    every = list(intervals(measured()))
    assert len(every) == 13 + 4 * 3 + 2 + 4  # two of the four sources are real: false alarms
    for x in every:
        assert 0 <= x["low"] <= x["value"] <= x["high"] <= 1
        assert x["high"] - x["low"] > 0.01
    assert every == list(intervals(measured())) != list(intervals(measured(seed=1)))


def test_a_perfect_result_does_not_claim_certainty() -> None:
    """The exact bound of n groups without an exception is 0.025^(1/n); groups of the smaller class bear on an AUROC."""
    scores, labels = np.array([0.1] * 6 + [0.9] * 10), np.array([0] * 6 + [1] * 10)
    sources = np.array(["camera"] * 6 + ["gan_a"] * 9 + ["gan_b"])
    groups = np.array(["a", "a", "b", "c", "d", "e"] + [f"{i}" for i in range(10)])  # five reals, ten fakes
    m = measures(scores, labels, sources, groups, 0.5, resamples=100)
    gan_a, gan_b = m["by_source"]["gan_a"], m["by_source"]["gan_b"]
    for measure, n in (
        (m["accuracy"], 15),
        (m["auroc"], 5),
        (m["real_accuracy"], 5),
        (m["fake_accuracy"], 10),
        (gan_a["auroc"], 5),
        (gan_a["accuracy"], 9),
        (gan_b["auroc"], 1),  # one face says next to nothing
    ):
        assert measure == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / n)), "high": 1.0}
    assert m["eer"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 5))}
    assert gan_b["mean_score"]["low"] == pytest.approx(0.9 * 0.025)
    mean = (0.025 ** (1 / 9) + 0.025) / 2
    assert m["over_generators"]["mean_accuracy"] == {"value": 1.0, "low": pytest.approx(mean), "high": 1.0}


def test_a_generator_of_one_face_leaves_the_mean_open() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.6, 0.5]), np.array([0, 0, 0, 0, 1])
    m = measures(scores, labels, np.array(["camera"] * 4 + ["gan"]), np.array(list("abcde")), 0.5, resamples=100)
    gan = m["by_source"]["gan"]["auroc"]  # resamples do differ, but by the reals alone
    assert gan == {"value": 0.75, "low": pytest.approx(0.75 * 0.025), "high": pytest.approx(1 - 0.25 * 0.025)}
    assert m["over_generators"]["mean_auroc"] == m["over_generators"]["worst_auroc"] == gan


def test_one_class_and_scores_that_are_no_probabilities_are_an_error() -> None:
    for label, missing in ((0, "fake"), (1, "real")):
        with pytest.raises(FakeganError, match=missing):
            measures(SCORES, np.full(4, label), SOURCES, ALONE, 0.5)
    with pytest.raises(FakeganError, match="no fake"):
        choose_threshold(SCORES, np.zeros(4))
    for scores, before in ((np.array([0.1, np.nan, 0.3, 0.4]), None), (SCORES, SCORES + 1)):
        with pytest.raises(FakeganError, match="diverged"):
            measures(scores, LABELS, SOURCES, ALONE, 0.5, uncalibrated=before)


def test_seen_and_unseen_generators_are_measured_separately_by_hand() -> None:
    """Two reals at 0.4; the generator learnt from scores above both, the other below both."""
    scores, labels = np.array([0.4, 0.4, 0.9, 0.8, 0.1, 0.2]), np.array([0, 0, 1, 1, 1, 1])
    sources = np.array(["camera", "camera", "known", "known", "new", "new"])
    groups = np.arange(6).astype(str)
    found = measures(scores, labels, sources, groups, 0.5, learnt_from=("camera", "known"))
    assert [found["by_source"][name]["seen"] for name in ("camera", "known", "new")] == [True, True, False]
    for part, expected in (("seen", 1.0), ("unseen", 0.0)):
        assert _values(found[part], "auroc", "fake_accuracy") == [expected, expected]
        assert (found[part]["n_real"], found[part]["n_fake"]) == (2, 2)
    assert found["auroc"]["value"] == 0.5  # of all fakes: what the fixed keys have always said
    assert "seen" not in measures(scores, labels, sources, groups, 0.5, learnt_from=("camera",))


@pytest.mark.parametrize(("generator", "part"), [("known", "seen"), ("new", "unseen")])
def test_real_faces_never_seen_stand_beside_no_others_and_have_their_false_alarms(generator: str, part: str) -> None:
    """A phone's three faces, two of them called fake, would pull the AUROC of the generator from 1 to 0.6."""
    scores, labels = np.array([0.1, 0.2, 0.9, 0.95, 0.3, 0.8]), np.array([0, 0, 0, 0, 0, 1])
    sources = np.array(["camera", "camera", "phone", "phone", "phone", generator])
    found = measures(scores, labels, sources, np.arange(6).astype(str), 0.5, learnt_from=("camera", "known"))
    assert _values(found["by_source"]["phone"], "false_alarms", "accuracy") == pytest.approx([2 / 3, 1 / 3])
    assert found["by_source"]["camera"]["false_alarms"]["low"] == 0
    assert "false_alarms" not in found["by_source"][generator]
    assert found["auroc"]["value"] == pytest.approx(0.6)
    assert {"seen", "unseen"} & {*found} == {part}
    assert (found[part]["n_real"], found[part]["n_fake"], found[part]["auroc"]["value"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("low", "high", "how"), [(0.51, 0.9, 1), (0.1, 0.49, -1), (0.4, 0.6, 0), (0.5, 0.9, 0), (None, None, 0)]
)
def test_an_auroc_is_judged_by_its_interval(low: float | None, high: float | None, how: int) -> None:
    assert judged({"value": 0.3, "low": low, "high": high}) == how
