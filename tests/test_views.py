"""The views by hand, and the residual of uint8 pictures."""

import pytest
import torch

from fakegan.data.pixels import residual_pixels
from fakegan.views import VIEWS


def flat(image: float, recon: float) -> dict[str, torch.Tensor]:
    return {"image": torch.full((1, 3, 64, 64), image), "recon": torch.full((1, 3, 64, 64), recon)}


@pytest.mark.parametrize(
    ("view", "image", "recon", "value"),
    [
        ("residual", 0.5, 0.25, 0.0),  # 4 * 0.25 - 1
        ("residual", 0.25, 0.5, 0.0),
        ("residual", 0.5, 0.5, -1.0),
        ("residual", -1.0, 1.0, 1.0),
        ("difference", 1.0, -1.0, -2.0),
        ("pixels", 0.5, 0.25, 0.5),
        ("reconstruction", 0.5, 0.25, 0.25),
    ],
)
def test_values_by_hand(view: str, image: float, recon: float, value: float) -> None:
    assert VIEWS[view](flat(image, recon)).unique().tolist() == [value]


def test_the_stack_is_face_reconstruction_and_residual() -> None:
    stacked = VIEWS["stack"](flat(0.5, 0.25))
    assert stacked[0, :, 0, 0].tolist() == [0.5] * 3 + [0.25] * 3 + [0.0] * 3


def test_every_view_says_its_channels_and_stays_in_range_unless_it_is_a_score() -> None:
    arrays = {"image": torch.rand(2, 3, 64, 64) * 2 - 1, "recon": torch.rand(2, 3, 64, 64) * 2 - 1}
    for name, view in VIEWS.items():
        shown = view(arrays)
        assert shown.shape == (2, view.channels, 64, 64), name
        assert not view.trains or shown.abs().max() <= 1, name


def test_the_residual_of_pictures_is_four_times_the_difference_in_levels_exactly() -> None:
    """For every pair of levels."""
    face = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(1, 256, 256, 3)
    recon = face.transpose(1, 2)
    expected = (4 * (face.int() - recon.int()).abs()).clamp(max=255)
    assert torch.equal(residual_pixels(face, recon).int(), expected)
