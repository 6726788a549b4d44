"""Our side of a step: FakeGAN's modules in Lightning's `Trainer.fit`, which takes its turns at the ends of batches."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fakegan.data.augment import Augment
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.callbacks import StepSeed
from fakegan.training.classifier import Classifier
from fakegan.training.datamodules import RealFakeDataModule
from fakegan.training.dcgan import DCGANClassifier
from fakegan.training.graphs import CudaGraphs
from fakegan.training.schedules import cosine
from tests.benchmarks import study
from tests.benchmarks.harness import Turns
from tests.benchmarks.machine import synchronizer

PRECISION = "32-true"  # of every trainer in conf/trainer
ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0, fused=True)
SGD = partial(study.SGD, fused=True)


def autoencoder(
    depth: int,
    width: int,
    as_the_study: bool = True,  # its settings, so that both sides compute the same; False: FakeGAN's default ones
) -> AdversarialAutoencoder:
    """The adversarial autoencoder."""
    adam = partial(torch.optim.Adam, lr=2e-4 if as_the_study else 1e-3, betas=(0.8, 0.9), fused=True)
    net, discriminator = AutoGAN(depth, width, "instance" if as_the_study else "none"), PatchDiscriminator(width)
    if as_the_study:
        return AdversarialAutoencoder(net, discriminator, adam, reconstruction_weight=0.8, discriminator_floor=0.0)
    return AdversarialAutoencoder(net, discriminator, adam, schedule=cosine)


def dcgan(width: int) -> DCGANClassifier:
    """The DCGAN classifier with the study's Adam."""
    adam = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999), fused=True)
    return DCGANClassifier(DCGANDiscriminator(width=width), DCGANGenerator(width=width), adam)


def simple_cnn(optimizer: Any = ADAMW, dropout: float = 0.25) -> Classifier:
    """The CNN of the study's tables."""
    return Classifier(SimpleCNN(dropout=dropout), optimizer)


def labelled(batch: int) -> dict[str, Tensor]:
    """A batch for a classifier."""
    return {"x": torch.rand(batch, 3, 64, 64) * 2 - 1, "label": torch.arange(batch) % 2}


def real(batch: int) -> dict[str, Tensor]:
    """A batch for the autoencoder."""
    return {"image": torch.rand(batch, 3, 64, 64) * 2 - 1}


def real_and_fake(
    arrays: Any, labels: Any, view: Any, rows: Any, batch: int, augment: Augment | None = None
) -> RealFakeDataModule:
    """Faces to train on, as many of each class; none to validate on."""
    return RealFakeDataModule(
        arrays, labels, view, rows, rows[:0], batch, 0, "balanced", 0, "batch", augment or Augment()
    )


def fit_in_turns(
    turns: Turns,
    module: Callable[[], pl.LightningModule],
    data: Callable[[], dict[str, Tensor] | pl.LightningDataModule],  # one batch for every step, or batches to train on
    accelerator: str = "cpu",  # or gpu
    precision: str = PRECISION,
    graphs: bool = False,  # trainer.cuda_graphs
) -> None:
    """A side: a unit is one step of training, in the steady state.

    The clock runs from the end of one step to the end of another, so that it counts all that Lightning does for a
    step, fetching the batch and an epoch's end included.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    batches: Any = data()
    if isinstance(batches, dict):
        batch = {name: tensor.to("cuda" if accelerator == "gpu" else "cpu") for name, tensor in batches.items()}
        batches = DataLoader([batch] * 1000, batch_size=None)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on worker processes
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]  # a name, of a list of them
            max_epochs=1_000_000,  # until the turns end
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[
                StepSeed(0),
                CudaGraphs("benchmark", graphs),
                _AtBatchEnds(turns, "cuda" if accelerator == "gpu" else "cpu"),
            ],
        )
        trainer.fit(module(), batches)


class _AtBatchEnds(pl.Callback):
    """Sleeps at the end of the last batch of a turn until the next."""

    def __init__(self, turns: Turns, device: str) -> None:
        self.turns, self.finish = turns, synchronizer(device)
        self.left: int | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Wait for the warm-up."""
        self._await_turn(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count our step; end the turn when it is complete."""
        if self.left is None:  # the turns have ended; Lightning stops when it may
            return
        self.left -= 1
        if self.left == 0:
            self.finish()
            self.turns.done((time.perf_counter() - self.started) / self.units)
            self._await_turn(trainer)

    def _await_turn(self, trainer: pl.Trainer) -> None:
        self.left = self.turns.wait()
        trainer.should_stop = self.left is None
        self.units = self.left or 0
        self.started = time.perf_counter()
