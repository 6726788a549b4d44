"""What a run builds from its config: networks and the module that trains them, callbacks, loggers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch import nn

from fakegan.config.building import TARGET, Node, build, takes
from fakegan.config.options import FOLLOWING
from fakegan.config.signatures import REQUIRED, signature
from fakegan.config.trust import refuse_unreadable
from fakegan.errors import UsageError
from fakegan.runs.settings import EARLY_STOPPING, RunSettings
from fakegan.training import trials

KEPT_AS = {"model": "autoencoder", "classifier": "net"}  # where a module keeps the network that a run keeps
UNFINISHED = ("optimizer", "schedule")  # options that a module completes
C = TypeVar("C", bound=pl.Callback)


def autoencoder(settings: RunSettings) -> pl.LightningModule:
    """conf/model: the adversarial autoencoder, with fresh weights.

    Raises:
        UsageError: a class that does not exist, or an option of it.
    """
    _check_lasting(settings.model.node["net"], "model.net", settings)
    return module(settings.model.node, "model")


def _check_lasting(node: Node, at: str, settings: RunSettings) -> None:
    """Raise a UsageError for a network that this run's files could not name again."""
    refuse_unreadable(node, at, settings.trusted, kinds=lambda _: nn.Module)


def classifier(settings: RunSettings) -> pl.LightningModule:
    """conf/classifier: the classifier of what the pipeline shows it, with fresh weights.

    Raises:
        UsageError: a class that does not exist, or an option of it; a net that cannot take the view.
    """
    view = settings.pipeline.seen
    node = with_channels(settings.classifier.node, 3 if view is None else view.channels)
    _check_lasting(node["net"], "classifier.net", settings)
    made = module(node, "classifier")
    if not isinstance(getattr(made, "net", None), nn.Module):
        raise UsageError(
            f"classifier.{TARGET}={node[TARGET]} must keep its network as `net`: the detector is made of it"
        )
    for file, name in getattr(type(made), "keeps", {}).items():
        if not _is_network(node.get(name)) or not isinstance(getattr(made, name, None), nn.Module):
            raise UsageError(
                f"classifier.{TARGET}={node[TARGET]} keeps {name!r} as {file}: it must have a network as that option, "
                f"and as self.{name}"
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
    fitting = {option: channels for option in FOLLOWING["classifier"] if takes(node, option)}
    if channels != 3 and not fitting and at == "classifier.net":
        raise UsageError(
            f"{at}.{TARGET}={node[TARGET]} has no option in_channels, but the pipeline's view has {channels}"
        )
    return {**node, **fitting}


def module(node: Node, at: str) -> pl.LightningModule:
    """A LightningModule: first its networks, in the order of the config, then itself."""
    node = {key: _unfinished(value) if key in UNFINISHED else value for key, value in node.items()}
    networks = {key: build(value, f"{at}.{key}", nn.Module) for key, value in node.items() if _is_network(value)}
    rest = {key: value for key, value in node.items() if key not in networks}
    made = build(rest, at, pl.LightningModule, **networks)
    kept = KEPT_AS[at]
    if getattr(made, kept, None) is not networks.get("net"):
        raise UsageError(
            f"{at}.{TARGET}={node[TARGET]} must keep its option `net` as self.{kept}: what is kept is that"
        )
    trials.use_one_noise(made)
    trials.try_learning(made, at)
    return made


def _unfinished(value: Any) -> Any:
    """A node whose class needs what no config can hold: an optimizer its parameters, a schedule its optimizer."""
    return {**value, "_partial_": True} if isinstance(value, dict) and TARGET in value else value


def data_module(settings: RunSettings, stage: str, **offered: Any) -> pl.LightningDataModule:
    """conf/data's module of a stage, given what it asks for of the stage's faces, batch size and seed.

    Raises:
        UsageError: no such module, or an option that it is given anyway.
    """
    at = f"data.modules.{stage}"
    node = _node(settings.data.modules.get(stage), at)
    known = signature(node[TARGET])
    own = {} if known is None else {name: option.default for name, option in known.options.items()}
    for key in offered:
        if key in node and node[key] != own.get(key, REQUIRED):  # what its class says by itself gives way
            raise UsageError(
                f"{at}.{key}={node[key]} is no choice: it follows from the rest of the config; leave it out"
            )
    given = {key: value for key, value in offered.items() if takes(node, key)}
    return build(node, at, pl.LightningDataModule, **given)


def callbacks(
    settings: RunSettings,
    folder: Path,  # the stage's
    made: pl.LightningModule,
    stops_early: bool,  # whether early stopping is for this training
    terminal: bool,  # whether a bar can be seen
) -> dict[str, pl.Callback]:
    """conf/callbacks, by name; each is given what it asks for of the stage's folder, metric and direction."""
    metric, direction = getattr(made, "monitor", "val/auroc"), getattr(made, "mode", "max")
    offered = dict(zip(FOLLOWING["callbacks"], (folder, folder.name, metric, direction), strict=True))
    left_out = {EARLY_STOPPING} if not stops_early else set()
    wanted = settings.trainer.node.get("enable_progress_bar")
    if not (terminal if wanted is None else wanted):
        left_out.add("progress_bar")
    if not any((settings.logger or {}).values()):
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
        raise UsageError(f"{at} must name what it builds: {at}.{TARGET}=package.module.Class")
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
