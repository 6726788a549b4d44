"""The views by hand, and the residual of uint8 pictures."""

import math

import numpy as np
import pytest
import torch

from fakegan.data.augment import Augment
from fakegan.data.pixels import residual_pixels, to_unit
from fakegan.training.datamodules import RealFakeDataModule
from fakegan.views import VIEWS, npr, spectrum


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


@pytest.mark.parametrize("level", [-1.0, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("side", [64, 128])
def test_the_spectrum_of_a_plain_face_is_its_frequency_zero(level: float, side: int) -> None:
    seen = spectrum(torch.full((2, 3, side, side), level))
    assert (seen[:, :, side // 2, side // 2] == (1 if level else -1)).all()
    seen[:, :, side // 2, side // 2] = -1
    assert (seen + 1).abs().max() < 0.05  # ln(0.001) everywhere, but for rounding


def test_the_spectrum_of_a_wave_is_two_points_about_the_middle() -> None:
    """A cosine of 8 cycles down and 3 across a face of 64x32; the other channels are plain."""
    down, across = torch.meshgrid(torch.arange(64) / 64, torch.arange(32) / 32, indexing="ij")
    face = torch.zeros(1, 3, 64, 32)
    face[0, 1] = torch.cos(2 * math.pi * (8 * down + 3 * across))
    bright = (spectrum(face) > 0).nonzero().tolist()
    assert bright == [[0, 1, 32 - 8, 16 - 3], [0, 1, 32 + 8, 16 + 3]]


def test_the_spectrum_is_scaled_between_percentiles_of_each_channel_of_each_face() -> None:
    """Against the formula in float64, by another library; contrast, and other faces of the batch, do not matter."""
    face = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    log = np.log(np.abs(np.fft.fft2(face[1, 2].double().numpy())) / 16 + 1e-3)
    low, high = np.percentile(log, (5, 95))
    expected = np.fft.fftshift(np.clip(2 * (log - low) / (high - low) - 1, -1, 1))
    seen = spectrum(face)
    np.testing.assert_allclose(seen[1, 2].numpy(), expected, atol=1e-4)
    assert torch.equal(seen[1:], spectrum(face[1:]))
    assert (spectrum(face / 2) - seen).abs().mean() < 0.02  # but for the 0.001
    for end in (-1, 1):
        assert int((seen[0, 0] == end).sum()) in {13, 14}  # 5% of 256; opposite frequencies have one magnitude


def test_npr_of_a_block_is_its_difference_from_its_upper_left_pixel() -> None:
    face = torch.zeros(1, 3, 2, 4)
    face[0, 0] = torch.tensor([[0.1, 0.3, -1.0, 1.0], [0.0, -0.1, -1.0, -0.6]])
    seen = npr(face)
    expected = torch.tensor([[0.0, 0.3, 0.0, 1.0], [-0.15, -0.3, 0.0, 0.6]])  # 1.5 times; 3 is clamped
    assert torch.allclose(seen[0, 0], expected)
    assert not seen[0, 1:].any()


def test_npr_of_repeated_pixels_is_empty() -> None:
    """What it looks for: an enlargement by nearest neighbour, in step with the blocks."""
    small = torch.rand(2, 3, 32, 32) * 2 - 1
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert not npr(large).any()
    assert npr(large.roll(1, 3)).any()


@pytest.mark.parametrize("name", ["spectrum", "npr"])
def test_in_training_a_face_is_mirrored_before_its_view_is_made(name: str) -> None:
    """The view of a mirrored face is another than the mirrored view."""
    view, rng = VIEWS[name], np.random.default_rng(0)
    faces, labels = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8), np.arange(16) % 2
    rows, options = (
        np.arange(16),
        {"seed": 1, "augment": Augment(), "ratio": "natural", "workers": 0, "batch_key": "batch_size"},
    )
    module = RealFakeDataModule({"image": faces}, labels, view, rows, rows, 16, **options)  # type: ignore[arg-type]
    batch = next(iter(module.train_dataloader()))
    out = module.on_after_batch_transfer(batch, 0)
    for x, row, flip in zip(out["x"], batch["row"], batch["flip"], strict=True):
        face = to_unit(torch.from_numpy(faces[int(row)][None]))
        assert torch.equal(x, view({"image": face.flip(3) if flip else face})[0])
        assert not torch.equal(x, view({"image": face}).flip(3)[0])
    assert 0 < batch["flip"].sum() < 16


def test_the_residual_of_pictures_is_four_times_the_difference_in_levels_exactly() -> None:
    """For every pair of levels."""
    face = torch.arange(256, dtype=torch.uint8).view(1, 256, 1, 1).expand(1, 256, 256, 3)
    recon = face.transpose(1, 2)
    expected = (4 * (face.int() - recon.int()).abs()).clamp(max=255)
    assert torch.equal(residual_pixels(face, recon).int(), expected)
