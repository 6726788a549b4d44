"""How two sides are timed: interleaved rounds A B A B, seconds per unit of work, medians."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytorch_lightning as pl

from fakegan.callbacks import StepSeed

Work = Callable[[int], None]  # does that many units: batches, steps, faces


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    against: str
    unit: str  # what the seconds are for: batch, step, epoch, face
    ours: tuple[float, ...]  # seconds a unit, one a round
    theirs: tuple[float, ...]  # the same rounds of the other side
    bar: float | None = None  # the ratio to reach now
    aim: float | None = None  # the ratio to reach later

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster, round by round: a drift of the machine hits both sides of a round."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return median(self.ratios)


def interleave(
    ours: Work,
    theirs: Work,
    rounds: int,
    our_units: int = 1,  # units a round
    their_units: int = 1,
    warm_up: int = 1,  # units of each side before the clock starts
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds a unit of both sides, round by round."""
    ours(warm_up)
    theirs(warm_up)
    times = [(_seconds(ours, our_units), _seconds(theirs, their_units)) for _ in range(rounds)]
    return tuple(a for a, _ in times), tuple(b for _, b in times)


def interleave_with_trainer(
    module: pl.LightningModule,
    data: Any,  # train batches, a DataLoader or a LightningDataModule: at least one round's steps an epoch
    theirs: Work,
    rounds: int,
    steps: int,  # of each side, a round
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds a step: ours as `trainer.fit` runs it, in the steady state, theirs between our rounds.

    Our clock runs from the end of one step to the end of another, so that it counts all that Lightning does for a
    step, fetching the batch and an epoch's end included. The first round of each side is a warm-up.
    """
    turns = _Turns(theirs, rounds, steps)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on worker processes
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=rounds + 1,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[StepSeed(0), turns],
        )
        if isinstance(data, pl.LightningDataModule):
            trainer.fit(module, datamodule=data)
        else:
            trainer.fit(module, data)
    return tuple(turns.our_times), tuple(turns.their_times)


class _Turns(pl.Callback):
    """Lets the other side run after every `steps` steps of a fit, and times both."""

    def __init__(self, theirs: Work, rounds: int, steps: int) -> None:
        self.theirs, self.rounds, self.steps = theirs, rounds, steps
        self.our_times: list[float] = []
        self.their_times: list[float] = []
        self.seen = 0
        self.started: float | None = None  # None: the warm-up

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count our step; take turns when the round is complete."""
        self.seen += 1
        if self.seen % self.steps:
            return
        if self.started is None:
            self.theirs(1)
        else:
            self.our_times.append((time.perf_counter() - self.started) / self.steps)
            self.their_times.append(_seconds(self.theirs, self.steps))
        trainer.should_stop = len(self.our_times) == self.rounds
        self.started = time.perf_counter()


def _seconds(work: Work, units: int) -> float:
    """Wall-clock seconds a unit."""
    started = time.perf_counter()
    work(units)
    return (time.perf_counter() - started) / units
