"""The adversarial autoencoder: AutoGAN against a PatchGAN discriminator, on real faces only."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from fakegan import ranks
from fakegan.modules.means import EpochMeans
from fakegan.modules.partial import make_whole, take_part
from fakegan.modules.pool import ReconstructionPool
from fakegan.modules.schedules import learning_rate_factor, optimizer, training_steps
from fakegan.nets.autogan import AutoGAN, Norm, PatchDiscriminator
from fakegan.nets.losses import (
    autoencoder_loss,
    l1_loss,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
)

TRAIN_MEANS = ("l1", "adversarial", "discriminator", "disc_real", "disc_recon")
VAL_MEANS = ("l1", "psnr", "ssim", "disc_real", "disc_recon")


class AdversarialAutoencoder(pl.LightningModule):
    """AutoGAN as the study trains it (Zhang et al. 2019, arXiv:1907.06515), by manual optimization.

    A batch is {"image": float (B, 3, 64, 64) in [-1, 1]}. Each step reconstructs once; the discriminator then
    sees real faces and (pooled) reconstructions in one batch.
    """

    def __init__(
        self,
        depth: int,  # residual blocks: the study's axis
        width: int = 64,  # channels at full resolution, of both networks
        norm: Norm = "none",  # of the autoencoder; "instance" in the study
        code_channels: int | None = None,  # None: 4 * width
        reconstruction_weight: float = 50.0,  # of L1 against the adversarial term; 0.8 in the study
        learning_rate: float = 1e-3,  # 2e-4 in the study
        betas: tuple[float, float] = (0.8, 0.9),  # Adam's
        schedule: str = "cosine",  # constant in the study
        pool_size: int = 50,  # past reconstructions shown to the discriminator
        discriminator_floor: float = 0.05,  # it rests while its loss is below: it must not win outright; 0 in the study
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.autoencoder = AutoGAN(depth, width, norm, code_channels)
        self.discriminator = PatchDiscriminator(width)
        self.pool = ReconstructionPool(pool_size)
        self.train_means = EpochMeans(*TRAIN_MEANS)
        self.val_means = EpochMeans(*VAL_MEANS)

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, 64, 64) -> (B, 3, 64, 64), both in [-1, 1]
        """The reconstruction of real or fake faces."""
        recon: Tensor = self.autoencoder(image)
        return recon

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[LambdaLR]]:
        """One Adam for each network, both on the same schedule."""
        h = self.hparams
        optimizers = [
            optimizer("adam", net.parameters(), h["learning_rate"], tuple(h["betas"]))
            for net in (self.autoencoder, self.discriminator)
        ]
        epochs = self.trainer.max_epochs or 1
        factor = learning_rate_factor(h["schedule"], training_steps(self.trainer), epochs)
        return optimizers, [LambdaLR(opt, factor) for opt in optimizers]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """One step of each network: reconstruct once, then each learns from it in turn."""
        real = batch["image"]
        opt_ae, opt_disc = cast("list[LightningOptimizer]", self.optimizers())

        with self.toggled_optimizer(opt_ae):
            recon = self.autoencoder(real)
            adversarial = lsgan_generator_loss(self.discriminator(recon))
            l1 = l1_loss(recon, real)
            loss = autoencoder_loss(adversarial, l1, self.hparams["reconstruction_weight"])
            opt_ae.zero_grad()
            self.manual_backward(loss)
            opt_ae.step()

        with self.toggled_optimizer(opt_disc):
            shown = self.pool(recon.detach())
            real_score, recon_score = self.discriminator(torch.cat([real, shown])).chunk(2)
            disc = lsgan_discriminator_loss(real_score, recon_score)
            opt_disc.zero_grad()
            self.manual_backward(disc)
            # A fused optimizer leaves weights and moments alone where found_inf is 1; decided on the device.
            resting = (ranks.mean(disc) < self.hparams["discriminator_floor"]).float()
            opt_disc.optimizer.found_inf = resting  # type: ignore[attr-defined]
            opt_disc.step()

        for scheduler in cast("list[LambdaLR]", self.lr_schedulers()):
            scheduler.step()
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
        """L1, PSNR and SSIM of the reconstructions, and what the discriminator thinks of both sides."""
        real = batch["image"]
        if not len(real):  # this process has no faces to validate on
            return
        recon = self(real).to(real.dtype)
        with torch.autocast(real.device.type, enabled=False):  # SSIM's variances cancel badly in bf16
            planes = recon.contiguous(), real.contiguous()  # it takes a quarter less time for them
            structure = cast(Tensor, ssim(*planes, data_range=(-1.0, 1.0)))
        self.val_means.update(
            {
                "l1": l1_loss(recon, real),
                "psnr": psnr(recon, real).mean(),
                "ssim": structure,
                "disc_real": self.discriminator(real).mean(),
                "disc_recon": self.discriminator(recon).mean(),
            },
            weight=len(real),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The pools and running means of all processes."""
        state = checkpoint["state_dict"]
        state["pool.images"] = self.pool.own_images()
        make_whole(checkpoint, "pool.images", "train_means.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The pool stays whole: each process takes from it what is its own."""
        take_part(checkpoint, "train_means.")

    def on_train_epoch_end(self) -> None:
        """Write the epoch's means."""
        self._log_means("train", self.train_means)

    def on_validation_epoch_end(self) -> None:
        """Write the epoch's means; val/l1 selects the checkpoint."""
        self._log_means("val", self.val_means)

    def _log_means(self, split: str, means: EpochMeans) -> None:
        values = {f"{split}/{name}": value for name, value in means.compute().items()}
        means.reset()
        self.log_dict({**values, "step": float(self.current_epoch)})  # "step": TensorBoard's axis is the epoch


def psnr(recon: Tensor, real: Tensor) -> Tensor:  # two (B, 3, H, W) in [-1, 1] -> (B,), in dB
    """Peak signal-to-noise ratio of each image: 10 log10(range^2 / mean squared error), range 2."""
    mse = (recon - real).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / mse.clamp(min=1e-10))
