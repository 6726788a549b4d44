"""How much detail a picture holds, and at which size: power by spatial frequency, and total variation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.intervals import Floats

SIZE = 64  # pictures are (N, 64, 64), grey, in [-1, 1], or a difference of two such
HALF_NYQUIST = SIZE / 4  # in cycles per picture: waves of four pixels
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue, as television has them (ITU-R BT.601)


def grey(images: npt.NDArray[np.float32]) -> Floats:  # (N, 3, 64, 64), in [-1, 1] -> (N, 64, 64)
    """Brightness, in the unit of the images."""
    brightness: Floats = np.einsum("nchw,c->nhw", images, LUMA)
    return brightness


def frequencies() -> Floats:
    """Of each column of `azimuthal_power`, in cycles per pixel: 0 to 45 / 64."""
    return np.arange(len(_rings())) / SIZE


def azimuthal_power(images: Floats) -> Floats:  # (N, 64, 64) -> (N, 46)
    """Mean power on each ring of the spectrum, by whole radius (Durall et al. 2020, arXiv:2003.01826).

    White noise of standard deviation s has power s^2 on every ring. A Hann window removes the jump between opposite
    edges, whose power would cover the high frequencies. Rings from 33 on lie in the spectrum's corners: the
    checkerboard of an upsampling by zeros is on the last.
    """
    return _power(images) @ _rings().T


def high_frequency(images: Floats) -> Floats:  # (N, 64, 64) -> (N,)
    """Root mean square of all detail above half the Nyquist frequency (finer than 4 pixels), under a Hann window.

    In the unit of the images: white noise of standard deviation s has 0.90 s.
    """
    return np.sqrt(_power(images) @ (_radius() > HALF_NYQUIST) / SIZE**2)


def total_variation(images: Floats) -> Floats:  # (N, 64, 64) -> (N,)
    """Mean absolute difference of neighbouring pixels, in the unit of the images: 0 for one plain grey."""
    down, across = (np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    variation: Floats = (down + across) / 2
    return variation


def _power(images: Floats) -> Floats:  # (N, 64, 64) -> (N, 4096)
    """Periodogram under the window, in the unit of the pictures' mean square under it."""
    if images.shape[1:] != (SIZE, SIZE):
        raise ValueError(f"spectra are of grey pictures (N, {SIZE}, {SIZE}), got {images.shape}")
    hann = np.sin(np.pi * (np.arange(SIZE) + 0.5) / SIZE) ** 2
    window = np.outer(hann, hann)
    spectrum = np.fft.fft2(images * (window / np.sqrt((window**2).sum())))
    power: Floats = (spectrum.real**2 + spectrum.imag**2).reshape(len(images), -1)
    return power


@lru_cache(maxsize=1)
def _radius() -> Floats:  # (4096,), in cycles per picture
    cycles = np.fft.fftfreq(SIZE, 1 / SIZE)
    radius: Floats = np.hypot(*np.meshgrid(cycles, cycles)).ravel()
    return radius


@lru_cache(maxsize=1)
def _rings() -> Floats:  # (46, 4096), for each ring the weights that average it
    ring = np.rint(_radius()).astype(np.int64)
    members = (ring == np.arange(ring.max() + 1)[:, None]).astype(np.float64)
    averages: Floats = members / members.sum(axis=1, keepdims=True)
    return averages
