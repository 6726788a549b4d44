"""One fit of one LightningModule: trainer, loggers, checkpoints, resume. Stages say what, this says how."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fakegan import ranks
from fakegan.callbacks import Best, Last, MetricsInCheckpoint, Patience, StepSeed
from fakegan.checkpoints import load_checkpoint
from fakegan.epochs import EpochLines, EpochStatus, StageBar, said
from fakegan.errors import FakeganError
from fakegan.files import replacing
from fakegan.modules.batchnorm import share_statistics
from fakegan.pipeline.settings import RunSettings, StageBudget
from fakegan.stopping import SaveAndStop, Stopped
from fakegan.training.checkpoint_io import AtomicCheckpointIO

CHECKPOINTS, LAST = "checkpoints", "last.ckpt"  # in a stage's folder


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
    begun: Path | None = None,  # another run's folder of this stage: go on from there, where this one has saved nothing
) -> Path:
    """Train, or go on from the stage's last checkpoint, with all processes of the run; returns the best checkpoint.

    Raises:
        KeyboardInterrupt, SystemExit: a signal asked to stop; the fit has been saved.
        FakeganError: the last checkpoint is of another network.
    """
    checkpoints, finished = folder / CHECKPOINTS, folder / "finished"
    if ranks.on_first(finished.is_file):  # stopped later, between this stage and the next
        return checkpoints / "best.ckpt"
    last = checkpoints / LAST
    ranks.on_first(lambda: _writable(checkpoints))
    stop = SaveAndStop(last, settings.callbacks.save_minutes)
    every = [
        Best(checkpoints, monitor, mode),
        Last(checkpoints),  # after Best, whose state it holds
        StepSeed(settings.seed),
        MetricsInCheckpoint(),
        EpochStatus(folder.parent, folder.name),
        EpochLines(folder.name),  # before the one that may stop the fit
        *callbacks,
        stop,
    ]
    if patience is not None:
        every.append(Patience(monitor, mode, patience))
    on_terminal = sys.stdout.isatty()
    if on_terminal:
        every.append(StageBar(folder.name))  # named: rich, where installed, is mute
    torch.manual_seed(settings.seed)
    module = make()
    if begun is not None:
        ranks.on_first(lambda: _take_over(begun / CHECKPOINTS, checkpoints, module))
    trainer = _trainer(settings, budget, _logger(settings, folder), every, on_terminal, _strategy(module))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and log intervals does not fit memory maps
        try:
            saved = ranks.on_first(last.is_file)
            trainer.fit(module, datamodule=data, ckpt_path=_checked(last, module) if saved else None)
        except Stopped as stopped:
            stop.follow(stopped.number)
        except SIGTERMException:  # before the first step; Lightning would end with 0
            stop.follow(signal.SIGTERM)
        except SystemExit as ended:
            if ended.code != 1:
                raise
            raise KeyboardInterrupt from None  # a second Ctrl-C, which Lightning answers with exit code 1
    ranks.on_first(lambda: _tell_end(folder, trainer, patience))
    ranks.on_first(finished.touch)
    stop.follow(ranks.largest(stop.noted))  # it came in the last epoch
    return checkpoints / "best.ckpt"


def _tell_end(folder: Path, trainer: pl.Trainer, patience: int | None) -> None:
    """Which epoch is kept; and why there was none after the last one, where more were asked for."""
    best, last, epochs = load_checkpoint(folder / CHECKPOINTS / "best.ckpt"), trainer.current_epoch, trainer.max_epochs
    if last < (epochs or 0):
        told = f"early stop after epoch {last}/{epochs}: {patience} epochs without a better val AUROC"
        print(f"{folder.name}: {told}", flush=True)
    print(f"{folder.name}: kept epoch {best['epoch'] + 1}/{epochs}, {said(best['metrics'], 'val')}", flush=True)


def _take_over(theirs: Path, own: Path, module: pl.LightningModule) -> None:
    """Copy another run's checkpoints of the same fit; those that are damaged or of another version are left alone."""
    if (own / LAST).exists() or not (theirs / LAST).is_file():
        return
    with contextlib.suppress(FakeganError, OSError):  # it would only have saved time
        _checked(theirs / LAST, module)
        for path in sorted(theirs.glob("*.ckpt")):  # the last comes last: it says that all are there
            with replacing(own / path.name) as building:
                shutil.copyfile(path, building)
        print(f"{own.parent.name}: going on where {theirs.parent.parent.name} stopped", flush=True)


def _checked(last: Path, module: pl.LightningModule) -> str:
    """The checkpoint to go on from, if it is one of this module."""

    def shapes(state: Any) -> dict[str, Any]:
        return {name: getattr(value, "shape", None) for name, value in state.items()}

    content = load_checkpoint(last)
    parts = {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "epoch", "global_step"}
    whole = parts | {"pytorch-lightning_version"} <= set(content)
    if not whole or shapes(content["state_dict"]) != shapes(module.state_dict()):
        raise FakeganError(f"{last} is of another network, or another version of FakeGAN: start a new run")
    return str(last)


def _writable(folder: Path) -> None:
    """Try it before an epoch is lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FakeganError(f"{folder} cannot be written ({error.strerror}): its checkpoints would be lost") from error


def _strategy(module: pl.LightningModule) -> Strategy | str:
    """One process, or the run's: they average gradients; each of a module's networks learns by turns."""
    if ranks.count() == 1:
        return "auto"
    share_statistics(module)
    by_turns = not module.automatic_optimization
    # Buffers are statistics, the same everywhere, or a process's own pool: the first's must not replace them.
    options: dict[str, Any] = {"find_unused_parameters": by_turns, "broadcast_buffers": False}
    return DDPStrategy(**options)


def _trainer(
    settings: RunSettings,
    budget: StageBudget,
    logger: Logger,
    callbacks: list[pl.Callback],
    progress_bar: bool,
    strategy: Strategy | str,
) -> pl.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Named, so that Lightning neither guesses from SLURM's variables nor starts processes itself.
    place: ClusterEnvironment = LightningEnvironment() if ranks.count() == 1 else TorchElasticEnvironment()
    return pl.Trainer(
        accelerator=settings.trainer.accelerator,
        devices=ranks.local_count(),
        num_nodes=ranks.count() // ranks.local_count(),
        strategy=strategy,
        precision=settings.trainer.precision,
        max_epochs=budget.max_epochs,
        logger=logger,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), place],
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _logger(settings: RunSettings, folder: Path) -> Logger:
    if settings.logger.name == "csv":
        ranks.on_first(lambda: _set_aside(folder / "metrics.csv"))
        return CSVLogger(folder.parent, name=folder.name, version="")
    return TensorBoardLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)


def _set_aside(log: Path) -> None:
    """Keep an earlier start's metrics.csv, which Lightning would delete, as metrics_1.csv and so on."""
    if log.is_file():
        number = next(i for i in itertools.count(1) if not log.with_stem(f"metrics_{i}").exists())
        log.rename(log.with_stem(f"metrics_{number}"))


def weights_of(checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one net out of a LightningModule's checkpoint: those whose names begin with `prefix`."""
    weights = load_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
