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
    return np.arange(len(rings(size))) / size


def azimuthal_power(images: Floats) -> Floats:  # (N, S, S) -> (N, K)
    """Mean power on each ring of the spectrum, by whole radius (Durall et al. 2020, arXiv:2003.01826).

    White noise of standard deviation s has power s^2 on every ring. A Hann window removes the jump between opposite
    edges, whose power would cover the high frequencies. Rings beyond S / 2 lie in the spectrum's corners: the
    checkerboard of an upsampling by zeros is on the last.
    """
    size = images.shape[1]
    if images.ndim != 3 or images.shape[2] != size:
        raise ValueError(f"spectra are of grey pictures (N, S, S), got {images.shape}")
    spectrum = np.fft.fft2(images * window(size))
    power = (spectrum.real**2 + spectrum.imag**2).reshape(len(images), -1)
    averaged: Floats = power @ rings(size).T
    return averaged


def total_variation(images: Floats) -> Floats:  # (N, S, S) -> (N,)
    """Mean absolute difference of neighbouring pixels, in the unit of the images: 0 for one plain grey."""
    down, across = (np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    variation: Floats = (down + across) / 2
    return variation


def window(size: int) -> Floats:  # (S, S)
    """A Hann window, such that the squares of a picture's spectrum under it add up as the picture's mean square."""
    hann = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    both = np.outer(hann, hann)
    scaled: Floats = both / np.sqrt((both**2).sum())
    return scaled


def fine(size: int) -> Floats:  # (S * S,)
    """The weights that make of a spectrum's power the mean square of all detail finer than 4 pixels."""
    weights: Floats = (_radius(size) > HALF_NYQUIST * size) / size**2
    return weights


@lru_cache(maxsize=1)
def _radius(size: int) -> Floats:  # (S * S,), in cycles per picture
    cycles = np.fft.fftfreq(size, 1 / size)
    radius: Floats = np.hypot(*np.meshgrid(cycles, cycles)).ravel()
    return radius


@lru_cache(maxsize=1)
def rings(size: int) -> Floats:  # (K, S * S)
    """For each ring of a spectrum, the weights that average it."""
    ring = np.rint(_radius(size)).astype(np.int64)
    averages: Floats = (ring == np.arange(ring.max() + 1)[:, None]).astype(np.float64)
    averages /= averages.sum(axis=1, keepdims=True)  # in place: 95 MB where S is 256
    return averages
