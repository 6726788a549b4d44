"""What a user might bring to a run: a net with torch's own Dropout, and a callback that stops a fit. For the tests."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn


class PlainNet(nn.Module):
    """A small CNN whose Dropout and BatchNorm1d are torch's; AlphaDropout draws noise that is not dealt."""

    def __init__(
        self,
        in_channels: int = 3,
        dropout: float = 0.4,  # share of the features that are left out in training
        alpha: bool = False,  # by torch's AlphaDropout
    ) -> None:
        super().__init__()
        kind = nn.AlphaDropout if alpha else nn.Dropout
        self.features = nn.Sequential(nn.Conv2d(in_channels, 4, 8, stride=8), nn.ReLU(), nn.Flatten(), kind(dropout))
        self.head = nn.Sequential(nn.Linear(256, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 64, 64) -> (B, 2)
        logits: Tensor = self.head(self.features(x))
        return logits


class StopsOnce(pl.Callback):
    """Asks to stop after a step of one epoch, as a signal would; what is saved then is whole."""

    signal = 15
    armed = False  # by a test

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if StopsOnce.armed and (trainer.current_epoch, batch_idx) == self.at:
            StopsOnce.armed = False
            stop = next(c for c in trainer.callbacks if type(c).__name__ == "SaveAndStop")  # type: ignore[attr-defined]
            stop.note(self.signal, None)
