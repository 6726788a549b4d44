"""Losses as pure functions: tensors in, one scalar out."""

from __future__ import annotations

from torch import Tensor


def lsgan_generator_loss(recon_score: Tensor) -> Tensor:
    """Mean of (D(x_hat) - 1)^2: zero when every patch is taken for real (LSGAN, arXiv:1611.04076)."""
    return (recon_score - 1).square().mean()


def lsgan_discriminator_loss(real_score: Tensor, recon_score: Tensor) -> Tensor:
    """Half the mean of (D(x) - 1)^2 + D(x_hat)^2 (LSGAN, arXiv:1611.04076). 0.25 says D is guessing."""
    return 0.5 * ((real_score - 1).square().mean() + recon_score.square().mean())


def l1_loss(recon: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference; in units of the range [-1, 1], so 2.0 is black against white."""
    return (recon - real).abs().mean()


def autoencoder_loss(adversarial: Tensor, reconstruction: Tensor, reconstruction_weight: float) -> Tensor:
    """(adversarial + w * reconstruction) / (1 + w): the study's L_G, with w = 0.8 there."""
    return (adversarial + reconstruction_weight * reconstruction) / (1 + reconstruction_weight)
