import numpy as np
import pytest

from fakegan.errors import FakeganError
from fakegan.evaluation.calibration import choose_band, fit_temperature, probability, reliability, unsure

LABELS = np.array([0, 0, 1, 1])


def test_probability_by_hand_and_at_the_ends() -> None:
    p = probability(np.array([0.0, np.log(3), -np.log(3), 1e308, -1e308]), 1.0)
    assert p == pytest.approx([0.5, 0.75, 0.25, 1.0, 0.0])
    assert probability(np.array([2 * np.log(3)]), 2.0) == pytest.approx([0.75])
    assert probability(np.array([-700.0]), 1.0)[0] > 0  # small, but not nothing


def test_temperature_is_the_least_negative_log_likelihood() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    margins = 5 * (rng.normal(size=300) + 2 * labels - 1)
    fitted = fit_temperature(margins, labels)

    def loss(temperature: float) -> float:
        p = probability(margins, temperature)
        return float(-np.mean(np.log(np.where(labels == 1, p, 1 - p))))

    assert loss(fitted) < min(loss(fitted * 0.99), loss(fitted * 1.01), loss(1.0))


@pytest.mark.parametrize(
    ("margins", "labels", "temperature"),
    [
        # Every margin is 6, and 3 of 4 are on their face's side: sigmoid(6 / T) = 3/4, so 6 / T = log 3.
        ([6, 6, 6, -6, -6, -6, -6, 6], [1, 1, 1, 1, 0, 0, 0, 0], 6 / np.log(3)),
        ([-1, -5, 2, 9], LABELS, 1.0),  # separated: colder is always better
        ([3, 3, 3, 3], LABELS, 100),  # says nothing: as hot as can be
        ([0, 0, 0, 0], LABELS, 1.0),
        ([5, 4, -2, -9], LABELS, 100),  # worse than nothing
        ([-1, -1, 1, -1e-9], LABELS, 0.05),  # one face a hair on the wrong side
    ],
)
def test_temperature_by_hand(margins: list[float], labels: list[int], temperature: float) -> None:
    assert fit_temperature(np.array(margins, dtype=float), np.array(labels)) == pytest.approx(temperature, abs=1e-9)


def test_temperature_refuses_one_class_and_a_diverged_classifier() -> None:
    with pytest.raises(FakeganError, match="real"):
        fit_temperature(np.array([1.0, 2.0]), np.array([1, 1]))
    with pytest.raises(FakeganError, match="diverged"):
        fit_temperature(np.array([1.0, np.nan]), np.array([0, 1]))


def test_band_by_hand() -> None:
    # Ten of each class. Below 0.4: 9 reals, 1 fake (10% fake). Below 0.5: 9 and 2 (18%).
    # At or above 0.7: 8 fakes, 0 reals; at or above 0.6: 8 and 1 (11% real).
    scores, labels = np.array([0.1] * 9 + [0.6] + [0.2, 0.4] + [0.7] * 8), np.repeat([0, 1], 10)
    assert choose_band(scores, labels, threshold=0.5) == (0.4, 0.7)
    assert choose_band(scores, labels, threshold=0.65) == (0.4, 0.65)
    assert choose_band(scores, labels, threshold=0.5, error=0.2) == (0.5, 0.5)  # below 0.5: 2 of 11 weigh 0.18
    assert choose_band(scores, labels, threshold=0.3) == (0.3, 0.3)  # from 0.3 on: 9 fakes, 1 real
    assert choose_band(scores, labels, threshold=0.5, error=0.05) == (0.2, 0.7)  # below 0.2: nine reals alone


def test_band_weighs_both_classes_alike() -> None:
    # Below 0.5: all 90 reals but one tenth of the 10 fakes: 0.1 / 1.1 of the weight is fake, not 1 / 91.
    scores, labels = np.array([0.2] * 90 + [0.3] + [0.8] * 9), np.array([0] * 90 + [1] * 10)
    assert choose_band(scores, labels, threshold=0.5, error=0.1)[0] == 0.5
    assert choose_band(scores, labels, threshold=0.5, error=0.09)[0] == 0.3


def test_unsure_holds_the_lower_edge_of_its_band_and_a_whole_side_without_a_level() -> None:
    assert unsure(np.array([0.39, 0.4, 0.69, 0.7]), 0.4, 0.7).tolist() == [False, True, True, False]
    assert not unsure(np.array([0.0, 0.5, 1.0]), 0.5, 0.5).any()
    band = choose_band(np.array([0.3, 0.3, 0.8, 0.8]), np.array([0, 1, 0, 1]), threshold=0.5)
    assert band == (0.0, 1.0)
    assert unsure(np.array([0.0, 0.5, 1.0]), *band).all()


def test_reliability_by_hand() -> None:
    scores, labels = np.array([0.0, 0.02, 0.04, 0.96, 1.0]), np.array([0, 1, 0, 1, 1])  # of fifteen bins
    mean_score, share, count = reliability(scores, labels)
    assert count.tolist() == [3, *[0] * 13, 2]
    assert mean_score == pytest.approx([0.02, *[np.nan] * 13, 0.98], nan_ok=True)
    assert share == pytest.approx([1 / 3, *[np.nan] * 13, 1], nan_ok=True)
