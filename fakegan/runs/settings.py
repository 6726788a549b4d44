"""The settings of a run: the config tree as typed, frozen values.

This module does not import torch, so that a wrong setting is refused at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fakegan.checks import a_share, at_least
from fakegan.config.building import TARGET, Node, completed
from fakegan.config.trust import NET_SOURCES, packages_to_resume, packages_to_trust, trust_names
from fakegan.config.typed import REST, to_mapping
from fakegan.data.faces import DataSettings
from fakegan.data.images import Geometry
from fakegan.data.splits import AUTOENCODER, CLASSIFIER, Needs, seeds
from fakegan.data.store import stored_fingerprint, stored_geometry
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from fakegan.runs.began import fingerprint_at_start
from fakegan.runs.trainer_settings import FEW, TrainerSettings
from fakegan.views import VIEWS, View, view

OF_DEMO = ("data.demo_faces", "data.demo_seed", "data.demo_size")
_LABEL = re.compile(r"\w[\w .+=-]{0,63}")  # it looks the same in a path, a page and a terminal


@dataclass(frozen=True)
class ModelSettings:
    """conf/model: the adversarial autoencoder, as a node that `fakegan.config.building` builds."""

    name: str  # in tables and folders
    budget: str = "autoencoder"  # the one of conf/budget that it trains by
    checkpoint: Path | None = None  # a trained autoencoder.pt, or a run that holds one, instead of training
    node: Node = field(default_factory=dict, metadata=REST)

    def __post_init__(self) -> None:
        _check_targets(self.node, "model")

    @property
    def depth(self) -> int:
        """Its residual blocks; 0 where its net has no such option."""
        depth = self.node["net"].get("depth", 0)
        return depth if isinstance(depth, int) else 0

    @property
    def code_channels(self) -> int | None:
        """Channels of the net's code, where it has such an option."""
        channels = self.node["net"].get("code_channels")
        return channels if isinstance(channels, int) else None


@dataclass(frozen=True)
class ClassifierSettings:
    """conf/classifier: a node that `fakegan.config.building` builds."""

    name: str  # in tables and folders
    budget: str = "classifier"  # the one of conf/budget that it trains by
    adversarial: bool = False  # trained against a generator: a game has no best epoch, so nothing ends it early
    ema: float | None = None  # 0.99, say: the share that the mean of past weights keeps with each step; that mean is
    # validated and kept; null: the weights themselves
    weights_file: Path | None = None  # a state dict to start from (.pth, .pt), in the layout of torchvision's weights
    weights_sha256: str | None = None  # of that file; written down when a run is composed
    node: Node = field(default_factory=dict, metadata=REST)

    def __post_init__(self) -> None:
        _check_targets(self.node, "classifier")
        if self.ema is not None:
            a_share(ema=self.ema)


@dataclass(frozen=True)
class AugmentSettings:
    """conf/augment: a node that `fakegan.config.building` builds."""

    name: str = "none"  # in tables
    node: Node = field(  # of a run that was begun before there was a choice: none
        default_factory=lambda: completed({TARGET: "fakegan.data.augment.Augment"}, "augment"), metadata=REST
    )

    def __post_init__(self) -> None:
        _check_target(self.node, "augment")
        degrade = self.node.get("degrade")
        if degrade is not None and not (isinstance(degrade, dict) and isinstance(degrade.get(TARGET), str)):
            raise UsageError(
                f"augment.degrade has no class: choose augment=robust, or add augment.degrade.{TARGET}="
                "package.module.Class"
            )


def _check_targets(node: Node, at: str) -> None:
    """Raise a UsageError where a node, or its net, does not name the class that it builds."""
    _check_target(node, at)
    _check_target(node.get("net"), f"{at}.net")


def _check_target(node: Any, at: str) -> None:
    if not isinstance(node, dict) or not isinstance(node.get(TARGET), str):
        raise UsageError(f"{at} must name what it builds: {at}.{TARGET}=package.module.Class")


@dataclass(frozen=True)
class Shows:
    """What a run must know of a view before it calls it."""

    channels: int
    arrays: tuple[str, ...]
    trains: bool


@dataclass(frozen=True)
class PipelineSettings:
    """conf/pipeline: what the classifier sees, and which fakes it learns from."""

    name: str  # in tables and folders
    view: str | None  # what the classifier sees, of fakegan/views.py; null: there is none
    fakes: Literal["generated", "reconstructed"] = "generated"  # to learn from; the test is always on generated ones
    shows: Shows | None = None  # what a view of the user's own says of itself; written down when a run is composed

    def __post_init__(self) -> None:
        if self.view is not None and self.view not in VIEWS and (self.shows is None or "." not in self.view):
            own = "or package.module.name of your own"
            raise UsageError(f"pipeline.view={self.view!r} does not exist: choose {', '.join(VIEWS)}, {own}")

    @property
    def seen(self) -> View | None:
        """The view; a view of the user's own is imported when it is called, not before: a file may name it."""
        if self.view is None or self.view in VIEWS:
            return None if self.view is None else VIEWS[self.view]
        assert self.shows is not None
        name = self.view
        return View(**vars(self.shows), function=lambda *arrays: view(name).function(*arrays))

    @property
    def needs_autoencoder(self) -> bool:
        """Whether the run needs a trained autoencoder."""
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

    @property
    def learns_generated(self) -> bool:
        """Whether that network learns to tell the store's fakes from its real faces."""
        return self.trains_classifier and self.fakes == "generated"


@dataclass(frozen=True)
class DetectorSettings:
    """How the detector scores a face, from validation on."""

    flip_average: bool = False  # score by the mean log odds of the face and of its mirror image: twice the time


@dataclass(frozen=True)
class FinalTest:
    """What the test does besides scoring its faces as they are; it changes no number of theirs."""

    robustness: bool = False  # score them degraded too: JPEG, blur, noise, ... in several strengths; robustness.json
    originals: bool = False  # with robustness: degrade the original files, before the resize to the store's size

    def __post_init__(self) -> None:
        if self.originals and not self.robustness:
            raise UsageError("originals=true is for robustness=true: give both, or leave it out")


@dataclass(frozen=True)
class StageBudget:
    """How long one network trains."""

    max_epochs: int  # epochs at most; callbacks.early_stopping may end a classifier's training earlier
    batch_size: int  # faces of a step, over all processes

    def __post_init__(self) -> None:
        at_least(1, max_epochs=self.max_epochs, batch_size=self.batch_size)


@dataclass(frozen=True)
class BudgetSettings:
    """conf/budget: how much of everything."""

    name: str  # in tables
    width: int  # channels of the networks, for those that take it from here
    stages: dict[str, StageBudget] = field(default_factory=dict, metadata=REST)  # by name


EARLY_STOPPING = "early_stopping"  # in conf/callbacks: of a classifier that does not play against a generator
_WATCHERS = ("LearningRateMonitor", "DeviceStatsMonitor", "RichProgressBar", "TQDMProgressBar", "Timer")


@dataclass(frozen=True)
class PathSettings:
    """conf/paths."""

    run_dir: Path  # this run's own folder: hydra.run.dir, or the folder that resume names
    data_dir: Path  # where the built-in faces are kept
    artifact_dir: Path  # trained autoencoders and reconstructions that several runs may use


@dataclass(frozen=True)
class RunSettings:
    """The whole of conf/train.yaml."""

    seed: int  # of weights, orders, flips and noise; the split has its own: data.split.seed
    resume: str | bool | None  # a run's folder, to continue it, with its own config: only trust and places go with it,
    # such as data.root=DIR of a moved store; with -m and a sweep's words, true: the sweep in hydra.sweep.dir
    data: DataSettings
    model: ModelSettings
    classifier: ClassifierSettings
    pipeline: PipelineSettings
    budget: BudgetSettings
    trainer: TrainerSettings
    callbacks: dict[str, Any]  # nodes by name; null: left out
    paths: PathSettings
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    logger: dict[str, Any] | None = None  # nodes by name; null: none
    trust: tuple[str, ...] = ()  # packages whose code the files of other runs may name, [my_package]
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    test: FinalTest = field(default_factory=FinalTest)

    def __post_init__(self) -> None:
        seeds(seed=self.seed)
        trust_names(self.trust)
        if self.test.robustness and self.pipeline.seen is None:
            raise UsageError("test.robustness=true needs scores: pipeline=autoencoder gives none; leave it out")
        if self.data.split.learn_from and self.pipeline.seen is not None and self.pipeline.fakes != "generated":
            raise UsageError(
                f"data.split.learn_from chooses generators, but pipeline={self.pipeline.name} learns from none: its "
                "fakes are reconstructions; leave one of the two out"
            )
        for group in ("data", "model", "classifier", "augment", "pipeline", "budget"):
            name = getattr(self, group).name
            if not _LABEL.fullmatch(name):
                raise UsageError(
                    f"{group}.name={name!r:.100} must be a short name: up to 64 letters, digits, spaces and _ . + = -, "
                    "a letter, digit or _ first"
                )
        if self.trainer.quick:
            few = max(FEW, *(size * self.trainer.quick for _, size in self.batch_sizes()), 0)
            object.__setattr__(self, "data", replace(self.data, limit=min(few, self.data.limit or few)))

    @property
    def classifier_budget(self) -> StageBudget:
        """How long this run's classifier trains; a UsageError where conf/budget does not have its budget."""
        return self._budget(self.classifier.budget, "classifier.budget")

    @property
    def autoencoder_budget(self) -> StageBudget:
        """How long this run's autoencoder trains; raises as `classifier_budget`."""
        return self._budget(self.model.budget, "model.budget")

    def _budget(self, name: str, at: str) -> StageBudget:
        stages = self.budget.stages
        if name not in stages:
            raise UsageError(f"{at}={name!r:.80} is not in conf/budget: choose {', '.join(stages)}")
        return replace(stages[name], max_epochs=self.trainer.epochs(stages[name].max_epochs))

    @property
    def trusted(self) -> tuple[str, ...]:
        """Packages whose code a file may name: the packages of `trust`, and all that the run's own config names."""
        return tuple(dict.fromkeys((*self.trust, *packages_to_resume(to_mapping(self), self.paths.run_dir))))

    @property
    def needed_to_score(self) -> tuple[str, ...]:
        """Packages that a reader of this run's detector.pt must trust."""
        nets = [self.classifier.node["net"] if self.pipeline.trains_classifier else None]
        nets += [self.model.node["net"] if self.pipeline.needs_autoencoder else None]
        return packages_to_trust({"nets": nets, "pipeline": {"view": self.pipeline.view}}, NET_SOURCES)

    @property
    def geometry(self) -> Geometry:
        """How the faces were prepared, as the store says; a FakeganError where there is no store."""
        return Geometry(self.data.demo_size) if self.data.root is None else stored_geometry(self.data.root)

    @property
    def face_size(self) -> int:
        """Pixels a side of the faces; raises as `geometry`."""
        return self.geometry.size

    def batch_sizes(self) -> list[tuple[str, int]]:
        """Key and size of each network's training batch, in the order of the stages."""
        sizes = []
        if self.pipeline.needs_autoencoder and self.model.checkpoint is None:
            sizes.append((f"budget.{self.model.budget}.batch_size", self.autoencoder_budget.batch_size))
        if self.pipeline.trains_classifier:
            sizes.append((f"budget.{self.classifier.budget}.batch_size", self.classifier_budget.batch_size))
        return sizes

    def configuration(self) -> dict[str, Any]:
        """What decides this run's numbers besides the seed, as plain values.

        Two runs of one configuration are repetitions. What has no effect is left out: the autoencoder where none is
        trained, the classifier where none is, how many processes feed it, where things are kept (the store's
        fingerprint says whether the faces are the same).
        """
        no_effect = {"data.workers", "data.root", *(OF_DEMO if self.data.root is not None else ())}
        data = {key: value for key, value in to_mapping(self.data).items() if f"data.{key}" not in no_effect}
        data["split"]["autoencoder_share"] = self.data.split.share
        trains_autoencoder, trains_classifier = self.pipeline.needs_autoencoder, self.pipeline.trains_classifier
        content: dict[str, Any] = {"data": data, "pipeline": asdict(self.pipeline), "trainer": self.trainer.numbers}
        if self.pipeline.seen is not None:
            content["detector"] = asdict(self.detector)
        if trains_autoencoder:
            content |= {"model": to_mapping(self.model), "autoencoder": asdict(self.autoencoder_budget)}
        if trains_classifier:
            classifier = to_mapping(self.classifier)
            del classifier["weights_file"]  # wherever it lies: its digest counts
            if self.classifier.weights_sha256 is not None:  # short: a report's label may hold it
                classifier["weights_sha256"] = self.classifier.weights_sha256[:12]
            classifier["net"].pop("pretrained", None)  # follows from these weights and net.net.weights
            content |= {"classifier": classifier, "budget": asdict(self.classifier_budget)}
            content["augment"] = to_mapping(self.augment)
        if trains_autoencoder or trains_classifier:
            stops_early = trains_classifier and not self.classifier.adversarial
            content["callbacks"] = self.callbacks_that_count(stops_early)
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str, sort_keys=True))
        return plain

    def callbacks_that_count(
        self,
        stops_early: bool,  # whether early stopping is among them
    ) -> Node:
        """The callbacks that may change numbers: the user's own, early stopping, and what looks at a chosen metric.

        Left out are those of Lightning that only show something, and FakeGAN's own that are told no metric: by one,
        model_checkpoint chooses the epoch that a run keeps.
        """
        counted = {}
        for name, node in self.callbacks.items():
            if node is None or (name == EARLY_STOPPING and not stops_early):
                continue
            options = node if isinstance(node, dict) else {}  # a file may hold anything
            target = str(options.get(TARGET))
            decides = target.endswith(".Patience") or any(options.get(key) is not None for key in ("monitor", "mode"))
            shows = target.startswith("pytorch_lightning.callbacks.") and target.endswith(_WATCHERS)
            if not shows and (decides or not target.startswith("fakegan.")):
                counted[name] = node
        return counted

    def identity(self) -> Hashable:
        """Equal for two runs that would end with the same numbers, wherever their faces are stored."""
        root = self.data.root
        faces = None if root is None else fingerprint_at_start(self.paths.run_dir) or stored_fingerprint(root) or root
        return faces, self.seed, json.dumps(self.configuration(), sort_keys=True)

    def repeats(self, other: RunSettings) -> bool:
        """Whether both would end with the same numbers."""
        return self.identity() == other.identity()

    def label(self) -> str:
        """The configuration in a few words, for tables and pictures."""
        words = [self.pipeline.name]
        if self.pipeline.needs_autoencoder:
            words.append(self.model.name)
        if self.pipeline.trains_classifier:
            words += [self.classifier.name, *([] if self.augment.name == "none" else [self.augment.name])]
        return " · ".join(words)


@dataclass(frozen=True)
class EvaluateSettings:
    """The whole of conf/evaluate.yaml."""

    run: str | None  # the folder of a run that train.py finished
    runs: tuple[str, ...]  # or several: run directories, or folders that hold them
    out: Path | None  # where the results go; null: a new folder of the run, for the report of several one in reports/
    sources: tuple[str, ...]  # only these sources of the store, e.g. [ffhq,stylegan]; empty means all
    device: Literal["auto", "cpu", "cuda", "mps"]  # auto, cpu, cuda, mps
    data_dir: Path  # where the built-in faces are kept
    data: DataSettings | None = None  # None: the run's own faces
    trust: tuple[str, ...] = ()  # packages whose code the files of the runs may name, [my_package]
    threshold: float | None = None  # P(fake) from which a face is called fake; null: the run's own
    max_false_alarms: float | None = None  # 0.01, say: of real faces at most so many may be called fake, by validation
    robustness: bool = False  # score the faces degraded too: JPEG, blur, noise, ... in several strengths
    originals: bool = False  # with robustness: degrade the original files, before the resize to the store's size

    def __post_init__(self) -> None:
        trust_names(self.trust)
        FinalTest(self.robustness, self.originals)  # which refuses what cannot be
        if self.run is not None and self.runs:
            raise UsageError("run is for one run alone: leave out runs, or name it in runs=[...]")
        if self.data is not None and self.data.limit is not None:
            raise UsageError("data.limit is for train.py: choose faces to score with sources=[...]")
