"""The classifier: any net with two logits, trained to tell fake (1) from real (0)."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision

from fakegan.labels import FAKE
from fakegan.modules.means import EpochMeans
from fakegan.modules.partial import make_whole, take_in_nothing, take_part
from fakegan.modules.schedules import learning_rate_factor, optimizer, training_steps
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.registry import build_net


def fake_probability(logits: Tensor) -> Tensor:  # (B, 2) -> (B,), in [0, 1]
    """P(fake), the score of everything here."""
    return logits.float().softmax(dim=1)[:, FAKE]


class Classifier(pl.LightningModule):
    """Cross entropy on two logits; selected by validation AUROC.

    A batch is {"x": float (B, C, 64, 64), "label": int64 (B,)} with REAL = 0 and FAKE = 1.
    """

    def __init__(
        self,
        net: str,  # a name in fakegan.nets.registry.NETS
        in_channels: int = 3,  # channels of the view
        net_options: dict[str, Any] | None = None,  # keyword arguments of the net
        optimizer: str = "adamw",  # sgd, adam, adamw
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),  # Adam's
        momentum: float = 0.0,  # SGD's
        weight_decay: float = 0.0,
        schedule: str = "constant",  # constant, cosine, step
        step_epochs: int = 30,  # schedule "step": the rate falls to a tenth every so many epochs
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = build_net(net, in_channels, net_options or {})
        self.train_means = EpochMeans("loss", "accuracy")
        self.val_means = EpochMeans("loss")
        self.val_metrics = MetricCollection(
            {
                "auroc": BinaryAUROC(),
                "average_precision": BinaryAveragePrecision(),
                "accuracy": BinaryAccuracy(),
            },
            compute_groups=False,  # found on a first update, which a process without faces does not see
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 64, 64) -> (B, 2) logits
        """Logits of (real, fake)."""
        logits: Tensor = self.net(x)
        return logits

    def setup(self, stage: str) -> None:
        """Fetch ImageNet weights where the net starts from them; a resumed fit overwrites them again."""
        if stage == "fit" and isinstance(self.net, AlexNet) and self.net.imagenet:
            self.net.load_imagenet()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and schedule that the config names."""
        opt, schedule = self._optimizer(self.net)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimizer(self, net: nn.Module) -> tuple[Optimizer, LambdaLR]:
        h = self.hparams
        opt = optimizer(
            h["optimizer"],
            net.parameters(),
            h["learning_rate"],
            betas=tuple(h["betas"]),
            momentum=h["momentum"],
            weight_decay=h["weight_decay"],
        )
        steps, epochs = training_steps(self.trainer), self.trainer.max_epochs or 1
        return opt, LambdaLR(opt, learning_rate_factor(h["schedule"], steps, epochs, h["step_epochs"]))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> STEP_OUTPUT:
        """Cross entropy of one batch."""
        logits, loss = self._step(batch)
        accuracy = (logits.argmax(dim=1) == batch["label"]).float().mean()
        self.train_means.update({"loss": loss, "accuracy": accuracy}, weight=len(logits))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Loss and scores of one batch; the metrics are exact over the whole split."""
        if not len(batch["label"]):  # this process has no faces to validate on
            take_in_nothing(self.val_metrics)
            return
        logits, loss = self._step(batch)
        self.val_means.update({"loss": loss}, weight=len(logits))
        self.val_metrics.update(fake_probability(logits), batch["label"])

    def _step(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = self(batch["x"])
        return logits, F.cross_entropy(logits, batch["label"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The running means of all processes."""
        make_whole(checkpoint, "train_means.", "train_metrics.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What had been summed goes on being so, once."""
        take_part(checkpoint, "train_means.", "train_metrics.")

    def on_train_epoch_end(self) -> None:
        """Write the epoch's means."""
        self._log("train", self.train_means)

    def on_validation_epoch_end(self) -> None:
        """Write the epoch's metrics; val/auroc selects the checkpoint."""
        self._log("val", self.val_means, self.val_metrics)

    def _log(self, split: str, *metrics: EpochMeans | MetricCollection) -> None:
        values = {f"{split}/{name}": value for metric in metrics for name, value in metric.compute().items()}
        for metric in metrics:
            metric.reset()
        self.log_dict({**values, "step": torch.tensor(float(self.current_epoch))})
