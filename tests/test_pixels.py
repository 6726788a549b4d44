import numpy as np
import pytest
import torch

from fakegan.data.pixels import to_uint8, to_unit


def test_the_ends_and_the_middle_by_hand() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert to_unit(pixels).flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])
    unit = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert to_uint8(unit).flatten().tolist() == [0, 128, 255]  # 127.5 rounds to the even 128


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16).permute(1, 2, 0)[None]
    assert torch.equal(to_uint8(to_unit(levels)), levels)


def test_channels_move_and_pictures_do_not() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8))
    unit = to_unit(pixels)
    assert unit.shape == (2, 3, 5, 7)
    assert unit[1, 2, 3, 4].item() == pytest.approx(pixels[1, 3, 4, 2].item() / 127.5 - 1)


def test_to_unit_rounds_as_one_division_and_one_subtraction_do() -> None:
    """Resumed and repeated runs rely on every bit, whichever way it is computed."""
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    expected = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    found = to_unit(levels).permute(0, 2, 3, 1).flatten().numpy()
    assert np.array_equal(found, np.tile(expected, 3))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="planes where there is no oneDNN")
def test_on_a_cpu_the_numbers_stay_where_they_are() -> None:
    pixels = torch.zeros(2, 5, 7, 3, dtype=torch.uint8)
    assert to_unit(pixels).is_contiguous(memory_format=torch.channels_last)
    in_planes = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert to_unit(in_planes).is_contiguous(memory_format=torch.channels_last)


def test_elsewhere_come_planes() -> None:
    pixels = torch.zeros(2, 5, 7, 3, dtype=torch.uint8, device="meta")
    assert to_unit(pixels).is_contiguous()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.zeros(1, 4, 4, 3), TypeError),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), ValueError),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError),
    ],
)
def test_to_unit_refuses(bad: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        to_unit(bad)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), TypeError),
        (torch.zeros(1, 4, 4, 3), ValueError),
        (torch.full((1, 3, 4, 4), 2.0), ValueError),
        (torch.full((1, 3, 4, 4), 255.0), ValueError),
        (torch.full((1, 3, 4, 4), float("nan")), ValueError),
    ],
)
def test_to_uint8_refuses(bad: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        to_uint8(bad)
