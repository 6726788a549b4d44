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


def test_temperature_makes_margins_say_how_often_they_are_right() -> None:
    # Every margin is 6 on its face's side, and 3 of 4 are right: sigmoid(6 / T) = 3/4, so 6 / T = log 3.
    margins = np.array([6.0, 6.0, 6.0, -6.0, -6.0, -6.0, -6.0, 6.0])
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    assert fit_temperature(margins, labels) == pytest.approx(6 / np.log(3), abs=1e-9)


def test_temperature_is_the_least_negative_log_likelihood() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    margins = 5 * (rng.normal(size=300) + 2 * labels - 1)
    fitted = fit_temperature(margins, labels)

    def loss(temperature: float) -> float:
        p = probability(margins, temperature)
        return float(-np.mean(np.log(np.where(labels == 1, p, 1 - p))))

    assert loss(fitted) < min(loss(fitted * 0.99), loss(fitted * 1.01), loss(1.0))


def test_temperature_of_margins_that_have_no_best_one() -> None:
    assert fit_temperature(np.array([-1.0, -5.0, 2.0, 9.0]), LABELS) == 1.0  # separated: colder is always better
    assert fit_temperature(np.full(4, 3.0), LABELS) == pytest.approx(100)  # says nothing: as hot as can be
    assert fit_temperature(np.zeros(4), LABELS) == 1.0
    assert fit_temperature(np.array([5.0, 4.0, -2.0, -9.0]), LABELS) == pytest.approx(100)  # worse than nothing
    nearly = np.array([-1.0, -1.0, 1.0, -1e-9])  # one face a hair on the wrong side
    assert fit_temperature(nearly, LABELS) == pytest.approx(0.05)


def test_temperature_refuses_what_it_cannot_use() -> None:
    with pytest.raises(FakeganError, match="real"):
        fit_temperature(np.array([1.0, 2.0]), np.array([1, 1]))
    with pytest.raises(FakeganError, match="diverged"):
        fit_temperature(np.array([1.0, np.nan]), np.array([0, 1]))


def test_band_by_hand() -> None:
    # Ten of each class. Below 0.4: 9 reals, 1 fake (10% fake). Below 0.5: 9 and 2 (18%).
    # At or above 0.7: 8 fakes, 0 reals; at or above 0.6: 8 and 1 (11% real).
    reals = np.array([0.1] * 9 + [0.6])
    fakes = np.array([0.2, 0.4] + [0.7] * 8)
    scores, labels = np.concatenate([reals, fakes]), np.repeat([0, 1], 10)
    assert choose_band(scores, labels, threshold=0.5) == (0.4, 0.7)
    assert choose_band(scores, labels, threshold=0.65) == (0.4, 0.65)
    assert choose_band(scores, labels, threshold=0.5, error=0.2) == (0.5, 0.5)  # below 0.5: 2 of 11 weigh 0.18
    assert choose_band(scores, labels, threshold=0.3) == (0.3, 0.3)  # from 0.3 on: 9 fakes, 1 real
    assert choose_band(scores, labels, threshold=0.5, error=0.05) == (0.2, 0.7)  # below 0.2: nine reals alone


def test_band_weighs_both_classes_alike() -> None:
    # Below 0.5: all 90 reals but one tenth of the 10 fakes: 0.1 / 1.1 of the weight is fake, not 1 / 91.
    scores = np.array([0.2] * 90 + [0.3] + [0.8] * 9)
    labels = np.array([0] * 90 + [1] * 10)
    assert choose_band(scores, labels, threshold=0.5, error=0.1)[0] == 0.5
    assert choose_band(scores, labels, threshold=0.5, error=0.09)[0] == 0.3


def test_band_without_a_level_covers_the_whole_side() -> None:
    scores, labels = np.array([0.3, 0.3, 0.8, 0.8]), np.array([0, 1, 0, 1])
    low, high = choose_band(scores, labels, threshold=0.5)
    assert (low, high) == (0.0, 1.0)
    assert unsure(np.array([0.0, 0.5, 1.0]), low, high).all()


def test_unsure_holds_its_lower_edge_and_not_its_upper() -> None:
    assert unsure(np.array([0.39, 0.4, 0.69, 0.7]), 0.4, 0.7).tolist() == [False, True, True, False]
    assert not unsure(np.array([0.0, 0.5, 1.0]), 0.5, 0.5).any()


def test_reliability_by_hand() -> None:
    scores, labels = np.array([0.0, 0.1, 0.2, 0.9, 1.0]), np.array([0, 1, 0, 1, 1])
    mean_score, share, count = reliability(scores, labels, bins=4)
    assert count.tolist() == [3, 0, 0, 2]
    assert mean_score[[0, 3]] == pytest.approx([0.1, 0.95])
    assert share[[0, 3]] == pytest.approx([1 / 3, 1])
    assert np.isnan(mean_score[1:3]).all()
    assert np.isnan(share[1:3]).all()
