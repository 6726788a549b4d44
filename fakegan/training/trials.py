"""What is tried of the networks of a run before it trains: an own net's mistakes cost no training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fakegan.config.building import TARGET
from fakegan.errors import UsageError
from fakegan.nets.dropout import Dropout
from fakegan.runs.settings import RunSettings
from fakegan.training.schedules import constant, scheduled

_BATCH = 2  # blank faces
_STEPS = 100_000  # of a training that there will not be


def try_learning(made: pl.LightningModule, at: str) -> None:
    """A module's optimizer and its schedule, on a number of no use.

    Raises:
        UsageError: an option that one of them refuses, or does not go without.
    """
    make, schedule = getattr(made, "make_optimizer", None), getattr(made, "make_schedule", None)
    if make is None:
        return
    what = "optimizer"
    try:
        optimizer = make([nn.Parameter(torch.zeros(1))])
        what = "schedule"
        scheduled(schedule or constant, optimizer, _STEPS, _STEPS // 100, getattr(made, "mode", "min"))
    except Exception as error:  # whatever it says of its options
        raise UsageError(f"{at}.{what}: {' '.join(str(error).split())}") from error


def try_classifier(made: nn.Module, settings: RunSettings) -> None:
    """A blank batch through the view, the classifier's net, and its loss if it has one.

    Raises:
        UsageError: it cannot be taken, or what comes out is not two logits a face, or no loss; or no weight can learn.
    """
    net, loss = made.get_submodule("net"), getattr(made, "loss", None)
    view, faces = settings.pipeline.seen, torch.zeros(_BATCH, 3, 64, 64)
    if view is None:
        return
    what = f"pipeline.view={settings.pipeline.view}"
    shown = _tried(lambda: view(dict.fromkeys(view.arrays, faces)), what, (_BATCH, view.channels, 64, 64))
    at = f"classifier.net.{TARGET}={settings.classifier.node['net'][TARGET]}"
    logits = _tried(lambda: _in_eval_mode(net, shown), at, (_BATCH, 2), "two logits a face, real and fake, ")
    _refuse_nothing_to_learn(net, at)
    node = settings.classifier.node.get("loss")
    if isinstance(loss, nn.Module) and node is not None:
        labels = torch.arange(_BATCH)
        _tried(lambda: loss(logits, labels), f"classifier.loss.{TARGET}={node[TARGET]}", (), "one number, of shape ")


def try_autoencoder(net: nn.Module, settings: RunSettings) -> None:
    """A blank batch through the autoencoder, whose `encoder` makes the code that the analysis looks at.

    Raises:
        UsageError: no such part, a batch that it cannot take, or other pictures than faces come out.
    """
    at = f"model.net.{TARGET}={settings.model.node['net'][TARGET]}"
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UsageError(f"{at} has no part `encoder`: a module that makes the code of faces, which is analysed")
    codes: list[Any] = []
    hook = encoder.register_forward_hook(lambda _net, _inputs, code: codes.append(code))
    faces = torch.zeros(_BATCH, 3, 64, 64)
    _tried(lambda: _in_eval_mode(net, faces), at, tuple(faces.shape), "faces again, in [-1, 1], ")
    hook.remove()
    if len(codes) != 1 or not isinstance(codes[0], Tensor) or codes[0].shape[:1] != (_BATCH,) or codes[0].dim() < 2:
        raise UsageError(f"{at}: its part `encoder` must be called once, and return one tensor, the codes of the faces")
    _refuse_nothing_to_learn(net, at)


def _refuse_nothing_to_learn(net: nn.Module, at: str) -> None:
    if not any(weights.requires_grad for weights in net.parameters()):
        raise UsageError(f"{at} has no weights that learn")


def _tried(make: Callable[[], Any], at: str, shape: tuple[int, ...], what: str = "") -> Tensor:
    try:
        made = make()
    except Exception as error:  # whatever a net of the user's own raises
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(f"{at} cannot take what a batch of blank faces gives: {why}") from error
    if not isinstance(made, Tensor):
        raise UsageError(f"{at} must return a tensor, {what}of shape {shape}, but returns a {type(made).__name__}")
    if made.shape != shape:
        raise UsageError(f"{at} must return {what}{shape} for {_BATCH} faces, but returns {tuple(made.shape)}")
    return made


@torch.no_grad()
def _in_eval_mode(net: nn.Module, batch: Tensor) -> Any:
    training = net.training
    try:
        return net.eval()(batch)
    finally:
        net.train(training)


def use_one_noise(made: nn.Module) -> None:
    """Let plain nn.Dropout be FakeGAN's, in place: the number of processes then changes no mask."""
    for part in made.modules():
        if type(part) is nn.Dropout:
            part.__class__ = Dropout
