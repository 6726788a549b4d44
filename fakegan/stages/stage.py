"""The run as its stages get it, made once when it begins, and the form of a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fakegan.data.arrays import RowArray, Rows
from fakegan.data.faces import Faces
from fakegan.runs.folder import AUTOENCODER_FILE, AUTOENCODER_FOLDER
from fakegan.runs.settings import PipelineSettings, RunSettings


@dataclass(frozen=True)
class Examples:
    """The examples that the classifier learns from: pictures by example number, and which of them train and validate.

    Example i below N, the store's size, is the face of row i; example N + i is the reconstruction of that face and a
    fake. Both come from one row, so that no split can part them.
    """

    arrays: dict[str, RowArray]  # "image" and, where the view or the fakes need it, "recon"
    labels: npt.NDArray[np.int64]  # (N,) or (2N,), REAL or FAKE
    sources: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]  # a face and its reconstruction share a group
    train: Rows
    val: Rows
    faces: int  # N


@dataclass
class Run:
    """One run at work, as every stage gets it. Stages hand each other files in its folder, and `examples`."""

    settings: RunSettings
    device: torch.device  # of this process
    faces: Faces
    examples: Examples = field(init=False)  # made by the stage "reconstruct"

    @property
    def folder(self) -> Path:
        """The run's folder; fakegan.runs.folder names the files in it."""
        return self.settings.paths.run_dir

    @property
    def autoencoder(self) -> Path:
        """The file of the run's trained autoencoder; only a run whose pipeline needs an autoencoder gets one."""
        return self.folder / AUTOENCODER_FOLDER / AUTOENCODER_FILE


@dataclass(frozen=True)
class Stage:
    """One row of the table of stages. To put your own code in its place: `dataclasses.replace(STAGE, run=yours)`."""

    name: str  # in status.json
    run: Callable[[Run], None]  # on every process of the run, which work together
    needed: Callable[[PipelineSettings], bool] = lambda pipeline: True
    done: Callable[[Run], bool] = lambda run: False  # asked on rank 0: a run that is resumed leaves the stage out
    on_rank_0: bool = False  # `run` is called on rank 0 alone, while the others wait
