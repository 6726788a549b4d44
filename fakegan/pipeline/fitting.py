"""One fit of one LightningModule: trainer, loggers, checkpoints, resume. Stages say what, this says how."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fakegan import ranks
from fakegan.callbacks import Best, Last, MetricsInCheckpoint, Patience, StepSeed
from fakegan.checkpoints import CHECKPOINTS, LAST, load_checkpoint
from fakegan.epochs import EpochStatus, said
from fakegan.errors import FakeganError
from fakegan.files import replacing
from fakegan.pipeline import parts
from fakegan.pipeline.settings import RunSettings, StageBudget
from fakegan.stopping import SaveAndStop, Stopped


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
    """
    checkpoints, finished = folder / CHECKPOINTS, folder / "finished"
    if ranks.on_first(finished.is_file):  # stopped later, between this stage and the next
        return checkpoints / "best.ckpt"
    last = checkpoints / LAST
    ranks.on_first(lambda: _writable(checkpoints))
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    torch.manual_seed(settings.seed)
    module = make()
    if begun is not None:
        ranks.on_first(lambda: _take_over(begun / CHECKPOINTS, checkpoints, module))
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
    trainer = parts.trainer(settings, budget.max_epochs, folder, every, parts.loggers(settings, folder), module)
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
    ranks.on_first(lambda: _tell_end(folder, trainer))
    ranks.on_first(finished.touch)
    stop.follow(ranks.largest(stop.noted))  # it came in the last epoch
    return checkpoints / "best.ckpt"


def _tell_end(folder: Path, trainer: pl.Trainer) -> None:
    """Which epoch is kept; and why there was none after the last one, where more were asked for."""
    best, last, epochs = load_checkpoint(folder / CHECKPOINTS / "best.ckpt"), trainer.current_epoch, trainer.max_epochs
    if last < (epochs or 0):
        stopping = next((c for c in trainer.callbacks if isinstance(c, Patience)), None)  # type: ignore[attr-defined]
        why = f": {stopping.patience} epochs without a better val AUROC" if stopping is not None else ""
        print(f"{folder.name}: early stop after epoch {last}/{epochs}{why}", flush=True)
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


def weights_of(checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one net out of a LightningModule's checkpoint: those whose names begin with `prefix`."""
    weights = load_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
