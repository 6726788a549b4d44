"""Our side of a step: Lightning's own `Trainer.fit`, which takes its turns at the ends of batches."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import pytorch_lightning as pl

from fakegan.training.callbacks import StepSeed
from tests.benchmarks.harness import Turns
from tests.benchmarks.machine import synchronizer

PRECISION = "32-true"  # of every trainer in conf/trainer


def fit_in_turns(
    turns: Turns,
    module: pl.LightningModule,
    data: Any,  # a DataLoader or LightningDataModule of train batches, gone through again and again until the turns end
    accelerator: str = "cpu",  # or gpu
    precision: str = PRECISION,
    callbacks: tuple[pl.Callback, ...] = (),
) -> None:
    """Train; a unit is one step, in the steady state.

    The clock runs from the end of one step to the end of another, so that it counts all that Lightning does for a
    step, fetching the batch and an epoch's end included.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on worker processes
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]  # a name, of a list of them
            max_epochs=1_000_000,  # until the turns end
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[StepSeed(0), *callbacks, _AtBatchEnds(turns, "cuda" if accelerator == "gpu" else "cpu")],
        )
        if isinstance(data, pl.LightningDataModule):
            trainer.fit(module, datamodule=data)
        else:
            trainer.fit(module, data)


class _AtBatchEnds(pl.Callback):
    """Sleeps at the end of the last batch of a turn until the next."""

    def __init__(self, turns: Turns, device: str) -> None:
        self.turns, self.finish = turns, synchronizer(device)
        self.left: int | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Wait for the warm-up."""
        self._await_turn(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count our step; end the turn when it is complete."""
        if self.left is None:  # the turns have ended; Lightning stops when it may
            return
        self.left -= 1
        if self.left == 0:
            self.finish()
            self.turns.done((time.perf_counter() - self.started) / self.units)
            self._await_turn(trainer)

    def _await_turn(self, trainer: pl.Trainer) -> None:
        self.left = self.turns.wait()
        trainer.should_stop = self.left is None
        self.units = self.left or 0
        self.started = time.perf_counter()
