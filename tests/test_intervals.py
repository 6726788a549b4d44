import tracemalloc
from math import erfc, inf, sqrt

import numpy as np
import pytest

from fakegan.evaluation import statistics
from fakegan.evaluation.intervals import bounds, interval, resample_weights, student_p, student_reach
from fakegan.evaluation.metrics import measures


def _drawn(groups: list[str], labels: list[int], resamples: int = 200, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(resample_weights(np.array(groups), np.array(labels), resamples, seed)))


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
    chunks = list(resample_weights(np.array(groups), np.array(labels), 7, seed=3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert (np.concatenate(chunks) == once).all()
    assert (once != _drawn(groups, labels, 7, seed=4)).any()


def test_interval_leaves_out_a_fortieth_on_either_side() -> None:
    values = np.append(np.arange(1001.0), np.nan)
    assert interval(values) == (25, 975)


def test_where_all_resamples_agree_the_bound_is_exact() -> None:
    same = np.append(np.ones(50), np.nan)
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
    assert student_p(2.0, 5e4) == pytest.approx(erfc(2 / sqrt(2)), rel=1e-3)  # not yet taken for the normal's


@pytest.mark.slow
def test_a_thousand_resamples_of_twenty_thousand_scores_take_little_memory() -> None:
    """All resamples at once would take 160 MB for each array, a table of each score with each 3.2 GB."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 10_000)
    scores = np.clip(0.4 + 0.2 * labels + 0.2 * rng.normal(size=20_000), 0, 1)
    sources = np.where(labels == 1, "gan", "camera")
    groups = np.arange(20_000).astype(np.str_)
    tracemalloc.start()
    measures(scores, labels, sources, groups, 0.5, uncalibrated=scores**2)
    statistics.difference(scores, labels, groups)
    statistics.correlation(scores, scores**2, labels, groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000
