import numpy as np
import pytest
import torch

from fakegan.data.pixels import to_uint8, to_unit

LEVELS = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)


def test_the_ends_and_the_middle_by_hand() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert to_unit(pixels).flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])
    unit = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert to_uint8(unit).flatten().tolist() == [0, 128, 255]  # 127.5 rounds to the even 128


def test_every_level_is_one_division_and_one_subtraction_and_survives_the_round_trip() -> None:
    """Resumed and repeated runs rely on every bit, whichever way it is computed."""
    expected = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    assert np.array_equal(to_unit(LEVELS).permute(0, 2, 3, 1).flatten().numpy(), np.tile(expected, 3))
    assert torch.equal(to_uint8(to_unit(LEVELS)), LEVELS)


def test_channels_move_and_pictures_do_not() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8))
    unit = to_unit(pixels)
    assert unit.shape == (2, 3, 5, 7)
    assert unit[1, 2, 3, 4].item() == pytest.approx(pixels[1, 3, 4, 2].item() / 127.5 - 1)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="planes where there is no oneDNN")
def test_on_a_cpu_the_numbers_stay_channels_last_and_elsewhere_come_planes() -> None:
    pixels = torch.zeros(2, 5, 7, 3, dtype=torch.uint8)
    in_planes = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for stored in (pixels, in_planes):
        assert to_unit(stored).is_contiguous(memory_format=torch.channels_last)
    assert to_unit(pixels.to("meta")).is_contiguous()


@pytest.mark.parametrize(
    ("convert", "bad", "error"),
    [
        (to_unit, torch.zeros(1, 4, 4, 3), TypeError),
        (to_unit, torch.zeros(1, 3, 4, 4, dtype=torch.uint8), ValueError),
        (to_unit, torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError),
        (to_uint8, torch.zeros(1, 3, 4, 4, dtype=torch.uint8), TypeError),
        (to_uint8, torch.zeros(1, 4, 4, 3), ValueError),
        (to_uint8, torch.full((1, 3, 4, 4), 2.0), ValueError),
        (to_uint8, torch.full((1, 3, 4, 4), 255.0), ValueError),
        (to_uint8, torch.full((1, 3, 4, 4), float("nan")), ValueError),
    ],
)
def test_what_would_be_scaled_twice_or_cut_off_is_refused(convert, bad: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        convert(bad)
