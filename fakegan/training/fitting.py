"""One fit of one LightningModule: trainer, callbacks, loggers, checkpoints, resume."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.model_summary.model_summary import ModelSummary

from fakegan.config.building import Node
from fakegan.errors import FakeganError, UsageError, one_line
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.folder import AUTOENCODER_FOLDER, BEST, CHECKPOINTS, FINISHED, LAST
from fakegan.runs.settings import RunSettings, StageBudget
from fakegan.system import ranks
from fakegan.system.files import replacing, why_not_writable
from fakegan.system.log import quiet
from fakegan.system.processes import jobs_per_gpu
from fakegan.training import parts
from fakegan.training.averaging import AVERAGE, WeightAverage
from fakegan.training.callbacks import Best, ChannelsLast, Last, Patience, StepSeed
from fakegan.training.graphs import CudaGraphs, GraphsFailedError, failure_as_error
from fakegan.training.loggers import loggers
from fakegan.training.progress import EpochStatus, shown
from fakegan.training.stopping import SaveAndStop, Stopped
from fakegan.training.trainer import make_trainer

log = logging.getLogger(__name__)
_PARTS = {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "epoch", "global_step"}


def fit(
    make: Callable[[], pl.LightningModule],  # called after seeding, so that weights depend on the seed alone
    data: pl.LightningDataModule,
    folder: Path,  # the stage's: checkpoints and events
    settings: RunSettings,
    budget: StageBudget,
    stops_early: bool = False,  # whether conf/callbacks' early stopping is for this training
    begun: Path | None = None,  # another run's folder of this stage: resume it, where this run has saved nothing
    begin: Callable[[pl.LightningModule], None] = lambda _: None,  # called for a fit that is not resumed
    averaged: WeightAverage | None = None,  # of the module's net
) -> Path:
    """Train, or resume the stage's last checkpoint, with all processes of the run; returns the best checkpoint.

    Raises:
        KeyboardInterrupt, SystemExit: a signal asked to stop; the fit has been saved, unless it came before the
            first step, or Ctrl-C came twice.
        FakeganError: the last checkpoint is of another network, or a step needs more memory than there is.
        UsageError: an argument of the trainer does not fit these data.
    """
    checkpoints, finished = folder / CHECKPOINTS, folder / FINISHED
    if ranks.on_rank_zero(finished.is_file):  # the run was stopped later, between this stage and the next
        return checkpoints / BEST
    last = checkpoints / LAST
    ranks.on_rank_zero(lambda: _try_writing(checkpoints))
    torch.manual_seed(settings.seed)
    module = make()
    if begun is not None:
        ranks.on_rank_zero(lambda: _take_over(begun / CHECKPOINTS, checkpoints, module))
    if not (saved := ranks.on_rank_zero(last.is_file)):
        begin(module)
    trainer, stop = trainer_for(module, data, folder, settings, budget, stops_early, copy(averaged))
    if settings.trainer.node.get("enable_model_summary"):
        log.info("%s", ModelSummary(module))  # Lightning would write it to a log that nobody sees
    say_frozen(folder.name, module, trainer)
    failed = _train(trainer, module, data, last if saved else None, settings, stop)
    if failed:
        log.warning("%s: training with CUDA graphs failed (%s): it goes on without them", folder.name, failed)
        del module, trainer, stop
        gc.collect()  # they hold each other, and memory of the GPU
        plain = replace(settings, trainer=replace(settings.trainer, cuda_graphs=False))
        return fit(make, data, folder, plain, budget, stops_early, begun, begin, averaged)
    ranks.on_rank_zero(lambda: say_end(folder, trainer))
    ranks.on_rank_zero(finished.touch)
    stop.follow(ranks.largest(stop.noted))  # a signal came in the last epoch
    return checkpoints / BEST


def _train(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    resumed: Path | None,  # a checkpoint
    settings: RunSettings,
    stop: SaveAndStop,
) -> str:
    """Lightning's fit; signals and errors leave it as `fit` says. Returns why CUDA graphs failed, else empty."""
    stage, tried = Path(trainer.default_root_dir).name, _convolutions_tried(settings.trainer.arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and log intervals does not fit memory maps
        try:
            with _out_of_memory_as_error(stage, settings), failure_as_error(trainer), tried:
                trainer.fit(module, datamodule=data, ckpt_path=_checked(resumed, module) if resumed else None)
        except GraphsFailedError as error:
            return str(error)
        except MisconfigurationException as error:  # Lightning notices only now, of the user's own module or data
            raise UsageError(f"trainer: {one_line(error, None)}") from error
        except Stopped as stopped:
            stop.follow(stopped.number)
        except SIGTERMException:  # before the first step; Lightning would end with 0
            stop.follow(signal.SIGTERM)
        except SystemExit as ended:
            if ended.code != 1:
                raise
            raise KeyboardInterrupt from None  # a second Ctrl-C, which Lightning answers with exit code 1
    return ""


@contextlib.contextmanager
def _out_of_memory_as_error(stage: str, settings: RunSettings) -> Iterator[None]:
    """Within, an error of torch about too little memory becomes a FakeganError that names the batch size to lower."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; MPS and the CPU raise it plainly
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        key, size = settings.batch_sizes()[0 if stage == AUTOENCODER_FOLDER else -1]
        shared = f", or hydra.launcher.jobs_per_gpu={jobs_per_gpu()}" if jobs_per_gpu() > 1 else ""
        raise FakeganError(
            f"{stage}: a step of {key}={size} faces needs more memory than there is: lower it{shared}"
        ) from error


@contextlib.contextmanager
def _convolutions_tried(asked: Node) -> Iterator[None]:
    """Within, cuDNN tries its convolutions and keeps the quickest, unless trainer.benchmark or deterministic is set.

    The batches of a training have one shape, but for the last to validate on. Scores come later, of batches of any.
    """
    before = torch.backends.cudnn.benchmark
    if "benchmark" not in asked and not asked.get("deterministic"):
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def trainer_for(
    module: pl.LightningModule,
    data: pl.LightningDataModule | None,  # None: nothing will train; the arguments are tried
    folder: Path,
    settings: RunSettings,
    budget: StageBudget,
    stops_early: bool,
    averaged: WeightAverage | None = None,  # of the module's net
) -> tuple[pl.Trainer, SaveAndStop]:
    """The trainer of a fit, and the callback that stops it; a UsageError for an impossible argument."""
    found = parts.callbacks(settings, folder, module, stops_early, terminal=sys.stdout.isatty() and not quiet())
    best, stop = parts.needed(found, "model_checkpoint", Best), parts.needed(found, "save_and_stop", SaveAndStop)
    every = [
        best,
        Last(folder, best),  # after Best, whose state it holds
        StepSeed(settings.seed),
        ChannelsLast(),
        CudaGraphs(folder.name, settings.trainer.cuda_graphs),
        EpochStatus(folder.parent, folder.name),
        *([averaged] if averaged else []),
        *(callback for callback in found.values() if callback not in {best, stop}),
        stop,
    ]
    writers = [] if data is None else loggers(settings, folder, prefix=folder.name)
    return make_trainer(settings, budget.max_epochs, folder, every, writers, module, data), stop


def say_frozen(stage: str, module: pl.LightningModule, trainer: pl.Trainer) -> None:
    """Warn of a fit that ends before its body is thawed: right for a probe of the weights, else a slip."""
    frozen, epochs = getattr(module, "frozen_epochs", 0), trainer.max_epochs or 0
    if 0 < epochs <= frozen:
        log.warning("%s: only the head learns: frozen_epochs=%s covers all epochs (%s)", stage, frozen, epochs)


def say_end(folder: Path, trainer: pl.Trainer) -> None:
    """Which epoch is kept, why the fit ended before its last epoch, and where a profile is."""
    best, last, epochs = load_checkpoint(folder / CHECKPOINTS / BEST), trainer.current_epoch, trainer.max_epochs
    if last < (epochs or 0):
        log.info("%s: early stop after epoch %s/%s%s", folder.name, last, epochs, reason_of_end(trainer))
    value = shown(best["metrics"], "val")
    log.info("%s: kept epoch %s/%s%s", folder.name, best["epoch"] + 1, epochs, f", val {value}" if value else "")
    for profile in sorted(folder.glob("*profile*.txt")):
        log.info("%s: profile in %s", folder.name, profile)


def reason_of_end(trainer: pl.Trainer) -> str:
    """The reason why a fit ended before its last epoch, after a colon; empty where no callback knows it."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return ": trainer.max_time is over"
        if isinstance(callback, Patience) and callback.wait_count >= callback.patience:
            by_epoch = (trainer.val_check_interval, trainer.check_val_every_n_epoch) == (1.0, 1)
            metric = "val AUROC" if callback.monitor == "val/auroc" else callback.monitor
            return f": {callback.patience} {'epochs' if by_epoch else 'validations'} without a better {metric}"
    return ""


def _take_over(theirs: Path, own: Path, module: pl.LightningModule) -> None:
    """Copy another run's checkpoints of the same fit; damaged files, or files of another version, are left alone."""
    if (own / LAST).exists() or not (theirs / LAST).is_file():
        return
    with contextlib.suppress(FakeganError, OSError):  # it would only have saved time
        _checked(theirs / LAST, module)
        for path in sorted(theirs.glob("*.ckpt")):  # last.ckpt comes last: then all files are there
            with replacing(own / path.name) as building:
                shutil.copyfile(path, building)
        log.info("%s: going on where %s stopped", own.parent.name, theirs.parent.parent.name)


def _checked(last: Path, module: pl.LightningModule) -> str:
    """The path of a checkpoint to resume, if it is of this module."""
    content = load_checkpoint(last)
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise FakeganError(f"{last} is damaged or of another version: start a new run")
    saved, own = (
        {name: getattr(value, "shape", None) for name, value in x.items()} for x in (state, module.state_dict())
    )
    if not _PARTS | {"pytorch-lightning_version"} <= set(content) or saved != own:
        raise FakeganError(f"{last} is of another network, or another version of FakeGAN: start a new run")
    return str(last)


def _try_writing(folder: Path) -> None:
    """Raise a FakeganError now for a folder that cannot be written, before an epoch is lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = why_not_writable(folder)
    except OSError as error:
        why = error.strerror
    if why:
        raise FakeganError(f"{folder} cannot be written ({why}): its checkpoints would be lost")


def weights_of(checkpoint: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one net out of a LightningModule's checkpoint: the weights whose names begin with `prefix`.

    Of a net whose weights were averaged, it is the mean.
    """
    content = load_checkpoint(checkpoint)
    weights = content["state_dict"] | content.get(AVERAGE, {})
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
