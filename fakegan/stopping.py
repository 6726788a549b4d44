"""Stopping without losing anything: a signal is noted, the step ends, the fit is saved, then the process goes.

Ctrl-C exits with 130, SIGTERM with 143. SIGUSR1 and SIGUSR2, by which SLURM announces the end of a job's time, save
and let the job be put into the queue again: by submitit, where that started it, else by `scontrol requeue`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl

from fakegan import ranks
from fakegan.processes import REQUEUED, terminate

_REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)
_DUE = 1  # what processes tell each other after a step: 0 nothing, 1 it is time to save, else a signal's number


class Stopped(BaseException):
    """Asked to stop by a signal; the fit has been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class SaveAndStop(pl.Callback):
    """Writes last.ckpt between two steps of an epoch: when a signal asks to stop, and every few minutes.

    What comes out of a fit that goes on from there is the same as if it had never stopped.
    """

    def __init__(self, path: Path, minutes: float) -> None:
        self.path = path
        self.minutes = minutes  # between two saves within an epoch
        self.noted = 0  # the signal that asks to stop
        self.saved = 0.0
        self.before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *_REQUEUE)}

    def note(self, number: int, _frame: FrameType | None) -> None:
        """A signal's handler: the second one does not wait."""
        if self.noted:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        self.noted = number
        if number == signal.SIGINT and sys.stderr.isatty():
            print("\nsaving and stopping; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock, and take the signals over: Lightning has set handlers of its own on entering the fit."""
        self.saved = time.monotonic()
        for number, handler in self.before.items():
            signal.signal(number, self.note if _is_ours(number, handler) else handler)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, or asked for."""
        if batch_idx + 1 >= trainer.num_training_batches:
            return  # validation comes next; the epoch's end saves
        due = time.monotonic() - self.saved >= 60 * self.minutes
        said = ranks.largest(self.noted or (_DUE if due and ranks.is_first() else 0))
        if said:
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
        if said > _DUE:
            raise Stopped(said)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The epoch before has been saved."""
        said = ranks.largest(self.noted)
        if said:
            raise Stopped(said)

    def follow(self, number: int) -> None:
        """After the fit: what the signal asks for, if there was one (else 0).

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SystemExit: with 143, SIGTERM; with 75, the job has been put into the queue again.
        """
        if not number:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number in _REQUEUE:
            _requeue(number, self.before[signal.Signals(number)])
        raise SystemExit(128 + number)


def _is_ours(number: signal.Signals, handler: Any) -> bool:
    if number in _REQUEUE:  # submitit's handler, or SLURM's words to a process without one
        return callable(handler) or "SLURM_JOB_ID" in os.environ
    if number == signal.SIGTERM:
        return handler in (signal.SIG_DFL, terminate)  # submitit sets one that does nothing: SIGUSR2 comes, too
    return handler is not signal.SIG_IGN  # in the background of a shell script, Ctrl-C is for others


def _requeue(number: int, handler: Any) -> NoReturn:
    if callable(handler):  # submitit's: it puts the job into the queue again, and exits
        handler(number, None)
        time.sleep(60)  # in all processes but the first it does nothing: the first ends the job
    elif ranks.is_first():
        job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
        task = os.environ.get("SLURM_ARRAY_TASK_ID")
        name = job if task is None else f"{job}_{task}"
        print(f"saved; putting job {name} into the queue again", file=sys.stderr, flush=True)
        subprocess.run(["scontrol", "requeue", name], check=False)
    raise SystemExit(REQUEUED)
