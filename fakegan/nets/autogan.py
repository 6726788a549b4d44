"""AutoGAN: the autoencoder and its PatchGAN discriminator (Zhang et al. 2019, arXiv:1907.06515).

Images are float (B, 3, 64, 64) in [-1, 1] on both sides; the code is (B, 4 * width, 16, 16), or
(B, code_channels, 16, 16) where a narrower one is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from fakegan.checks import at_least, one_of
from fakegan.nets.layers import InstanceNorm2d, QuickLayout, ReflectConv2d, UpsampleConv2d

Norm = Literal["instance", "batch", "none"]
NORMS: tuple[Norm, ...] = ("instance", "batch", "none")


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "instance":
        return InstanceNorm2d()  # no affine parameters, no running statistics, as in the study
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


def _conv(in_channels: int, out_channels: int, norm: Norm, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps (stride 1) or halves (stride 2) the size, then norm and ReLU."""
    reflect = stride == 1 and kernel > 3
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            padding_mode="reflect" if reflect else "zeros",
            bias=norm == "none",  # a norm subtracts the bias again
        ),
        _norm(norm, out_channels),
        nn.ReLU(),
    )


def _up_conv(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    """Nearest-neighbour upsampling to twice the size, 3x3 convolution, then norm and ReLU."""
    return nn.Sequential(
        UpsampleConv2d(in_channels, out_channels, bias=norm == "none"), _norm(norm, out_channels), nn.ReLU()
    )


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), both 3x3 with reflection padding."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        bias = norm == "none"
        self.body = nn.Sequential(
            ReflectConv2d(channels, channels, bias),
            _norm(norm, channels),
            nn.ReLU(),
            ReflectConv2d(channels, channels, bias),
            _norm(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        out: Tensor = x + self.body(x)
        return out


class Encoder(nn.Module):
    """Image to code: the downsampling half of AutoGAN, with the residual blocks."""

    def __init__(
        self,
        depth: int,  # residual blocks at the code's resolution: 1 or 4 in the study
        width: int,  # channels at full resolution
        norm: Norm,
        code_channels: int | None,  # None: 4 * width, as in the study
    ) -> None:
        super().__init__()
        self.down = nn.Sequential(
            _conv(3, width, norm, kernel=7),
            _conv(width, 2 * width, norm, stride=2),
            _conv(2 * width, 4 * width, norm, stride=2),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, norm) for _ in range(depth)))
        self.to_code = nn.Identity() if code_channels is None else nn.Conv2d(4 * width, code_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image)  # (B, 4W, 16, 16)
        code: Tensor = self.to_code(self.blocks(x))
        return code


class Decoder(nn.Module):
    """Code to image: nearest-neighbour upsampling and convolution, twice, then tanh."""

    def __init__(self, width: int, norm: Norm, code_channels: int | None) -> None:
        super().__init__()
        self.from_code = nn.Identity() if code_channels is None else nn.Conv2d(code_channels, 4 * width, 1)
        up = {"1": _up_conv(4 * width, 2 * width, norm), "3": _up_conv(2 * width, width, norm)}
        self.up = nn.Sequential(OrderedDict(up))  # the names in checkpoints: upsampling was a layer of its own once
        self.to_rgb = nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect")

    def forward(self, code: Tensor) -> Tensor:
        x = self.up(self.from_code(code))  # (B, W, 64, 64)
        return torch.tanh(self.to_rgb(x))  # (B, 3, 64, 64), in [-1, 1]


class AutoGAN(nn.Module):
    """Encoder and decoder; `depth` is the study's axis, `code_channels` the one beside it.

    Raises:
        ValueError: a depth, width or norm that does not exist.
    """

    def __init__(
        self,
        depth: int = 4,  # residual blocks: the study's axis
        width: int = 64,  # channels at 64x64
        norm: Literal["none", "instance", "batch"] = "none",  # instance in the study: brightness and contrast are lost
        code_channels: int | None = None,  # channels of the 16x16 code; null: 4 * width, as in the study
    ) -> None:
        super().__init__()
        at_least(1, depth=depth, width=width, code_channels=1 if code_channels is None else code_channels)
        one_of(NORMS, norm=norm)
        self.layout = QuickLayout()
        self.encoder = Encoder(depth, width, norm, code_channels)
        self.decoder = Decoder(width, norm, code_channels)

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, 64, 64) -> (B, 3, 64, 64), both in [-1, 1]
        recon: Tensor = self.decoder(self.encoder(self.layout(image)))
        return recon


class PatchDiscriminator(nn.Module):
    """Image to a 4x4 map of scores, 1 for real and 0 for reconstructed (PatchGAN, arXiv:1611.07004).

    Its norm is always InstanceNorm, which looks at one image at a time: real faces and reconstructions
    can share a batch, and the scores equal those of two separate calls.
    """

    def __init__(
        self,
        width: int = 64,  # channels at 32x32
    ) -> None:
        super().__init__()
        at_least(1, width=width)
        self.layout = QuickLayout()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for i in range(3):
            c = width * 2**i
            layers += [
                nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False),
                InstanceNorm2d(),
                nn.LeakyReLU(0.2),
            ]
        self.features = nn.Sequential(*layers)
        self.to_score = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(8 * width, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(self.layout(image))  # (B, 8W, 4, 4)
        score: Tensor = self.to_score(x)  # (B, 1, 4, 4)
        return score
