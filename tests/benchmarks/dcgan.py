"""Rows on the DCGAN classifier's step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from fakegan.modules.dcgan import DCGANClassifier
from tests.benchmarks import machine, study
from tests.benchmarks.harness import Side, Turns, take_turns
from tests.benchmarks.results import Result, Row
from tests.benchmarks.trainer import fit_in_turns


def ours(turns: Turns, width: int, batch: int) -> None:
    """A side: a unit is one step through Lightning's Trainer on the same batch in memory, with the study's Adam."""
    example = {"x": torch.rand(batch, 3, 64, 64) * 2 - 1, "label": torch.arange(batch) % 2}
    options = {"width": width, "latent": 100}
    module = DCGANClassifier(net_options=options, optimizer="adam", learning_rate=2e-4, betas=(0.5, 0.999))
    fit_in_turns(turns, module, DataLoader([example] * 1000, batch_size=None))


def rows(quick: bool) -> Iterator[Result]:
    """The study's step, another way to write it, and the machine's arithmetic."""
    width, batch, rounds, steps, size = (4, 4, 2, 2, 64) if quick else (64, 128, 5, 2, machine.PRODUCT)
    sides = [
        Side(ours, (width, batch)),
        Side(study.dcgan_steps, (width, batch, False)),
        Side(study.dcgan_steps, (width, batch, True)),
        Side(machine.multiply, (size,)),
    ]
    our_times, tutorial, again, products = take_turns(sides, rounds, (steps, steps, steps, 5), apart=not quick)
    what = f"DCGAN step, width {width}, batch {batch}"
    against = "the study's step: the loop of PyTorch's DCGAN tutorial, samples drawn once"
    yield Row(what, against, "step", our_times, tutorial, 1.2)
    yield Row(what, "a loop that draws again for the generator", "step", our_times, again)
    flops = study.dcgan_step_flops(width, batch)
    yield machine.arithmetic_share(what, "step", our_times, flops, products, size)
