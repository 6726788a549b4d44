from math import erf

import numpy as np
import pytest

from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.calibration import Validation, chosen, fit_temperature, probability, reliability, unsure
from fakegan.evaluation.verdicts import verdicts

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


def _validation(reals: list[float], fakes: list[float], groups: list[int] | None = None) -> Validation:
    """Each face is a group of its own, unless groups are named."""
    scores, labels = np.array([*reals, *fakes]), np.repeat([0, 1], [len(reals), len(fakes)])
    return Validation.of(scores, labels, np.array(groups or range(len(scores))).astype(str))


TWENTIETHS = [i / 20 for i in range(1, 20)]


def test_band_by_hand() -> None:
    """Of 19 faces and a new one, the new one is among the two highest in one case of ten, and so is it at the end."""
    guessing = _validation(TWENTIETHS, TWENTIETHS)
    low, high = guessing.band(threshold=0.5)
    assert (low, high) == (0.1, np.nextafter(0.9, 1))
    said = verdicts(np.array([0.05, 0.1, 0.9, 0.95, 0.95]), 0.5, (low, high), np.arange(5) == 4)
    assert said.tolist() == ["real", "unsure", "unsure", "fake", "unknown"]
    assert guessing.band(threshold=0.95) == (0.1, 0.95)  # no verdict contradicts the call
    assert guessing.band(threshold=0.05) == (0.05, high)
    assert guessing.band(threshold=0.5, wrong=0.5) == (0.5, np.nextafter(0.5, 1))  # the middle face of each
    assert guessing.band(threshold=0.5, wrong=0.04) == (0, 1)  # of 19 faces, none lies so far out


def test_a_classifier_that_errs_seldom_has_no_band_and_few_faces_have_no_edge() -> None:
    apart = _validation([0.1] * 18 + [0.7], [0.3] + [0.8] * 8)
    assert apart.band(threshold=0.5) == (0.3, 0.5)  # 1 of 19 reals may lie beyond it, none of 9 fakes
    assert _validation([0.1] * 18 + [0.7], [0.8] * 9).band(threshold=0.5) == (0.5, 0.5)
    assert _validation([0.1] * 8, [0.8] * 9).band(threshold=0.5) == (0.5, 1)
    assert _validation([0.1] * 9, [0.8] * 8).band(threshold=0.5) == (0, 0.5)


def test_the_faces_of_a_group_count_once() -> None:
    """Ten faces of one person at 0.9, and eighteen of others at 0.1: one group of 19 lies above, not ten of 28."""
    reals, fakes = [0.9] * 10 + [0.1] * 18, [0.95] * 9
    groups = [0] * 10 + list(range(1, 28))
    assert _validation(reals, fakes, groups).band(threshold=0.5) == (0.5, 0.5)
    assert _validation(reals, fakes).band(threshold=0.5) == (0.5, np.nextafter(0.9, 1))


def test_a_threshold_for_a_rate_of_false_alarms() -> None:
    found = _validation(TWENTIETHS, [0.9])
    assert found.threshold_at(0.1) == np.nextafter(0.9, 1)
    assert found.threshold_at(0.05) == np.nextafter(0.95, 1)
    with pytest.raises(UsageError, match=r"max_false_alarms=0.01 takes 99 real .* has 19: allow 0.05 or more"):
        found.threshold_at(0.01)
    with pytest.raises(UsageError, match=r"24 groups of real validation faces .* has 2: allow 0.334 or more"):
        _validation([0.1, 0.2, 0.3], [0.9], [0, 0, 1, 2]).threshold_at(0.04)
    with pytest.raises(UsageError, match="have the score 1"):
        _validation([1.0] * 19, [0.9]).threshold_at(0.1)
    for share in (0, 1, np.nan):
        with pytest.raises(UsageError, match="above 0 and below 1"):
            found.threshold_at(share)


def test_a_threshold_of_the_users_moves_the_band() -> None:
    found = _validation(TWENTIETHS, TWENTIETHS)
    assert chosen(0.95, None, (0.4, 0.6), found) == (0.95, (0.1, 0.95))
    assert chosen(None, 0.05, (0.4, 0.6), found) == (np.nextafter(0.95, 1), (0.1, np.nextafter(0.95, 1)))
    assert chosen(0.7, None, (0.4, 0.6), None) == (0.7, (0.4, 0.7))  # of an earlier version: the band that it has
    for threshold, alarms, words in ((0.5, 0.1, "not both"), (np.nan, None, "0 to 1"), (1.5, None, "not 1.5")):
        with pytest.raises(UsageError, match=words):
            chosen(threshold, alarms, (0.4, 0.6), found)
    with pytest.raises(FakeganError, match="earlier version"):
        chosen(None, 0.1, (0.4, 0.6), None)


def _simulated(rng: np.random.Generator, apart: float, groups: int) -> tuple[list[float], float, float]:
    """Of new faces, by the normal distribution: shares of wrong verdicts by class, unsure reals, and alarms at 0.05.

    Log odds of both classes are normal, of variance 1, `apart` from each other. Half of the variance is between the
    groups of one to five faces.
    """
    drawn = [rng.normal(size=groups).repeat(rng.integers(1, 6, groups)) for _ in range(2)]
    odds = [np.sqrt(0.5) * (of_group + rng.normal(size=len(of_group))) for of_group in drawn]
    labels = np.repeat([0, 1], [len(drawn[0]), len(drawn[1])])
    margins = np.concatenate(odds) + apart * (labels - 0.5)
    names = np.char.add(labels.astype(str), np.concatenate(drawn).astype(str))
    found = Validation.of(probability(margins, 1.0), labels, names)

    def below(score: float, label: int) -> float:
        """The share of new faces of a class."""
        margin = np.log(score / (1 - score)) if 0 < score < 1 else (score - 0.5) * np.inf
        return float((1 + erf((margin - apart * (label - 0.5)) / np.sqrt(2))) / 2)

    low, high = found.band(threshold=0.5)
    alarms = 1 - below(found.threshold_at(0.05), 0)
    return [1 - below(high, 0), below(low, 1)], below(high, 0) - below(low, 0), alarms


@pytest.mark.slow
@pytest.mark.parametrize("groups", [20, 50, 200])
def test_verdicts_are_wrong_as_seldom_as_promised(groups: int) -> None:
    """Over 1,000 draws of validation faces: at most one in ten of either class, and no fewer than the draws allow."""
    rng = np.random.default_rng(groups)
    wrong, unsure_reals, alarms = zip(*[_simulated(rng, 1.0, groups) for _ in range(1000)], strict=True)
    for shares, promised in ((np.array(wrong), 0.1), (np.array(alarms), 0.05)):
        error = 3 * shares.std(axis=0) / np.sqrt(1000)
        assert (shares.mean(axis=0) <= promised + error).all()
        assert (shares.mean(axis=0) >= promised - 1 / (groups + 1) - error).all()
    ideal = 0.9 - (1 + erf((1 - 1.2816) / np.sqrt(2))) / 2  # with validation faces without end
    assert ideal - 0.01 < np.mean(unsure_reals) < ideal + 3 / groups


@pytest.mark.slow
def test_a_good_classifier_is_seldom_unsure_and_a_guesser_often() -> None:
    rng = np.random.default_rng(0)
    unsure_at = {apart: np.mean([_simulated(rng, apart, 100)[1] for _ in range(300)]) for apart in (0.0, 1.0, 2.0, 4.0)}
    assert unsure_at[0.0] > 0.75
    assert 0.45 < unsure_at[1.0] < 0.6
    assert 0.1 < unsure_at[2.0] < 0.25
    assert unsure_at[4.0] == 0


def test_unsure_holds_the_lower_edge_of_its_band_and_a_whole_side_without_a_level() -> None:
    assert unsure(np.array([0.39, 0.4, 0.69, 0.7]), 0.4, 0.7).tolist() == [False, True, True, False]
    assert not unsure(np.array([0.0, 0.5, 1.0]), 0.5, 0.5).any()
    assert unsure(np.array([0.0, 0.5, 1.0]), 0.0, 1.0).all()


def test_reliability_by_hand() -> None:
    scores, labels = np.array([0.0, 0.02, 0.04, 0.96, 1.0]), np.array([0, 1, 0, 1, 1])  # of fifteen bins
    mean_score, share, count = reliability(scores, labels)
    assert count.tolist() == [3, *[0] * 13, 2]
    assert mean_score == pytest.approx([0.02, *[np.nan] * 13, 0.98], nan_ok=True)
    assert share == pytest.approx([1 / 3, *[np.nan] * 13, 1], nan_ok=True)
