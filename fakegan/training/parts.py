"""The parts that a run builds from its config: networks and the module that trains them, data modules, callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
from torch import nn
from torchvision.models import get_model_weights

from fakegan.config.building import TARGET, Node, build, named, takes, untrained
from fakegan.config.options import FOLLOWING
from fakegan.config.signatures import REQUIRED, signature
from fakegan.config.trust import refuse_unreadable
from fakegan.data.augment import Augment
from fakegan.errors import UsageError, one_line
from fakegan.nets.backbone import refuse_misfits
from fakegan.nets.cpu import take_planes
from fakegan.nets.dropout import deal_noise
from fakegan.runs.checkpoints import load_weights
from fakegan.runs.pretrained import FILE, digest_of_weights, names_weights
from fakegan.runs.settings import EARLY_STOPPING, RunSettings
from fakegan.training import trials

C = TypeVar("C", bound=pl.Callback)


def autoencoder(settings: RunSettings) -> pl.LightningModule:
    """conf/model: the adversarial autoencoder, with fresh weights; a UsageError for a class or option that is wrong."""
    refuse_unreadable(settings.model.node["net"], "model.net", settings.trusted, kinds=lambda _: nn.Module)
    return module(with_size(settings.model.node, "model", settings.face_size), "model", kept="autoencoder")


def classifier(settings: RunSettings) -> pl.LightningModule:
    """conf/classifier: as `autoencoder`; its networks take as many channels as the pipeline's view has."""
    node = classifier_node(settings)
    refuse_unreadable(node["net"], "classifier.net", settings.trusted, kinds=lambda _: nn.Module)
    if takes(node["net"], "pretrained"):  # its weights follow, by `begin_pretrained`
        node["net"] = untrained(node["net"])
    made = module(node, "classifier", kept="net")
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


def begin_pretrained(settings: RunSettings, net: nn.Module) -> None:
    """Give a classifier's net the weights that the config names; one that is resumed, or scores, has its own.

    Raises:
        UsageError: the file is not there, or is of another net.
        FakeganError: the file is damaged, or weights of torchvision's cannot be downloaded.
    """
    asked, node = settings.classifier, settings.classifier.node["net"]
    offered: dict[str, Any] = {}
    if getattr(net, "imagenet", False):  # our AlexNet
        cast(Any, net).load_imagenet()
    if asked.weights_file is not None:
        at = f"{FILE}={asked.weights_file}"
        digest_of_weights(asked.weights_file, asked.weights_sha256)
        weights = load_weights(asked.weights_file)
    elif takes(node, "pretrained") and names_weights(node):
        at = f"classifier.net.net.weights={node['net']['weights']}"
        asks = {key: value for key, value in node["net"].items() if key != "aux_logits"}  # with weights it must be true
        theirs = build(asks, "classifier.net.net", nn.Module)
        weights, offered = theirs.state_dict(), _colours(node["net"], theirs)
    else:
        return
    try:
        if hasattr(net, "load_pretrained"):
            cast(Any, net).load_pretrained(weights, **offered)
        else:
            refuse_misfits(weights, net.state_dict())
            net.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        of = (node.get("net") or node)[TARGET]
        raise UsageError(f"{at} does not fit {of}: {one_line(error)}; name weights of this network") from error


def _colours(
    node: Node,
    net: nn.Module,  # that the node makes, with its weights
) -> dict[str, Any]:
    """Mean and deviation of the pictures that weights of torchvision's learnt from; nothing where it does not say."""
    if not str(node[TARGET]).startswith("torchvision.models."):
        return {}
    if getattr(net, "transform_input", False) and not node.get("transform_input"):
        return {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # GoogLeNet with weights turns ImageNet's colours into these
    try:
        transforms = get_model_weights(named(str(node[TARGET]))).verify(node["weights"]).transforms()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"classifier.net.net.weights={node['weights']} is no name of weights of {node[TARGET]}: give DEFAULT, or "
            "another of torchvision's names"
        ) from error
    return {"mean": transforms.mean, "std": transforms.std}


def _is_network(value: Any) -> bool:
    return isinstance(value, dict) and TARGET in value and not value.get("_partial_")


def classifier_node(settings: RunSettings) -> Node:
    """conf/classifier, whose networks fit the pipeline's view and the size of the faces."""
    view = settings.pipeline.seen
    node = with_channels(settings.classifier.node, 3 if view is None else view.channels)
    return with_size(node, "classifier", settings.face_size)


def with_size(
    node: Node,
    at: str,  # its full key
    size: int,
) -> Node:
    """A module's node; it and its networks know the faces' pixels a side, where they have the option `size`.

    Raises a UsageError where the config sets that option, which may mean another size, to another number.
    """

    def fitted(part: Node, at: str) -> Node:
        if not takes(part, "size"):
            return part
        if part.get("size", size) not in (size, _defaults(part).get("size")):
            faces = f"the store's faces have {size} pixels a side"
            advice = "leave it out; an option that means another size needs another name"
            raise UsageError(f"{at}.size={part['size']} is no choice: {faces}; {advice}")
        return {**part, "size": size}

    networks = {key: fitted(value, f"{at}.{key}") for key, value in node.items() if _is_network(value)}
    return fitted({**node, **networks}, at)


def with_channels(node: Node, channels: int) -> Node:
    """A classifier's node whose networks take, or make, so many channels."""
    networks = {key: value for key, value in node.items() if _is_network(value)}
    for key, network in networks.items():
        fitting = {option: channels for option in ("in_channels", "out_channels") if takes(network, option)}
        if channels != 3 and not fitting and key == "net":
            raise UsageError(
                f"classifier.net.{TARGET}={network[TARGET]} has no option in_channels, but the pipeline's view has "
                f"{channels}"
            )
        networks[key] = {**network, **fitting}
    return {**node, **networks}


def module(
    node: Node,
    at: str,  # its full key
    kept: str,  # the attribute that must hold its option `net`
) -> pl.LightningModule:
    """A LightningModule: first its networks, in the order of the config, then itself."""
    node = dict(node)
    for key in node.keys() & {"optimizer", "schedule"}:  # the module adds the parameters, which no config can hold
        if isinstance(node[key], dict) and TARGET in node[key]:
            node[key] = {**node[key], "_partial_": True}
    networks = {key: build(value, f"{at}.{key}", nn.Module) for key, value in node.items() if _is_network(value)}
    for network in networks.values():
        take_planes(network)
    options = {key: value for key, value in node.items() if key not in networks}
    made = build(options, at, pl.LightningModule, **networks)
    if getattr(made, kept, None) is not networks.get("net"):
        raise UsageError(
            f"{at}.{TARGET}={node[TARGET]} must keep its option `net` as self.{kept}: the run's files keep that"
        )
    deal_noise(made)
    trials.try_learning(made, at)
    return made


def augment(settings: RunSettings) -> Augment:
    """conf/augment: what changes the classifier's training faces; a UsageError for a class or option that is wrong."""
    refuse_unreadable(settings.augment.node, "augment", settings.trusted, kinds=lambda _: nn.Module)
    return build(settings.augment.node, "augment", Augment)


def data_module(settings: RunSettings, stage: str, **offered: Any) -> pl.LightningDataModule:
    """conf/data's module of a stage. It gets the stage's faces, batch size and seed if it has options for them.

    Raises a UsageError if there is no such module, or if the config sets an offered option.
    """
    at = f"data.modules.{stage}"
    node = _checked(settings.data.modules.get(stage), at)
    defaults = _defaults(node)
    for key in offered:
        if key in node and node[key] != defaults.get(key, REQUIRED):  # a default of its class gives way
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
    """conf/callbacks, by name; each gets the options that it has of the stage's folder, metric and direction."""
    monitor, mode = getattr(made, "monitor", "val/auroc"), getattr(made, "mode", "max")
    offered = dict(zip(FOLLOWING["callbacks"], (folder, folder.name, monitor, mode), strict=True))
    bar = settings.trainer.node.get("enable_progress_bar")
    wanted = {
        EARLY_STOPPING: stops_early,
        "progress_bar": terminal if bar is None else bar,
        "learning_rate_monitor": any((settings.logger or {}).values()),
    }
    found: dict[str, pl.Callback] = {}
    for name, node in settings.callbacks.items():
        if node is None or not wanted.get(name, True):
            continue
        at = f"callbacks.{name}"
        _checked(node, at)
        given = {key: value for key, value in offered.items() if node.get(key) is None and takes(node, key)}
        found[name] = build({k: v for k, v in node.items() if k not in given}, at, pl.Callback, **given)
    return found


def _defaults(node: Node) -> dict[str, Any]:
    """The defaults of a node's class by option, as far as its signature can be read."""
    known = signature(node[TARGET])
    return {} if known is None else {name: option.default for name, option in known.options.items()}


def _checked(node: Any, at: str) -> Node:
    if not isinstance(node, dict) or not isinstance(node.get(TARGET), str):
        raise UsageError(f"{at} must name what it builds: {at}.{TARGET}=package.module.Class")
    return node


def needed(found: Mapping[str, pl.Callback], name: str, kind: type[C]) -> C:
    """A callback that no training can do without; a UsageError if it was left out, or is of another class."""
    callback = found.get(name)
    if not isinstance(callback, kind):
        raise UsageError(f"callbacks.{name} must be a fakegan {kind.__name__}: no run can be resumed without its files")
    return callback
