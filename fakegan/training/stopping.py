"""Stopping without losing anything: a signal is noted, the step ends, the fit is saved, then the process ends.

After the last step of an epoch, the fit is saved when the epoch has been validated. Ctrl-C exits with 130, SIGTERM
with 143. Where SLURM ends a job, the fit is saved before `fakegan.system.slurm`, or submitit, requeues the job.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from fakegan.checks import at_least
from fakegan.runs.folder import CHECKPOINTS, LAST
from fakegan.system import ranks, signals
from fakegan.system.processes import REQUEUED
from fakegan.system.slurm import REQUEUE_SIGNALS, requeue

_AGAIN = 1.0  # seconds within which a second Ctrl-C is a repeat of the first
_DUE = 1  # processes agree on a number: 0 nothing, 1 it is time to save, else a signal's number
_UNHEARD = 1.0  # seconds that a signal may wait until several processes agree; each agreement is a wait for the others
_MOST = 20  # steps until they agree again, however quick: steps may become slower


class Stopped(BaseException):
    """A signal asked to stop; the fit has been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class SaveAndStop(pl.Callback):
    """Writes last.ckpt between two steps of an epoch: when a signal asks to stop, and every few minutes.

    A fit that is resumed from it ends with the same bits as a fit that never stopped. Several processes agree on it
    after the same step, within about a second; one process acts after each step.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float = 5,  # between two checkpoints within an epoch; one comes after every epoch
    ) -> None:
        at_least(0, minutes=minutes)
        self.path = folder / CHECKPOINTS / LAST
        self.minutes = minutes
        self.noted = 0  # the signal that asks to stop
        self.noted_at = 0.0
        self.saved = 0.0
        self.agreed = 0.0  # when the processes last did
        self.steps, self.every = 0, 1  # since then; until they do so again: the same numbers in all processes
        self.before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *REQUEUE_SIGNALS)}

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The handler of signals. A second Ctrl-C, a while later, does not wait; other repeats are the same request.

        SLURM, for example, signals every process of a job, and rank 0 passes its signals on to the others.
        """
        now = time.monotonic()
        if self.noted == number == signal.SIGINT and now - self.noted_at > _AGAIN:
            raise KeyboardInterrupt
        if not self.noted:
            self.noted, self.noted_at = number, now
            if number == signal.SIGINT and sys.stderr.isatty():
                print("\nsaving and stopping; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock, and take over the signals that Lightning has taken when it entered the fit."""
        self.saved = self.agreed = time.monotonic()
        for number, handler in self.before.items():
            if number in REQUEUE_SIGNALS:  # has a handler if slurm's `requeue`, or submitit's, is to follow
                is_ours = callable(handler)
            elif number == signal.SIGTERM:
                is_ours = handler in (signal.SIG_DFL, signals.stop, requeue)
            else:  # in the background of a shell script, Ctrl-C is for others
                is_ours = handler is not signal.SIG_IGN
            signal.signal(number, self.note if is_ours else handler)
        self.noted = self.noted or signals.requested_stop()  # a library may have swallowed it

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save where it is time, or asked for."""
        ends = trainer.should_stop and trainer.current_epoch >= (trainer.min_epochs or 0)
        if batch_idx + 1 >= trainer.num_training_batches or ends:
            return  # validation comes next; the epoch's end saves
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients that wait for a step are not in a checkpoint
        self.steps += 1
        if self.steps < self.every:
            return
        now = time.monotonic()
        due = now - self.saved >= 60 * self.minutes
        agreed = ranks.largest(self.noted or (_DUE if due and ranks.is_rank_zero() else 0))
        if agreed:
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
        if agreed > _DUE:
            raise Stopped(agreed)
        if ranks.count() > 1:
            self.every = self._within_a_second((now - self.agreed) / self.steps)
        self.agreed, self.steps = time.monotonic(), 0

    def _within_a_second(self, step: float) -> int:
        """The steps until the processes agree again, where a step takes this one so many seconds."""
        slowest = ranks.largest(math.ceil(1e6 * step))  # microseconds
        return max(min(int(1e6 * min(_UNHEARD, 60 * self.minutes) / max(slowest, 1)), _MOST), 1)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop if asked to: the epoch before has been saved."""
        self.saved = self.agreed = time.monotonic()
        self.steps = 0
        agreed = ranks.largest(self.noted)
        if agreed:
            raise Stopped(agreed)

    def follow(self, number: int) -> None:
        """After the fit: stop as the signal asks for; 0 is no signal.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            SystemExit: with 143, SIGTERM; with 75, the job has been requeued.
        """
        if not number:
            return
        for other in self.before:
            signal.signal(other, signal.SIG_IGN)  # the process is ending already
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        handler = self.before[signal.Signals(number)]
        if not callable(handler):
            raise SystemExit(128 + number)
        handler(number, None)
        time.sleep(60)  # submitit's does nothing in all processes but the first, which ends the job
        raise SystemExit(REQUEUED)
