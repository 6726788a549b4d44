"""What people see of a fit: a line for some of its epochs and, on a terminal, a bar below them.

No step waits for the device: the bar reads the losses a few times a second, the lines when an epoch ends.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from tqdm import tqdm

from fakegan.runs.status import Status, write_status

log = logging.getLogger(__name__)
_REDRAW = 0.25  # seconds
_LINES = 20  # of a fit, about
# The metrics that are shown, in this order, and their names for people; the logger's files have all metrics.
_TRAIN = {"loss": "loss", "l1": "L1", "discriminator": "D", "generator_loss": "G"}
_VAL = {"psnr": "PSNR", "auroc": "AUROC"}


def shown(metrics: Mapping[str, Any], split: str, most: int | None = None) -> str:
    """The metrics of a split that are shown, the first `most` of them: `AUROC 0.833`; empty where none is known."""
    names = _TRAIN if split == "train" else _VAL
    known = {name: float(metrics[f"{split}/{key}"]) for key, name in names.items() if f"{split}/{key}" in metrics}
    return " ".join(
        f"{name} {value:.2f} dB" if name == "PSNR" else f"{name} {value:.3f}" for name, value in [*known.items()][:most]
    )


class EpochLines(pl.Callback):
    """A line at the ends of a fit's first and last epoch, and of some between them; about twenty."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started, self.first, self.written = time.monotonic(), trainer.current_epoch, trainer.current_epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the line of the epoch before: only now are all its metrics known."""
        self._write(trainer, trainer.current_epoch, every=math.ceil((trainer.max_epochs or 1) / _LINES))

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the line of the last epoch."""
        self._write(trainer, trainer.fit_loop.epoch_progress.current.ready, every=1)

    def _write(self, trainer: pl.Trainer, done: int, every: int) -> None:
        if done == self.written or (done % every and done != self.first + 1):
            return
        self.written, epochs = done, trainer.max_epochs or done
        left = (time.monotonic() - self.started) / (done - self.first) * (epochs - done)
        metrics = {split: shown(trainer.callback_metrics, split) for split in ("train", "val")}
        words = [f"{self.stage} epoch {done}/{epochs}", *(f"{split} {text}" for split, text in metrics.items() if text)]
        with tqdm.external_write_mode(sys.stdout):  # above a bar, if there is one
            log.info("  ".join([*words, f"{tqdm.format_interval(left)} left"]))


class StageBar(TQDMProgressBar):
    """A bar for all steps of a fit: epoch, time left at most, loss, validation metric; within 80 columns."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage
        self.drawn = 0.0

    def init_train_tqdm(self) -> Tqdm:
        """A bar that disappears when the fit is over: the lines stay."""
        return Tqdm(
            total=(self.trainer.max_epochs or 1) * int(self.trainer.num_training_batches),
            initial=self.trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            disable=self.is_disabled,
            leave=False,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def init_validation_tqdm(self) -> Tqdm:
        """Validation has no bar."""
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Draw the epoch's number."""
        self._draw(trainer, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Redraw, unless that was done a moment ago."""
        if time.monotonic() - self.drawn > _REDRAW:
            self._draw(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Redraw."""
        self._draw(trainer, int(trainer.num_training_batches))

    def on_validation_end(self, *_: Any) -> None:
        """Do not redraw: the epoch's end comes at once."""
        self.reset_dataloader_idx_tracker()

    def _draw(self, trainer: pl.Trainer, batches: int) -> None:
        bar = self.train_progress_bar
        if bar.disable:
            return
        means = getattr(trainer.lightning_module, "train_means", None)
        losses = {f"train/{key}": value for key, value in means.here().items()} if means else {}
        bar.n = trainer.current_epoch * int(trainer.num_training_batches) + batches
        bar.set_description_str(f"{self.stage} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)
        known = [shown(losses, "train", most=1), shown(trainer.callback_metrics, "val")]
        bar.set_postfix_str(" val ".join(known) if known[1] else known[0], refresh=False)
        bar.refresh()
        self.drawn = time.monotonic()


class EpochStatus(pl.Callback):
    """The run's status file names the epoch, and the validation metric of the epoch before."""

    def __init__(self, run_dir: Path, stage: str) -> None:
        self.run_dir = run_dir
        self.stage = stage

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write it, also for an epoch that is resumed in its middle."""
        if trainer.is_global_zero:
            value = shown(trainer.callback_metrics, "val")
            write_status(self.run_dir, Status(self.stage, trainer.current_epoch + 1, trainer.max_epochs or 0, value))

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write it."""
        self.on_train_start(trainer, module)
