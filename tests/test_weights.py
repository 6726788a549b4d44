"""Weights that a classifier starts from: files and torchvision's names, what is refused, what a run keeps of them."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from torch import nn

from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.nets.backbone import IMAGENET_MEAN
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.config_file import give_places, read_run, write_down
from fakegan.runs.finished import names_of
from fakegan.runs.folder import CONFIG_FILE, DETECTOR_FILE
from fakegan.stages import run as stages
from fakegan.training import parts
from tests.conftest import Compose

SMALL = "torchvision.models.shufflenet_v2_x0_5"  # 1.4 MB of weights
WORDS = ("pipeline=classify", "classifier=resnet18", f"classifier.net.net._target_={SMALL}")


def weights_at(path: Path, net: nn.Module | None = None) -> Path:
    torch.save((net or tv.shufflenet_v2_x0_5(weights=None)).state_dict(), path)
    return path


def test_a_file_is_known_by_its_content(compose_settings: Compose, tmp_path: Path) -> None:
    one, other = weights_at(tmp_path / "one.pth"), tmp_path / "other place.pth"
    shutil.copy(one, other)
    here, there = (compose_settings(*WORDS, f"classifier.weights_file={path}") for path in (one, other))
    assert here.classifier.node["net"]["pretrained"]
    assert here.repeats(there)
    assert not here.repeats(compose_settings(*WORDS))
    weights_at(other)  # other random numbers
    assert not here.repeats(compose_settings(*WORDS, f"classifier.weights_file={other}"))
    with pytest.raises(UsageError, match="is not the file that the run was composed with: put that file back"):
        stages.try_networks(there)
    write_down(here, here.paths.run_dir)
    one.rename(tmp_path / "moved.pth")
    run_dir = str(here.paths.run_dir)
    with pytest.raises(UsageError, match="not the file"):
        give_places(run_dir, {"classifier.weights_file": str(other)})
    give_places(run_dir, {"classifier.weights_file": str(tmp_path / "moved.pth")})
    assert read_run(run_dir).repeats(here)
    random = compose_settings(*WORDS, f"paths.run_dir={tmp_path / 'random'}")
    write_down(random, random.paths.run_dir)
    with pytest.raises(UsageError, match=r"begins without classifier\.weights_file: start a new run with it"):
        give_places(str(random.paths.run_dir), {"classifier.weights_file": str(other)})
    assert read_run(str(random.paths.run_dir)).classifier.weights_file is None


def test_tables_tell_nets_and_weights_apart(compose_settings: Compose, tmp_path: Path) -> None:
    path = weights_at(tmp_path / "a.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    random, filled = compose_settings(*WORDS), compose_settings(*WORDS, f"classifier.weights_file={path}")
    assert random.classifier.name == "shufflenet_v2_x0_5"  # of the net that is wrapped
    assert compose_settings(*WORDS, "classifier.name=mine").classifier.name == "mine"
    assert compose_settings(*WORDS[:2]).classifier.name == "resnet18"
    label = "classify · shufflenet_v2_x0_5 budget=debug weights_sha256="
    assert names_of([random, filled]) == [f"{label}null", f"{label}{digest[:12]}"]


def test_a_run_from_before_there_were_two_rates_is_one_of_their_defaults(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=classify")
    write_down(settings, settings.paths.run_dir)
    path = settings.paths.run_dir / CONFIG_FILE
    old = [line for line in path.read_text().splitlines() if line.strip() not in {"body_lr: null", "frozen_epochs: 0"}]
    path.write_text("\n".join(old))
    assert read_run(str(settings.paths.run_dir)).repeats(settings)
    assert not read_run(str(settings.paths.run_dir)).repeats(compose_settings("pipeline=classify", "classifier.ema=.5"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("classifier.weights_file=nothing.pth", r"weights_file=nothing\.pth cannot be read \(No such file"),
        ("classifier.weights_file=text.pth", r"text\.pth is damaged or holds more than weights"),
        ("classifier.weights_file=code.pth", r"code\.pth is damaged or holds more than weights"),
        ("classifier.weights_file=list.pth", r"list\.pth is no state dict"),
        ("classifier.weights_file=cut.pth", r"cut\.pth is damaged"),
        ("classifier.weights_file=zipped.pth", r"zipped\.pth is damaged or holds more than weights"),
        ("classifier.weights_file=endless.pth", r"endless\.pth is damaged or holds more than weights"),
        ("classifier.weights_file=numbers.pth", r"numbers\.pth is no state dict"),
        ("classifier.weights_file=pipe", "pipe is no file: name a file of weights"),
        ("classifier.weights_file=/dev/zero", "/dev/zero is no file: name a file of weights"),
        ("classifier.net.net=null", r"classifier\.net: net must be a network: classifier\.net\.net\._target_="),
        ("classifier.net.net.weights=true", r"weights=True is no name of weights of .*: give DEFAULT, or another"),
        ("classifier.weights_file=vgg.pth", rf"vgg\.pth does not fit {SMALL}: it lacks conv1\.0\.weight; name weights"),
        (
            "classifier=simple_cnn classifier.weights_file=good.pth",
            r"does not fit fakegan\.nets\.simple_cnn\.SimpleCNN: it lacks features\.0\.weight; name weights of this",
        ),
        ("classifier.weights_file=nan.pth", r"nan\.pth holds values that are no numbers, in fc\.bias: name another"),
        ("classifier.weights_file=good.pth classifier.net.net.weights=DEFAULT", "at once: a net starts from one of"),
        ("classifier.net.pretrained=true", r"pretrained is no choice: it follows from classifier\.net\.net\.weights"),
        ("classifier.weights_sha256=a", "weights_sha256 is no choice"),
        ("classifier.weights_file=good.pth classifier.net.stride=1", r"classifier\.net\.stride=1 is for training from"),
        ("classifier.body_lr=-1", r"classifier\.body_lr=-1 must be 0 or more"),
        ("classifier.frozen_epochs=-1", r"classifier\.frozen_epochs=-1 must be 0 or more"),
        ("classifier.ema=1", r"classifier: ema=1\.0 must be from 0 to below 1|classifier\.ema=1\.0 must be from 0 to"),
        ("classifier.net.net._target_=torchvision.models.squeezenet1_1", "SqueezeNet has no Linear layer"),
        (
            "classifier.net.net._target_=torchvision.models.VisionTransformer classifier.net.net.image_size=32"
            " classifier.net.net.patch_size=16 classifier.net.net.num_layers=1 classifier.net.net.num_heads=1"
            " classifier.net.net.hidden_dim=8 classifier.net.net.mlp_dim=8",
            r"Wrong image height.*: try classifier\.net\.input_size=224$",
        ),
        (
            "+experiment=detector classifier=alexnet",
            r"classifier=alexnet has no classifier\.net\.net\.weights, which \+experiment=detector sets: leave",
        ),
        ("classifier=dcgan classifier.frozen_epochs=1", "frozen_epochs is not a config key"),
        (
            "classifier=simple_cnn classifier.net._target_=tests.odd_parts.NoChannels classifier.body_lr=.1",
            r"body_lr=0\.1 needs a net that has its last layers as `head`: NoChannels has none",
        ),
        (
            "classifier.body_lr=.1 classifier.schedule._target_=torch.optim.lr_scheduler.OneCycleLR"
            " classifier.schedule.max_lr=.1",
            r"classifier\.schedule: it sets one learning rate, but body_lr asks for two",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_trains(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good = weights_at(tmp_path / "good.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.pth").write_text("weights")
    torch.save([1], tmp_path / "list.pth")
    torch.save({"fc.weight": torch.ones(2, 2), "fc.bias": torch.tensor([0, torch.nan])}, tmp_path / "nan.pth")
    torch.save({1: torch.zeros(1)}, tmp_path / "numbers.pth")
    torch.save({"conv1.0.weight": torch.zeros(1).expand(24, 10**9, 3, 3)}, tmp_path / "endless.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as whole, zipfile.ZipFile("zipped.pth", "w", zipfile.ZIP_DEFLATED) as z:
        for name in whole.namelist():
            z.writestr(name, whole.read(name))
    os.mkfifo(tmp_path / "pipe")
    download = "torchvision.models._api.load_state_dict_from_url"
    monkeypatch.setattr(download, lambda *_, **__: tv.shufflenet_v2_x0_5(weights=None).state_dict())
    torch.save(nn.Linear(1, 1), tmp_path / "code.pth")  # a whole object: a pickle that names a class
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    typed = (*(WORDS if "classifier=" not in words else WORDS[:1]), *words.split())
    with pytest.raises(FakeganError, match=why) as caught:
        stages.try_networks(compose_settings(*typed))
    assert "\n" not in str(caught.value)


def test_weights_by_name_come_with_their_colours(compose_settings: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one net in torchvision are not ImageNet's."""
    state = tv.vgg16(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    words = ("classifier.net.net._target_=torchvision.models.vgg16", "classifier.net.net.weights=IMAGENET1K_FEATURES")
    settings = compose_settings(*WORDS[:2], *words)
    net = parts.classifier(settings).get_submodule("net")
    assert not torch.equal(net.get_parameter("net.features.0.weight"), state["features.0.weight"])
    parts.begin_pretrained(settings, net)
    assert torch.equal(net.get_parameter("net.features.0.weight"), state["features.0.weight"])
    assert net.get_buffer("std").tolist() == pytest.approx([1 / 255] * 3)


@pytest.mark.parametrize(("words", "mean"), [((), 0.5), (("classifier.net.net.transform_input=true",), 0.485)])
def test_googlenets_own_change_of_colours_is_not_lost(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], mean: float
) -> None:
    """torchvision's net with weights makes (x - 0.5) / 0.5 of a picture that was normalised as ImageNet's are."""
    state = tv.googlenet(weights=None, init_weights=False).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    own = [f"classifier.net.net.{word}" for word in ("weights=DEFAULT", "aux_logits=false", "init_weights=false")]
    target = "classifier.net.net._target_=torchvision.models.googlenet"
    settings = compose_settings(*WORDS[:2], target, *own, *words)
    net = parts.classifier(settings).get_submodule("net")
    parts.begin_pretrained(settings, net)
    assert net.get_buffer("mean")[0] == pytest.approx(mean)


def test_a_net_of_another_form_takes_its_own_state_dict(compose_settings: Compose, tmp_path: Path) -> None:
    words = ("pipeline=classify", "classifier=simple_cnn")
    trained = parts.classifier(compose_settings(*words)).get_submodule("net")
    path = weights_at(tmp_path / "own.pt", trained)
    settings = compose_settings(*words, f"classifier.weights_file={path}")
    net = parts.classifier(settings).get_submodule("net")
    parts.begin_pretrained(settings, net)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in trained.state_dict().items())


@pytest.mark.slow
def test_a_pretrained_run_reads_its_file_once_and_is_resumed_and_scored_without_it(
    compose_settings: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights_at(tmp_path / "weights.pth")
    words = (*WORDS, f"classifier.weights_file={path}", "classifier.net.input_size=64", "classifier.ema=0.9")
    settings = compose_settings(*words, "budget.classifier.max_epochs=2", "classifier.frozen_epochs=1")
    write_down(settings, settings.paths.run_dir)
    assert str(path) in (settings.paths.run_dir / CONFIG_FILE).read_text()
    stages.run(settings)
    assert f" faces, from the weights of {path}, but for its last layer\n" in capsys.readouterr().out
    numbers = json.loads((settings.paths.run_dir / "metrics.json").read_text())
    path.unlink()
    for file in ("metrics.json", DETECTOR_FILE, "classifier/finished"):
        (settings.paths.run_dir / file).unlink()
    stages.run(read_run(str(settings.paths.run_dir)))
    again = json.loads((settings.paths.run_dir / "metrics.json").read_text())
    assert again["test"] == numbers["test"]
    content = load_checkpoint(settings.paths.run_dir / DETECTOR_FILE)["classifier"]
    assert content["net"]["net"] == {"_target_": SMALL, "weights": None}
    averaged = load_checkpoint(settings.paths.run_dir / "classifier/checkpoints/best.ckpt")["average"]
    assert all(torch.equal(value, averaged[f"net.{name}"]) for name, value in content["weights"].items())
    assert Detector.load(settings.paths.run_dir).classifier.get_buffer("mean").tolist() == pytest.approx(IMAGENET_MEAN)
