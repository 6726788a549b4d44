"""conf/logger/tensorboard: Lightning's logger, laid out for people: what matters first, no curve of one point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

_LOSSES = ("l1", "adversarial", "discriminator")  # beside the names that end with "loss"


class TensorBoardLogger(loggers.TensorBoardLogger):
    """TensorBoard's files: AUROC and losses come before all other curves, and a run has one row of HPARAMS."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log curves, but none of the epoch's number, which is their axis."""
        super().log_metrics({placed(name): value for name, value in metrics.items() if name != "epoch"}, step)

    def log_hyperparams(self, params: Any, metrics: Mapping[str, float] | None = None, step: int | None = None) -> None:
        """Log choices; with what came of them, both are columns of the run's row, and the results are no curves.

        The row belongs to the run's folder, above the stage's: TensorBoard then adds the curves of all stages. It holds
        no list of columns. TensorBoard would take one run's list for all runs; without, it finds the columns of all.
        """
        if not metrics:
            super().log_hyperparams(params, step=step)
            return
        self.hparams.update(params)
        make: Any = hparams  # which has no types
        _, start, end = make({**params, **metrics}, {})
        with SummaryWriter(str(Path(self.log_dir).parent)) as writer:
            for summary in (start, end):
                writer.file_writer.add_summary(summary, step)


def placed(name: str) -> str:
    """The tag of a curve: TensorBoard sorts by tag, capitals first, and has a section for what is before the slash."""
    if name == "val/auroc":
        return f"AUROC/{name}"
    measured = name.rpartition("/")[2]
    return f"Losses/{name}" if measured in _LOSSES or measured.endswith("loss") else name
