"""One fit of one LightningModule: trainer, loggers, checkpoints, resume. Stages say what, this says how."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.model_summary.model_summary import ModelSummary

from fakegan.errors import FakeganError, UsageError
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.folder import BEST, CHECKPOINTS, FINISHED, LAST
from fakegan.runs.settings import RunSettings, StageBudget
from fakegan.system import ranks
from fakegan.system.files import replacing
from fakegan.training import parts
from fakegan.training.callbacks import Best, Last, MetricsInCheckpoint, Patience, StepSeed
from fakegan.training.loggers import loggers
from fakegan.training.progress import EpochStatus, said
from fakegan.training.stopping import SaveAndStop, Stopped
from fakegan.training.trainer import make_trainer


def fit(
    make: Callable[[], pl.LightningModule],  # called after seeding, so that weights depend on the seed alone
    data: pl.LightningDataModule,
    folder: Path,  # the stage's: checkpoints and events
    settings: RunSettings,
    budget: StageBudget,
    stops_early: bool = False,  # whether conf/callbacks' early stopping is for this training
    begun: Path | None = None,  # another run's folder of this stage: go on from there, where this one has saved nothing
) -> Path:
    """Train, or go on from the stage's last checkpoint, with all processes of the run; returns the best checkpoint.

    Raises:
        KeyboardInterrupt, SystemExit: a signal asked to stop; the fit has been saved.
        FakeganError: the last checkpoint is of another network.
        UsageError: an argument of the trainer does not go with these data.
    """
    checkpoints, finished = folder / CHECKPOINTS, folder / FINISHED
    if ranks.on_rank_zero(finished.is_file):  # stopped later, between this stage and the next
        return checkpoints / BEST
    last = checkpoints / LAST
    ranks.on_rank_zero(lambda: _writable(checkpoints))
    torch.manual_seed(settings.seed)
    module = make()
    if begun is not None:
        ranks.on_rank_zero(lambda: _take_over(begun / CHECKPOINTS, checkpoints, module))
    trainer, stop = trainer_for(module, data, folder, settings, budget, stops_early)
    if settings.trainer.node.get("enable_model_summary"):
        print(ModelSummary(module), flush=True)  # Lightning would write it to a log that nobody sees
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and log intervals does not fit memory maps
        try:
            saved = ranks.on_rank_zero(last.is_file)
            trainer.fit(module, datamodule=data, ckpt_path=_checked(last, module) if saved else None)
        except MisconfigurationException as error:  # what it sees only now, of the user's own module or data
            raise UsageError(f"trainer: {' '.join(str(error).split())}") from error
        except Stopped as stopped:
            stop.follow(stopped.number)
        except SIGTERMException:  # before the first step; Lightning would end with 0
            stop.follow(signal.SIGTERM)
        except SystemExit as ended:
            if ended.code != 1:
                raise
            raise KeyboardInterrupt from None  # a second Ctrl-C, which Lightning answers with exit code 1
    ranks.on_rank_zero(lambda: _tell_end(folder, trainer))
    ranks.on_rank_zero(finished.touch)
    stop.follow(ranks.largest(stop.noted))  # it came in the last epoch
    return checkpoints / BEST


def trainer_for(
    module: pl.LightningModule,
    data: pl.LightningDataModule | None,  # None: nothing will train, but what cannot be is refused
    folder: Path,
    settings: RunSettings,
    budget: StageBudget,
    stops_early: bool,
) -> tuple[pl.Trainer, SaveAndStop]:
    """The trainer of a fit, with its callbacks and loggers; and that of the callbacks which stops it.

    Raises:
        UsageError: a callback, a logger or an argument of the trainer that cannot be.
    """
    found = parts.callbacks(settings, folder, module, stops_early, terminal=sys.stdout.isatty())
    best, stop = parts.needed(found, "model_checkpoint", Best), parts.needed(found, "save_and_stop", SaveAndStop)
    others = [callback for callback in found.values() if callback not in {best, stop}]
    every = [
        best,
        Last(folder),  # after Best, whose state it holds
        StepSeed(settings.seed),
        MetricsInCheckpoint(),
        EpochStatus(folder.parent, folder.name),
        *others,
        stop,
    ]
    writers = [] if data is None else loggers(settings, folder, prefix=folder.name)
    return make_trainer(settings, budget.max_epochs, folder, every, writers, module, data), stop


def _tell_end(folder: Path, trainer: pl.Trainer) -> None:
    """Which epoch is kept; why there was none after the last one, where more were asked for; where a profile is."""
    best, last, epochs = load_checkpoint(folder / CHECKPOINTS / BEST), trainer.current_epoch, trainer.max_epochs
    why = _ended_by(trainer)
    if last < (epochs or 0):
        print(f"{folder.name}: early stop after epoch {last}/{epochs}{why}", flush=True)
    kept = [f"{folder.name}: kept epoch {best['epoch'] + 1}/{epochs}", said(best["metrics"], "val")]
    print(", ".join(filter(None, kept)), flush=True)
    for profile in sorted(folder.glob("*profile*.txt")):
        print(f"{folder.name}: profile in {profile}", flush=True)


def _ended_by(trainer: pl.Trainer) -> str:
    """What ended a fit before its last epoch, after a colon."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return ": trainer.max_time is over"
        if isinstance(callback, Patience) and callback.wait_count >= callback.patience:
            by_epoch = (trainer.val_check_interval, trainer.check_val_every_n_epoch) == (1.0, 1)
            often = "epochs" if by_epoch else "validations"
            metric = "val AUROC" if callback.monitor == "val/auroc" else callback.monitor
            return f": {callback.patience} {often} without a better {metric}"
    return ""


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
    if not isinstance(content.get("state_dict"), dict):
        raise FakeganError(f"{last} is damaged or of another version: start a new run")
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


def weights_of(checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one net out of a LightningModule's checkpoint: those whose names begin with `prefix`."""
    weights = load_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
