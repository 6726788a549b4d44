"""What a run is asked to do: the config tree as typed, frozen values.

No Hydra here, so everything can use it; no torch, so that what cannot be is refused before the seconds that takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Hashable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fakegan.data.faces import DataSettings
from fakegan.data.splits import AUTOENCODER, CLASSIFIER, Needs, seeds
from fakegan.data.store import stored_fingerprint
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import FAKE, REAL
from fakegan.processes import cores
from fakegan.views import VIEWS, View

FACES_FILE = "faces.sha256"  # in a run directory: the fingerprint of the store that the run began with
LOCK_FILE = "run.lock"  # in a run directory: held by the command that works on it
GENERATOR_FILE = "generator.pt"  # in a run directory: what the DCGAN's generator learnt
NETS = ("simple_cnn", "alexnet", "dcgan")  # those of fakegan.nets.registry that learn
_LABEL = re.compile(r"\w[\w .+=-]{0,63}")


def began_with(run_dir: Path) -> str:
    """The fingerprint of the store that a run began with; empty where it has opened none yet."""
    path = run_dir / FACES_FILE
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def at_least(lowest: float, **values: float) -> None:
    """Raise a UsageError for the first value below `lowest`, or none; keys are written with __ for the dot."""
    for key, value in values.items():
        if not value >= lowest:  # also true for NaN
            raise UsageError(f"{key.replace('__', '.')}={value} must be {lowest} or more")


def two_betas(**values: tuple[float, ...]) -> None:
    """Raise a UsageError where Adam's betas are not two numbers from 0 to 1."""
    for key, betas in values.items():
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise UsageError(f"{key.replace('__', '.')}={list(betas)} must be two numbers from 0 to below 1")


def labels(**values: str) -> None:
    """Raise a UsageError for a name that is not the same in a path, a page and a terminal."""
    for key, value in values.items():
        if not _LABEL.fullmatch(value):
            raise UsageError(
                f"{key.replace('__', '.')}={value!r:.100} must be a short name: up to 64 letters, digits, spaces and "
                "_ . + = -, a letter, digit or _ first"
            )


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
    checkpoint: Path | None  # a trained autoencoder to use instead of training one

    def __post_init__(self) -> None:
        at_least(1, model__depth=self.depth, model__width=self.width, model__pool_size=self.pool_size)
        at_least(1, model__code_channels=1 if self.code_channels is None else self.code_channels)
        at_least(0, model__reconstruction_weight=self.reconstruction_weight, model__learning_rate=self.learning_rate)
        at_least(0, model__discriminator_floor=self.discriminator_floor)
        two_betas(model__betas=self.betas)


@dataclass(frozen=True)
class ClassifierSettings:
    """conf/classifier: all but name go to Classifier."""

    name: str
    net: str
    net_options: dict[str, Any]
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    betas: tuple[float, float]
    momentum: float
    weight_decay: float
    schedule: Literal["constant", "cosine", "step"]
    step_epochs: int

    def __post_init__(self) -> None:
        at_least(0, classifier__learning_rate=self.learning_rate, classifier__weight_decay=self.weight_decay)
        at_least(0, classifier__momentum=self.momentum)
        if self.net == "recon_error":
            raise UsageError("classifier.net=recon_error learns nothing: choose pipeline=recon_error")
        if self.net not in NETS:
            raise UsageError(f"classifier.net={self.net!r:.100} does not exist: choose {', '.join(NETS)}")
        for key, value in self.net_options.items():
            if not (isinstance(key, str) and key[:1].isalpha() and _is_plain(value)):
                raise UsageError(
                    f"classifier.net_options.{key!s:.100} is no option of a net: those are numbers and texts"
                )
        at_least(1, classifier__step_epochs=self.step_epochs)
        two_betas(classifier__betas=self.betas)


def _is_plain(value: object) -> bool:
    """A number, a text, nothing, or a list of those: no group of keys, in which others' code could be named."""
    several = value if isinstance(value, list | tuple) else [value]
    return all(one is None or isinstance(one, bool | int | float | str) for one in several)


@dataclass(frozen=True)
class PipelineSettings:
    """conf/pipeline: what the classifier sees, and which fakes it learns from."""

    name: str
    view: str | None  # a name in fakegan.views.VIEWS; None trains the autoencoder and stops
    fakes: Literal["generated", "reconstructed"]  # to learn from; the test is always on generated ones

    def __post_init__(self) -> None:
        if self.view is not None and self.view not in VIEWS:
            raise UsageError(f"pipeline.view={self.view!r} does not exist: choose {', '.join(VIEWS)}")

    @property
    def seen(self) -> View | None:
        """The view by its name."""
        return None if self.view is None else VIEWS[self.view]

    @property
    def needs_autoencoder(self) -> bool:
        """Whether the first stage is to train one."""
        return self.seen is None or self.seen.needs_recon or self.fakes == "reconstructed"

    @property
    def needs(self) -> Needs:
        """The classes that each split must hold."""
        wanted: dict[str, tuple[int, ...]] = dict(AUTOENCODER) if self.needs_autoencoder else {}
        if self.seen is None:
            return wanted
        if self.fakes == "reconstructed":
            return {**wanted, "train": (REAL,), "val": (REAL,), "test": (REAL, FAKE)}
        return {**wanted, **CLASSIFIER}

    @property
    def trains_classifier(self) -> bool:
        """Whether a network learns to classify."""
        return self.seen is not None and self.seen.trains


@dataclass(frozen=True)
class StageBudget:
    """How long one network trains."""

    max_epochs: int
    batch_size: int  # of one step

    def __post_init__(self) -> None:
        at_least(1, max_epochs=self.max_epochs, batch_size=self.batch_size)


@dataclass(frozen=True)
class BudgetSettings:
    """conf/budget: how much of everything."""

    name: str
    width: int
    autoencoder: StageBudget
    classifier: StageBudget
    dcgan: StageBudget  # in place of `classifier`, where that is the DCGAN


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


@dataclass(frozen=True)
class TrainerSettings:
    """conf/trainer: on what a run's networks train. Their number changes no result, but for rounding."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: int | str  # processes, each with a GPU or a share of the CPU; "auto": one for every GPU
    precision: Literal["32-true", "bf16-mixed"]

    def __post_init__(self) -> None:
        if isinstance(self.devices, str) and self.devices != "auto":
            raise UsageError(f"trainer.devices={self.devices!r} must be a number or auto")
        if isinstance(self.devices, int):
            at_least(1, trainer__devices=self.devices)

    @property
    def uses_gpus(self) -> bool:
        """Whether each process takes a GPU on this machine."""
        if self.accelerator != "auto":
            return self.accelerator == "gpu"
        import torch

        return torch.cuda.is_available()

    @property
    def processes(self) -> int:
        """How many a run of its own starts on this machine.

        Raises:
            UsageError: more than there are GPUs, or, on the CPU, cores; two are always allowed.
        """
        gpus = _gpus() if self.uses_gpus else 0
        if isinstance(self.devices, int):
            if self.devices > gpus > 0:
                raise UsageError(f"trainer.devices={self.devices}, but this machine has {gpus} GPUs: lower it")
            if not self.uses_gpus and self.devices > max(cores(), 2):
                raise UsageError(f"trainer.devices={self.devices}, but this machine has {cores()} cores: lower it")
            return self.devices
        return max(gpus, 1)


@dataclass(frozen=True)
class CallbackSettings:
    """conf/callbacks."""

    patience: int  # epochs without a better validation AUROC before the classifier stops; the DCGAN never does
    grid_every: int  # epochs between two pictures of reconstructions
    grid_faces: int  # faces in that picture
    save_minutes: float  # between two checkpoints within an epoch

    def __post_init__(self) -> None:
        at_least(1, callbacks__patience=self.patience)
        at_least(0, callbacks__save_minutes=self.save_minutes)
        at_least(1, callbacks__grid_every=self.grid_every, callbacks__grid_faces=self.grid_faces)


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
    resume: str | bool | None  # a run directory to continue; true: a sweep
    data: DataSettings
    model: ModelSettings
    classifier: ClassifierSettings
    pipeline: PipelineSettings
    budget: BudgetSettings
    trainer: TrainerSettings
    callbacks: CallbackSettings
    logger: LoggerSettings
    paths: PathSettings

    def __post_init__(self) -> None:
        seeds(seed=self.seed)
        labels(data__name=self.data.name, model__name=self.model.name, classifier__name=self.classifier.name)
        labels(pipeline__name=self.pipeline.name, budget__name=self.budget.name)

    @property
    def classifier_budget(self) -> StageBudget:
        """How long this run's classifier trains."""
        return self.budget.dcgan if self.classifier.net == "dcgan" else self.budget.classifier

    def batch_sizes(self) -> list[tuple[str, int]]:
        """Key and size of each network's training batch, in the order of the stages."""
        sizes = []
        if self.pipeline.needs_autoencoder and self.model.checkpoint is None:
            sizes.append(("budget.autoencoder.batch_size", self.budget.autoencoder.batch_size))
        if self.pipeline.trains_classifier:
            name = "dcgan" if self.classifier.net == "dcgan" else "classifier"
            sizes.append((f"budget.{name}.batch_size", self.classifier_budget.batch_size))
        return sizes

    def configuration(self) -> dict[str, Any]:
        """What decides this run's numbers besides the seed, as plain values.

        Two runs of one configuration are repetitions. What has no effect is left out: the autoencoder where none is
        trained, the classifier where none is, how many processes feed it, where things are kept (the store's
        fingerprint says whether the faces are the same).
        """
        data = asdict(self.data)
        data["split"]["autoencoder_share"] = self.data.split.share
        if self.data.root is not None:
            del data["demo_faces"], data["demo_seed"]
        del data["workers"], data["root"]
        content: dict[str, Any] = {
            "data": data,
            "pipeline": asdict(self.pipeline),
            "precision": self.trainer.precision,
        }
        if self.pipeline.needs_autoencoder:
            content["model"] = asdict(self.model)
            content["autoencoder"] = asdict(self.budget.autoencoder)
        if self.pipeline.trains_classifier:
            content["classifier"] = asdict(self.classifier)
            content["budget"] = asdict(self.classifier_budget)
            content["patience"] = None if self.classifier.net == "dcgan" else self.callbacks.patience
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str, sort_keys=True))
        return plain

    def processes(self) -> int:
        """How many a run by itself starts."""
        return self.trainer.processes

    def identity(self) -> Hashable:
        """Equal for two runs that would end with the same numbers, wherever their faces lie."""
        root = self.data.root
        faces = None if root is None else began_with(self.paths.run_dir) or stored_fingerprint(root) or root
        return faces, self.seed, json.dumps(self.configuration(), sort_keys=True)

    def check_places(
        self,
        given: Collection[str],  # keys of the config: those that are new to this run
    ) -> None:
        """Raise a FakeganError where a run that has begun cannot go on with what lies at its new places."""
        run_dir, root, checkpoint = self.paths.run_dir, self.data.root, self.model.checkpoint
        if "data.root" in given and self.data.name == "demo":
            raise UsageError(f"{run_dir} learns from the built-in faces: give paths.data_dir, not data.root")
        if "data.root" in given and root is not None:
            found, wanted = stored_fingerprint(root), began_with(run_dir)
            if found is None:
                raise UsageError(f"data.root={root} is no face store: name the folder that the run's store is in now")
            if wanted and found != wanted:
                raise FakeganError(f"data.root={root} holds other faces than {run_dir} began with: start a new run")
        if "model.checkpoint" in given and checkpoint is not None and not checkpoint.exists():
            raise UsageError(f"model.checkpoint={checkpoint} does not exist: name a run or an autoencoder.pt")

    def repeats(self, other: RunSettings) -> bool:
        """Whether both would end with the same numbers."""
        return self.identity() == other.identity()

    def label(self) -> str:
        """The configuration in a few words, for tables and pictures."""
        words = [self.pipeline.name]
        if self.pipeline.needs_autoencoder:
            words.append(self.model.name)
        if self.pipeline.trains_classifier:
            words.append(self.classifier.name)
        return " · ".join(words)


@dataclass(frozen=True)
class EvaluateSettings:
    """The whole of conf/evaluate.yaml."""

    run: str | None  # one run to score again
    runs: tuple[str, ...]  # or several to compare: runs, or folders that hold them
    out: Path | None  # where the results go; None: into the run, a report of several into a new folder under reports/
    sources: tuple[str, ...]  # only these; empty: all
    device: Literal["auto", "cpu", "cuda", "mps"]
    data_dir: Path  # where built-in faces are kept
    data: DataSettings | None = None  # None: the run's own faces

    def __post_init__(self) -> None:
        if self.run is not None and self.runs:
            raise UsageError("run is for one run alone: leave out runs, or name it in runs=[...]")
        if self.data is not None and self.data.limit is not None:
            raise UsageError("data.limit is for train.py: choose faces to score with sources=[...]")
