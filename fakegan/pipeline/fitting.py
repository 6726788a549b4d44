"""One fit of one LightningModule: trainer, loggers, checkpoints, resume. Stages say what, this says how."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fakegan.callbacks import Best, EpochLines, Last, MetricsInCheckpoint, StepSeed
from fakegan.checkpoints import AtomicCheckpointIO, load_checkpoint
from fakegan.errors import UsageError
from fakegan.pipeline.settings import RunSettings, StageBudget


def fit(
    make: Callable[[], pl.LightningModule],  # called after seeding, so that weights depend on the seed alone
    data: pl.LightningDataModule,
    folder: Path,  # the stage's: checkpoints and events
    settings: RunSettings,
    budget: StageBudget,
    monitor: str,  # the validation metric that selects the checkpoint
    mode: Literal["min", "max"],
    patience: int | None = None,  # epochs without a better value before it stops
    callbacks: Sequence[pl.Callback] = (),
) -> Path:
    """Train, or go on from the stage's last checkpoint; returns the best checkpoint."""
    checkpoints, finished = folder / "checkpoints", folder / "finished"
    if finished.is_file():  # stopped later, between this stage and the next
        return checkpoints / "best.ckpt"
    every = [
        Best(checkpoints, monitor, mode),
        Last(checkpoints),  # after Best, whose state it holds
        StepSeed(settings.seed),
        MetricsInCheckpoint(),
        *callbacks,
    ]
    if patience is not None:
        every.append(EarlyStopping(monitor, mode=mode, patience=patience, check_finite=False))
    on_terminal = sys.stdout.isatty()
    if not on_terminal:
        every.append(EpochLines(folder.name))
    trainer = _trainer(settings, budget, _logger(settings, folder), every, on_terminal)
    torch.manual_seed(settings.seed)
    module = make()
    last = checkpoints / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and log intervals does not fit memory maps
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None)
        except SIGTERMException:
            raise SystemExit(128 + signal.SIGTERM) from None  # Lightning would end with 0
        except SystemExit:  # Lightning's answer to Ctrl-C, with exit code 1
            raise KeyboardInterrupt from None
    finished.touch()
    return checkpoints / "best.ckpt"


def _trainer(
    settings: RunSettings,
    budget: StageBudget,
    logger: Logger,
    callbacks: list[pl.Callback],
    progress_bar: bool,
) -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator=settings.trainer.accelerator,
        devices=1,
        precision=settings.trainer.precision,
        max_epochs=budget.max_epochs,
        logger=logger,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _logger(settings: RunSettings, folder: Path) -> Logger:
    if settings.logger.name == "csv":
        return CSVLogger(folder.parent, name=folder.name, version="")
    return TensorBoardLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)


def pick_device(accelerator: str) -> torch.device:
    """The device for scoring and reconstructing, by the trainer's accelerator."""
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in {"auto", "gpu", "mps"} and torch.backends.mps.is_available():
        return torch.device("mps")
    if accelerator in {"gpu", "cuda", "mps"}:
        cure = "train with trainer=auto or trainer=cpu, score with device auto"
        raise UsageError(f"there is no {accelerator} on this machine: {cure}")
    return torch.device("cpu")


def weights_of(checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one net out of a LightningModule's checkpoint: those whose names begin with `prefix`."""
    weights = load_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
