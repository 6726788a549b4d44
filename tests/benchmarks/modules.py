"""FakeGAN's modules as the rows measure them: networks, optimizers and the study's settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.classifier import Classifier
from fakegan.training.datamodules import RealFakeDataModule
from fakegan.training.dcgan import DCGANClassifier
from fakegan.training.schedules import cosine

ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0, fused=True)
SGD = partial(torch.optim.SGD, lr=0.1, weight_decay=5e-4, fused=True)  # the study's


def autoencoder(
    depth: int,
    width: int,
    as_the_study: bool = True,  # its settings, so that both sides compute the same; False: FakeGAN's default ones
) -> AdversarialAutoencoder:
    """The adversarial autoencoder."""
    adam = partial(torch.optim.Adam, lr=2e-4 if as_the_study else 1e-3, betas=(0.8, 0.9), fused=True)
    options: dict[str, Any] = (
        {"reconstruction_weight": 0.8, "discriminator_floor": 0.0} if as_the_study else {"schedule": cosine}
    )
    net = AutoGAN(depth, width, "instance" if as_the_study else "none")
    return AdversarialAutoencoder(net, PatchDiscriminator(width), adam, **options)


def dcgan(width: int) -> DCGANClassifier:
    """The DCGAN classifier with the study's Adam."""
    adam = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999), fused=True)
    return DCGANClassifier(DCGANDiscriminator(width=width), DCGANGenerator(width=width), adam)


def simple_cnn(optimizer: Any = ADAMW, dropout: float = 0.25) -> Classifier:
    """The CNN of the study's tables."""
    return Classifier(SimpleCNN(dropout=dropout), optimizer)


def alexnet(hidden: int) -> Classifier:
    """AlexNet."""
    return Classifier(AlexNet(hidden=hidden), ADAMW)


def real_and_fake(arrays: Any, labels: Any, view: Any, rows: Any, batch: int) -> RealFakeDataModule:
    """Faces to train on, as many of each class; none to validate on."""
    return RealFakeDataModule(arrays, labels, view, rows, rows[:0], batch, 0, "balanced", 0, "batch")
