"""What the loggers are given of a run's end: hyperparameters and what came of them, pictures, histograms."""

from __future__ import annotations

from typing import Any

from fakegan.evaluation import plots
from fakegan.evaluation.error_plots import rendered
from fakegan.evaluation.metrics import seen_and_unseen
from fakegan.runs.settings import RunSettings
from fakegan.stages.scoring import ScoredFaces
from fakegan.training.loggers import conclude, hyperparameters, in_a_stage, show, show_histogram

HPARAM_METRICS = (
    "auroc",
    "accuracy",
    "balanced_accuracy",
    "average_precision",
    "eer",
    "real_accuracy",
    "fake_accuracy",
)


def log_test(
    settings: RunSettings,
    content: dict[str, Any],  # of metrics.json
    tested: ScoredFaces,
) -> None:
    """Hyperparameters, test scalars, pictures and histograms; those of TensorBoard and CSV in the run's folder `test`.

    Where some generators were seen in training and others not, each kind has scalars (`test/seen/auroc`) and a
    histogram (`test/score_seen_fake`) of its own, and there are none of both together.
    """
    f, test = tested.faces, content["test"]
    kinds = seen_and_unseen(f.labels, f.sources, tested.learnt_from)
    parts = {f"test/{kind}": test[kind] for kind in kinds} or {"test": test}
    finals = {f"{at}/{name}": part[name]["value"] for at, part in parts.items() for name in HPARAM_METRICS}
    finals["objective"] = content["objective"]
    histograms = {"score_real": f.labels == 0}
    histograms |= {f"score_{kind}_fake": among & (f.labels == 1) for kind, among in kinds.items()}
    if not kinds:
        histograms["score_fake"] = f.labels == 1
    figures = tested.pictures() if plots.available() else {}
    pictures = {f"test/{name}": rendered(figure) for name, figure in figures.items()}
    with in_a_stage(settings, settings.paths.run_dir / "test") as loggers:
        for logger in loggers:
            conclude(logger, hyperparameters(settings), finals)
            for name, own in histograms.items():
                show_histogram(logger, f"test/{name}", f.scores[own])
            for name, picture in pictures.items():
                show(logger, name, picture, 0)


def log_autoencoder(
    settings: RunSettings,
    metrics: dict[str, float],  # of its validation faces
) -> None:
    """Hyperparameters and validation scalars of a run that trains the autoencoder alone, in the folder `validation`."""
    finals = {**{f"validation/{name}": value for name, value in metrics.items()}, "objective": metrics["psnr"]}
    with in_a_stage(settings, settings.paths.run_dir / "validation") as loggers:
        for logger in loggers:
            conclude(logger, hyperparameters(settings), finals)
