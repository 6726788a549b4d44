"""The DCGAN classifier: a discriminator that learns labelled faces and, beside them, its generator's samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryRecall, BinarySpecificity

from fakegan.labels import FAKE
from fakegan.nets.losses import dcgan_discriminator_loss, dcgan_generator_loss
from fakegan.runs.folder import GENERATOR_FILE
from fakegan.system import ranks
from fakegan.training.classifier import Classifier, over_labels
from fakegan.training.modules import ByTurns, EpochMeans
from fakegan.training.schedules import MakeOptimizer, MakeSchedule, move

FIXED_SAMPLES = 64  # numbers of samples of the fixed noise: judged in every validation; callbacks draw the first


class DCGANClassifier(ByTurns, Classifier):
    """A Classifier whose net also learns a generator's samples as fakes, by manual optimization (arXiv:1511.06434).

    Each step samples once; the generator learns to have its samples taken for real, then the discriminator learns
    the labelled batch and the samples. `train/loss` is of the labelled batch alone, as for every classifier. Labelled
    faces are augmented, samples are not; for the accuracies of real and fake a mixed face is what most of it is.
    """

    networks = ("generator", "net")
    train_logged = ("train_means", "train_metrics")
    val_logged = ("val_means", "val_metrics", "val_generated")
    keeps: ClassVar[dict[str, str]] = {GENERATOR_FILE: "generator"}
    takes_mixed = True

    def __init__(
        self,
        net: nn.Module,  # the discriminator: (B, C, size, size) -> (B, 2) logits of (real, fake)
        generator: nn.Module,  # (B, latent) noise -> (B, C, size, size) in [-1, 1]; it has the attribute `latent`
        optimizer: MakeOptimizer,  # of each network's parameters
        schedule: MakeSchedule | None = None,  # of the learning rate
    ) -> None:
        super().__init__(net, optimizer, schedule, body_lr=1)  # each network has one optimizer, at one rate
        self.automatic_optimization = False
        self.generator = generator
        self.latent = int(cast(Any, generator).latent)
        self.register_buffer("fixed_noise", torch.randn(FIXED_SAMPLES, self.latent))
        self.fixed_noise: Tensor
        self.train_means = EpochMeans("loss", "discriminator_loss", "generator_loss", "accuracy", "accuracy_generated")
        self.train_metrics = MetricCollection({})
        for metrics in (self.train_metrics, self.val_metrics):  # validating would wait for the device in every step
            real, fake = BinarySpecificity(validate_args=False), BinaryRecall(validate_args=False)
            metrics.add_metrics({"accuracy_real": real, "accuracy_fake": fake})  # 0 where there are no such faces
        self.train_metrics.persistent(True)
        self.val_generated = EpochMeans("accuracy_generated")

    def samples(self, count: int) -> Tensor:  # -> (N, C, size, size) in [-1, 1]
        """The generator's samples of the fixed noise; at most FIXED_SAMPLES of them."""
        made: Tensor = self.generator(self.fixed_noise[:count])
        return made

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """One step of each network: sample once, then each learns in turn."""
        label = batch["label"]
        opt_gen, opt_disc = cast("list[LightningOptimizer]", self.optimizers())

        with self.toggled_optimizer(opt_gen):
            noise = ranks.draw(lambda n: torch.randn(n, self.latent, device=self.device), len(label))
            samples = self.generator(noise)
            with running_statistics_kept(self.net):
                gen = dcgan_generator_loss(self(samples))
            self.learn(opt_gen, gen)

        with self.toggled_optimizer(opt_disc):
            logits, loss = self._step(batch)
            with running_statistics_kept(self.net):
                sample_logits = self(samples.detach())
            disc = over_labels(batch, lambda label: dcgan_discriminator_loss(logits, label, sample_logits))
            self.learn(opt_disc, disc)

        move(self, "step")
        verdict = logits.argmax(dim=1)
        self.train_metrics.update(verdict, label)
        self.train_means.update(
            {
                "loss": loss,
                "discriminator_loss": disc,
                "generator_loss": gen,
                "accuracy": over_labels(batch, lambda label: (verdict == label).float().mean()),
                "accuracy_generated": accuracy_of_fakes(sample_logits),
            },
            weight=len(label),
        )

    def on_validation_epoch_end(self) -> None:
        """Judge the samples of the fixed noise, and log."""
        accuracy = accuracy_of_fakes(self(self.samples(FIXED_SAMPLES)))
        self.val_generated.update({"accuracy_generated": accuracy}, weight=FIXED_SAMPLES)
        super().on_validation_epoch_end()


def accuracy_of_fakes(logits: Tensor) -> Tensor:  # (S, 2) -> scalar
    """Share of fakes that are recognised."""
    return (logits.argmax(dim=1) == FAKE).float().mean()


@contextmanager
def running_statistics_kept(net: nn.Module) -> Iterator[None]:
    """BatchNorm in train mode that normalises by its batch and forgets it.

    Samples pass through the discriminator as a batch of their own, as in DCGAN. In eval mode the discriminator scores
    labelled faces, so its running statistics must be of these: samples, grey blobs at first, would falsify them.
    """
    norms = [part for part in net.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
