"""Power where a known wave has it, and nowhere else."""

import numpy as np
import pytest
import torch

from fakegan.evaluation.spectrum import azimuthal_power, frequencies, grey, total_variation
from fakegan.nets.likeness import Detail

Y, X = np.indices((64, 64))


def _wave(down: int, across: int) -> np.ndarray:
    return np.cos(2 * np.pi * (down * Y + across * X) / 64)[None]


def high_frequency(images: np.ndarray) -> np.ndarray:
    detail = Detail(images.shape[1], torch.device("cpu"))
    return detail.power(torch.from_numpy(images))[1].numpy()


@pytest.mark.parametrize(("down", "across", "radius"), [(0, 8, 8), (20, 0, 20), (12, 16, 20), (32, 32, 45)])
def test_a_wave_has_its_power_on_its_own_ring(down: int, across: int, radius: int) -> None:
    power = azimuthal_power(_wave(down, across))[0]
    assert power.argmax() == radius
    far = np.abs(np.arange(46) - radius) > 2  # the Hann window spreads a wave to its next frequencies
    assert power[far].max() < 1e-9 * power[radius]


def test_rings_are_counted_in_waves_a_picture() -> None:
    assert frequencies(64)[[16, 32]].tolist() == [0.25, 0.5]  # the last is Nyquist's
    with pytest.raises(ValueError, match="32, 64"):
        azimuthal_power(np.zeros((1, 32, 64)))


@pytest.mark.parametrize("size", [128, 256])
def test_waves_of_the_same_pixels_have_the_same_frequency_at_every_size(size: int) -> None:
    waves = np.cos(2 * np.pi * np.arange(size) / 8) + np.zeros((1, size, size))  # of 8 pixels
    power = azimuthal_power(waves)[0]
    assert len(power) == len(frequencies(size)) == round(size / 2 * 2**0.5) + 1
    assert frequencies(size)[power.argmax()] == 1 / 8
    assert high_frequency(waves)[0] < 1e-9
    assert high_frequency(np.cos(2 * np.pi * np.arange(size) / 2) + np.zeros((1, size, size)))[0] > 0.5


def test_white_noise_is_flat_at_its_variance() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (600, 64, 64))
    power = azimuthal_power(noise).mean(axis=0)
    assert power == pytest.approx(np.full(46, 0.09), rel=0.15)
    assert power[5:] == pytest.approx(np.full(41, 0.09), rel=0.05)
    share = 1 - 797 / 4096  # 797 whole points lie within a circle of radius 16
    assert high_frequency(noise).mean() == pytest.approx(0.3 * np.sqrt(share), rel=0.01)


def test_high_frequencies_are_those_finer_than_four_pixels() -> None:
    assert high_frequency(_wave(0, 8))[0] < 1e-6
    assert high_frequency(_wave(24, 0))[0] == pytest.approx(np.sqrt(0.5), rel=1e-6)  # a cosine's root mean square
    assert high_frequency(0.1 * _wave(32, 32))[0] == pytest.approx(0.1, rel=1e-6)  # a checkerboard of plus and minus


def test_the_jump_between_opposite_edges_is_no_high_frequency() -> None:
    ramp = np.broadcast_to(X / 32 - 1, (1, 64, 64))
    without_window = np.abs(np.fft.fft2(ramp)) ** 2 / 64**2
    assert azimuthal_power(ramp)[0, 30] < 1e-4 * without_window[0, 0, 30]


def test_total_variation_by_hand() -> None:
    assert total_variation(np.full((1, 64, 64), 0.4))[0] == 0
    assert total_variation((X % 2)[None].astype(float))[0] == 0.5  # 1 across, 0 down
    assert total_variation(np.stack([0.01 * X + 0.03 * Y]))[0] == pytest.approx(0.02)


def test_grey_weighs_the_colours() -> None:
    image = np.zeros((2, 3, 64, 64), dtype=np.float32)
    image[0, 1] = 1
    image[1] = -1
    assert grey(image)[:, 0, 0].tolist() == pytest.approx([0.587, -1])
