"""Lightning's Trainer for one network of a run: conf/trainer, adapted to the run's processes and stages."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor

from fakegan.config.building import Node, build
from fakegan.errors import UsageError
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.runs.trainer_settings import EVERY, TrainerSettings
from fakegan.system import ranks
from fakegan.system.devices import use_device
from fakegan.training.batchnorm import share_statistics
from fakegan.training.callbacks import ClipGradients, EndAfter
from fakegan.training.datamodules import FaceDataModule

_ANSWERED = ("enable_model_summary", "enable_progress_bar", "num_nodes", "strategy")  # here, or by `fit`


class AtomicCheckpointIO(TorchCheckpointIO):
    """Reads and writes Lightning's checkpoints by `fakegan.runs.checkpoints`: a kill leaves the last good file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint of a fit."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of a fit, restricted and checked."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a replaced checkpoint, whose path a foreign file may have named: Lightning would remove a folder."""
        file = Path(path)
        if file.suffix == ".ckpt" and ".." not in file.parts:
            file.unlink(missing_ok=True)


def make_trainer(
    settings: RunSettings,
    max_epochs: int,  # of the network's budget
    folder: Path,  # the stage's
    found: Sequence[pl.Callback],
    writers: list[Logger],
    made: pl.LightningModule,
    data: pl.LightningDataModule | None,  # None: nothing will train, the arguments are tried
) -> pl.Trainer:
    """The Trainer; a UsageError for an argument that Lightning, the module or the data refuse."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    asked = settings.trainer
    own = {key: value for key, value in asked.arguments.items() if key not in _ANSWERED}
    device = use_device(asked.accelerator).type
    _refuse(asked, own, made, max_epochs)
    _refuse_graphs(asked, own, device)
    if isinstance(data, FaceDataModule):
        _limit(own, data)
    epochs, ends = _ends(asked, own, max_epochs, data)
    clips: list[pl.Callback] = []
    if not (made.automatic_optimization and is_overridden("configure_gradient_clipping", made)):
        value, algorithm = own.pop("gradient_clip_val", None), own.pop("gradient_clip_algorithm", None)
        clips = [] if value is None else [ClipGradients(value, algorithm or "norm")]
    # Named, so that Lightning neither guesses from SLURM's variables nor starts processes itself.
    place: ClusterEnvironment = LightningEnvironment() if ranks.count() == 1 else TorchElasticEnvironment()
    options = {
        "num_sanity_val_steps": 0,
        **own,
        "max_epochs": epochs,
        "default_root_dir": str(folder),
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, pl.callbacks.ProgressBar) for callback in found),
        "accelerator": asked.accelerator,
        "precision": asked.precision_on(device),
        "devices": ranks.local_count(),
        "num_nodes": ranks.count() // ranks.local_count(),
        "use_distributed_sampler": False,
    }
    objects = {
        "logger": writers or False,
        "callbacks": [*clips, *ends, *found],
        "plugins": [AtomicCheckpointIO(), place],
        "strategy": _strategy(made, asked.node.get("strategy")),
    }
    built = _built(options, objects)
    if ranks.count() > 1:
        _leave_signals_to_us(built)
    vars(built).setdefault("val_check_interval", math.inf)  # early stopping asks for it where a clock decides
    profiler: Any = vars(built)["profiler"]
    if not isinstance(profiler, PassThroughProfiler):  # it would write to a log that nobody sees
        profiler.dirpath = profiler.dirpath or folder
        profiler.filename = profiler.filename or "profile"
    return built


def _refuse(asked: TrainerSettings, own: Node, made: pl.LightningModule, max_epochs: int) -> None:
    """Raise a UsageError for an argument that does not go with the module, the budget or the processes."""
    accumulated = own.get("accumulate_grad_batches", 1)
    if accumulated != 1 and not made.automatic_optimization:
        raise UsageError(
            f"trainer.accumulate_grad_batches={accumulated} is not for {type(made).__name__}, whose networks learn by "
            "turns: raise its batch_size in conf/budget instead"
        )
    for name in ("min_epochs", EVERY):
        if (own.get(name) or 0) > max_epochs and not ("max_steps" in own and asked.max_epochs is None):
            raise UsageError(
                f"trainer.{name}={own[name]} is more than the epochs, {max_epochs}: give trainer.max_epochs=N"
            )
    machines = ranks.count() // ranks.local_count()
    if asked.node.get("num_nodes", machines) not in (None, machines):
        raise UsageError(
            f"trainer.num_nodes={asked.node['num_nodes']}, but this run is on {machines}: start it by torchrun or srun "
            "on each machine, which say how many there are"
        )


def _refuse_graphs(asked: TrainerSettings, own: Node, device: str) -> None:
    """Raise a UsageError where steps cannot be CUDA graphs; `auto` then makes none."""
    needs = {
        "a CUDA device": device == "cuda",
        "one process": ranks.count() == 1,
        "trainer.accumulate_grad_batches=1": own.get("accumulate_grad_batches", 1) == 1,
    }
    for need, met in needs.items():
        if asked.cuda_graphs is True and not met:
            raise UsageError(f"trainer.cuda_graphs=true needs {need}: leave it out")


def _limit(own: Node, data: FaceDataModule) -> None:
    """Limit the batches of all processes together; Lightning would limit the batches of each."""
    data.train_order.repeats = bool(own.get("overfit_batches"))
    both = own.pop("overfit_batches", None) or None
    for order, key in ((data.train_order, "limit_train_batches"), (data.val_order, "limit_val_batches")):
        given, all_of_them = own.pop(key, None), order.batches
        order.take(given if both is None else both)
        if not order.batches:
            asked = f"{key}={given}" if both is None else f"overfit_batches={both}"
            raise UsageError(f"trainer.{asked} leaves none of {all_of_them} batches: raise it")
    interval = own.get("val_check_interval")
    if isinstance(interval, int) and own.get(EVERY, 1) and interval > data.train_order.batches:
        raise UsageError(
            f"trainer.val_check_interval={interval} is more than the {data.train_order.batches} batches of an epoch: "
            "lower it, or add trainer.check_val_every_n_epoch=null to count on through the epochs"
        )


def _ends(
    asked: TrainerSettings, own: Node, epochs: int, data: pl.LightningDataModule | None
) -> tuple[int, list[pl.Callback]]:
    """Epochs at most, and callbacks that end a training earlier, in place of max_time, max_steps and min_steps.

    Lightning counts the steps of every optimizer, and ends at max_steps without the validation that a run needs.
    """
    most, least = own.pop("max_steps", -1), own.pop("min_steps", None)
    ends: list[pl.Callback] = []
    if asked.seconds is not None:
        ends.append(Timer(timedelta(seconds=asked.seconds), verbose=False))
    by_epoch = own.get(EVERY, 1) is not None and not asked.validates_by_clock
    if data is None or (most == -1 and least is None and by_epoch):
        return epochs, ends
    steps = math.ceil(len(data.train_dataloader()) / own.get("accumulate_grad_batches", 1))
    for key, needed in (("min_steps", least or 0), ("min_epochs", own.get("min_epochs", 0) * steps)):
        if most != -1 and needed > most:  # Lightning would ignore it
            value = least if key == "min_steps" else own[key]
            raise UsageError(
                f"trainer.max_steps={most} ends before trainer.{key}={value}, which needs {needed} steps: raise it"
            )
    if least is not None:
        own["min_epochs"] = max(own.get("min_epochs", 1), math.ceil(least / steps))
    if most != -1:
        if "min_epochs" in own:
            own["min_epochs"] = min(own["min_epochs"], most // steps)  # the last step may be within an epoch
        needed = math.ceil(most / steps)
        epochs = needed if asked.max_epochs is None else min(epochs, needed)
    if most != -1 or not by_epoch:  # the last step of all is followed by a validation
        ends.append(EndAfter(most if most != -1 else epochs * steps, steps))
    return epochs, ends


def _built(options: Mapping[str, Any], objects: Mapping[str, Any]) -> pl.Trainer:
    """The Trainer; an error that names no key gets the key without which the Trainer can be built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return build(options, "trainer", pl.Trainer, **objects)
        except UsageError as error:
            sentence = str(error).removeprefix("trainer: ")
            for key in options if sentence != str(error) else ():
                try:
                    others = {name: value for name, value in options.items() if name != key}
                    build(others, "trainer", pl.Trainer, **objects)
                except UsageError:
                    continue
                raise UsageError(f"trainer.{key}={options[key]}: {sentence}") from error
            raise


class SyncEachBackward(DDPStrategy):
    """One collective after each backward averages the gradients of the weights that learn in it.

    For networks that learn by turns, and nets of which a part rests. For these DistributedDataParallel would walk the
    graph of each backward, send the gradients of the networks that rest, too, and then which weights were used.
    """

    def configure_ddp(self) -> None:
        """Begin with rank 0's weights everywhere. Buffers are statistics, all alike, or a process's own pool."""
        for weights in self._learner.parameters():
            torch.distributed.broadcast(weights.detach(), 0)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average before anything clips or takes a step."""
        ranks.average_gradients(weights for weights in self._learner.parameters() if weights.requires_grad)

    @property
    def _learner(self) -> pl.LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module


def _strategy(made: pl.LightningModule, asked: str | None) -> Strategy | str:
    """One process, or DDP over the run's processes; by turns, or while a part is frozen, some weights rest."""
    if ranks.count() == 1:
        return "auto"
    share_statistics(made)
    frozen = getattr(made, "frozen_epochs", 0) > 0
    if frozen or not made.automatic_optimization or asked == "ddp_find_unused_parameters_true":
        return SyncEachBackward()
    return DDPStrategy(broadcast_buffers=False)  # rank 0's statistics and pool must not replace the others'


def _leave_signals_to_us(trainer: pl.Trainer) -> None:
    """With several processes, Lightning asks rank 0 in each step for its SIGTERM, and waits for the device.

    `SaveAndStop` answers signals in all of them; before the first step, the handler that was there before.
    """
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
