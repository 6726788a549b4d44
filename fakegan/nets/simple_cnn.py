"""The small CNN that the study's tables used."""

from __future__ import annotations

from torch import Tensor, nn

from fakegan.checks import SIZES, a_share, one_of
from fakegan.nets.cpu import quicken
from fakegan.nets.dropout import Dropout


class SimpleCNN(nn.Module):
    """Two convolutions, two BatchNorms of their own, one linear layer: image to two logits (real, fake).

    The last layer starts at zero: every face begins at P(fake) 0.5. With the labels of a store swapped, training then
    ends with every score at 1 - score, but for rounding.
    """

    def __init__(
        self,
        in_channels: int = 3,
        dropout: float = 0.25,  # share of the units before the last layer that are left out in training
        size: int = SIZES[0],  # pixels a side of the faces
    ) -> None:
        super().__init__()
        a_share(dropout=dropout)
        one_of(SIZES, size=size)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 16, 7),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),  # (B, 16, 58, 58) at size 64
            nn.MaxPool2d(2),  # (B, 16, 29, 29)
            nn.Conv2d(16, 16, 3),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),  # (B, 16, 27, 27)
        )
        side = (size - 6) // 2 - 2
        last = nn.Linear(16 * side**2, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Flatten(), Dropout(dropout), last)
        quicken(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, size, size) in [-1, 1] -> (B, 2) logits
        logits: Tensor = self.head(self.features(x))
        return logits
