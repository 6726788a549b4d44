"""Trials of a run's networks with blank faces before it trains; each raises a UsageError that names the config key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fakegan.checks import SIZES
from fakegan.config.building import TARGET, takes, text_of
from fakegan.data.augment import Augment
from fakegan.data.draws import Draws, face_keys
from fakegan.errors import UsageError, one_line
from fakegan.runs.settings import AugmentSettings, RunSettings
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
    view, size = settings.pipeline.seen, settings.face_size
    if view is None:
        return
    at = f"pipeline.view={settings.pipeline.view}"
    faces, shape = torch.zeros(_BATCH, 3, size, size), (_BATCH, view.channels, size, size)
    seen = _tried(lambda: view(dict.fromkeys(view.arrays, faces)), at, shape)
    at = f"classifier.net.{TARGET}={settings.classifier.node['net'][TARGET]}"
    logits = _try_net(net, seen, at, (_BATCH, 2), "two logits a face, real and fake, ")
    if getattr(made, "samples", None) is not None:
        _try_samples(made, shape)
    node = settings.classifier.node.get("loss")
    if isinstance(loss, nn.Module) and node is not None:
        labels = torch.arange(_BATCH)
        _tried(lambda: loss(logits, labels), f"classifier.loss.{TARGET}={node[TARGET]}", (), "one number, of shape ")


def try_augment(augment: Augment, made: pl.LightningModule, settings: RunSettings) -> None:
    """Pass blank faces through conf/augment; refuse what the pipeline, classifier or data module cannot have."""
    view, data, size = settings.pipeline.seen, settings.data.modules.get("classifier"), settings.face_size
    if view is None:
        return
    if augment.shift >= size:
        raise UsageError(f"augment.shift={augment.shift} must be below {size}, the pixels of a side of the faces")
    if augment.degrade is not None and view.needs_recon:
        raise UsageError(
            f"augment.degrade changes faces, but pipeline.view={settings.pipeline.view} needs the reconstructions of "
            "changed faces, and a run keeps those of the faces as they are: choose augment=light, or a pipeline that "
            "classifies faces, such as classify or recon_fakes"
        )
    of_step = next((kind for kind in type(made).__mro__ if "training_step" in vars(kind)), type(made))
    if augment.mixes and not vars(of_step).get("takes_mixed"):
        raise UsageError(
            f"classifier.{TARGET}={settings.classifier.node[TARGET]} does not say that it learns both labels of a "
            "mixed face: add augment.mixup=0 augment.cutmix=0, or write takes_mixed = True beside its training_step"
        )
    if (
        isinstance(data, dict)
        and TARGET in data
        and not takes(data, "augment")
        and settings.augment != AugmentSettings()
    ):
        raise UsageError(
            f"data.modules.classifier.{TARGET}={data[TARGET]} has no option `augment`: choose augment=none, or add it"
        )
    degrade, draws = settings.augment.node.get("degrade"), Draws(face_keys(np.arange(_BATCH), 0, 0))
    at = f"augment.degrade.{TARGET}={degrade[TARGET]}" if degrade else f"augment.{TARGET}"
    faces = torch.zeros(_BATCH, 3, size, size)
    _tried(lambda: augment({view.arrays[0]: faces}, draws)[view.arrays[0]], at, tuple(faces.shape))


def _try_samples(made: Any, shape: tuple[int, ...]) -> None:
    """Let a module's generator make samples in eval mode."""
    training = made.training
    with torch.no_grad():
        _tried(lambda: made.eval().samples(_BATCH), "classifier.generator", shape, advice=_about_size(shape[-1]))
    made.train(training)


def try_autoencoder(net: nn.Module, settings: RunSettings) -> None:
    """Pass a blank batch through the autoencoder, whose part `encoder` makes the code that is analysed."""
    at = f"model.net.{TARGET}={settings.model.node['net'][TARGET]}"
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UsageError(f"{at} has no part `encoder`: a module that makes the code of faces, which is analysed")
    codes: list[Any] = []
    hook = encoder.register_forward_hook(lambda _net, _inputs, code: codes.append(code))
    shape = (_BATCH, 3, settings.face_size, settings.face_size)
    _try_net(net, torch.zeros(shape), at, shape, "faces again, in [-1, 1], ")
    hook.remove()
    if len(codes) != 1 or not isinstance(codes[0], Tensor) or codes[0].shape[:1] != (_BATCH,) or codes[0].dim() < 2:
        raise UsageError(f"{at}: its part `encoder` must be called once, and return one tensor, the codes of the faces")


def _tried(make: Callable[[], Any], at: str, shape: tuple[int, ...], what: str = "", advice: str = "") -> Tensor:
    """The tensor that a call returns, of the given shape."""
    try:
        made = make()
    except Exception as error:  # whatever a net of the user's own raises
        raise UsageError(f"{at} cannot take a batch of blank faces: {one_line(error)}{advice}") from error
    if not isinstance(made, Tensor):
        raise UsageError(f"{at} must return a tensor, {what}of shape {shape}, but returns a {type(made).__name__}")
    if made.shape != shape:
        raise UsageError(f"{at} must return {what}{shape} for {_BATCH} faces, but returns {tuple(made.shape)}{advice}")
    return made


def _about_size(size: int) -> str:
    """What to do where a net is for the smallest faces alone."""
    if size == SIZES[0]:
        return ""
    return (
        f"; the store's faces have {size}x{size} pixels: give the class an option `size`, which a run fills in, or "
        f"prepare the faces with --size {SIZES[0]}"
    )


def _try_net(net: nn.Module, batch: Tensor, at: str, shape: tuple[int, ...], what: str) -> Tensor:
    """What a network makes of a batch in eval mode; it must have weights that learn."""
    training = net.training
    with torch.no_grad():
        resizes = "; some networks take pictures of one size alone: try classifier.net.input_size=224"
        advice = resizes if hasattr(net, "input_size") else _about_size(batch.shape[-1])
        made = _tried(lambda: net.eval()(batch), at, shape, what, advice)
    net.train(training)
    if not any(weights.requires_grad for weights in net.parameters()):
        raise UsageError(f"{at} has no weights that learn")
    return made
