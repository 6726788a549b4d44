"""Losses as pure functions: tensors in, one scalar out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fakegan.labels import FAKE, REAL


def lsgan_generator_loss(recon_score: Tensor) -> Tensor:
    """Mean of (D(x_hat) - 1)^2: zero when every patch is taken for real (LSGAN, arXiv:1611.04076)."""
    return (recon_score - 1).square().mean()


def lsgan_discriminator_loss(real_score: Tensor, recon_score: Tensor) -> Tensor:
    """Half the mean of (D(x) - 1)^2 + D(x_hat)^2 (LSGAN, arXiv:1611.04076). At 0.25 D is guessing."""
    return 0.5 * ((real_score - 1).square().mean() + recon_score.square().mean())


def l1_loss(recon: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference; in units of the range [-1, 1], so 2.0 is black against white."""
    return (recon - real).abs().mean()


def autoencoder_loss(adversarial: Tensor, reconstruction: Tensor, reconstruction_weight: float) -> Tensor:
    """(adversarial + w * reconstruction) / (1 + w): the study's L_G, with w = 0.8 there."""
    return (adversarial + reconstruction_weight * reconstruction) / (1 + reconstruction_weight)


def dcgan_discriminator_loss(
    logits: Tensor,  # (B, 2), of the labelled batch
    label: Tensor,  # (B,), REAL or FAKE
    sample_logits: Tensor,  # (S, 2), of the generator's samples
) -> Tensor:
    """(CE(D(x), y) + CE(D(G(z)), FAKE)) / 2: samples are one more kind of fake. At log 2 D is guessing."""
    fake = torch.full((len(sample_logits),), FAKE, device=sample_logits.device)
    return 0.5 * (F.cross_entropy(logits, label) + F.cross_entropy(sample_logits, fake))


def dcgan_generator_loss(sample_logits: Tensor) -> Tensor:  # (S, 2)
    """CE(D(G(z)), REAL), which does not saturate (Goodfellow et al. 2014, arXiv:1406.2661, section 3)."""
    return F.cross_entropy(sample_logits, torch.full((len(sample_logits),), REAL, device=sample_logits.device))
