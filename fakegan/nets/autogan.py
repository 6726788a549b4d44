"""AutoGAN: the autoencoder and its PatchGAN discriminator (Zhang et al. 2019, arXiv:1907.06515).

Images are float (B, 3, size, size) in [-1, 1] on both sides, of any size that 16 divides; the code has a quarter of it,
(B, 4 * width, size / 4, size / 4), or (B, code_channels, size / 4, size / 4) where fewer channels are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn

from fakegan.checks import at_least, one_of
from fakegan.nets.cpu import quicken

Norm = Literal["none", "instance", "batch"]


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "instance":
        return nn.InstanceNorm2d(channels)  # no affine parameters, no running statistics, as in the study
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


def _conv(
    in_channels: int,
    out_channels: int,
    norm: Norm,
    kernel: int = 3,
    stride: int = 1,
    padding: Literal["zeros", "reflect"] = "zeros",
) -> nn.Sequential:
    """Convolution that keeps (stride 1) or halves (stride 2) the size, then norm and ReLU."""
    bias = norm == "none"  # a norm subtracts the bias again
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias, padding_mode=padding)
    return nn.Sequential(conv, _norm(norm, out_channels), nn.ReLU())


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), both 3x3 with reflection padding."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        first, second = (_conv(channels, channels, norm, padding="reflect") for _ in range(2))
        self.body = nn.Sequential(*first, *second[:2])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        out: Tensor = x + self.body(x)
        return out


class AutoGAN(nn.Module):
    """An encoder that halves the size twice, and a decoder that doubles it twice; `depth` is the study's axis."""

    def __init__(
        self,
        depth: int = 4,  # residual blocks: the study's axis
        width: int = 64,  # channels at full size
        norm: Literal["none", "instance", "batch"] = "none",  # the study's instance loses brightness and contrast
        code_channels: int | None = None,  # channels of the code; null: 4 * width, as in the study
    ) -> None:
        super().__init__()
        at_least(1, depth=depth, width=width, code_channels=1 if code_channels is None else code_channels)
        one_of(get_args(Norm), norm=norm)
        down = nn.Sequential(
            _conv(3, width, norm, kernel=7, padding="reflect"),  # (B, W, size, size)
            _conv(width, 2 * width, norm, stride=2),
            _conv(2 * width, 4 * width, norm, stride=2),  # (B, 4W, size / 4, size / 4)
        )
        blocks = nn.Sequential(*(ResidualBlock(4 * width, norm) for _ in range(depth)))
        to_code = nn.Identity() if code_channels is None else nn.Conv2d(4 * width, code_channels, 1)
        from_code = nn.Identity() if code_channels is None else nn.Conv2d(code_channels, 4 * width, 1)
        up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _conv(4 * width, 2 * width, norm),  # (B, 2W, size / 2, size / 2)
            nn.Upsample(scale_factor=2),
            _conv(2 * width, width, norm),  # (B, W, size, size)
        )
        to_rgb = nn.Conv2d(width, 3, 7, padding=3, padding_mode="reflect")
        self.encoder = nn.Sequential(OrderedDict(down=down, blocks=blocks, to_code=to_code))
        self.decoder = nn.Sequential(OrderedDict(from_code=from_code, up=up, to_rgb=to_rgb, in_range=nn.Tanh()))
        quicken(self)

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, size, size) -> the same, both in [-1, 1]
        recon: Tensor = self.decoder(self.encoder(image))
        return recon


class PatchDiscriminator(nn.Module):
    """Image to a map of scores, 1 for real and 0 for reconstructed (PatchGAN, arXiv:1611.07004).

    The map has a sixteenth of the image's size: whatever that is, a score looks at as many pixels.
    Its norm is always InstanceNorm, which looks at one image at a time: real faces and reconstructions
    can share a batch, and the scores are the same as in two separate calls.
    """

    def __init__(
        self,
        width: int = 64,  # channels at half the size
    ) -> None:
        super().__init__()
        at_least(1, width=width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for c in (width, 2 * width, 4 * width):
            conv = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False)
            layers += [conv, nn.InstanceNorm2d(2 * c), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.to_score = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(8 * width, 1, 4, padding=1))
        quicken(self)

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)  # (B, 8W, size / 16, size / 16)
        score: Tensor = self.to_score(x)  # (B, 1, size / 16, size / 16)
        return score
