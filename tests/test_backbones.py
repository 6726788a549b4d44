"""torchvision's nets as classifiers: stems, heads, what pretrained weights see, where they come from, two rates."""

import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn
from torch.optim import SGD
from torchvision.ops import StochasticDepth

from fakegan.data.images import Geometry
from fakegan.data.store import FaceStore
from fakegan.detector import Detector, NetSpec
from fakegan.errors import FakeganError, UsageError
from fakegan.nets.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, spread
from fakegan.nets.dropout import deal_noise
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.config_file import give_places, read_run, write_down
from fakegan.runs.folder import CONFIG_FILE, DETECTOR_FILE
from fakegan.stages import run as stages
from fakegan.system import ranks
from fakegan.system.places import PROJECT
from fakegan.training import parts, trials
from fakegan.training.classifier import Classifier
from fakegan.training.fitting import say_frozen
from tests.conftest import Compose
from tests.helpers import fit, real_and_fake
from tests.pages import blocks

SMALL = "torchvision.models.shufflenet_v2_x0_5"  # 1.4 MB of weights
WORDS = ("pipeline=classify", "classifier=resnet18", f"classifier.net.net._target_={SMALL}")


def weights_at(path: Path, net: nn.Module | None = None) -> Path:
    torch.save((net or tv.shufflenet_v2_x0_5(weights=None)).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("make", "kernel", "stride", "head"),
    [
        (tv.resnet18, 3, 2, "fc"),  # in place of 7x7 with stride 2, and a pooling
        (tv.shufflenet_v2_x0_5, 3, 2, "fc"),
        (partial(tv.DenseNet, block_config=(1, 1)), 3, 2, "classifier"),
        (partial(tv.ConvNeXt, [tv.convnext.CNBlockConfig(8, None, 2)]), 4, 2, "classifier.2"),
        (tv.mobilenet_v3_small, 3, 1, "classifier.3"),
        (tv.mnasnet0_5, 3, 1, "classifier.1"),
        (tv.regnet_y_400mf, 3, 1, "fc"),
        (tv.vgg11, 3, 1, "classifier.6"),
        (partial(tv.VisionTransformer, 64, 16, 1, 1, 8, 8), 16, 16, "heads.head"),  # its patches stay
    ],
)
def test_any_classification_net_gets_two_logits_and_a_stem_for_small_faces(
    make: Callable[[], nn.Module], kernel: int, stride: int, head: str
) -> None:
    net = Backbone(make(), in_channels=9).eval()
    first = next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    assert (first.in_channels, first.kernel_size, first.stride) == (9, (kernel, kernel), (stride, stride))
    assert net.head is net.net.get_submodule(head)
    assert net(torch.zeros(2, 9, 64, 64)).shape == (2, 2)


def test_a_stride_of_ones_own_and_nets_without_what_is_replaced() -> None:
    assert Backbone(tv.resnet18(), stride=1).get_submodule("net.conv1").stride == (1, 1)
    for net, why in ((tv.squeezenet1_1(), "SqueezeNet has no Linear layer"), (nn.Linear(1, 1), "has no Conv2d layer")):
        with pytest.raises(ValueError, match=why):
            Backbone(net)
    with pytest.raises(ValueError, match=r"further heads: add classifier\.net\.net\.aux_logits=false"):
        Backbone(tv.googlenet(init_weights=False))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"stride": 0}, "stride=0 must be 1 or more"),
        ({"input_size": 0}, "input_size=0 must be 1 or more"),
        ({"stride": 1, "pretrained": True}, "stride=1 is for training from scratch"),
        ({"mean": [0.5, 0.5, 0.5]}, r"mean=\[0\.5, 0\.5, 0\.5\] is for pretrained weights"),
        ({"std": [0.5], "pretrained": True}, "must be three numbers"),
        ({"std": [0.5, 0.5, 0.0], "pretrained": True}, "must be three numbers"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Backbone(tv.shufflenet_v2_x0_5(), **options)


class Shown(nn.Module):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 1, 1), nn.Linear(1, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        logits: Tensor = self.fc(x.mean(dim=(1, 2, 3))[:, None])
        return logits


@pytest.mark.parametrize(("options", "side"), [({}, 128), ({"input_size": 96}, 96), ({"input_size": 32}, 32)])
def test_pretrained_weights_see_faces_resized_and_normalised(options: Any, side: int) -> None:
    net = Backbone(Shown(), pretrained=True, **options)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    net(x)
    resized = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(net.net.seen, ((resized + 1) / 2 - mean) / std)
    net(torch.ones(1, 3, 256, 256))  # white: of larger faces, null leaves the size
    assert net.net.seen.shape[2:] == (options.get("input_size", 256),) * 2
    torch.testing.assert_close(net.net.seen[0, :, 9, 9], torch.tensor([2.2489, 2.4286, 2.64]), rtol=0, atol=1e-4)


def test_colours_of_ones_own_and_of_views_with_other_channels() -> None:
    net = Backbone(Shown(), in_channels=4, pretrained=True, mean=(0.5, 0.5, 0.25), std=(0.5, 0.25, 0.5))
    net(torch.zeros(1, 4, 128, 128))  # 0.5 of [0, 1]
    torch.testing.assert_close(net.net.seen[0, :, 0, 0], torch.tensor([0.0, 0.0, 0.5, 0.0]))
    scratch = Backbone(Shown())
    scratch(torch.full((1, 3, 64, 64), 0.25))
    assert torch.equal(scratch.net.seen, torch.full((1, 3, 64, 64), 0.25))  # neither
    assert not [name for name in scratch.state_dict() if name in {"mean", "std"}]


def test_a_first_layer_is_spread_over_more_channels() -> None:
    weight = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    assert spread(weight, 3).flatten().tolist() == [1, 2, 4]
    assert spread(weight, 6).flatten().tolist() == [0.5, 1, 2, 0.5, 1, 2]
    assert spread(weight, 1).flatten().tolist() == [3]
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(F.conv2d(x.repeat(1, 3, 1, 1), spread(weight, 9)), F.conv2d(x, weight))


def test_pretrained_weights_reach_all_but_the_head() -> None:
    theirs = tv.shufflenet_v2_x0_5(weights=None).eval()
    net = Backbone(tv.shufflenet_v2_x0_5(weights=None), in_channels=9, pretrained=True).eval()
    net.load_pretrained(theirs.state_dict(), mean=(0.5,) * 3, std=(0.5,) * 3)
    theirs.fc, net.net.fc = nn.Identity(), nn.Identity()
    x = torch.rand(2, 3, 128, 128)
    torch.testing.assert_close(net(x.repeat(1, 3, 1, 1)), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.pop("stage2.0.branch1.0.weight"), r"it lacks stage2\.0\.branch1\.0\.weight$"),
        (lambda state: state.update(more=torch.zeros(1)), "the net has no more$"),
        (lambda state: state.update({"conv5.0.weight": torch.zeros(2, 3)}), r"conv5\.0\.weight is \(2, 3\), the net's"),
        (lambda state: state.update({"conv1.0.weight": torch.zeros(2)}), r"conv1\.0\.weight is \(2,\), the net's"),
    ],
)
def test_weights_of_another_layout_are_refused_before_any_is_taken(change: Any, why: str) -> None:
    net = Backbone(tv.shufflenet_v2_x0_5(weights=None), pretrained=True)
    before, state = net.head.weight.clone(), tv.shufflenet_v2_x0_5(weights=None).state_dict()
    change(state)
    with pytest.raises(ValueError, match=why):
        net.load_pretrained(state)
    assert torch.equal(net.head.weight, before)  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("classifier.weights_file=nothing.pth", r"weights_file=nothing\.pth cannot be read \(No such file"),
        ("classifier.weights_file=text.pth", r"text\.pth is damaged or holds more than weights"),
        ("classifier.weights_file=code.pth", r"code\.pth is damaged or holds more than weights"),
        ("classifier.weights_file=list.pth", r"list\.pth is no state dict"),
        ("classifier.weights_file=cut.pth", r"cut\.pth is damaged"),
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


def test_a_net_of_another_form_takes_its_own_state_dict(compose_settings: Compose, tmp_path: Path) -> None:
    words = ("pipeline=classify", "classifier=simple_cnn")
    trained = parts.classifier(compose_settings(*words)).get_submodule("net")
    path = weights_at(tmp_path / "own.pt", trained)
    settings = compose_settings(*words, f"classifier.weights_file={path}")
    net = parts.classifier(settings).get_submodule("net")
    parts.begin_pretrained(settings, net)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in trained.state_dict().items())


def test_the_network_of_the_page_has_the_layout_of_the_packages_file() -> None:
    """Whose state dict has 296 entries."""
    made: dict[str, Any] = {}
    (page,) = blocks(PROJECT / "docs" / "backbones.md", "python")
    exec(page, made)
    state = made["Lite0"]().state_dict()
    assert len(state) == 296
    assert state["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    net = Backbone(made["Lite0"](), in_channels=9, pretrained=True)
    net.load_pretrained(state)
    assert net.eval()(torch.zeros(2, 9, 64, 64)).shape == (2, 2)
    odd = made["Same"](1, 1, 3, 2, bias=False)
    nn.init.ones_(odd.weight)
    assert odd(torch.ones(1, 1, 4, 4)).flatten().tolist() == [9, 6, 6, 4]  # padded at the right and below alone


def test_a_detector_of_a_resnet_of_an_earlier_version_loads() -> None:
    net = Backbone(tv.resnet18(weights=None))
    inner = {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}
    node = {"_target_": "fakegan.nets.resnet.ResNet", "net": inner, "in_channels": 3, "stride": 2}
    detector = Detector(Geometry(), "pixels", NetSpec(node, net.state_dict()), None)
    assert isinstance(detector.classifier, Backbone)


def test_resnet18_starts_from_the_weights_that_it_started_from_before() -> None:
    torch.manual_seed(3)
    net, conv = tv.resnet18(weights=None), nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    net.conv1, net.fc = conv, nn.Linear(512, 2)
    torch.manual_seed(3)
    ours = Backbone(tv.resnet18(weights=None)).net.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in net.state_dict().items())


class HasHead(nn.Module):
    """A body with statistics and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
        self.head = nn.Sequential(nn.BatchNorm1d(256), nn.Linear(256, 2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


@pytest.mark.parametrize(("epochs", "says"), [(1, True), (2, True), (3, False)])
def test_a_fit_that_thaws_no_body_says_so(epochs: int, says: bool, caplog: pytest.LogCaptureFixture) -> None:
    module = Classifier(HasHead(), partial(SGD, lr=0.1), frozen_epochs=2)
    say_frozen("classifier", module, pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False))
    assert (f"frozen_epochs=2 covers all epochs ({epochs})" in caplog.text) == says


def test_two_learning_rates_and_what_a_pretrained_net_takes_by_itself() -> None:
    def rates(net: nn.Module, **options: Any) -> dict[float, int]:
        groups = Classifier(net, partial(SGD, lr=0.5), **options).new_optimizer().param_groups
        return {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups}

    head, body = 2 * 256 + 256 * 2 + 2, 4 * 3 * 64 + 4 + 8
    assert rates(HasHead()) == {0.5: head + body}
    assert rates(HasHead(), body_lr=0.2) == {0.5: head, 0.1: body}
    assert rates(HasHead(), body_lr=0.0) == {0.5: head, 0.0: body}
    pretrained = Backbone(Shown(), pretrained=True)
    assert rates(pretrained) == {0.5: 4, 0.05: 4}
    assert rates(pretrained, body_lr=1.0) == {0.5: 8}


def test_a_schedule_that_moves_both_rates_keeps_their_share() -> None:
    module = Classifier(HasHead(), partial(SGD, lr=0.5), body_lr=0.2)
    trials.try_learning(module, "classifier")
    onecycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=[0.5, 0.1])
    trials.try_learning(Classifier(HasHead(), partial(SGD, lr=0.5), onecycle, body_lr=0.2), "classifier")


def test_a_frozen_body_learns_nothing_and_its_statistics_stay(store: FaceStore) -> None:
    module = Classifier(HasHead(), partial(SGD, lr=0.1), frozen_epochs=2)
    epochs: list[dict[str, Tensor]] = [{k: v.clone() for k, v in module.net.state_dict().items()}]
    module.on_validation_epoch_end = lambda: epochs.append(  # type: ignore[method-assign]
        {k: v.clone() for k, v in module.net.state_dict().items()}
    )
    fit(module, real_and_fake(store), epochs=3, limit_val_batches=1)
    moved = [{k for k in then if not torch.equal(then[k], now[k])} for then, now in itertools.pairwise(epochs)]
    head = {name for name in epochs[0] if name.startswith("head.")}
    assert moved[:2] == [head, head]
    assert moved[2] == set(epochs[0])
    assert all(part.training for part in module.net.modules())


@pytest.mark.parametrize("count", [1, 2])
def test_stochastic_depth_is_drawn_for_the_whole_batch(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    net = nn.Sequential(StochasticDepth(0.5, "row"), StochasticDepth(0.0, "batch"))
    deal_noise(net)
    assert type(net[1]) is StochasticDepth
    x, shown = torch.ones(8, 2, 1, 1), torch.zeros(8)
    for rank in range(count):
        monkeypatch.setattr(ranks, "count", lambda: count)
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        ranks.seed_noise(5, "cpu")
        shown[rank::count] = net(x[rank::count])[:, 0, 0, 0]
    monkeypatch.undo()
    torch.manual_seed(5)
    assert shown.tolist() == [2.0 * float(kept) for kept in torch.rand(8) >= 0.5]
    assert net.eval()(x).equal(x)


@pytest.mark.slow
def test_a_pretrained_run_reads_its_file_once_and_is_resumed_and_scored_without_it(
    compose_settings: Compose, tmp_path: Path
) -> None:
    path = weights_at(tmp_path / "weights.pth")
    words = (*WORDS, f"classifier.weights_file={path}", "classifier.net.input_size=64", "classifier.ema=0.9")
    settings = compose_settings(*words, "budget.classifier.max_epochs=2", "classifier.frozen_epochs=1")
    write_down(settings, settings.paths.run_dir)
    assert str(path) in (settings.paths.run_dir / CONFIG_FILE).read_text()
    stages.run(settings)
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
