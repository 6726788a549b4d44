"""The adversarial autoencoder: AutoGAN against a PatchGAN discriminator, on real faces only."""

from __future__ import annotations

from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from fakegan.checks import SIZES, at_least
from fakegan.nets.likeness import psnr, ssim
from fakegan.nets.losses import autoencoder_loss, l1_loss, lsgan_discriminator_loss, lsgan_generator_loss
from fakegan.system import ranks
from fakegan.training.modules import ByTurns, EpochMeans
from fakegan.training.pool import ReconstructionPool
from fakegan.training.schedules import MakeOptimizer, MakeSchedule, move


class AdversarialAutoencoder(ByTurns):
    """AutoGAN as the study trains it (Zhang et al. 2019, arXiv:1907.06515), by manual optimization.

    A batch is {"image": float (B, 3, size, size) in [-1, 1]}. Each step reconstructs once; the discriminator then
    sees real faces and (pooled) reconstructions in one batch.
    """

    monitor, mode = "val/l1", "min"
    networks = ("autoencoder", "discriminator")

    def __init__(
        self,
        net: nn.Module,  # the autoencoder: (B, 3, size, size) -> the same, both in [-1, 1]
        discriminator: nn.Module,  # (B, 3, size, size) -> scores of any shape, first dimension B
        optimizer: MakeOptimizer,  # of each network's parameters
        schedule: MakeSchedule | None = None,  # of the learning rate
        reconstruction_weight: float = 50.0,  # of L1 against the adversarial term; 0.8 in the study
        pool_size: int = 50,  # past reconstructions shown to the discriminator
        discriminator_floor: float = 0.05,  # it rests while its loss is below, so that it cannot win; 0 in the study
        size: int = SIZES[0],  # pixels a side of the faces
    ) -> None:
        super().__init__()
        at_least(1, pool_size=pool_size)
        at_least(0, reconstruction_weight=reconstruction_weight, discriminator_floor=discriminator_floor)
        self.automatic_optimization = False
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.autoencoder = net
        self.discriminator = discriminator
        self.reconstruction_weight = reconstruction_weight
        self.discriminator_floor = discriminator_floor
        self.pool = ReconstructionPool(pool_size, size)
        self.train_means = EpochMeans("l1", "adversarial", "discriminator", "disc_real", "disc_recon")
        self.val_means = EpochMeans("l1", "psnr", "ssim", "disc_real", "disc_recon")

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, size, size) -> the same, both in [-1, 1]
        """The reconstruction of real or fake faces."""
        recon: Tensor = self.autoencoder(image)
        return recon

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """One step of each network: reconstruct once, then each learns from it in turn."""
        real = batch["image"]
        opt_ae, opt_disc = cast("list[LightningOptimizer]", self.optimizers())

        with self.toggled_optimizer(opt_ae):
            recon = self.autoencoder(real)
            adversarial = lsgan_generator_loss(self.discriminator(recon))
            l1 = l1_loss(recon, real)
            self.learn(opt_ae, autoencoder_loss(adversarial, l1, self.reconstruction_weight))

        with self.toggled_optimizer(opt_disc):
            shown = self.pool(recon.detach())
            real_score, recon_score = self.discriminator(torch.cat([real, shown])).chunk(2)
            disc = lsgan_discriminator_loss(real_score, recon_score)
            self.learn(opt_disc, disc, resting=ranks.mean(disc) < self.discriminator_floor)

        move(self, "step")
        self.train_means.update(
            {
                "l1": l1,
                "adversarial": adversarial,
                "discriminator": disc,
                "disc_real": real_score.mean(),
                "disc_recon": recon_score.mean(),
            },
            weight=len(real),
        )

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """L1, PSNR and SSIM of the reconstructions, and the discriminator's scores of faces and reconstructions."""
        real = batch["image"]
        if not len(real):  # this process has no faces to validate on
            return
        recon = self(real).to(real.dtype)
        self.val_means.update(
            {
                "l1": l1_loss(recon, real),
                "psnr": psnr(recon, real).mean(),
                "ssim": ssim(recon, real).mean(),
                "disc_real": self.discriminator(real).mean(),
                "disc_recon": self.discriminator(recon).mean(),
            },
            weight=len(real),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The whole pool, of which each process keeps its own places, and the training sums."""
        checkpoint["state_dict"]["pool.images"] = ranks.total(self.pool.own_images())
        super().on_save_checkpoint(checkpoint)
