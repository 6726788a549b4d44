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


def pairs(quick: bool) -> Iterator[Pair]:
    """Every form, in the sizes of autoencoders of width 16 to 64."""
    batch = 2 if quick else 50
    for c, side, *turns in [(64, 8, 2, 1)] if quick else [(64, 16, 5, 4), (128, 16, 5, 2), (256, 16, 3, 1)]:
        ours = partial(ReflectConv2d, c, c, 3, padding=1, padding_mode="reflect", bias=False)
        plain = partial(nn.Conv2d, c, c, 3, padding=1, padding_mode="reflect", bias=False)
        what = f"ReflectConv2d({c}, {c}) at {side}x{side}"
        yield Pair(what, ours, "nn.Conv2d, padding_mode=reflect", plain, (batch, c, side, side), *turns)
    c, side, *turns = (8, 8, 2, 1) if quick else (128, 32, 3, 1)
    ours = partial(UpsampleConv2d, c, c // 2, 3, padding=1, bias=False)
    plain = partial(upsample_then_convolve, c, c // 2)
    what = f"UpsampleConv2d({c}, {c // 2}) from {side}x{side}"
    yield Pair(what, ours, "nn.Upsample, then nn.Conv2d", plain, (batch, c, side, side), *turns)
    for c, side, *turns in [(8, 8, 2, 1)] if quick else [(64, 64, 5, 2), (256, 16, 5, 4)]:
        what = f"InstanceNorm2d of {c} channels at {side}x{side}, channels last"
        plain = partial(nn.InstanceNorm2d, c)
        against = "nn.InstanceNorm2d, channels last too"
        yield Pair(what, partial(InstanceNorm2d, c), against, plain, (batch, c, side, side), *turns, both_last=True)


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
