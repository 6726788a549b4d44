"""What TensorBoard shows of a test: scalars, pictures, histograms, a line of the hyperparameter tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fakegan.evaluation import plots
from fakegan.pipeline.scoring import ScoredFaces
from fakegan.pipeline.settings import RunSettings

HPARAM_METRICS = (
    "auroc",
    "accuracy",
    "balanced_accuracy",
    "average_precision",
    "eer",
    "real_accuracy",
    "fake_accuracy",
)


def write_tensorboard(
    folder: Path,
    settings: RunSettings,
    content: dict[str, Any],  # of metrics.json
    tested: ScoredFaces,
) -> None:
    """Test scalars, pictures and histograms, and one line of the hyperparameter tab."""
    choices = {
        "pipeline": settings.pipeline.name,
        "view": settings.pipeline.view or "none",
        "fakes": settings.pipeline.fakes,
        "model": settings.model.name if settings.pipeline.needs_autoencoder else "none",
        "classifier": settings.classifier.name if settings.pipeline.trains_classifier else "none",
        "data": settings.data.name,
        "budget": settings.budget.name,
        "seed": settings.seed,
    }
    finals = {f"test/{name}": content["test"][name]["value"] for name in HPARAM_METRICS}
    finals["objective"] = content["objective"]
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(choices, finals):  # type: ignore[no-untyped-call]
            if writer.file_writer is not None:
                writer.file_writer.add_summary(summary)
        for name, value in finals.items():
            writer.add_scalar(name, value, 0)
        for label, class_name in ((0, "real"), (1, "fake")):
            writer.add_histogram(f"test/score_{class_name}", tested.faces.scores[tested.faces.labels == label], 0)
        if plots.available():
            for name, figure in tested.pictures().items():
                writer.add_figure(f"test/{name}", figure, 0)
