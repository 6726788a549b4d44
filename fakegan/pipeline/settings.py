"""What a run is asked to do: the config tree as typed, frozen values. No Hydra here, so everything can use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fakegan.data.faces import DataSettings


@dataclass(frozen=True)
class ModelSettings:
    """conf/model: the adversarial autoencoder; all but name and checkpoint go to AdversarialAutoencoder."""

    name: str
    depth: int
    width: int
    norm: Literal["instance", "batch", "none"]
    code_channels: int | None
    reconstruction_weight: float
    learning_rate: float
    betas: tuple[float, float]
    schedule: Literal["constant", "cosine"]
    pool_size: int
    discriminator_floor: float
    checkpoint: str | None  # a trained autoencoder to use instead of training one


@dataclass(frozen=True)
class ClassifierSettings:
    """conf/classifier: all but name go to Classifier."""

    name: str
    net: str
    net_options: dict[str, Any]
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    schedule: Literal["constant", "cosine", "step"]
    step_epochs: int


@dataclass(frozen=True)
class PipelineSettings:
    """conf/pipeline: what the classifier sees, and which fakes it learns from."""

    name: str
    view: str | None  # a name in fakegan.views.VIEWS; None trains the autoencoder and stops
    fakes: Literal["generated"]


@dataclass(frozen=True)
class StageBudget:
    """How long one network trains."""

    max_epochs: int
    batch_size: int  # of one step, over all devices


@dataclass(frozen=True)
class BudgetSettings:
    """conf/budget: how much of everything."""

    name: str
    width: int
    autoencoder: StageBudget
    classifier: StageBudget


@dataclass(frozen=True)
class TrainerSettings:
    """conf/trainer: handed to Lightning's Trainer as they are."""

    accelerator: str
    devices: int | str
    strategy: str
    precision: str
    num_nodes: int


@dataclass(frozen=True)
class CallbackSettings:
    """conf/callbacks."""

    patience: int  # epochs without a better validation AUROC before the classifier stops
    grid_every: int  # epochs between two pictures of reconstructions
    grid_faces: int  # faces in that picture


@dataclass(frozen=True)
class LoggerSettings:
    """conf/logger."""

    name: Literal["tensorboard", "csv"]


@dataclass(frozen=True)
class PathSettings:
    """conf/paths."""

    run_dir: Path  # this run's own; everything but artifacts
    data_dir: Path  # where built-in faces are kept
    artifact_dir: Path  # trained autoencoders and reconstructions that several runs may use


@dataclass(frozen=True)
class RunSettings:
    """The whole of conf/train.yaml."""

    seed: int
    resume: str | None
    data: DataSettings
    model: ModelSettings
    classifier: ClassifierSettings
    pipeline: PipelineSettings
    budget: BudgetSettings
    trainer: TrainerSettings
    callbacks: CallbackSettings
    logger: LoggerSettings
    paths: PathSettings


@dataclass(frozen=True)
class EvaluateSettings:
    """The whole of conf/evaluate.yaml."""

    run: str
    sources: tuple[str, ...]  # only these; empty: all
    device: Literal["auto", "cpu", "cuda", "mps"]
    data_dir: Path  # where built-in faces are kept
    data: DataSettings | None = None  # None: the run's own faces
