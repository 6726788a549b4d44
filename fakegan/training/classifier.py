"""The classifier: any net with two logits, trained to tell fake (1) from real (0)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryPrecisionRecallCurve

from fakegan.checks import at_least
from fakegan.labels import FAKE
from fakegan.training.modules import EpochMeans, EpochModule
from fakegan.training.schedules import MakeOptimizer, MakeSchedule, follow


def fake_probability(logits: Tensor) -> Tensor:  # (B, 2) -> (B,), in [0, 1]
    """P(fake), the score of everything here."""
    return logits.float().softmax(dim=1)[:, FAKE]


def over_labels(batch: dict[str, Tensor], measured: Callable[[Tensor], Tensor]) -> Tensor:
    """What is measured with a batch's labels (B,); of mixed faces, the mean over both labels by their shares.

    So any loss of logits and labels serves for mixtures, as in mixup (Zhang et al. 2017, arXiv:1710.09412).
    """
    value = measured(batch["label"])
    if "other_label" not in batch:
        return value
    return value + batch["other_share"] * (measured(batch["other_label"]) - value)


class Classifier(EpochModule):
    """A net with two logits that learns to tell fake (1) from real (0); selected by validation AUROC.

    A batch is {"x": float (B, C, size, size), "label": int64 (B,)} with REAL = 0 and FAKE = 1; of mixed faces it has
    "other_label" and "other_share" too.
    """

    monitor, mode = "val/auroc", "max"
    val_logged: ClassVar[tuple[str, ...]] = ("val_means", "val_metrics")
    keeps: ClassVar[dict[str, str]] = {}  # networks besides `net` that a finished run keeps: file name, attribute
    takes_mixed = True  # stands beside a training_step that learns both labels of mixed faces, as `over_labels` does

    def __init__(
        self,
        net: nn.Module,  # (B, C, size, size) -> (B, 2) logits of (real, fake)
        optimizer: MakeOptimizer,  # of its parameters
        schedule: MakeSchedule | None = None,  # of the learning rate
        loss: nn.Module | None = None,  # of logits and labels; null: cross entropy
        body_lr: float | None = None,  # learning rate of all but the net's `head`, as a share of the head's; null: 0.1
        # of a pretrained net, 1 of any other
        frozen_epochs: int = 0,  # at the beginning, in which only the net's `head` learns
    ) -> None:
        super().__init__()
        self.net = net
        pretrained = bool(getattr(net, "pretrained", False))
        self.body_lr = (0.1 if pretrained else 1.0) if body_lr is None else body_lr
        self.frozen_epochs = frozen_epochs
        self._frozen_by_net = [weights for weights in net.parameters() if not weights.requires_grad]
        at_least(0, body_lr=self.body_lr, frozen_epochs=frozen_epochs)
        if not isinstance(getattr(net, "head", None), nn.Module) and (self.body_lr != 1 or frozen_epochs):
            option = f"frozen_epochs={frozen_epochs}" if frozen_epochs else f"body_lr={self.body_lr}"
            raise ValueError(f"{option} needs a net that has its last layers as `head`: {type(net).__name__} has none")
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.loss = loss or nn.CrossEntropyLoss()
        self.train_means = EpochMeans("loss", "accuracy")
        self.val_means = EpochMeans("loss")
        self.val_metrics = MetricCollection(
            {"auroc": BinaryAUROC(), "average_precision": BinaryAveragePrecision(), "accuracy": BinaryAccuracy()},
            compute_groups=False,  # found on a first update, which a process without faces does not see
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, size, size) -> (B, 2) logits
        """Logits of (real, fake)."""
        logits: Tensor = self.net(x)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and schedule that the config names, at two learning rates if body_lr is not 1."""
        optimizer = self.new_optimizer()
        return {"optimizer": optimizer, "lr_scheduler": follow(self.make_schedule, optimizer, self)}  # type: ignore[return-value]

    def new_optimizer(self) -> Optimizer:
        """The optimizer of the net's parameters, or of two groups, the head's and the body's, at rates of their own."""
        if self.body_lr == 1:
            return self.make_optimizer(self.net.parameters())
        head = list(cast(nn.Module, self.net.head).parameters())
        known = set(map(id, head))
        body = [weights for weights in self.net.parameters() if id(weights) not in known]
        optimizer = self.make_optimizer([{"params": head}, {"params": body}])
        optimizer.param_groups[1]["lr"] *= self.body_lr
        return optimizer

    def on_train_start(self) -> None:
        """Freeze or thaw the body: a fit that is resumed within an epoch does not begin that epoch again."""
        self._freeze()

    def on_train_epoch_start(self) -> None:
        """Freeze or thaw the body."""
        self._freeze()

    def _freeze(self) -> None:
        """Freeze the body, with BatchNorm's statistics and without dropout; thaw it when its frozen epochs are over."""
        if not self.frozen_epochs:
            return
        thawed = self.current_epoch >= self.frozen_epochs
        self.net.requires_grad_(thawed).train(thawed)
        cast(nn.Module, self.net.head).requires_grad_(True).train()
        for weights in self._frozen_by_net:  # which its author never wants to learn
            weights.requires_grad_(False)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> STEP_OUTPUT:
        """Cross entropy of one batch."""
        logits, loss = self._step(batch)
        accuracy = over_labels(batch, lambda label: (logits.argmax(dim=1) == label).float().mean())
        self.train_means.update({"loss": loss, "accuracy": accuracy}, weight=len(logits))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Loss and scores of one batch; the metrics are exact over the whole split."""
        if not len(batch["label"]):  # this process has no faces to validate on
            for metric in self.val_metrics.values():
                if isinstance(metric, BinaryPrecisionRecallCurve):  # AUROC and average precision, which gather scores
                    metric.preds.append(torch.zeros(0, device=metric.device))
                    metric.target.append(torch.zeros(0, dtype=torch.int64, device=metric.device))
            return
        logits, loss = self._step(batch)
        self.val_means.update({"loss": loss}, weight=len(logits))
        self.val_metrics.update(fake_probability(logits), batch["label"])

    def _step(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = self(batch["x"])
        return logits, over_labels(batch, lambda label: self.loss(logits, label))
