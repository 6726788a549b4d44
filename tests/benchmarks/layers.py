"""Rows on single layers: each form that FakeGAN computes on the CPU against torch's plain layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from fakegan.nets.cpu import InstanceNorm2d, ReflectConv2d, UpsampleConv2d, quick_layout
from tests.benchmarks.harness import Side, Turns, repeating, take_turns
from tests.benchmarks.results import Result, Row

Shape = tuple[int, int, int, int]  # (B, C, H, W)
Build = Callable[[], nn.Module]


class Pair(NamedTuple):
    """A layer of FakeGAN's and torch's of the same mathematics, both with weights of the same shape."""

    what: str
    ours: Build
    against: str
    plain: Build
    shape: Shape  # of the input
    rounds: int
    passes: int  # a round
    both_last: bool = False  # torch's side too has channels last, as its neighbours in the network would


def upsample_then_convolve(in_channels: int, out_channels: int) -> nn.Sequential:
    """The study's way."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(nn.Upsample(scale_factor=2), conv)


def pairs(quick: bool) -> list[Pair]:
    """Every form, in the sizes of autoencoders of width 16 to 64."""
    if quick:
        return [
            _reflect(64, 2, 8, (2, 1)),
            _upsample(8, 4, 2, 8, (2, 1)),
            _norm(8, 2, 8, (2, 1)),
        ]
    return [
        _reflect(64, 50, 16, (5, 4)),
        _reflect(128, 50, 16, (5, 2)),
        _reflect(256, 50, 16, (3, 1)),
        _upsample(128, 64, 50, 32, (3, 1)),
        _norm(64, 50, 64, (5, 2)),
        _norm(256, 50, 16, (5, 4)),
    ]


def _reflect(channels: int, batch: int, side: int, turns: tuple[int, int]) -> Pair:
    what = f"ReflectConv2d({channels}, {channels}) at {side}x{side}"
    ours = partial(ReflectConv2d, channels, channels, 3, padding=1, padding_mode="reflect", bias=False)
    return Pair(what, ours, "nn.Conv2d, padding_mode=reflect", _plain(channels), (batch, channels, side, side), *turns)


def _plain(channels: int) -> Build:
    return partial(nn.Conv2d, channels, channels, 3, padding=1, padding_mode="reflect", bias=False)


def _upsample(in_channels: int, out_channels: int, batch: int, side: int, turns: tuple[int, int]) -> Pair:
    what = f"UpsampleConv2d({in_channels}, {out_channels}) from {side}x{side}"
    ours = partial(UpsampleConv2d, in_channels, out_channels, 3, padding=1, bias=False)
    plain = partial(upsample_then_convolve, in_channels, out_channels)
    return Pair(what, ours, "nn.Upsample, then nn.Conv2d", plain, (batch, in_channels, side, side), *turns)


def _norm(channels: int, batch: int, side: int, turns: tuple[int, int]) -> Pair:
    what = f"InstanceNorm2d of {channels} channels at {side}x{side}, channels last"
    plain = partial(nn.InstanceNorm2d, channels)
    against = "nn.InstanceNorm2d, channels last too"
    return Pair(
        what, partial(InstanceNorm2d, channels), against, plain, (batch, channels, side, side), *turns, both_last=True
    )


def passes(turns: Turns, build: Build, shape: Shape, last: bool) -> None:
    """A side: a unit is one pass forward, and backward to the weights and the input."""
    layer, x = build(), torch.randn(shape)
    x = (quick_layout(x) if last else x).requires_grad_()
    gradient = torch.randn(layer(x).shape)
    gradient = quick_layout(gradient) if last else gradient

    def once() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).backward(gradient)

    turns.serve(repeating(once))


def rows(quick: bool) -> Iterator[Result]:
    """Each pair."""
    for pair in pairs(quick):
        sides = [Side(passes, (pair.ours, pair.shape, True)), Side(passes, (pair.plain, pair.shape, pair.both_last))]
        ours, plain = take_turns(sides, pair.rounds, (pair.passes, pair.passes), apart=not quick)
        what = f"{pair.what}, forward and backward, batch {pair.shape[0]}"
        yield Row(what, pair.against, "pass", ours, plain)
