"""Trials of a run's networks with blank faces before it trains; each raises a UsageError that names the config key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fakegan.config.building import TARGET, text_of
from fakegan.errors import UsageError
from fakegan.runs.settings import RunSettings
from fakegan.training.schedules import constant, scheduled

_BATCH = 2  # blank faces
_STEPS = 100_000  # of a training that is not run


def try_learning(made: pl.LightningModule, at: str) -> None:
    """Make a module's optimizer, for a single weight or where there are two rates for all, and its schedule."""
    make, schedule = getattr(made, "make_optimizer", None), getattr(made, "make_schedule", None)
    if make is None:
        return
    option = "optimizer"
    try:
        two_rates = getattr(made, "body_lr", 1) != 1
        optimizer = cast(Any, made).new_optimizer() if two_rates else make([nn.Parameter(torch.zeros(1))])
        option = "schedule"
        scheduled(schedule or constant, optimizer, _STEPS, _STEPS // 100, getattr(made, "mode", "min"))
    except Exception as error:  # of any kind: they raise what they like about their options
        made_by = make if option == "optimizer" else schedule
        raise UsageError(f"{at}.{option}: {text_of(error, getattr(made_by, 'keywords', {}))}") from error


def try_classifier(made: nn.Module, settings: RunSettings) -> None:
    """Pass a blank batch through the view, the classifier's net, and its loss if the config names a loss."""
    net, loss = made.get_submodule("net"), getattr(made, "loss", None)
    view, faces = settings.pipeline.seen, torch.zeros(_BATCH, 3, 64, 64)
    if view is None:
        return
    at = f"pipeline.view={settings.pipeline.view}"
    seen = _tried(lambda: view(dict.fromkeys(view.arrays, faces)), at, (_BATCH, view.channels, 64, 64))
    at = f"classifier.net.{TARGET}={settings.classifier.node['net'][TARGET]}"
    logits = _try_net(net, seen, at, (_BATCH, 2), "two logits a face, real and fake, ")
    node = settings.classifier.node.get("loss")
    if isinstance(loss, nn.Module) and node is not None:
        labels = torch.arange(_BATCH)
        _tried(lambda: loss(logits, labels), f"classifier.loss.{TARGET}={node[TARGET]}", (), "one number, of shape ")


def try_autoencoder(net: nn.Module, settings: RunSettings) -> None:
    """Pass a blank batch through the autoencoder, whose part `encoder` makes the code that is analysed."""
    at = f"model.net.{TARGET}={settings.model.node['net'][TARGET]}"
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UsageError(f"{at} has no part `encoder`: a module that makes the code of faces, which is analysed")
    codes: list[Any] = []
    hook = encoder.register_forward_hook(lambda _net, _inputs, code: codes.append(code))
    shape = (_BATCH, 3, 64, 64)
    _try_net(net, torch.zeros(shape), at, shape, "faces again, in [-1, 1], ")
    hook.remove()
    if len(codes) != 1 or not isinstance(codes[0], Tensor) or codes[0].shape[:1] != (_BATCH,) or codes[0].dim() < 2:
        raise UsageError(f"{at}: its part `encoder` must be called once, and return one tensor, the codes of the faces")


def _tried(make: Callable[[], Any], at: str, shape: tuple[int, ...], what: str = "") -> Tensor:
    """The tensor that a call returns, of the given shape."""
    try:
        made = make()
    except Exception as error:  # whatever a net of the user's own raises
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(f"{at} cannot take a batch of blank faces: {why}") from error
    if not isinstance(made, Tensor):
        raise UsageError(f"{at} must return a tensor, {what}of shape {shape}, but returns a {type(made).__name__}")
    if made.shape != shape:
        raise UsageError(f"{at} must return {what}{shape} for {_BATCH} faces, but returns {tuple(made.shape)}")
    return made


def _try_net(net: nn.Module, batch: Tensor, at: str, shape: tuple[int, ...], what: str) -> Tensor:
    """What a network makes of a batch in eval mode; it must have weights that learn."""
    training = net.training
    with torch.no_grad():
        made = _tried(lambda: net.eval()(batch), at, shape, what)
    net.train(training)
    if not any(weights.requires_grad for weights in net.parameters()):
        raise UsageError(f"{at} has no weights that learn")
    return made
