import dataclasses
import json

import numpy as np
import pytest

from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.compare import (
    Comparison,
    Scored,
    bootstrap_p,
    compare,
    holm,
    mcnemar_clustered,
    mcnemar_midp,
    over_seeds,
    wins,
)


def _faces(n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Labels of n real and n fake faces, each in its own group."""
    return np.repeat([0, 1], n), np.arange(2 * n).astype(np.str_)


def _scored(name: str, labels: np.ndarray, shift: float, seeds: int = 1, noise_seed: int = 0) -> Scored:
    noise = np.random.default_rng(noise_seed).normal(size=(seeds, len(labels)))
    scores = 1 / (1 + np.exp(-(noise + shift * (labels - 0.5))))
    return Scored(name, scores, scores >= 0.5)


def test_mcnemar_midp_by_hand() -> None:
    assert mcnemar_midp(0, 0) == 1.0
    assert mcnemar_midp(1, 1) == 1.0
    assert mcnemar_midp(0, 3) == pytest.approx(2 / 8 - 1 / 8)
    assert mcnemar_midp(4, 1) == pytest.approx(2 * (1 + 5) / 32 - 5 / 32)
    assert mcnemar_midp(1, 4) == mcnemar_midp(4, 1)
    assert mcnemar_midp(5000, 5200) == pytest.approx(0.0477, abs=5e-4)  # normal: 200 / sqrt(10200) = 1.980
    assert 0 <= mcnemar_midp(0, 20_000) < 1e-300


def test_mcnemar_clustered_by_hand() -> None:
    assert mcnemar_clustered(np.array([0.0, 0.0])) == 1.0
    assert mcnemar_clustered(np.array([1.0, -1.0])) == 1.0
    assert mcnemar_clustered(np.array([2.0, 1.0, -1.0, 2.0])) == pytest.approx(0.2059, abs=1e-4)  # chi2 = 16 / 10
    assert mcnemar_clustered(np.repeat([1.0, -1.0], [64, 36])) == pytest.approx(0.00511, abs=1e-5)  # 28^2 / 100 = 7.84


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])  # the largest may not fall below the middle
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_bootstrap_p_by_hand() -> None:
    assert bootstrap_p(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.zeros(99)) == 1.0
    shared = np.concatenate([np.full(10, -0.1), np.full(89, 0.1)])
    assert bootstrap_p(shared) == pytest.approx(2 * 11 / 100)


def test_where_no_resample_crosses_zero_the_normal_tail_says_how_far() -> None:
    """A difference of five spreads has p = 5.7e-7, whatever the number of resamples."""
    resamples = 5.0 + np.repeat([-1.0, 1.0], 1000)
    assert bootstrap_p(resamples) == pytest.approx(5.733e-7, rel=1e-3)
    assert bootstrap_p(-resamples) == bootstrap_p(resamples)


def test_over_seeds_by_hand() -> None:
    assert over_seeds([0.7, 0.9]) == {
        "mean": pytest.approx(0.8),
        "spread": pytest.approx(0.02**0.5),
        "values": [0.7, 0.9],
    }
    assert over_seeds([0.7]) == {"mean": 0.7, "spread": None, "values": [0.7]}


def test_a_better_one_is_found_better() -> None:
    labels, groups = _faces()
    good, poor = _scored("good", labels, 2.5), _scored("poor", labels, 0.3, noise_seed=1)
    [c] = compare([good, poor], labels, groups, resamples=500)
    assert (c.a, c.b) == ("good", "poor")
    assert 0.1 < c.auroc_difference["low"] < c.auroc_difference["value"] < c.auroc_difference["high"] < 0.6
    assert 0.1 < c.accuracy_difference["low"] < c.accuracy_difference["value"] < c.accuracy_difference["high"] < 0.6
    assert c.p_auroc == c.p_auroc_holm < 1e-6
    assert c.p_mcnemar < 1e-4
    [other] = compare([poor, good], labels, groups, resamples=500)  # the same resamples, seen from the other side
    assert other.auroc_difference["low"] == pytest.approx(-c.auroc_difference["high"])
    assert other.p_mcnemar == c.p_mcnemar


def test_the_same_scores_do_not_differ() -> None:
    labels, groups = _faces()
    one = _scored("one", labels, 1.0)
    [c] = compare([one, dataclasses.replace(one, name="two")], labels, groups, resamples=100)
    assert c.auroc_difference["value"] == c.accuracy_difference["value"] == 0
    assert c.p_auroc == c.p_mcnemar == 1.0
    exact = 1 - 0.025 ** (1 / 100)  # of the hundred groups of either class
    assert c.auroc_difference["low"] == pytest.approx(-exact)
    assert c.auroc_difference["high"] == pytest.approx(exact)


def test_the_same_faces_for_both_make_the_interval_narrow() -> None:
    labels, groups = _faces()
    one = _scored("one", labels, 1.0)
    scores = np.clip(one.scores + 0.01 * np.random.default_rng(5).normal(size=one.scores.shape), 0, 1)
    [paired] = compare([one, Scored("close", scores, scores >= 0.5)], labels, groups, resamples=200)
    [apart] = compare([one, _scored("other", labels, 1.0, noise_seed=1)], labels, groups, resamples=200)

    def width(c: Comparison) -> float:
        return c.auroc_difference["high"] - c.auroc_difference["low"]

    assert width(paired) < width(apart) / 5


def test_seeds_that_differ_make_the_interval_wide() -> None:
    labels, groups = _faces()
    base = _scored("base", labels, 1.0)
    steady = Scored("steady", np.repeat(base.scores, 2, axis=0), np.repeat(base.called_fake, 2, axis=0))
    moved = np.concatenate([base.scores, 1 - base.scores])  # one seed of AUROC A, one of 1 - A
    unsteady = Scored("unsteady", moved, moved >= 0.5)
    [same] = compare([base, steady], labels, groups, resamples=400)
    assert same.auroc_difference["value"] == pytest.approx(0)
    [c] = compare([base, unsteady], labels, groups, resamples=400)
    area = 0.5 + c.auroc_difference["value"]  # of the base: the unsteady one's mean is a half
    assert area > 0.65
    assert c.auroc_difference["low"] == pytest.approx(0, abs=1e-9)  # both draws may be the good seed
    assert c.auroc_difference["high"] > 2 * area - 1


def test_mean_over_seeds_varies_as_much_as_it_should() -> None:
    labels, groups = _faces(200)
    rng = np.random.default_rng(0)
    shifts = np.array([0.2, 0.9, 1.6, 2.3])
    scores = 1 / (
        1 + np.exp(-(rng.normal(size=(4, 400)) * 0.01 + 0.5 * rng.normal(size=400) + shifts[:, None] * labels))
    )
    # A perfect one beside it does not vary, so the difference varies as the mean over the four seeds does.
    perfect = Scored("perfect", labels[None].astype(float), labels[None] == 1)
    [c] = compare([perfect, Scored("seeds", scores, scores >= 0.5)], labels, groups, resamples=4000)
    from fakegan.evaluation.metrics import auroc

    of_seeds = np.std([auroc(s, labels) for s in scores], ddof=1) / np.sqrt(4)
    width = (c.auroc_difference["high"] - c.auroc_difference["low"]) / (2 * 1.96)
    assert width == pytest.approx(of_seeds, rel=0.15)  # with four draws of the four seeds: 0.87 of it


def test_groups_are_drawn_together() -> None:
    labels, groups = _faces()
    one, two = _scored("one", labels, 1.0), _scored("two", labels, 1.5, noise_seed=1)
    repeated = [Scored(s.name, np.repeat(s.scores, 4, axis=1), np.repeat(s.called_fake, 4, axis=1)) for s in (one, two)]
    four, persons = np.repeat(labels, 4), np.repeat(groups, 4)
    [single] = compare([one, two], labels, groups, resamples=300)
    [copies] = compare(repeated, four, persons, resamples=300)
    assert copies.auroc_difference == pytest.approx(single.auroc_difference)  # four copies of a face say no more
    assert copies.accuracy_difference == pytest.approx(single.accuracy_difference)
    assert copies.p_mcnemar == pytest.approx(single.p_mcnemar, abs=0.03)  # the clustered form beside the exact one
    [naive] = compare(repeated, four, np.arange(800).astype(np.str_), resamples=300)
    assert naive.p_mcnemar < single.p_mcnemar / 2


def test_holm_counts_all_pairs_and_wins_are_those_left() -> None:
    labels, groups = _faces()
    names = ["best", "good", "poor"]
    entries = [
        _scored(name, labels, shift, noise_seed=i)
        for i, (name, shift) in enumerate(zip(names, (2.6, 2.4, 0.2), strict=True))
    ]
    comparisons = compare(entries, labels, groups, resamples=500)
    assert [(c.a, c.b) for c in comparisons] == [("best", "good"), ("best", "poor"), ("good", "poor")]
    assert comparisons[1].p_auroc_holm == pytest.approx(3 * comparisons[1].p_auroc)
    assert [c.p_auroc_holm for c in comparisons] == holm([c.p_auroc for c in comparisons])
    assert [c.p_mcnemar_holm for c in comparisons] == holm([c.p_mcnemar for c in comparisons])
    assert wins(comparisons, names).tolist() == [[0, 0, 1], [0, 0, 1], [-1, -1, 0]]
    assert wins(comparisons, names[::-1]).tolist() == [[0, -1, -1], [1, 0, 0], [1, 0, 0]]
    assert wins(comparisons, names, alpha=1e-40).tolist() == [[0] * 3] * 3
    json.dumps([dataclasses.asdict(c) for c in comparisons])


def test_comparisons_are_repeatable() -> None:
    labels, groups = _faces(30)
    entries = [_scored("a", labels, 1.0, seeds=3), _scored("b", labels, 1.2, seeds=2, noise_seed=1)]
    assert compare(entries, labels, groups, 50) == compare(entries, labels, groups, 50)
    assert compare(entries, labels, groups, 50) != compare(entries, labels, groups, 50, seed=1)


def test_what_cannot_be_compared_is_refused() -> None:
    labels, groups = _faces(10)
    one = _scored("one", labels, 1.0)
    with pytest.raises(UsageError, match="'one'"):
        compare([one, one], labels, groups)
    with pytest.raises(UsageError, match="the same 20 faces"):
        compare([one, _scored("two", labels[5:], 1.0)], labels, groups)
    with pytest.raises(FakeganError, match="no fake"):
        compare([one], np.zeros(20, dtype=int), groups)


def _false_positives(trials: int, rng: np.random.Generator, of_group: int) -> dict[str, float]:
    """How often two models that are equally good differ at 5%: correlated scores of 150 real and 150 fake faces."""
    labels = np.repeat([0, 1], 150)
    groups = np.arange(300) // of_group
    found = {"auroc": 0, "mcnemar": 0}
    for _ in range(trials):
        shared = rng.normal(size=300)  # what both models see in a face
        own = rng.normal(size=(2, groups.max() + 1))[:, groups]  # what each sees in a person
        scores = 1 / (1 + np.exp(-(0.7 * shared + 0.7 * own + labels - 0.5)))
        entries = [Scored(str(i), s[None], s[None] >= 0.5) for i, s in enumerate(scores)]
        [c] = compare(entries, labels, groups, resamples=400, seed=int(rng.integers(2**32)))
        found["auroc"] += int(c.p_auroc < 0.05)
        found["mcnemar"] += int(c.p_mcnemar < 0.05)
    return {name: count / trials for name, count in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("of_group", [1, 3])
def test_equal_models_differ_at_5_percent_about_5_times_in_100(of_group: int) -> None:
    rates = _false_positives(1000, np.random.default_rng(0), of_group)
    assert 0.03 <= rates["auroc"] <= 0.07
    assert 0.03 <= rates["mcnemar"] <= 0.07
