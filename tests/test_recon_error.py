import math

import pytest
import torch

from fakegan.nets.recon_error import ERROR_NORMS, ReconError


def _difference() -> torch.Tensor:
    """One face: half of its values differ by 0.4, in whole rows of planes; the others by nothing."""
    difference = torch.zeros(1, 3, 64, 64)
    difference[:, :, :32] = 0.4
    return difference


def test_norms_by_hand() -> None:
    difference = _difference()
    assert ERROR_NORMS["l1"](difference).item() == pytest.approx(0.2)
    assert ERROR_NORMS["l2"](difference).item() == pytest.approx(math.sqrt(0.16 / 2))
    assert ERROR_NORMS["linf"](-difference).item() == pytest.approx(0.4)
    edge = 2 * (0.4 / 3) ** 2 / 64  # a 3x3 mean takes a third of 0.4 away on both sides of the edge, in 2 of 64 rows
    assert ERROR_NORMS["local_detail"](difference).item() == pytest.approx(math.sqrt(edge))
    assert ERROR_NORMS["local_detail"](torch.full((1, 3, 64, 64), 0.7)).item() == pytest.approx(0, abs=1e-6)


def test_the_log_odds_are_standard_deviations_above_real_faces() -> None:
    net = ReconError(norm="l1")
    net.learn(torch.tensor([math.log(0.1), math.log(0.2)]))  # mean log sqrt(0.02), spread log(2) / 2
    flat = torch.full((1, 3, 64, 64), 0.2)
    logits = net(flat)
    assert (logits[0, 1] - logits[0, 0]).item() == pytest.approx(1.0, abs=1e-4)
    larger, smaller = net(flat * 2), net(flat / 2)
    assert larger[0, 1] > logits[0, 1] > smaller[0, 1]


def test_a_perfect_copy_and_equal_errors_stay_finite() -> None:
    net = ReconError()
    net.learn(torch.full((5,), -2.0))
    assert net(torch.zeros(2, 3, 64, 64)).isfinite().all()


def test_an_unknown_norm_is_an_error() -> None:
    with pytest.raises(ValueError, match="l1, l2, linf, local_detail"):
        ReconError(norm="l3")


def test_the_midpoint_lies_between_the_classes_and_moves_every_score_alike() -> None:
    net = ReconError()
    net.learn(torch.tensor([-1.0, 1.0]))  # mean 0, spread 1
    net.place_between(torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([1.0, 2.0, 3.0]))
    flat = torch.full((1, 3, 64, 64), math.e)  # a log error of 1: half way between the medians 0 and 2
    assert (net(flat)[0, 1] - net(flat)[0, 0]).item() == pytest.approx(0.0, abs=1e-5)
