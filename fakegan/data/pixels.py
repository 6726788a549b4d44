"""The only two conversions between pictures on disk and numbers between networks.

On disk and in stores: uint8 (B, size, size, 3), 0 to 255. Between networks: float (B, 3, size, size), -1 to 1.
Apart from store.py so that preparing pictures never has to import torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fakegan.system.devices import uses_tensor_cores
from fakegan.views import residual

_RANGE_SLACK = 1e-3  # a float that went through tanh or bf16 may miss the bound by rounding


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1].

    On a CPU with oneDNN, and for a GPU's tensor cores, the numbers stay in their order, channels last: most nets want
    them so (nets/cpu.py), and moving them into planes takes as long as the rest. Elsewhere the result is in planes.

    Raises:
        TypeError: not uint8 (floats would be scaled twice, the study's first mistake).
        ValueError: not (B, H, W, 3).
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"to_unit takes uint8 pixels, got {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"to_unit takes pixels of shape (B, H, W, 3), got {tuple(pixels.shape)}")
    channels_first = pixels.permute(0, 3, 1, 2)  # (B, 3, H, W)
    on_cpu = pixels.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    in_order = on_cpu or uses_tensor_cores(pixels.device, torch.float32)
    layout = torch.channels_last if in_order else torch.contiguous_format
    return channels_first.to(torch.float32, memory_format=layout).div_(127.5).sub_(1)


def to_uint8(unit: Tensor) -> Tensor:
    """float (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3), rounded to the nearest level.

    Raises:
        TypeError: not floating point (the study cast floats in [-1, 1] straight to uint8: all black).
        ValueError: not (B, 3, H, W), outside [-1, 1], or not a number.
    """
    if not unit.is_floating_point():
        raise TypeError(f"to_uint8 takes floats in [-1, 1], got {unit.dtype}")
    if unit.ndim != 4 or unit.shape[1] != 3:
        raise ValueError(f"to_uint8 takes images of shape (B, 3, H, W), got {tuple(unit.shape)}")
    low, high = unit.aminmax() if unit.numel() else (unit.new_tensor(0.0), unit.new_tensor(0.0))
    if not (low >= -1 - _RANGE_SLACK and high <= 1 + _RANGE_SLACK):  # also false for NaN
        raise ValueError(f"to_uint8 takes values in [-1, 1], got {low:.3f} to {high:.3f}")
    levels = unit.float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def residual_pixels(face: Tensor, recon: Tensor) -> Tensor:  # uint8 (B, H, W, 3) each -> the same
    """The residual as views show it: four times the difference in levels, black where the copy is perfect."""
    return to_uint8(residual(to_unit(face), to_unit(recon)))
