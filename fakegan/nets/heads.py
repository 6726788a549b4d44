"""The last layer of classifiers that start without a bias to either class."""

from __future__ import annotations

from torch import nn


def zero_init(layer: nn.Linear) -> nn.Linear:
    """The layer at zero: every face starts at P(fake) 0.5, and the training that follows is symmetric.

    With the labels of a store swapped, it ends with every score at 1 - score, but for rounding. (Not so for
    AlexNet, whose last layer starts as torch draws it, for the DCGAN, whose samples are fakes whatever the labels say,
    nor for an autoencoder, which learns from what is called real.)
    """
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
