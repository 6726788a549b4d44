import dataclasses
import math

import numpy as np
import pytest

from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.compare import Scored, bootstrap_p, compare, holm, mcnemar_midp, over_seeds, sign_flip_p, wins
from fakegan.evaluation.intervals import student_p, student_reach
from fakegan.evaluation.roc import auroc


def _faces(n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Labels of n real and n fake faces, each in its own group."""
    return np.repeat([0, 1], n), np.arange(2 * n).astype(np.str_)


def _at_half(name: str, scores: np.ndarray) -> Scored:  # (S, N)
    return Scored(name, scores, scores >= 0.5)


def _scored(name: str, labels: np.ndarray, shift: float, seeds: int = 1, noise_seed: int = 0) -> Scored:
    noise = np.random.default_rng(noise_seed).normal(size=(seeds, len(labels)))
    return _at_half(name, 1 / (1 + np.exp(-(noise + shift * (labels - 0.5)))))


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (0, 3, pytest.approx(2 / 8 - 1 / 8)),
        (4, 1, pytest.approx(2 * (1 + 5) / 32 - 5 / 32)),
        (5000, 5200, pytest.approx(0.0477, abs=5e-4)),  # normal: 200 / sqrt(10200) = 1.980
        (0, 20_000, pytest.approx(0, abs=1e-300)),
    ],
)
def test_mcnemar_midp_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar_midp(b, c) == mcnemar_midp(c, b) == p


def test_sign_flips_by_hand() -> None:
    assert sign_flip_p(np.array([0, 0])) == sign_flip_p(np.array([3, -1, -2])) == 1.0
    # Of 16 ways, +-2 +-1 +-1 +-2 is 6 or -6 in two, and 4 or -4 in four, which count half.
    assert sign_flip_p(np.array([2, 1, -1, 2])) == pytest.approx((2 + 4 / 2) / 16, abs=0.015)
    assert sign_flip_p(np.array([2, 1, -1, 2, 0, 0])) == sign_flip_p(np.array([-2, -1, 1, -2]))
    assert sign_flip_p(np.ones(20_000, dtype=np.int64)) == pytest.approx(0.5 / 10_001)  # the observed sum counts


@pytest.mark.parametrize(("b", "c"), [(1, 0), (3, 3), (4, 1), (7, 2), (64, 36)])
def test_sign_flips_of_single_faces_are_mcnemars_test(b: int, c: int) -> None:
    assert sign_flip_p(np.repeat([1, -1], [b, c])) == pytest.approx(mcnemar_midp(b, c), abs=0.015)  # error 0.005


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])  # the largest may not fall below the middle
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        (np.full(999, 0.1), 2 / 1000),
        (np.zeros(99), 1.0),
        (np.repeat([-0.1, 0.1], [10, 89]), 2 * 11 / 100),
        (np.append(np.linspace(4, 6, 1998), -0.1), 2 * 2 / 2000),  # one crosses: counted
        (5.0 + np.repeat([-1.0, 1.0], 1000), 5.733e-7),  # none crosses: the normal's tail at five spreads
    ],
)
def test_bootstrap_p_by_hand(differences: np.ndarray, p: float) -> None:
    assert bootstrap_p(differences) == bootstrap_p(-differences) == pytest.approx(p, rel=1e-3)


def test_over_seeds_by_hand() -> None:
    both = {"mean": pytest.approx(0.8), "spread": pytest.approx(0.02**0.5), "values": [0.7, 0.9]}
    assert over_seeds([0.7, 0.9]) == both
    assert over_seeds([0.7]) == {"mean": 0.7, "spread": None, "values": [0.7]}


def test_a_better_one_is_found_better() -> None:
    labels, groups = _faces()
    good, poor = _scored("good", labels, 2.5), _scored("poor", labels, 0.3, noise_seed=1)
    [c] = compare([good, poor], labels, groups, resamples=500)
    assert (c.a, c.b) == ("good", "poor")
    for difference in (c.auroc_difference, c.accuracy_difference):
        assert 0.1 < difference["low"] < difference["value"] < difference["high"] < 0.6
    assert c.p_auroc == c.p_auroc_holm < 1e-6
    assert c.p_mcnemar < 1e-4
    [other] = compare([poor, good], labels, groups, resamples=500)  # the same resamples, seen from the other side
    assert (c.outcome, other.outcome) == (1, -1)
    assert other.auroc_difference["low"] == pytest.approx(-c.auroc_difference["high"])
    assert other.p_mcnemar == c.p_mcnemar


def test_the_same_scores_do_not_differ() -> None:
    labels, groups = _faces()
    one = _scored("one", labels, 1.0)
    [c] = compare([one, dataclasses.replace(one, name="two")], labels, groups, resamples=100)
    exact = pytest.approx(1 - 0.025 ** (1 / 100))  # of the hundred groups of either class
    assert {**c.auroc_difference, "low": -c.auroc_difference["low"]} == {"value": 0, "low": exact, "high": exact}
    assert c.accuracy_difference["value"] == 0
    assert c.p_auroc == c.p_mcnemar == 1.0


@pytest.mark.parametrize(("n", "differ"), [(3, False), (100, True)])  # exceptions: 1 - 0.025^(1/n) is 0.71, or 0.04
def test_faces_decide_nothing_beyond_exact_bounds_where_resamples_agree(n: int, differ: bool) -> None:
    """A perfect one beside one that says the same of all faces: the difference is a half in every resample."""
    labels, groups = _faces(n)
    perfect, constant = _at_half("perfect", labels[None].astype(float)), _at_half("constant", np.full((1, 2 * n), 0.5))
    [c] = compare([perfect, constant], labels, groups, resamples=200)
    assert c.auroc_difference["value"] == 0.5
    assert (c.auroc_difference["low"] > 0) == differ
    assert c.p_auroc < 0.05 if differ else c.p_auroc == 1.0


def test_a_seed_that_failed_is_not_covered_up_by_faces_that_agree() -> None:
    labels, groups = _faces()
    perfect = np.repeat(labels[None].astype(float), 3, axis=0)
    failed = np.where(np.arange(3)[:, None] == 2, 0.5, perfect)
    [c] = compare([_at_half("a", perfect), _at_half("b", failed)], labels, groups, resamples=200)
    # AUROCs 1, 1 and a half: their mean has an error of 1 / 6, and Student's t two degrees.
    low, high = (pytest.approx(1 / 6 + side * 4.3027 / 6, abs=1e-4) for side in (-1, 1))
    assert c.auroc_difference == {"value": pytest.approx(1 / 6), "low": low, "high": high}
    assert c.p_auroc == 1.0


def test_seeds_add_their_variance_by_hand() -> None:
    labels, groups = _faces()
    base = _scored("base", labels, 1.0)
    area = auroc(base.scores[0], labels)
    constant = _at_half("steady", np.full((2, 200), 0.5))
    moved = np.concatenate([base.scores, base.scores, 1 - base.scores, 1 - base.scores])
    unsteady = _at_half("unsteady", moved)  # of each resample AUROC A, A, 1 - A, 1 - A: a half, too
    steady, c, _ = compare([base, constant, unsteady], labels, groups, resamples=400)
    low, high = steady.auroc_difference["low"], steady.auroc_difference["high"]
    assert (low + high) / 2 == pytest.approx(area - 0.5)
    of_faces = ((high - low) / 2 / 1.959964) ** 2  # seeds that agree leave the normal
    of_seeds = (4 * (area - 0.5) ** 2 / 3) / 4
    freedom = (of_faces + of_seeds) ** 2 / (of_seeds**2 / 3)
    assert 3 < freedom < 4
    reach = student_reach(freedom) * math.sqrt(of_faces + of_seeds)
    value = area - 0.5
    assert c.auroc_difference == pytest.approx({"value": value, "low": value - reach, "high": value + reach})
    assert c.p_auroc == pytest.approx(student_p((area - 0.5) / math.sqrt(of_faces + of_seeds), freedom))


def test_no_interval_of_several_seeds_contradicts_its_p_or_leaves_the_range() -> None:
    labels, groups = _faces(20)
    rng = np.random.default_rng(0)
    outcomes = []
    for trial in range(60):
        entries = []
        for name, seeds in (("a", 2), ("b", 1 + trial % 3)):
            shifts = rng.normal(2 if name == "a" else 0, 0.3, size=(seeds, 1))
            scores = 1 / (1 + np.exp(-(rng.normal(size=(seeds, 40)) + shifts * (labels - 0.5))))
            entries.append(_at_half(name, scores))
        [c] = compare(entries, labels, groups, resamples=50, seed=trial)
        low, high = c.auroc_difference["low"], c.auroc_difference["high"]
        assert -1 <= low <= c.auroc_difference["value"] <= high <= 1
        assert (c.p_auroc < 0.05) == (not low <= 0 <= high)
        outcomes.append(c.p_auroc < 0.05)
    assert 10 < sum(outcomes) < 50  # both kinds were seen


def test_groups_are_drawn_together() -> None:
    labels, groups = _faces()
    one, two = _scored("one", labels, 1.0), _scored("two", labels, 1.5, noise_seed=1)
    repeated = [Scored(s.name, np.repeat(s.scores, 4, axis=1), np.repeat(s.called_fake, 4, axis=1)) for s in (one, two)]
    four, persons = np.repeat(labels, 4), np.repeat(groups, 4)
    [single] = compare([one, two], labels, groups, resamples=300)
    [copies] = compare(repeated, four, persons, resamples=300)
    assert copies.auroc_difference == pytest.approx(single.auroc_difference)  # four copies of a face say no more
    assert copies.accuracy_difference == pytest.approx(single.accuracy_difference)
    assert copies.p_mcnemar == pytest.approx(single.p_mcnemar, abs=0.015)  # flips beside the exact one
    [naive] = compare(repeated, four, np.arange(800).astype(np.str_), resamples=300)
    assert naive.p_mcnemar < single.p_mcnemar / 2


def test_holm_counts_all_pairs_and_wins_are_those_left() -> None:
    labels, groups = _faces()
    names = ["best", "good", "poor"]
    shifts = zip(names, (2.6, 2.4, 0.2), strict=True)
    entries = [_scored(name, labels, shift, noise_seed=i) for i, (name, shift) in enumerate(shifts)]
    comparisons = compare(entries, labels, groups, resamples=500)
    assert [(c.a, c.b) for c in comparisons] == [("best", "good"), ("best", "poor"), ("good", "poor")]
    assert comparisons[1].p_auroc_holm == pytest.approx(3 * comparisons[1].p_auroc)
    assert [c.p_auroc_holm for c in comparisons] == holm([c.p_auroc for c in comparisons])
    assert [c.p_mcnemar_holm for c in comparisons] == holm([c.p_mcnemar for c in comparisons])
    assert wins(comparisons, names).tolist() == [[0, 0, 1], [0, 0, 1], [-1, -1, 0]]
    assert wins([dataclasses.replace(c, p_auroc_holm=0.05) for c in comparisons], names).tolist() == [[0] * 3] * 3


def test_comparisons_are_repeatable() -> None:
    labels, groups = _faces(30)
    entries = [_scored("a", labels, 1.0, seeds=3), _scored("b", labels, 1.2, seeds=2, noise_seed=1)]
    assert compare(entries, labels, groups, 50) == compare(entries, labels, groups, 50)
    first, other = compare(entries, labels, groups, 50)[0], compare(entries, labels, groups, 50, seed=1)[0]
    assert first.auroc_difference != other.auroc_difference
    assert first.p_mcnemar != other.p_mcnemar


def test_what_cannot_be_compared_is_refused() -> None:
    labels, groups = _faces(10)
    one = _scored("one", labels, 1.0)
    with pytest.raises(UsageError, match="'one'"):
        compare([one, one], labels, groups)
    with pytest.raises(UsageError, match="the same 20 faces"):
        compare([one, _scored("two", labels[5:], 1.0)], labels, groups)
    with pytest.raises(FakeganError, match="no fake"):
        compare([one], np.zeros(20, dtype=int), groups)


@pytest.mark.slow
@pytest.mark.parametrize("of_group", [1, 3])
def test_equal_models_differ_at_5_percent_about_5_times_in_100(of_group: int) -> None:
    """Correlated scores of 150 real and 150 fake faces by two models that are equally good."""
    rng, labels, groups = np.random.default_rng(0), np.repeat([0, 1], 150), np.arange(300) // of_group
    p_values = []
    for _ in range(1000):
        shared = rng.normal(size=300)  # what both models see in a face
        own = rng.normal(size=(2, groups.max() + 1))[:, groups]  # what each sees in a person
        scores = 1 / (1 + np.exp(-(0.7 * shared + 0.7 * own + labels - 0.5)))
        entries = [_at_half(str(i), s[None]) for i, s in enumerate(scores)]
        [c] = compare(entries, labels, groups, resamples=400, seed=int(rng.integers(2**32)))
        p_values.append((c.p_auroc, c.p_mcnemar))
    rates = (np.array(p_values) < 0.05).mean(axis=0)
    assert ((rates >= 0.03) & (rates <= 0.07)).all(), rates


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.09, 0.27])  # of the AUROC: 0.02 and 0.06
def test_equal_configurations_of_three_seeds_differ_at_5_percent_about_5_times_in_100(spread: float) -> None:
    """60 real and 60 fake faces; a seed's separation of the classes has a mean of 1 and this standard deviation."""
    rng, (labels, groups) = np.random.default_rng(0), _faces(60)
    found = 0
    for _ in range(1000):
        shared = rng.normal(size=120) + 0.7 * rng.normal(size=(2, 120))  # faces as each configuration sees them
        shifts = 1 + spread * rng.normal(size=(2, 3, 1))
        scores = shared[:, None] + 0.2 * rng.normal(size=(2, 3, 120)) + shifts * 1.25 * (labels - 0.5)
        entries = [Scored(str(i), s, s >= 0) for i, s in enumerate(scores)]
        [c] = compare(entries, labels, groups, resamples=100, seed=int(rng.integers(2**32)))
        found += int(c.p_auroc < 0.05)
    assert 0.015 <= found / 1000 <= 0.07
