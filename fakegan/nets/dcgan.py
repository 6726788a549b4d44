"""DCGAN: the generator of faces from noise and its discriminator, here with two logits (arXiv:1511.06434).

Images are float (B, C, size, size) in [-1, 1]; C is the view's number of channels. The paper's are of 64x64; each
doubling of the size adds a layer at the images' end, of half the channels, so that each layer costs about the same.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from fakegan.checks import SIZES, at_least, one_of
from fakegan.nets.cpu import quicken, take_channels_last

_WEIGHT_STD = 0.02  # of every convolution's weights around 0 and every BatchNorm's scales around 1


class DCGANGenerator(nn.Module):
    """Noise to image by transposed convolutions (Radford et al. 2015, arXiv:1511.06434)."""

    def __init__(
        self,
        latent: int = 100,  # numbers of noise, each from N(0, 1)
        width: int = 64,  # channels at 32x32; the 4x4 map has 8 * width
        out_channels: int = 3,
        size: int = SIZES[0],  # pixels a side of the faces
    ) -> None:
        super().__init__()
        at_least(1, latent=latent, width=width, out_channels=out_channels)
        one_of(SIZES, size=size)
        self.latent = latent
        first = nn.ConvTranspose2d(latent, 8 * width, 4, bias=False)  # (B, 8W, 4, 4); BatchNorm subtracts a bias again
        layers = [first, nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True)]
        for wide, c in pairwise(_channels(width, size)):
            conv = nn.ConvTranspose2d(wide, c, 4, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(c), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.to_image = nn.ConvTranspose2d(_channels(width, size)[-1], out_channels, 4, stride=2, padding=1)
        self.apply(_draw_weights)
        take_channels_last(self)

    def forward(self, noise: Tensor) -> Tensor:  # (B, latent)
        x = self.features(noise[:, :, None, None])  # (B, W, 32, 32) at size 64
        return torch.tanh(self.to_image(x))  # (B, C, size, size), in [-1, 1]


class DCGANDiscriminator(nn.Module):
    """Image to two logits (real, fake) by strided convolutions (Radford et al. 2015, arXiv:1511.06434).

    The paper's ends in one logit. BatchNorm looks at a whole batch: the faces that share a batch change the logits.
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: int = 64,  # channels at 32x32; the 4x4 map has 8 * width
        size: int = SIZES[0],  # pixels a side of the faces
    ) -> None:
        super().__init__()
        at_least(1, width=width)
        one_of(SIZES, size=size)
        first, *others = reversed(_channels(width, size))
        layers = [nn.Conv2d(in_channels, first, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for narrow, c in pairwise([first, *others]):
            conv = nn.Conv2d(narrow, c, 4, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(c), nn.LeakyReLU(0.2, inplace=True)]
        self.features = nn.Sequential(*layers)
        self.to_logits = nn.Conv2d(8 * width, 2, 4)
        self.apply(_draw_weights)
        quicken(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, size, size) in [-1, 1] -> (B, 2) logits
        x = self.features(x)  # (B, 8W, 4, 4)
        logits: Tensor = self.to_logits(x).flatten(1)
        return logits


def _channels(width: int, size: int) -> list[int]:
    """Of the maps from 4x4 to half the size: 8 * width, and half as many after each doubling; one at least."""
    return [max(1, 8 * width >> doublings) for doublings in range(int(math.log2(size)) - 2)]


def _draw_weights(module: nn.Module) -> None:
    """The paper's start: convolutions N(0, 0.02), BatchNorm's scales N(1, 0.02), every bias 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, _WEIGHT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
