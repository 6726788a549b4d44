"""Random numbers of faces: functions of seed, epoch and face alone, the same in every process and on every device."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fakegan.data.arrays import Rows

_GAMMA = 0x9E3779B97F4A7C15  # the step of splitmix64
_EPOCH = 0xD1B54A32D192ED03
_BITS = 23  # of a number: float32 holds each of them, and neither 0 nor 1 comes out


class Draws:
    """Numbers for the faces of a batch, from a key for each; the same calls in the same order give the same numbers."""

    def __init__(self, keys: Tensor) -> None:  # int64 (B,)
        self.keys = keys
        self.drawn = 0  # numbers of each face

    def uniform(self, *shape: int) -> Tensor:  # -> float32 (B, *shape)
        """Numbers above 0 and below 1."""
        places = torch.arange(1, math.prod(shape) + 1, device=self.keys.device) + self.drawn
        self.drawn += math.prod(shape)
        bits = _mixed(self.keys[:, None] + places * _signed(_GAMMA)) >> (64 - _BITS) & (2**_BITS - 1)
        numbers: Tensor = (bits.float() + 0.5) / 2**_BITS
        return numbers.view(-1, *shape)

    def between(self, low: float, high: float) -> Tensor:  # -> float32 (B,)
        """One number of each face from low to high."""
        return low + (high - low) * self.uniform()

    def normal(self, *shape: int) -> Tensor:  # -> float32 (B, *shape)
        """Numbers of the normal distribution, by its inverse."""
        return torch.erfinv(2 * self.uniform(*shape) - 1) * math.sqrt(2)

    def of(self, faces: Tensor) -> Draws:  # (F,), positions in the batch
        """Numbers for some of the faces, which these here do not repeat."""
        self.drawn += 1
        return Draws(_mixed(self.keys[faces] + _signed(self.drawn * _GAMMA)))


def face_keys(rows: Rows, seed: int, epoch: int) -> Tensor:  # (B,) -> int64 (B,)
    """64 random bits of each row in an epoch: splitmix64 over (seed, epoch, row)."""
    start = _signed(seed * _GAMMA + epoch * _EPOCH)
    return _mixed(torch.from_numpy(np.ascontiguousarray(rows)) * _signed(_GAMMA) + start)


def _mixed(z: Tensor) -> Tensor:
    """The last part of splitmix64 (Steele et al. 2014); int64, of which products keep the lowest 64 bits."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right, filled up with zeros."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The lowest 64 bits of a number as int64 has them."""
    number &= 2**64 - 1
    return number - ((number >> 63) << 64)
