import torch

from fakegan.views import VIEWS


def _flat(value: float) -> torch.Tensor:
    return torch.full((1, 3, 64, 64), value)


def test_the_residual_is_four_times_the_difference_from_minus_one_up() -> None:
    arrays = {"image": _flat(0.5), "recon": _flat(0.25)}
    assert VIEWS["residual"](arrays).unique().tolist() == [0.0]  # 4 * 0.25 - 1
    assert VIEWS["residual"]({"image": _flat(0.5), "recon": _flat(0.5)}).unique().tolist() == [-1.0]
    assert VIEWS["residual"]({"image": _flat(-1.0), "recon": _flat(1.0)}).unique().tolist() == [1.0]
    swapped = {"image": arrays["recon"], "recon": arrays["image"]}
    assert torch.equal(VIEWS["residual"](swapped), VIEWS["residual"](arrays))


def test_the_stack_is_face_reconstruction_and_residual() -> None:
    stacked = VIEWS["stack"]({"image": _flat(0.5), "recon": _flat(0.25)})
    assert stacked.shape == (1, 9, 64, 64)
    assert stacked[0, :, 0, 0].tolist() == [0.5] * 3 + [0.25] * 3 + [0.0] * 3


def test_the_difference_keeps_its_sign() -> None:
    assert VIEWS["difference"]({"image": _flat(1.0), "recon": _flat(-1.0)}).unique().tolist() == [-2.0]


def test_every_view_says_its_channels_and_stays_in_range_unless_it_is_a_score() -> None:
    arrays = {"image": torch.rand(2, 3, 64, 64) * 2 - 1, "recon": torch.rand(2, 3, 64, 64) * 2 - 1}
    for name, view in VIEWS.items():
        shown = view(arrays)
        assert shown.shape == (2, view.channels, 64, 64), name
        assert not view.trains or shown.abs().max() <= 1, name
