"""Effect sizes and rank statistics against values worked out by hand or printed in tables."""

import json
import math

import numpy as np
import pytest

from fakegan.evaluation import statistics as s


def _two(real: list[float], fake: list[float]) -> tuple[s.Floats, s.Labels, s.Groups]:
    values = np.array([*real, *fake], dtype=np.float64)
    return values, np.repeat([0, 1], [len(real), len(fake)]), np.arange(len(values)).astype(str)


@pytest.mark.parametrize(
    ("real", "fake", "d"),
    [
        ([1, 2, 3], [3, 4, 5], 2),  # means 2 and 4, both variances 1
        ([-1, -2, -3], [-3, -4, -5], -2),
        ([0, 2], [1, 2, 3], 1 / math.sqrt(4 / 3)),  # variances 2 and 1: pooled (1 * 2 + 2 * 1) / 3
        ([0.1] * 7, [0.1] * 9, None),  # no spread
    ],
)
def test_cohens_d_by_hand(real: list[float], fake: list[float], d: float | None) -> None:
    faces = _two(real, fake)
    alone = s.standardised_difference(*faces)
    assert alone == s.difference(*faces)["cohens_d"]
    assert alone["value"] == (None if d is None else pytest.approx(d))
    assert s.standardised_difference(faces[0], 0 * faces[1], faces[2]) == s.UNKNOWN


def test_values_all_alike_do_not_differ() -> None:
    found = s.difference(*_two([0.1] * 7, [0.1] * 9))
    assert (found["mann_whitney"]["auc"]["value"], found["mann_whitney"]["p"]) == (0.5, 1)
    assert (found["kolmogorov_smirnov"]["d"]["value"], found["kolmogorov_smirnov"]["p"]) == (0, 1)


def test_mann_whitney_by_hand() -> None:
    """Of nine pairs the fakes win 7 and tie once; one tie of two among six values."""
    values, labels, groups = _two([1, 2, 3], [2, 4, 5])
    found = s.difference(values, labels, groups)["mann_whitney"]
    assert found["auc"]["value"] == pytest.approx(7.5 / 9)
    variance = 9 / 12 * (7 - (8 - 2) / (6 * 5))
    z = (7.5 - 4.5 - 0.5) / math.sqrt(variance)
    assert found["p"] == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert found["p"] == pytest.approx(0.2683, abs=1e-4)  # of 2.5 / 2.2583 = 1.107 in a table of the normal


def test_kolmogorov_smirnov_by_hand() -> None:
    values, labels, groups = _two([1, 2, 3, 4], [3, 3, 5, 6, 7])  # at 2: 2/4 - 0; at 3: 3/4 - 2/5; at 4: 1 - 2/5
    assert s.difference(values, labels, groups)["kolmogorov_smirnov"]["d"]["value"] == pytest.approx(0.6)


@pytest.mark.parametrize(("level", "critical"), [(0.10, 1.224), (0.05, 1.358), (0.01, 1.628), (0.001, 1.949)])
def test_kolmogorovs_critical_values(level: float, critical: float) -> None:
    """As tables print them, for counts so large that Stephens' correction is nothing."""
    n = 2 * 10**8
    d = critical / math.sqrt(n / 2)
    assert s.kolmogorov_smirnov_p(d, n, n) == pytest.approx(level, rel=0.01)


def _spearman(a: list[float], b: list[float]) -> float:
    return float(s.spearman(s.Ranks(np.array(a)), s.Ranks(np.array(b)), np.ones((1, len(a))))[0])


def test_spearman_by_hand() -> None:
    assert _spearman([1, 2, 3, 4, 5], [10, 20, 30, 40, 90]) == pytest.approx(1)
    assert _spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert _spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))  # ranks 1.5 1.5 3 and 1 2 3
    assert np.isnan(_spearman([1, 2, 3], [1, 1, 1]))


def test_a_weight_of_two_is_a_face_twice() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, (2, 40)).astype(np.float64)
    labels = (np.arange(40) % 3 == 0).astype(np.int64)
    weights = rng.integers(0, 3, (1, 40))
    twice = [np.repeat(x, weights[0]) for x in (a, b, labels)]
    ones = np.ones((1, len(twice[0])))
    w = weights.astype(np.float64)
    assert s.cohens_d(a, labels, w) == pytest.approx(s.cohens_d(twice[0], twice[2], ones))
    once, two = ([s.Ranks(x) for x in pair] for pair in ((a, b), twice[:2]))
    assert s.spearman(*once, w) == pytest.approx(s.spearman(*two, ones))


def test_p_values_take_a_group_of_identical_faces_for_one() -> None:
    rng = np.random.default_rng(4)
    labels, persons = np.repeat([0, 1], 50), np.arange(100).astype(str)
    values = rng.normal(size=100) + 0.4 * labels
    single = s.difference(values, labels, persons)
    thrice = [np.repeat(x, 3) for x in (values, labels, persons)]
    grouped = s.difference(*thrice)
    naive = s.difference(thrice[0], thrice[1], np.arange(300).astype(str))
    assert 0.01 < single["mann_whitney"]["p"] < 0.1
    assert grouped["mann_whitney"]["p"] == pytest.approx(single["mann_whitney"]["p"], rel=0.3)
    assert naive["mann_whitney"]["p"] < single["mann_whitney"]["p"] / 5
    assert grouped["kolmogorov_smirnov"]["p"] == pytest.approx(single["kolmogorov_smirnov"]["p"])
    assert naive["kolmogorov_smirnov"]["p"] < single["kolmogorov_smirnov"]["p"] / 5


def test_grouped_mann_whitney_by_hand() -> None:
    drawn = 0.6 + 0.05 * np.array([-1.0, 1] * 50)  # two spreads from a half
    assert s.grouped_mann_whitney_p(0.6, drawn, 11, 30) == pytest.approx(0.0734, abs=1e-4)  # t of 10 degrees
    assert s.grouped_mann_whitney_p(0.4, drawn - 0.2, 11, 30) == pytest.approx(0.0734, abs=1e-4)
    two_persons_each = _two([1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4])[:2]  # all resamples agree
    found = s.difference(*two_persons_each, np.repeat(np.arange(4), 3).astype(str))["mann_whitney"]
    assert found["p"] == pytest.approx(0.1213, abs=1e-4)  # z = 0.5 / sqrt(5 / 48) = 1.549


def test_beyond_a_line_nothing_is_left_of_it() -> None:
    by = np.array([0.0, 1, 2, 5])
    left = s.beyond_line(3 * by + 1 + np.array([0, 0, 0.5, 0]), by, 3 * by + 1, by)
    assert left == pytest.approx([0, 0, 0.5, 0])
    level = s.beyond_line(np.array([4.0]), np.array([9.0]), np.array([1.0, 2, 3]), np.ones(3))
    assert level == pytest.approx([2])  # no slope can be learnt: the mean alone is taken off
    assert np.isnan(s.beyond_line(by, by, by[:2], by[:2])).all()


def test_one_face_or_faces_all_alike_claim_no_certainty() -> None:
    assert s.mean(*_two([1.0], [])) == {"value": 1, "low": None, "high": None}
    json.dumps(s.difference(*_two([1.0], [2.0])), allow_nan=False)
    found = s.difference(*_two([1.0, 1], [2.0, 2]))
    for measure in (found["mann_whitney"]["auc"], found["kolmogorov_smirnov"]["d"]):
        assert measure["value"] == measure["high"] == 1
        assert measure["low"] == pytest.approx(math.sqrt(0.025))  # two groups without an exception


@pytest.mark.slow
def test_95_percent_intervals_hold_the_truth_by_group_only() -> None:
    """d = 0.5 and so AUC = Phi(0.5 / sqrt 2), D = 2 Phi(0.25) - 1; four faces a group share most of their value."""
    truth = {"d": 0.5, "auc": 0.638163, "ks": 0.197413}
    rng = np.random.default_rng(2)
    held = dict.fromkeys([*truth, "d, groups ignored"], 0)
    for _ in range(500):
        labels, group = np.repeat([0, 1], 120), np.repeat(np.arange(60), 4)
        values = math.sqrt(0.8) * rng.normal(size=60)[group] + math.sqrt(0.2) * rng.normal(size=240) + labels * 0.5
        found = s.difference(values, labels, group.astype(str))
        alone = s.standardised_difference(values, labels, np.arange(240).astype(str))
        measures = {"d": found["cohens_d"], "auc": found["mann_whitney"]["auc"], "ks": found["kolmogorov_smirnov"]["d"]}
        for name, measure in measures.items():
            held[name] += measure["low"] <= truth[name] <= measure["high"]
        held["d, groups ignored"] += alone["low"] <= 0.5 <= alone["high"]
    # 475 of 500 are expected, with a standard error of 5.
    assert all(460 <= held[name] <= 490 for name in truth), held
    assert held["d, groups ignored"] < 400, held
