"""How much detail a picture holds, and at which size: power by spatial frequency, and total variation.

Pictures are (N, S, S), grey, in [-1, 1], or a difference of two such; their spectra have K frequencies, 46 at S = 64.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.intervals import Floats

HALF_NYQUIST = 1 / 4  # in cycles per pixel: waves of four pixels
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue, as television has them (ITU-R BT.601)


def grey(images: npt.NDArray[np.float32]) -> Floats:  # (N, 3, S, S), in [-1, 1] -> (N, S, S)
    """Brightness, in the unit of the images."""
    brightness: Floats = np.einsum("nchw,c->nhw", images, LUMA)
    return brightness


def frequencies(size: int) -> Floats:
    """Of each column of `azimuthal_power`, in cycles per pixel: 0 to sqrt(1 / 2)."""
    return np.arange(len(_rings(size))) / size


def azimuthal_power(images: Floats) -> Floats:  # (N, S, S) -> (N, K)
    """Mean power on each ring of the spectrum, by whole radius (Durall et al. 2020, arXiv:2003.01826).

    White noise of standard deviation s has power s^2 on every ring. A Hann window removes the jump between opposite
    edges, whose power would cover the high frequencies. Rings beyond S / 2 lie in the spectrum's corners: the
    checkerboard of an upsampling by zeros is on the last.
    """
    return _power(images) @ _rings(images.shape[1]).T


def high_frequency(images: Floats) -> Floats:  # (N, S, S) -> (N,)
    """Root mean square of all detail above half the Nyquist frequency (finer than 4 pixels), under a Hann window.

    In the unit of the images: white noise of standard deviation s has 0.90 s.
    """
    size = images.shape[1]
    fine: Floats = _power(images) @ (_radius(size) > HALF_NYQUIST * size) / size**2
    return np.sqrt(fine)


def total_variation(images: Floats) -> Floats:  # (N, S, S) -> (N,)
    """Mean absolute difference of neighbouring pixels, in the unit of the images: 0 for one plain grey."""
    down, across = (np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    variation: Floats = (down + across) / 2
    return variation


def _power(images: Floats) -> Floats:  # (N, S, S) -> (N, S * S)
    """Periodogram under the window, in the unit of the pictures' mean square under it."""
    size = images.shape[1]
    if images.ndim != 3 or images.shape[2] != size:
        raise ValueError(f"spectra are of grey pictures (N, S, S), got {images.shape}")
    hann = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    window = np.outer(hann, hann)
    spectrum = np.fft.fft2(images * (window / np.sqrt((window**2).sum())))
    power: Floats = (spectrum.real**2 + spectrum.imag**2).reshape(len(images), -1)
    return power


@lru_cache(maxsize=1)
def _radius(size: int) -> Floats:  # (S * S,), in cycles per picture
    cycles = np.fft.fftfreq(size, 1 / size)
    radius: Floats = np.hypot(*np.meshgrid(cycles, cycles)).ravel()
    return radius


@lru_cache(maxsize=1)
def _rings(size: int) -> Floats:  # (K, S * S), for each ring the weights that average it
    ring = np.rint(_radius(size)).astype(np.int64)
    averages: Floats = (ring == np.arange(ring.max() + 1)[:, None]).astype(np.float64)
    averages /= averages.sum(axis=1, keepdims=True)  # in place: 95 MB where S is 256
    return averages
