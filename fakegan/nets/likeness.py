"""How like its face a reconstruction is, and how much detail a picture holds: numbers of each, on their device."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fakegan.evaluation import spectrum

_SIGMA, _REACH = 1.5, 5  # pixels, of SSIM's Gaussian window, which has 11 a side
_IN_CACHE = 8 * 64**2  # pixels: more at a time would take a CPU three times as long
_C1, _C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # of pictures whose range is 2


def psnr(recon: Tensor, real: Tensor) -> Tensor:  # two (B, 3, H, W) in [-1, 1] -> (B,), in dB
    """Peak signal-to-noise ratio of each image: 10 log10(range^2 / mean squared error), range 2."""
    mse = (recon - real).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / mse.clamp(min=1e-10))


def ssim(recon: Tensor, real: Tensor) -> Tensor:  # two (B, 3, H, W) in [-1, 1] -> (B,), at most 1
    """Structural similarity of each image (Wang et al. 2004, doi:10.1109/TIP.2003.819861), mean of its places.

    torchmetrics' figures, pictures continued by reflection, in a tenth of the time: the window is applied to rows, then
    to columns. It adds shifted pictures and convolves nothing, so that it has float32's digits under autocast and on
    any GPU: variances cancel badly in less.
    """
    at_once = max(1, _IN_CACHE // real[0, 0].numel() if len(real) and real.device.type == "cpu" else len(real))
    parts = (slice(start, start + at_once) for start in range(0, max(1, len(real)), at_once))
    return torch.cat([_ssim(recon[part], real[part]) for part in parts])


def _ssim(recon: Tensor, real: Tensor) -> Tensor:
    x, y = (F.pad(image.float().contiguous().clamp(-1, 1), (_REACH,) * 4, mode="reflect") for image in (recon, real))
    mean_x, mean_y, squares, product = _windowed(torch.stack([x, y, x * x + y * y, x * y]))
    means, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    above = (2 * means + _C1) * (2 * (product - means) + _C2)
    below = (mean_squares + _C1) * (squares - mean_squares + _C2)
    similar: Tensor = (above / below).mean(dim=(1, 2, 3))
    return similar


def _windowed(x: Tensor) -> Tensor:  # (..., H + 10, W + 10) -> (..., H, W)
    """Weighted means of each place's 11 x 11 neighbours."""
    bell = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _SIGMA) ** 2)
    weights: list[float] = (bell / bell.sum()).tolist()
    for dim in (-1, -2):
        length = x.shape[dim] - 2 * _REACH
        mean = x.narrow(dim, 0, length) * weights[0]
        for start in range(1, len(weights)):
            mean.add_(x.narrow(dim, start, length), alpha=weights[start])
        x = mean
    return x


class Detail:
    """What `fakegan.evaluation.spectrum` measures of grey pictures, on a device: in float64 where it has that.

    The figures are then the same to nine digits. In float32, on MPS, a ring has four.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.luma, self.window, self.rings, self.fine = (
            torch.from_numpy(values).to(dtype).to(device)  # MPS takes no float64
            for values in (spectrum.LUMA, spectrum.window(size), spectrum.rings(size).T, spectrum.fine(size))
        )

    def grey(self, images: Tensor) -> Tensor:  # (B, 3, S, S), in [-1, 1] -> (B, S, S)
        """Brightness, in the unit of the images."""
        return (images.to(self.luma.dtype) * self.luma[:, None, None]).sum(dim=1)

    def power(self, grey: Tensor) -> tuple[Tensor, Tensor]:  # (B, S, S) -> (B, K) and (B,)
        """Power on each ring, and the root mean square of all detail finer than four pixels: 0.90 of white noise's."""
        spectra = torch.fft.fft2(grey * self.window)
        power = (spectra.real.square() + spectra.imag.square()).flatten(1)
        return power @ self.rings, (power @ self.fine).sqrt()


def total_variation(grey: Tensor) -> Tensor:  # (B, S, S) -> (B,)
    """Mean absolute difference of neighbouring pixels, in the unit of the images: 0 for one plain grey."""
    down, across = (grey.diff(dim=dim).abs().mean(dim=(1, 2)) for dim in (1, 2))
    return (down + across) / 2
