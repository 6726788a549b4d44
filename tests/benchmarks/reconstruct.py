"""Rows on reconstructing: large batches against one face at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fakegan.detector import BATCH, reconstruct
from fakegan.nets.autogan import AutoGAN
from tests.benchmarks import machine, study
from tests.benchmarks.harness import Side, Turns, take_turns
from tests.benchmarks.results import Result, Row

BARS = {64: 1.2, 16: 2.0}


def ours(turns: Turns, depth: int, width: int, faces: int) -> None:
    """A side: a unit is one face, reconstructed with the others of its batch."""
    net = AutoGAN(depth, width, "instance").eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (faces, 64, 64, 3), dtype=torch.uint8)

    def work(count: int) -> None:
        reconstruct(net, pixels[:count])

    turns.serve(work)


def rows(quick: bool) -> Iterator[Result]:
    """Seconds a face, over a batch of the reconstruct stage: what 10,000 faces cost is 10,000 times that.

    The slower side gets fewer faces: its time for one does not depend on their number.
    """
    widths, batch, singles, rounds = ((2,), 8, 4, 2) if quick else ((64, 16), BATCH, 32, 3)
    depth = 1 if quick else 4
    size = 64 if quick else machine.PRODUCT
    for width in widths:
        sides = [
            Side(ours, (depth, width, batch)),
            Side(study.reconstructions, (depth, width, singles)),
            Side(machine.multiply, (size,)),
        ]
        units = (batch, singles, 5)
        our_times, their_times, products = take_turns(sides, rounds, units, (batch, 4, 1), apart=not quick)
        net = f"depth {depth}, width {width}"
        what = f"reconstruct a face, without reading and writing files, in batches of {batch}, {net}"
        yield Row(what, "the study's net, one face at a time", "face", our_times, their_times, BARS.get(width))
        flops = study.reconstruction_flops(depth, width)
        yield machine.arithmetic_share(what, "face", our_times, flops, products, size)
