import tracemalloc
from math import erf, erfc, inf, sqrt

import numpy as np
import pytest

from fakegan.evaluation import metrics
from fakegan.evaluation.intervals import bounds, interval, resample_weights, student_p, student_reach, tell_nothing
from fakegan.evaluation.roc import Ranking


def _drawn(groups: list[str], labels: list[int], resamples: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(list(resample_weights(np.array(groups), np.array(labels), resamples, rng)))


def test_a_group_is_drawn_whole_and_each_kind_as_often_as_there_are() -> None:
    groups = ["a", "a", "b", "c", "d", "e", "e"]
    labels = [0, 0, 0, 1, 1, 0, 1]  # a, b: real only; c, d: fake only; e: both
    weights = _drawn(groups, labels)
    assert weights.shape == (200, 7)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 3] + weights[:, 4] == 2).all()
    assert (weights[:, 5:] == 1).all()
    assert set(np.unique(weights[:, 0])) == {0, 1, 2}
    assert weights[:, 0].mean() == pytest.approx(1, abs=0.15)  # standard error 0.05


def test_resamples_come_in_chunks_and_again_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, labels = ["a", "b", "c", "d"], [0, 0, 1, 1]
    once = _drawn(groups, labels, 7, seed=3)
    monkeypatch.setattr("fakegan.evaluation.intervals.CHUNK", 12)
    chunks = list(resample_weights(np.array(groups), np.array(labels), 7, np.random.default_rng(3)))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert (np.concatenate(chunks) == once).all()
    assert (once != _drawn(groups, labels, 7, seed=4)).any()


def test_interval_leaves_out_a_fortieth_on_either_side() -> None:
    values = np.append(np.arange(1001.0), np.nan)
    assert interval(values) == (25, 975)


def test_where_all_resamples_agree_the_bound_is_exact() -> None:
    same = np.ones(50)
    assert bounds(1.0, same, groups=10) == (pytest.approx(0.6915, abs=1e-4), 1.0)  # Clopper-Pearson, 10 of 10
    assert bounds(0.0, 0 * same, groups=10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert bounds(0.5, same / 2, groups=1) == (pytest.approx(0.0125), pytest.approx(0.9875))
    assert bounds(0.0, 0 * same, groups=10, floor=-1.0) == pytest.approx((-0.3085, 0.3085), abs=1e-4)
    # One group, or no resample with a value.
    assert bounds(1.0, np.array([0.9, 1.0]), groups=1) == (pytest.approx(0.025), 1.0)
    assert bounds(1.0, np.array([np.nan, np.nan]), groups=2) == (pytest.approx(0.025**0.5), 1.0)


def test_bounds_hold_the_value() -> None:
    values = np.linspace(0.4, 0.6, 101)
    assert bounds(0.5, values, groups=9) == (pytest.approx(0.405), pytest.approx(0.595))
    assert bounds(0.39, values, groups=9) == (0.39, pytest.approx(0.595))
    assert bounds(0.61, values, groups=9) == (pytest.approx(0.405), 0.61)


def test_what_resamples_tell() -> None:
    assert tell_nothing(np.array([0.5, 0.5, np.nan]), groups=9)
    assert tell_nothing(np.array([0.4, 0.5]), groups=1)
    assert not tell_nothing(np.array([0.4, 0.5]), groups=2)


@pytest.mark.parametrize(
    ("freedom", "reach"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (30, 2.0423), (120, 1.9799), (inf, 1.9600)],
)
def test_students_t_as_tables_print_it(freedom: float, reach: float) -> None:
    assert student_reach(freedom) == pytest.approx(reach, abs=5e-5)
    assert student_p(-student_reach(freedom), freedom) == pytest.approx(0.05)


def test_students_p_by_hand() -> None:
    assert student_p(0.0, 3) == 1.0
    assert student_p(1.0, 1) == pytest.approx(0.5)  # Cauchy: 1 - 2 atan(t) / pi
    assert student_p(100.0, 1) == pytest.approx(0.0063660, abs=1e-7)
    for t in (0.3, 1.7, 30.0):
        assert student_p(t, 2) == pytest.approx(1 - t / sqrt(2 + t**2))
    assert student_p(2.0, 10) == pytest.approx(0.0734, abs=5e-5)
    assert student_p(2.0, 5e4) == pytest.approx(erfc(2 / sqrt(2)), rel=1e-3)  # not yet taken for the normal's


@pytest.mark.slow
def test_a_thousand_resamples_of_twenty_thousand_scores_take_little_memory() -> None:
    """All of them at once would take 160 MB for each array."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 10_000)
    scores = np.clip(0.4 + 0.2 * labels + 0.2 * rng.normal(size=20_000), 0, 1)
    sources = np.where(labels == 1, "gan", "camera")
    groups = np.arange(20_000).astype(np.str_)
    tracemalloc.start()
    metrics.measures(scores, labels, sources, groups, 0.5, uncalibrated=scores**2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


def _coverage(trials: int, rng: np.random.Generator, of_group: int, grouped: bool) -> float:
    """Share of trials whose 95% interval holds the true AUROC: 150 real and 150 fake faces in groups of `of_group`."""
    shift = 1.0
    truth = (1 + erf(shift / 2)) / 2  # Phi(shift / sqrt 2)
    labels = np.repeat([0, 1], 150)
    persons = np.arange(300) // of_group
    groups = persons if grouped else np.arange(300)
    held = 0
    for _ in range(trials):
        person = rng.normal(size=persons.max() + 1)[persons]
        noise = person if of_group == 1 else np.sqrt(0.8) * person + np.sqrt(0.2) * rng.normal(size=300)
        scores = 1 / (1 + np.exp(-(noise + shift * labels)))
        ranking = Ranking(scores, labels)
        areas = [ranking.curves(weights).auroc() for weights in resample_weights(groups, labels, 400, rng)]
        low, high = interval(np.concatenate(areas))
        held += low <= truth <= high
    return held / trials


# A thousand trials have a standard error of 0.7 points, so that both ends of the range are more than three away.
@pytest.mark.slow
@pytest.mark.parametrize("of_group", [1, 3])
def test_95_percent_intervals_hold_the_truth_by_group_only(of_group: int) -> None:
    assert 0.92 <= _coverage(1000, np.random.default_rng(of_group), of_group, grouped=True) <= 0.98
    if of_group > 1:
        assert _coverage(300, np.random.default_rng(2), of_group, grouped=False) < 0.88
