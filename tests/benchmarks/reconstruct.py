"""Rows on reconstructing: large batches against one face at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fakegan.detector import reconstruct
from fakegan.nets.autogan import AutoGAN
from tests.benchmarks.baselines import reconstruct_one_by_one
from tests.benchmarks.harness import Row, interleave


def rows(quick: bool) -> Iterator[Row]:
    """Seconds a face; the slower side gets fewer faces, its time does not depend on their number."""
    widths, batch, singles, rounds = ((2,), 8, 4, 2) if quick else ((64, 16), 256, 32, 3)
    depth = 1 if quick else 4
    faces = torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8)
    for width in widths:
        autoencoder = AutoGAN(depth, width, "instance").eval()
        times = interleave(
            lambda n, net=autoencoder: reconstruct(net, faces[:n]),
            lambda n, net=autoencoder: reconstruct_one_by_one(net, faces[:n]),
            rounds,
            our_units=batch,
            their_units=singles,
            warm_up=2,
        )
        aim = {64: 1.2, 16: 2.0}.get(width)
        what = f"reconstruct in batches of {batch}, depth {depth}, width {width}"
        yield Row(what, "one face at a time", "face", *times, aim=aim)
