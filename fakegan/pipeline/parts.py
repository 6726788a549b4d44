"""What a run builds from its config: networks and the module that trains them, callbacks, loggers, trainer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import nn

from fakegan import ranks
from fakegan.building import TARGET, Node, build, takes
from fakegan.errors import UsageError
from fakegan.modules.batchnorm import share_statistics
from fakegan.modules.by_turns import ByTurns
from fakegan.pipeline.settings import EARLY_STOPPING, RunSettings
from fakegan.training.checkpoint_io import AtomicCheckpointIO

CHANNELS = ("in_channels", "out_channels")  # options of networks that follow from what the classifier sees
C = TypeVar("C", bound=pl.Callback)


def autoencoder(settings: RunSettings) -> pl.LightningModule:
    """conf/model: the adversarial autoencoder, with fresh weights.

    Raises:
        UsageError: a class that does not exist, or an option of it.
    """
    return module(settings.model.node, "model")


def classifier(settings: RunSettings) -> pl.LightningModule:
    """conf/classifier: the classifier of what the pipeline shows it, with fresh weights.

    Raises:
        UsageError: a class that does not exist, or an option of it; a net that cannot take the view.
    """
    view = settings.pipeline.seen
    node = with_channels(settings.classifier.node, 3 if view is None else view.channels)
    made = module(node, "classifier")
    if not isinstance(getattr(made, "net", None), nn.Module):
        raise UsageError(
            f"classifier.{TARGET}={node[TARGET]} must keep its network as `net`: the detector is made of it"
        )
    return made


def with_channels(node: Node, channels: int) -> Node:
    """A module's node whose networks take, or make, so many channels."""
    inner = {
        key: _network_of(value, channels, f"classifier.{key}") for key, value in node.items() if _is_network(value)
    }
    return {**node, **inner}


def _is_network(value: Any) -> bool:
    return isinstance(value, dict) and TARGET in value and not value.get("_partial_")


def _network_of(node: Node, channels: int, at: str) -> Node:
    fitting = {option: channels for option in CHANNELS if takes(node, option)}
    if channels != 3 and not fitting and at == "classifier.net":
        raise UsageError(
            f"{at}.{TARGET}={node[TARGET]} has no option in_channels, but the pipeline's view has {channels}"
        )
    return {**node, **fitting}


def module(node: Node, at: str) -> pl.LightningModule:
    """A LightningModule: first its networks, in the order of the config, then itself."""
    networks = {key: build(value, f"{at}.{key}", nn.Module) for key, value in node.items() if _is_network(value)}
    rest = {key: value for key, value in node.items() if key not in networks}
    made = build(rest, at, pl.LightningModule, **networks)
    _try_optimizer(made, at)
    return made


def _try_optimizer(made: pl.LightningModule, at: str) -> None:
    """What an optimizer refuses is said before anything trains."""
    make = getattr(made, "make_optimizer", None)
    if make is None:
        return
    try:
        make([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{at}.optimizer: {error}") from error


def callbacks(
    settings: RunSettings,
    folder: Path,  # the stage's
    made: pl.LightningModule,
    stops_early: bool,  # whether early stopping is for this training
    terminal: bool,  # whether a bar can be seen
) -> dict[str, pl.Callback]:
    """conf/callbacks, by name; each is given what it asks for of the stage's folder, metric and direction."""
    offered = {
        "folder": folder,
        "stage": folder.name,
        "monitor": getattr(made, "monitor", "val/auroc"),
        "mode": getattr(made, "mode", "max"),
    }
    left_out = {EARLY_STOPPING} if not stops_early else set()
    if not terminal or settings.trainer.node.get("enable_progress_bar") is False:
        left_out.add("progress_bar")
    if not settings.logger:
        left_out.add("learning_rate_monitor")
    found: dict[str, pl.Callback] = {}
    for name, node in settings.callbacks.items():
        if node is None or name in left_out:
            continue
        at = f"callbacks.{name}"
        given = {key: value for key, value in offered.items() if node.get(key) is None and takes(_node(node, at), key)}
        found[name] = build({k: v for k, v in node.items() if k not in given}, at, pl.Callback, **given)
    return found


def _node(node: Any, at: str) -> Node:
    if not isinstance(node, dict) or not isinstance(node.get(TARGET), str):
        raise UsageError(f"{at} must name what it builds: {at}.{TARGET}=package.module.Class, or null for none")
    return node


def needed(found: Mapping[str, pl.Callback], name: str, kind: type[C]) -> C:
    """A callback that no training can do without.

    Raises:
        UsageError: it was left out, or replaced by one of another kind.
    """
    callback = found.get(name)
    if not isinstance(callback, kind):
        raise UsageError(f"callbacks.{name} must be a fakegan {kind.__name__}: a run goes on and ends by what it keeps")
    return callback


def loggers(settings: RunSettings, folder: Path) -> list[Logger]:
    """conf/logger: what writes down scalars and pictures, in the stage's folder."""
    found = []
    for name, node in (settings.logger or {}).items():
        if node is None:
            continue
        at = f"logger.{name}"
        offered = {"save_dir": str(folder.parent), "name": folder.name, "version": ""}
        given = {key: value for key, value in offered.items() if node.get(key) is None and takes(_node(node, at), key)}
        if str(node[TARGET]).endswith("CSVLogger"):
            ranks.on_first(lambda: _set_aside(folder / "metrics.csv"))
        found.append(build({k: v for k, v in node.items() if k not in given}, at, Logger, **given))  # type: ignore[type-abstract]
    return found


def _set_aside(log: Path) -> None:
    """Keep an earlier start's metrics.csv, which Lightning would delete, as metrics_1.csv and so on."""
    if log.is_file():
        number = next(i for i in itertools.count(1) if not log.with_stem(f"metrics_{i}").exists())
        log.rename(log.with_stem(f"metrics_{number}"))


def trainer(
    settings: RunSettings,
    max_epochs: int,
    folder: Path,  # the stage's
    found: list[pl.Callback],
    writers: list[Logger],
    made: pl.LightningModule,
) -> pl.Trainer:
    """conf/trainer: Lightning's Trainer, as this run's processes need it.

    Raises:
        UsageError: an argument that it refuses.
    """
    own = dict(settings.trainer.node)
    if isinstance(made, ByTurns):
        clip = own.pop("gradient_clip_val", None)
        algorithm = own.pop("gradient_clip_algorithm", None)
        made.clip = None if clip is None else (float(clip), algorithm or "norm")
    # Named, so that Lightning neither guesses from SLURM's variables nor starts processes itself.
    place: ClusterEnvironment = LightningEnvironment() if ranks.count() == 1 else TorchElasticEnvironment()
    options = {
        "strategy": _strategy(made),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": max_epochs,
        "default_root_dir": str(folder),
        "enable_progress_bar": any(isinstance(callback, pl.callbacks.ProgressBar) for callback in found),
        **own,
        "accelerator": settings.trainer.accelerator,
        "precision": settings.trainer.precision,
        "devices": ranks.local_count(),
        "num_nodes": ranks.count() // ranks.local_count(),
        "use_distributed_sampler": False,
    }
    objects = {"logger": writers or False, "callbacks": found, "plugins": [AtomicCheckpointIO(), place]}
    strategy = {} if isinstance(options["strategy"], str) else {"strategy": options.pop("strategy")}
    return build(options, "trainer", pl.Trainer, **objects, **strategy)


def _strategy(made: pl.LightningModule) -> Strategy | str:
    """One process, or the run's: they average gradients; each of a module's networks learns by turns."""
    if ranks.count() == 1:
        return "auto"
    share_statistics(made)
    by_turns = not made.automatic_optimization
    # Buffers are statistics, the same everywhere, or a process's own pool: the first's must not replace them.
    options: dict[str, Any] = {"find_unused_parameters": by_turns, "broadcast_buffers": False}
    return DDPStrategy(**options)
