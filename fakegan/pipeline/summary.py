"""What TensorBoard shows of a test: scalars, pictures, histograms, a line of the hyperparameter tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fakegan.evaluation import plots
from fakegan.evaluation.metrics import seen_and_unseen
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
    """Test scalars, pictures and histograms, and one line of the hyperparameter tab.

    Where some generators were seen in training and others not, each kind has scalars (`test/seen/auroc`) and a
    histogram (`test/score_seen_fake`) of its own, and there are none of both together.
    """
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
    f, test = tested.faces, content["test"]
    kinds = seen_and_unseen(f.labels, f.sources, tested.learnt_from)
    parts = {f"test/{kind}": test[kind] for kind in kinds} or {"test": test}
    finals = {f"{at}/{name}": part[name]["value"] for at, part in parts.items() for name in HPARAM_METRICS}
    finals["objective"] = content["objective"]
    histograms = {"score_real": f.labels == 0}
    histograms |= {f"score_{kind}_fake": among & (f.labels == 1) for kind, among in kinds.items()}
    if not kinds:
        histograms["score_fake"] = f.labels == 1
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(choices, finals):  # type: ignore[no-untyped-call]
            if writer.file_writer is not None:
                writer.file_writer.add_summary(summary)
        for name, value in finals.items():
            writer.add_scalar(name, value, 0)
        for name, own in histograms.items():
            writer.add_histogram(f"test/{name}", f.scores[own], 0)
        if plots.available():
            for name, figure in tested.pictures().items():
                writer.add_figure(f"test/{name}", figure, 0)
