"""torchvision's nets as classifiers: stems, heads, what pretrained weights see, two rates, frozen parts."""

import itertools
from collections.abc import Callable
from functools import partial
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
from fakegan.nets.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, spread
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.nets.dropout import deal_noise
from fakegan.system import ranks
from fakegan.system.places import PROJECT
from fakegan.training import trials
from fakegan.training.classifier import Classifier
from fakegan.training.dcgan import DCGANClassifier
from fakegan.training.fitting import say_frozen
from tests.helpers import fit, real_and_fake
from tests.pages import blocks


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_faces_are_resized_in_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    """As trainer.precision=bf16-true makes them."""
    net, x = Backbone(Shown(), pretrained=True), torch.rand(1, 3, 64, 64)
    net(x)
    exact = net.net.seen
    net.to(dtype)(x.to(dtype))
    assert net.net.seen.dtype == dtype
    torch.testing.assert_close(net.net.seen.float(), exact, rtol=0, atol=0.05)


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
    assert DCGANClassifier(pretrained, DCGANGenerator(latent=2, width=1), partial(SGD, lr=0.5)).body_lr == 1


def test_a_schedule_that_moves_both_rates_keeps_their_share() -> None:
    module = Classifier(HasHead(), partial(SGD, lr=0.5), body_lr=0.2)
    trials.try_learning(module, "classifier")
    onecycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=[0.5, 0.1])
    trials.try_learning(Classifier(HasHead(), partial(SGD, lr=0.5), onecycle, body_lr=0.2), "classifier")


def test_a_frozen_body_learns_nothing_and_its_statistics_stay(store: FaceStore) -> None:
    net = HasHead()
    fixed = net.get_parameter("body.0.bias").requires_grad_(False)  # as its author wants it: it is never thawed
    before = fixed.clone()
    module = Classifier(net, partial(SGD, lr=0.1), frozen_epochs=2)
    epochs: list[dict[str, Tensor]] = [{k: v.clone() for k, v in module.net.state_dict().items()}]
    module.on_validation_epoch_end = lambda: epochs.append(  # type: ignore[method-assign]
        {k: v.clone() for k, v in module.net.state_dict().items()}
    )
    fit(module, real_and_fake(store), epochs=3, limit_val_batches=1)
    moved = [{k for k in then if not torch.equal(then[k], now[k])} for then, now in itertools.pairwise(epochs)]
    head = {name for name in epochs[0] if name.startswith("head.")}
    assert moved[:2] == [head, head]
    assert moved[2] == set(epochs[0]) - {"body.0.bias"}
    assert torch.equal(fixed, before)
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
