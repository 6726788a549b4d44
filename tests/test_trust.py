"""What a file names: only what is trusted is imported, only what its place asks for is built, and nothing too large."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from fakegan import predict, sample
from fakegan.cli import start
from fakegan.config.building import build
from fakegan.config.trust import trust_names, trusted_object
from fakegan.data.images import Geometry
from fakegan.data.sheets import png
from fakegan.data.store import FaceStore
from fakegan.detector import Detector, NetSpec
from fakegan.errors import FakeganError, UntrustedError, UsageError
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs import compose as composing
from fakegan.runs.checkpoints import save_checkpoint
from fakegan.runs.config_file import read_run, write_down
from fakegan.runs.folder import DETECTOR_FILE, GENERATOR_FILE
from fakegan.runs.settings import RunSettings
from fakegan.stages.reconstruct import load_autoencoder
from fakegan.system.places import PROJECT
from fakegan.system.processes import resume_command
from fakegan.training import parts
from fakegan.training.checkpoint_io import AtomicCheckpointIO
from fakegan.views import View
from tests.conftest import Compose

pytestmark = pytest.mark.timeout(300)
T = "_target_"
CNN: dict[str, Any] = {T: "fakegan.nets.simple_cnn.SimpleCNN"}
KEPT: dict[str, Any] = {}  # the content of a detector.pt
OWN_CODE = '''
import os
from os import system
import pathlib

pathlib.Path({marker!r}).touch()
from torch import nn
from fakegan.views import View
import pytorch_lightning as pl
from torchvision.models import resnet18

class Net(nn.Module):
    def __init__(self, in_channels=3, inner=None):
        super().__init__()
        self.last = nn.Linear(in_channels * 4096, 2)
    def forward(self, x):
        return self.last(x.flatten(1))

def make(in_channels=3):
    return Net(in_channels)

class Plan:
    """No network, for a network."""

class Watch(pl.Callback):
    pass

marked = View(3, ("image",), lambda image: image)
'''


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a package `own_nets` beside the user makes when it is imported."""
    marker = tmp_path / "imported"
    (tmp_path / "code" / "own_nets").mkdir(parents=True)
    (tmp_path / "code" / "own_nets" / "__init__.py").write_text(OWN_CODE.format(marker=str(marker)))
    (tmp_path / "code" / "own_nets" / "other.py").write_text("from own_nets import Net\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield marker
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_nets"]:
        del sys.modules[name]


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A folder that hostile content tries to make; none has, when the test is over."""
    path = tmp_path / "owned"
    yield path
    assert not path.exists()


def _whole(folder: Path) -> dict[str, Any]:
    """What a detector.pt of a simple CNN holds."""
    if not KEPT:
        spec = NetSpec(CNN, SimpleCNN().state_dict())
        Detector(Geometry(), "pixels", spec, None).save(folder / DETECTOR_FILE)
        KEPT.update(torch.load(folder / DETECTOR_FILE, weights_only=True))
    return KEPT


def detector(folder: Path, node: Any, weights: Any = None) -> Callable[..., Any]:
    """Write a detector.pt whose classifier a file of anybody's names; returns what loads it."""
    content = _whole(folder)
    given = content["classifier"]["weights"] if weights is None else weights
    save_checkpoint({**content, "classifier": {"net": node, "weights": given}}, folder / DETECTOR_FILE)
    return lambda trust=(): Detector.load(folder, trust=trust)


def autoencoder(folder: Path, node: Any) -> Callable[..., Any]:
    path = folder / "autoencoder.pt"
    save_checkpoint({"net": node, "weights": AutoGAN(1, 4).state_dict()}, path)
    return lambda trust=(): load_autoencoder(path, trust)


def generator(folder: Path, node: Any) -> Callable[..., Any]:
    content = {"net": node, "weights": DCGANGenerator(width=4).state_dict(), "view": "pixels"}
    save_checkpoint(content, folder / GENERATOR_FILE)
    return lambda trust=(): sample._load_generator(folder, trust)


FILES = {"detector.pt": detector, "autoencoder.pt": autoencoder, "generator.pt": generator}


def refused(load: Callable[[], Any], why: str) -> str:
    with pytest.raises(FakeganError, match=why) as caught:
        load()
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert sentence.isascii()
    assert len(sentence) < 800
    return sentence


PYTHONS, NOBODYS, NO_NAME = "Python's own, which no file may call", "is code from elsewhere", "names no class"
NOT_OWN, NO_NET, NOT_THERE = "is no Module of", "is no Module", "cannot be imported"
TARGETS: list[tuple[Any, str]] = [
    ("os.system", PYTHONS),
    ("os.mkdir", PYTHONS),
    ("builtins.eval", PYTHONS),
    ("subprocess.Popen", PYTHONS),
    ("importlib.import_module", PYTHONS),
    ("own_nets.Net", NOBODYS),
    ("own_nets.no_such_module.Net", NOBODYS),
    ("fakegan_evil.Net", NOBODYS),
    ("torch.hub.load", NOBODYS),
    ("torch.load", NOBODYS),
    ("torch.nnx.Linear", NOBODYS),
    ("hydra.utils.get_class", NOBODYS),
    ("numpy.load", NOBODYS),
    ("torch.optim.SGD", NOBODYS),
    ("fakegan.own_nets.Net", NOT_THERE),
    ("fakegan.nets.simple_cnn.Nothing", NOT_THERE),
    ("torch.nn.modules.module.functools.partial", NOT_OWN),
    ("fakegan.system.signals.os.system", "cannot be imported|is no Module of"),
    ("fakegan.runs.config_file.os.mkdir", NOT_OWN),
    ("torchvision.models.resnet.torch.hub.load", NOT_OWN),
    ("torchvision.models._api.load_state_dict_from_url", NOT_OWN),
    ("torch.nn.modules.module.torch.load", NOT_OWN),
    ("fakegan.runs.checkpoints.save_checkpoint", NO_NET),
    ("fakegan.prepare.main", NO_NET),
    ("fakegan.system.processes.start_child", NO_NET),
    ("fakegan.config.building.build", NO_NET),
    ("fakegan.detector.Detector.load", NOT_OWN),
    ("fakegan.sweep.launcher.ProcessLauncher", NO_NET),
    ("torch.nn.Module.load_state_dict", NO_NET),
    ("torch.nn.functional.relu", "is no Module"),
    ("torch.nn.init.zeros_", NO_NET),
    ("torch.nn", NOBODYS),
    ("torchvision.models.get_model", NO_NET),
    ("torchvision.models.list_models", NO_NET),
    ("torchvision.models.register_model", NOT_THERE),
    ("torchvision.models._api.register_model", NO_NET),
    ("torchvision.models.resnet._resnet", NO_NET),
    ("fakegan.detector.trusted_net", NO_NET),
    ("fakegan.stages.reconstruct.load_autoencoder", NO_NET),
    ("fakegan.training.parts.module", NO_NET),
    ("torchvision.models.get_weight", NO_NET),
    ("f\u0430kegan.nets.simple_cnn.SimpleCNN", NO_NAME),  # a Cyrillic a
    ("\uff46akegan.nets.simple_cnn.SimpleCNN", NO_NAME),  # a wide f, which Python's own parser takes for f
    ("fakegan", NO_NAME),
    ("fakegan.", NO_NAME),
    (".fakegan.nets", NO_NAME),
    ("fakegan..nets", NO_NAME),
    ("fakegan.nets/../x.Net", NO_NAME),
    ("fakegan.nets.simple_cnn.SimpleCNN\n", NO_NAME),
    ("", NO_NAME),
    (3, NO_NAME),
    (None, NO_NAME),
    (["os.system"], NO_NAME),
    ("a" * 100_000 + ".b", "is longer than any name"),
    ({T: "os.system"}, NO_NAME),
]


@pytest.mark.parametrize("file", sorted(set(FILES) - {"detector.pt"}))
@pytest.mark.parametrize(("target", "why"), TARGETS[::10])
def test_every_file_goes_the_same_way(tmp_path: Path, imported: Path, target: Any, why: str, file: str) -> None:
    assert file in refused(FILES[file](tmp_path, {T: target}), why)
    assert not imported.exists()


@pytest.mark.parametrize(("target", "why"), TARGETS, ids=[ascii(target)[:60] for target, _ in TARGETS])
def test_a_file_names_only_networks_of_trusted_packages(
    tmp_path: Path, imported: Path, marker: Path, target: Any, why: str
) -> None:
    load = detector(tmp_path, {T: target, "_args_": [str(marker)]})
    sentence = refused(load, why)
    assert f"{DETECTOR_FILE}: classifier.net._target_=" in sentence
    assert not imported.exists()
    assert "own_nets" not in sys.modules


HIDDEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "option": lambda bad: {**CNN, "dropout": bad},
    "list": lambda bad: {**CNN, "dropout": [1, [bad]]},
    "tuple": lambda bad: {**CNN, "dropout": (1, bad)},
    "group": lambda bad: {**CNN, "dropout": {"a": {"b": bad}}},
    "arguments": lambda bad: {T: "torch.nn.Sequential", "_args_": [bad]},
    "not recursive": lambda bad: {**CNN, "_recursive_": False, "dropout": bad},
    "partial": lambda bad: {**CNN, "_partial_": True, "dropout": {**bad, "_partial_": True}},
    "converted": lambda bad: {**CNN, "_convert_": bad},
    "beside another": lambda bad: {"a.b": {T: "torch.nn.Identity"}, "a": {"b": bad}, **CNN},
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_target_is_found_wherever_it_hides(tmp_path: Path, marker: Path, place: str) -> None:
    bad = {T: "os.mkdir", "path": str(marker)}
    refused(detector(tmp_path, HIDDEN[place](bad)), PYTHONS)


def test_a_key_out_of_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    refused(detector(tmp_path, {**CNN, "\x1b[2J" * 999: {T: "os.system"}}), PYTHONS)
    many = [{T: f"package_{i}.Net"} for i in range(999)]
    assert refused(detector(tmp_path, {**CNN, "dropout": many}), NOBODYS).count("package_") < 12


def endless() -> Any:
    node: list[Any] = [1]
    node.append(node)
    return node


def doubled(value: Any, times: int) -> Any:
    for _ in range(times):
        value = [value, value]
    return value


def deep(value: Any, times: int) -> Any:
    for _ in range(times):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (endless(), "more than any network has"),
        (doubled(1, 25), "more than any network has"),
        (deep(1, 300), "more than any network has"),
        ("${oc.env:HOME}", "an interpolation"),
        ("a\u0430${seed}", "an interpolation"),
        (torch.zeros(3), "holds a Tensor"),
        ({3: 1}, "an option without a name"),
    ],
)
def test_options_out_of_a_file_are_plain_and_few(tmp_path: Path, value: Any, why: str) -> None:
    refused(detector(tmp_path, {**CNN, "dropout": value}), why)


def of_another_version(load: Callable[[], Any]) -> None:
    refused(load, "is damaged or of another version")


@pytest.mark.parametrize(
    "node",
    [
        {T: "fakegan.nets.autogan.AutoGAN", "depth": 10**9, "width": 1},
        {T: "fakegan.nets.autogan.AutoGAN", "width": 20_000},
        {T: "fakegan.nets.alexnet.AlexNet", "hidden": 10**10},
        {T: "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6},
        {T: "torch.nn.Embedding", "num_embeddings": 10**12, "embedding_dim": 1},
        {T: "torchvision.models.vgg19", "num_classes": 10**9},
        {T: "torchvision.models.detection.fasterrcnn_resnet50_fpn", "num_classes": 2},
        {T: "torch.nn.Flatten"},
        {**CNN, "_partial_": True},
    ],
    ids=lambda node: node[T].rpartition(".")[2],
)
def test_a_network_that_is_larger_than_its_weights_is_never_made(
    tmp_path: Path, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    monkeypatch.setattr(Detector, "_try_out", lambda _: pytest.fail("it was built"))
    of_another_version(detector(tmp_path, node))


def test_a_network_that_makes_too_much_of_a_face_is_never_run(tmp_path: Path) -> None:
    parts = [{T: "torch.nn.Upsample", "scale_factor": 4096}, {T: "torch.nn.AdaptiveAvgPool2d", "output_size": 1}]
    node = {T: "torch.nn.Sequential", "_args_": [*parts, {T: "torch.nn.Flatten"}]}
    of_another_version(detector(tmp_path, node, {}))
    linear = [{T: "torch.nn.Flatten"}, {T: "torch.nn.Linear", "in_features": 12288, "out_features": 2}]
    weights = nn.Sequential(nn.Flatten(), nn.Linear(12288, 2)).state_dict()
    detector(tmp_path, {T: "torch.nn.Sequential", "_args_": linear}, weights)()  # it is the size that counts


def test_a_file_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are in it."""
    for module in ("torch.hub", "torchvision._internally_replaced_utils", "torchvision.models._api"):
        name = f"{module}.load_state_dict_from_url"
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("a download"), raising=False)
    node = {T: "torchvision.models.squeezenet1_1", "num_classes": 2}
    weights = build(node, "net", nn.Module).state_dict()
    for more in ({}, {"weights": "DEFAULT"}, {"pretrained": True}, {"_args_": [True]}, {"progress": False}):
        assert isinstance(detector(tmp_path, {**node, **more}, weights)().classifier, nn.Module)


def test_a_generator_that_makes_no_faces_is_one_sentence(tmp_path: Path) -> None:
    whole = generator(tmp_path, {T: "fakegan.nets.dcgan.DCGANGenerator", "width": 4})
    assert isinstance(whole(), DCGANGenerator)
    of_another_version(generator(tmp_path, CNN))
    content = torch.load(tmp_path / GENERATOR_FILE, weights_only=True)
    save_checkpoint({**content, "view": "\x1b[2J" * 999}, tmp_path / GENERATOR_FILE)
    refused(whole, "which are no faces")


# The user's own code


@pytest.mark.parametrize("target", ["own_nets.Net", "own_nets.make", "own_nets.other.Net"])
def test_what_the_user_trusts_is_built(tmp_path: Path, imported: Path, target: str) -> None:
    weights = nn.Module()
    weights.last = nn.Linear(12288, 2)
    load = detector(tmp_path, {T: target, "in_channels": 3}, weights.state_dict())
    sentence = refused(load, NOBODYS)
    assert f"detector.pt: classifier.net._target_={target} is code" in sentence
    assert sentence.endswith('if you trust own_nets, add trust=["own_nets"]')
    assert not imported.exists()
    assert type(load(trust=["own_nets"]).classifier).__name__ == "Net"
    assert imported.exists()


@pytest.mark.parametrize("target", ["own_nets.system", "own_nets.os.system", "own_nets.other.nn", "own_nets.resnet18"])
def test_a_trusted_package_is_no_way_to_others(tmp_path: Path, imported: Path, target: str) -> None:
    load = detector(tmp_path, {T: target, "command": "true"})
    if target.endswith("resnet18"):  # of a package that is trusted by itself: it is a network, with other options
        of_another_version(lambda: load(trust=["own_nets"]))
    else:
        refused(lambda: load(trust=["own_nets"]), "is no Module of own_nets's own|cannot be imported")


def test_own_code_within_trusted_code_is_named_with_all_that_is_needed(tmp_path: Path, imported: Path) -> None:
    node = {T: "own_nets.Net", "inner": [{T: "more_nets.Part"}, {T: "own_nets.Plan"}]}
    load = detector(tmp_path, node, {})
    assert refused(load, NOBODYS).endswith('if you trust more_nets and own_nets, add trust=["more_nets", "own_nets"]')
    with pytest.raises(UntrustedError) as caught:
        load(trust=["own_nets"])
    assert caught.value.in_words().endswith("add trust=[own_nets,more_nets]")
    assert caught.value.in_options().endswith("add --trust more_nets")


def test_a_package_that_is_not_there_is_said(tmp_path: Path) -> None:
    load = detector(tmp_path, {T: "not_installed.Net"})
    refused(lambda: load(trust=["not_installed"]), "there is no module not_installed: type the command in its folder")


def test_a_package_of_a_library_is_trusted_for_networks_alone(tmp_path: Path) -> None:
    for target, package in (("torch.hub.load", "torch.hub"), ("numpy.load", "numpy"), ("numpy.memmap", "numpy")):
        load = detector(tmp_path, {T: target})
        refused(load, f'add trust=\\["{package}"\\]')
        refused(lambda load=load, package=package: load(trust=[package]), "is no Module")


def test_a_function_of_a_library_is_trusted_by_its_full_name(compose_settings: Compose) -> None:
    assert trusted_object("numpy.load", "x: net", ["numpy.load"], nn.Module) is np.load
    with pytest.raises(UntrustedError, match="is code from elsewhere"):
        trusted_object("numpy.save", "x: net", ["numpy.load"], nn.Module)
    assert compose_settings("classifier.net._target_=numpy.load").trusted == ("numpy.load",)
    assert compose_settings("classifier.net._target_=torch.hub.load").trusted == ("torch.hub",)


@pytest.mark.parametrize(
    "name", ["", "os", "builtins", "subprocess", "os.path", "torch", "hydra", "a b", "a/b", "..", 3]
)
def test_words_of_trust_are_packages_of_which_no_file_could_run_anything(tmp_path: Path, name: Any) -> None:
    with pytest.raises(UsageError, match=f"^trust={name!r} must be|^trust={name} would let a file run anything"):
        trust_names([name])
    for make in FILES.values():
        with pytest.raises(UsageError, match=r"^trust="):
            make(tmp_path, CNN)(trust=[name])


def test_one_name_is_a_name_and_not_its_letters(tmp_path: Path, compose_settings: Compose) -> None:
    assert trust_names("own_nets") == ("own_nets",)
    refused(lambda: detector(tmp_path, {T: "o.Net"})(trust="own_nets"), NOBODYS)
    with pytest.raises(UsageError, match="trust=os would let a file run anything"):
        compose_settings("trust=[os]")
    with pytest.raises(UsageError, match="trust='own_nets' must be a list"):
        compose_settings("trust=own_nets")


def test_a_path_to_an_object_is_followed_as_a_class_is(imported: Path) -> None:
    """As a view of the user's own is named."""
    with pytest.raises(UntrustedError, match="is code from elsewhere"):
        trusted_object("own_nets.marked", "x: view", (), View)
    assert not imported.exists()
    assert trusted_object("own_nets.marked", "x: view", ["own_nets"], View).channels == 3
    for path in ("own_nets.os", "own_nets.system", "own_nets.missing"):
        with pytest.raises(UntrustedError):
            trusted_object(path, "x: view", ["own_nets"], View)


# A run's config.yaml


@pytest.fixture
def composed(tmp_path: Path, store_path: Path) -> RunSettings:
    composing.register_resolvers()
    words = ["data=faces", f"data.root={store_path}", f"paths.run_dir={tmp_path / 'run'}", "trainer=cpu", "logger=csv"]
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        return composing.settings_of(RunSettings, compose("train", words))


def written(settings: RunSettings, key: str, value: Any) -> Path:
    """A run's config.yaml with another value at a key; its folder."""
    folder = settings.paths.run_dir
    write_down(settings, folder)
    cfg = OmegaConf.create((folder / "config.yaml").read_text())
    OmegaConf.update(cfg, key, value, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    return folder


LIGHTNING = "pytorch_lightning"
OUT, UNTRUSTED = "write elsewhere than in the run's folder", NOBODYS
CONFIGS: list[tuple[str, Any, str]] = [
    ("classifier.net._target_", "os.system", PYTHONS),
    ("classifier._target_", "own_nets.Net", UNTRUSTED),
    ("classifier._target_", "fakegan.nets.simple_cnn.SimpleCNN", "is no LightningModule"),
    ("classifier._target_", "fakegan.runs.checkpoints.save_checkpoint", "is no LightningModule"),
    ("classifier.net._target_", "torch.optim.SGD", "is no Module"),
    ("classifier.loss", {T: "torch.optim.SGD"}, "is no Module"),
    ("classifier.optimizer._target_", "torch.nn.Linear", "is no Optimizer"),
    ("classifier.optimizer._target_", "torch.optim.optimizer.functools.partial", "is no Optimizer of"),
    ("model.schedule._target_", "fakegan.training.schedules.move", "is no LRScheduler"),
    ("model.schedule._target_", "fakegan.prepare.main", "is no LRScheduler"),
    ("callbacks.mine", {T: "own_nets.Watch"}, UNTRUSTED),
    ("callbacks.mine", {T: "fakegan.detector.Detector"}, "is no Callback"),
    ("callbacks.mine", {T: f"{LIGHTNING}.Trainer"}, "is no Callback"),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.LambdaCallback", "setup": {T: "os.system"}}, PYTHONS),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "dirpath": "/home/me"}, OUT),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "dirpath": "here"}, OUT),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "filename": "../../../x"}, OUT),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "_args_": ["here"]}, OUT),
    ("callbacks.save_and_stop.folder", "/home/me", OUT),
    ("logger.csv._target_", "fakegan.nets.simple_cnn.SimpleCNN", "send it somewhere"),
    ("logger.csv.save_dir", "~", OUT),
    ("logger.csv.name", "../../..", OUT),
    ("logger.mlflow", {T: f"{LIGHTNING}.loggers.MLFlowLogger", "tracking_uri": "http://example.org"}, OUT),
    ("logger.wandb", {T: f"{LIGHTNING}.loggers.WandbLogger"}, "send it somewhere"),
    ("logger.comet", {T: f"{LIGHTNING}.loggers.CometLogger", "api_key": "theirs"}, "send it somewhere"),
    ("trainer._target_", "fakegan.sweep.launcher.ProcessLauncher", "is no Trainer"),
    ("trainer.default_root_dir", "/home/me", "is not for a run"),
    ("trainer.profiler", {T: "os.system"}, PYTHONS),
    ("trainer.profiler", {T: f"{LIGHTNING}.profilers.SimpleProfiler", "dirpath": "x"}, OUT),
    ("data.modules.classifier._target_", "fakegan.data.store.StoreWriter", "is no LightningDataModule"),
    ("data.split.seed", {T: "os.system"}, "must be a whole number"),
    ("trust", ["own_nets"], "says itself what is to be trusted"),
]


@pytest.mark.parametrize(("key", "value", "why"), CONFIGS, ids=[f"{key}-{value}"[:60] for key, value, _ in CONFIGS])
def test_a_run_that_goes_on_builds_only_what_belongs_to_each_place(
    composed: RunSettings, imported: Path, key: str, value: Any, why: str
) -> None:
    folder = written(composed, key, value)
    sentence = refused(lambda: start._trusted(folder, ()), why)
    assert str(folder / "config.yaml") in sentence
    assert not imported.exists()


def test_what_train_py_writes_goes_on(composed: RunSettings) -> None:
    write_down(composed, composed.paths.run_dir)
    assert start._trusted(composed.paths.run_dir, ()) == composed
    assert composed.trusted == ()


@pytest.mark.parametrize("classifier", ["simple_cnn", "alexnet", "dcgan"])
@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_every_shipped_choice_goes_on(compose_settings: Compose, classifier: str, logger: str) -> None:
    settings = compose_settings(f"classifier={classifier}", f"logger={logger}", "pipeline=recon_classify")
    write_down(settings, settings.paths.run_dir)
    assert start._trusted(settings.paths.run_dir, ()).trusted == ()


def test_what_the_user_says_to_trust_goes_on_and_is_passed_on(
    compose_settings: Compose, imported: Path, tmp_path: Path
) -> None:
    words = ("+callbacks.mine._target_=own_nets.Watch", "logger.wandb._target_=pytorch_lightning.loggers.WandbLogger")
    settings = compose_settings("classifier.net._target_=own_nets.Net", *words)
    run_dir = settings.paths.run_dir
    assert settings.trusted == ("own_nets", "pytorch_lightning")
    assert settings.needed_to_score == ("own_nets",)
    write_down(settings, run_dir)
    with pytest.raises(UntrustedError) as caught:
        start._trusted(run_dir, ())
    assert caught.value.in_words().endswith("if you trust own_nets, add trust=[own_nets]")
    with pytest.raises(UntrustedError) as caught:
        start._trusted(run_dir, ("own_nets",))
    assert caught.value.in_words().endswith("if you trust pytorch_lightning, add trust=[own_nets,pytorch_lightning]")
    assert not imported.exists()
    again = start._trusted(run_dir, settings.trusted)
    assert again.trusted == settings.trusted
    assert resume_command(run_dir, again.trusted)[-1] == "trust=[own_nets,pytorch_lightning]"


def test_reading_a_config_builds_and_imports_nothing(composed: RunSettings, imported: Path, marker: Path) -> None:
    """As evaluate.py and the reports read it."""
    folder = written(composed, "classifier.net", {T: "own_nets.Net", "x": {T: "os.mkdir", "path": str(marker)}})
    settings = read_run(str(folder))
    assert settings.classifier.node["net"][T] == "own_nets.Net"
    assert settings.trusted == ("own_nets",)
    assert settings.configuration()
    assert settings.label()
    assert not imported.exists()


def test_what_a_run_could_not_read_again_is_said_before_it_trains(compose_settings: Compose, imported: Path) -> None:
    settings = compose_settings("classifier.net._target_=own_nets.resnet18")
    assert isinstance(parts.with_channels(settings.classifier.node, 3), dict)
    settings = compose_settings("classifier.net._target_=own_nets.system")
    with pytest.raises(UsageError, match=r"classifier\.net\._target_=own_nets\.system .*: the run could not read it"):
        parts.classifier(settings)


# What the commands say


def test_each_command_says_it_in_its_own_words(
    tmp_path: Path, imported: Path, capsys: pytest.CaptureFixture[str], composed: RunSettings
) -> None:
    detector(tmp_path, {T: "own_nets.Net"})
    (tmp_path / "a.png").write_bytes(b"")
    assert predict.main(["--run", str(tmp_path), str(tmp_path / "a.png")]) == 1
    assert capsys.readouterr().err.endswith("if you trust own_nets, add --trust own_nets\n")
    generator(tmp_path, {T: "own_nets.Net"})
    assert sample.main(["--run", str(tmp_path), "--count", "1", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.endswith("if you trust own_nets, add --trust own_nets\n")
    assert not (tmp_path / "out").exists()
    folder = written(composed, "classifier.net", {T: "own_nets.Net"})
    with contextlib.suppress(SystemExit), composing.errors_as_sentences():
        start._trusted(folder, ())
    told = "is code from elsewhere, which a file may not name by itself: if you trust own_nets, add trust=[own_nets]"
    assert capsys.readouterr().err == f"error: {folder / 'config.yaml'}: classifier.net._target_=own_nets.Net {told}\n"
    assert not imported.exists()


def test_the_command_to_go_on_with_trusts_what_the_run_needs(
    compose_settings: Compose, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose_settings("classifier.net._target_=own_nets.Net")
    monkeypatch.setattr(start.Started, "settings", settings)
    assert start.to_go_on(settings.paths.run_dir).endswith("'trust=[own_nets]'")
    assert "trust" not in start.to_go_on(settings.paths.run_dir / "another")


# What a training's checkpoint names


def test_a_checkpoint_names_no_folder_to_remove(tmp_path: Path) -> None:
    """Lightning removes what the checkpoint says was the best before, with all that is in it."""
    inside, mine = tmp_path / "checkpoints", tmp_path / "mine.ckpt"
    inside.mkdir()
    for path in (inside / "best.ckpt", mine, tmp_path / "photo.png"):
        path.touch()
    remove = AtomicCheckpointIO().remove_checkpoint
    for path in (inside, f"{inside}/../mine.ckpt", tmp_path / "photo.png", "memory://x.ckpt", inside / "gone.ckpt"):
        remove(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "mine.ckpt", "photo.png"]
    remove(str(inside / "best.ckpt"))
    assert not list(inside.iterdir())


# A run of the user's own code, from its start to a verdict


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_and_jobs_of_a_run_with_own_code_trust_it(
    tmp_path: Path, store_path: Path, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["classifier.net._target_=own_nets.Net", "+callbacks.mine._target_=own_nets.Watch", "pipeline=classify"]
    faces = ["data=faces", f"data.root={store_path}", "+debug=fast", f"paths.artifact_dir={tmp_path / 'artifacts'}"]

    def train(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(tmp_path / "code")])}
        command = [sys.executable, str(PROJECT / "train.py"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    run_dir, sweep = tmp_path / "run", tmp_path / "sweep"
    done = train(*own, *faces, "trainer=ddp_cpu", f"hydra.run.dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert "evaluate.py run=run 'trust=[own_nets]'" in done.stdout
    (run_dir / "metrics.json").unlink()
    refused = train(f"resume={run_dir}")
    assert refused.returncode == 1
    assert refused.stderr.endswith("if you trust own_nets, add trust=[own_nets]\n")
    assert not (run_dir / "metrics.json").exists()
    assert train(f"resume={run_dir}", "trust=[own_nets]").returncode == 0
    assert (run_dir / "metrics.json").is_file()

    jobs = [*own, *faces, "trainer=cpu", f"hydra.sweep.dir={sweep}"]
    assert train("-m", "seed=1", *jobs).returncode == 0
    done = train("-m", "seed=1,2", "resume=true", *jobs)
    assert done.returncode == 0, done.stderr
    assert len(list(sweep.glob("*/metrics.json"))) == 2

    (tmp_path / "face.png").write_bytes(png(FaceStore.open(store_path).images[0]))
    words = ["--run", str(run_dir), str(tmp_path / "face.png")]
    assert predict.main(words) == 1
    assert capsys.readouterr().err.endswith("add --trust own_nets\n")
    assert predict.main([*words, "--trust", "own_nets"]) == 0
