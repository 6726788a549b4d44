"""Parts of a user's own, each wrong in one way; test_extending.py names them in configs."""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import nn

from fakegan.training.classifier import Classifier


class NoEncoder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class TwoCodes(NoEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.encoder(x) + self.encoder(x)) / 2


class ReadsNumbers(nn.Module):
    """As timm's nets do for the depth of their DropPath."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(1, 1)
        self.rates = torch.linspace(0, 0.1, 3).tolist()


class OtherSize(TwoCodes):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)[:, :, :32]


class LearnsNothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2]


class TakesViews(nn.Module):
    """As many nets are written: `view` refuses maps whose channels lie last."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.maps, self.head = nn.Conv2d(in_channels, 2, 3, stride=8), nn.Linear(2 * 8 * 8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.maps(x).view(x.size(0), -1))
        return out


class HasItsNet(pl.LightningModule):
    """A module that makes its net itself, out of FakeGAN's sight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TakesViews()

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.inner(batch["x"]), batch["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class NoNet:
    pass


class Several(LearnsNothing):
    def forward(self, x: torch.Tensor) -> Any:
        return {"logits": x}


class NoChannels(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 64), nn.Flatten())


class KeepsNothing(pl.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.other = net


class KeepsAnother(Classifier):
    keeps: ClassVar[dict[str, str]] = {"other.pt": "other"}


class StopsOnce(pl.Callback):
    """A user's callback that asks to stop after a step of one epoch, as a signal would; what is saved then is whole."""

    armed = False  # by a test

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if StopsOnce.armed and (trainer.current_epoch, batch_idx) == self.at:
            StopsOnce.armed = False
            stop = next(c for c in trainer.callbacks if type(c).__name__ == "SaveAndStop")  # type: ignore[attr-defined]
            stop.note(15, None)  # SIGTERM


class OwnStep(Classifier):
    """It does not say whether it learns both labels of a mixed face."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self(batch["x"]), batch["label"])
        return loss


class NoAugment(pl.LightningDataModule):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
