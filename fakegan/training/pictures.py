"""What Lightning's loggers hold besides scalars: pictures, histograms, codes, hyperparameters, a run's end.

They have no common words for these, so each is asked here for what it has: TensorBoard's writer, W&B's `log_image`,
MLflow's client. What a logger cannot hold it is not given; pictures are in the run's folder in any case.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning.loggers import Logger

from fakegan.data.sheets import Picture

Plain = bool | int | float | str
End = Literal["FINISHED", "FAILED", "KILLED"]  # MLflow's words


def show(logger: Logger, name: str, picture: Picture, step: int) -> None:
    """A picture, wherever the logger keeps pictures."""
    experiment = _experiment(logger)
    if hasattr(experiment, "add_image"):  # TensorBoard's
        experiment.add_image(name, picture, step, dataformats="HWC")
    elif hasattr(logger, "log_image"):  # W&B's, and of loggers like it
        logger.log_image(name, [picture], step=step)
    elif hasattr(experiment, "log_image"):  # MLflow's, which knows nothing of the logger's prefix
        prefix = getattr(logger, "_prefix", "")
        experiment.log_image(logger.version, picture, key=f"{prefix}/{name}" if prefix else name, step=step)


def show_histogram(logger: Logger, name: str, values: npt.NDArray[Any]) -> None:
    """How some numbers (N,) are distributed."""
    experiment = _experiment(logger)
    if hasattr(experiment, "add_histogram"):
        experiment.add_histogram(name, values, 0)
    elif type(experiment).__module__.startswith("wandb."):
        import wandb

        held: Any = wandb.Histogram(values.tolist())
        logger.log_metrics({name: held}, 0)


def show_codes(
    logger: Logger,
    name: str,
    codes: npt.NDArray[np.float32],  # (N, K)
    words: Mapping[str, Sequence[str]],  # columns of N words
    faces: npt.NDArray[np.uint8],  # (N, 64, 64, 3)
) -> None:
    """Codes in TensorBoard's projector, each with its words and its face."""
    experiment = _experiment(logger)
    if hasattr(experiment, "add_embedding"):
        experiment.add_embedding(
            codes,
            metadata=[list(line) for line in zip(*words.values(), strict=True)],
            metadata_header=list(words),
            label_img=torch.from_numpy(faces).permute(0, 3, 1, 2) / 255,
            tag=name,
        )


def conclude(logger: Logger, chosen: Mapping[str, Plain], finals: Mapping[str, float]) -> None:
    """Hyperparameters and what came of them; together where the logger shows them so, as TensorBoard's HPARAMS do."""
    log: Any = logger.log_hyperparams
    if "metrics" in inspect.signature(log).parameters:
        log(dict(chosen), dict(finals), 0)
    else:
        log(dict(chosen))
        logger.log_metrics(dict(finals), 0)


def run_goes_on(logger: Logger) -> None:
    """Tell MLflow so: it takes a run for finished with each training of it."""
    experiment = _experiment(logger)
    if hasattr(experiment, "update_run"):
        experiment.update_run(logger.version, status="RUNNING")


def run_ends(logger: Logger, end: End) -> None:
    """The run at W&B or MLflow is over, until someone goes on with it."""
    experiment = _experiment(logger)
    if hasattr(experiment, "set_terminated"):
        experiment.set_terminated(logger.version, end)
    elif hasattr(experiment, "finish"):
        experiment.finish(int(end != "FINISHED"))


def _experiment(logger: Logger) -> Any:
    """What does the writing: all of Lightning's loggers have one, those of others need not."""
    return getattr(logger, "experiment", None)
