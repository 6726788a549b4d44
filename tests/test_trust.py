"""A file names code: only trusted code is imported, only the right kind is built, and nothing too large."""

import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fakegan.config.building import build
from fakegan.config.trust import trust_names, trusted_object
from fakegan.detector import Detector
from fakegan.errors import UntrustedError, UsageError
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.runs.checkpoints import save_checkpoint
from fakegan.runs.folder import DETECTOR_FILE, GENERATOR_FILE
from fakegan.training.trainer import AtomicCheckpointIO
from fakegan.views import View
from tests.conftest import Compose
from tests.untrusted import CNN, FILES, NOBODYS, PYTHONS, T, detector, generator, refused

pytestmark = pytest.mark.timeout(300)
NO_NAME = "names no class"
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


def repeated(wrap: Callable[[Any], Any], times: int) -> Any:
    return reduce(lambda value, _: wrap(value), range(times), 1)


ENDLESS: list[Any] = [1]
ENDLESS.append(ENDLESS)
ANOTHER_VERSION = "is damaged or of another version"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (ENDLESS, "more than any network has"),
        (repeated(lambda value: [value, value], 25), "more than any network has"),
        (repeated(lambda value: {"a": value}, 300), "more than any network has"),
        ("${oc.env:HOME}", "an interpolation"),
        ("a\u0430${seed}", "an interpolation"),
        (torch.zeros(3), "holds a Tensor"),
        ({3: 1}, "an option without a name"),
    ],
)
def test_options_out_of_a_file_are_plain_and_few(tmp_path: Path, value: Any, why: str) -> None:
    refused(detector(tmp_path, {**CNN, "dropout": value}), why)


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
    monkeypatch.setattr(Detector, "check", lambda _: pytest.fail("it was built"))
    refused(detector(tmp_path, node), ANOTHER_VERSION)


def test_a_network_that_makes_too_much_of_a_face_is_never_run(tmp_path: Path) -> None:
    parts = [{T: "torch.nn.Upsample", "scale_factor": 4096}, {T: "torch.nn.AdaptiveAvgPool2d", "output_size": 1}]
    node = {T: "torch.nn.Sequential", "_args_": [*parts, {T: "torch.nn.Flatten"}]}
    refused(detector(tmp_path, node, {}), ANOTHER_VERSION)
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
    refused(generator(tmp_path, CNN), ANOTHER_VERSION)
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
    of_torchvision = target.endswith("resnet18")  # which is trusted by itself: it is a network, with other options
    why = ANOTHER_VERSION if of_torchvision else "is no Module of own_nets's own|cannot be imported"
    refused(lambda: load(trust=["own_nets"]), why)


def test_own_code_within_trusted_code_is_named_with_all_that_is_needed(tmp_path: Path, imported: Path) -> None:
    node = {T: "own_nets.Net", "inner": [{T: "more_nets.Part"}, {T: "own_nets.Plan"}]}
    load = detector(tmp_path, node, {})
    assert refused(load, NOBODYS).endswith('if you trust more_nets and own_nets, add trust=["more_nets", "own_nets"]')
    with pytest.raises(UntrustedError) as caught:
        load(trust=["own_nets"])
    assert caught.value.with_overrides().endswith("add trust=[own_nets,more_nets]")
    assert caught.value.with_options().endswith("add --trust more_nets")


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
