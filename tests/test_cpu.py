"""The CPU's forms of layers against torch's layers: outputs and every gradient; and where each form is used."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fakegan.errors import UsageError
from fakegan.nets import cpu
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.backbone import Backbone
from fakegan.nets.cpu import forms_in_use, quick_layout, quicken
from fakegan.nets.dcgan import DCGANDiscriminator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.system import devices


def reflect(channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1, padding_mode="reflect", bias=bias)


def upsample(channels: int, out_channels: int, bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias))


def quickened(net: nn.Module) -> nn.Module:
    """A copy in the quick forms, with the same weights under the same names."""
    quick = deepcopy(net)
    quicken(quick)
    assert quick.state_dict().keys() == net.state_dict().keys()
    return quick


def assert_same(quick: nn.Module, plain: nn.Module, x: Tensor, tolerance: float) -> None:
    """The same output, and the same gradients of a random projection of it."""
    x.requires_grad_()
    y, expected = quick(x), plain(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))
    projection = torch.randn_like(expected)
    gradients = torch.autograd.grad(y, [x, *quick.parameters()], projection)
    wanted = torch.autograd.grad(expected, [x, *plain.parameters()], projection)
    of_all = max(float(want.abs().max()) for want in wanted)
    for got, want in zip(gradients, wanted, strict=True):
        largest = max(float(want.abs().max()), 1e-3 * of_all)  # some are 0: of a bias that a norm subtracts again
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance * largest)


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Winograd": (lambda: reflect(64, 68), (3, 64, 8, 12)),
    "Winograd of one tile, no bias": (lambda: reflect(130, 128, bias=False), (3, 130, 4, 4)),
    "no whole tiles": (lambda: reflect(128, 128), (3, 128, 6, 8)),
    "too few channels": (lambda: reflect(3, 128), (3, 3, 8, 8)),
    "upsampling": (lambda: upsample(5, 4), (2, 5, 3, 7)),
    "upsampling, no bias": (lambda: upsample(5, 4, bias=False), (2, 5, 3, 7)),
    "InstanceNorm": (lambda: nn.InstanceNorm2d(5), (2, 5, 6, 7)),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_what_torchs_computes(
    name: str, channels_last: bool, dtype: torch.dtype, tolerance: float
) -> None:
    make, shape = LAYERS[name]
    plain = make().to(dtype)
    quick = quickened(plain)
    if not channels_last:
        quick._forward_pre_hooks.clear()
    assert_same(quick, plain, 3 * torch.randn(shape, dtype=dtype) + 2, tolerance)


CONV = partial(nn.Conv2d, 128, 128, 3, padding_mode="reflect")
NO_FORM: dict[str, Callable[[], nn.Module]] = {
    "InstanceNorm with weights": lambda: nn.InstanceNorm2d(128, affine=True),
    "InstanceNorm with running statistics": lambda: nn.InstanceNorm2d(128, track_running_stats=True).eval(),
    "a stride": lambda: CONV(padding=1, stride=2),
    "a dilation": lambda: CONV(padding=2, dilation=2),
    "groups": lambda: CONV(padding=1, groups=2),
    "no padding": CONV,
    "bilinear upsampling": lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), CONV(padding=1)),
    "upsampling to four times the size": lambda: nn.Sequential(nn.Upsample(scale_factor=4), CONV(padding=1)),
    "upsampling before ReLU": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.ReLU(), nn.Conv2d(128, 2, 3)),
    "upsampling before 5x5": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(128, 2, 5, padding=2)),
    "upsampling alone": lambda: nn.Upsample(scale_factor=2),
}


@pytest.mark.parametrize("name", NO_FORM)
def test_a_layer_that_no_form_computes_stays_torchs(name: str) -> None:
    """A user's own network may have such layers."""
    plain = NO_FORM[name]()
    for weights in [*plain.parameters(), *plain.buffers()]:
        weights.data += 1
    x = torch.randn(2, 128, 8, 8)
    torch.testing.assert_close(quickened(plain)(x), plain(x), rtol=0, atol=1e-3)


def test_a_backbone_leaves_the_layers_of_a_users_net_as_they_are() -> None:
    """Its layers need not be used in the order in which they were made."""
    net = torchvision.models.resnet18(weights=None)
    net.up = nn.Upsample(scale_factor=2)
    net.conv = nn.Conv2d(3, 3, 3, padding=1)
    Backbone(net)
    assert {type(net.up), type(net.conv)} == {nn.Upsample, nn.Conv2d}


def test_a_network_takes_its_input_by_name_too() -> None:
    net, image = AutoGAN(1, 4), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(image=image), net(image))


def test_winograd_is_used_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    apply = cpu._Winograd.apply
    monkeypatch.setattr(cpu._Winograd, "apply", lambda *inputs: calls.append(1) or apply(*inputs))

    def is_used(out_channels: int, faces: int = 2, channels: int = 128, learns: bool = True) -> bool:
        calls.clear()
        quickened(reflect(channels, out_channels)).requires_grad_(learns)(torch.randn(faces, channels, 8, 8))
        return bool(calls)

    assert is_used(64)
    assert is_used(64, faces=1)
    assert not is_used(63)
    assert not is_used(64, channels=63)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_used(128)
    with torch.no_grad():
        assert (is_used(128), is_used(127), is_used(128, faces=1)) == (True, False, False)
    assert is_used(128, learns=False)
    assert not is_used(127, learns=False)
    assert not is_used(128, faces=1, learns=False)


def test_winograd_repeats_to_the_bit() -> None:
    """Resuming a run relies on it."""
    conv, x = quickened(reflect(128, 128)), torch.randn(3, 128, 8, 8, requires_grad=True)
    once, again = (torch.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


NETS: dict[str, Callable[[], nn.Module]] = {
    "autogan of 64 channels": lambda: AutoGAN(1, 16),
    "autogan of 60 channels": lambda: AutoGAN(1, 15),
    "autogan, instance norm": lambda: AutoGAN(1, 4, "instance"),
    "frozen autogan of 64 channels": lambda: AutoGAN(1, 16).requires_grad_(False),
    "frozen autogan of 128 channels": lambda: AutoGAN(1, 32).requires_grad_(False),
    "patch discriminator": lambda: PatchDiscriminator(4),
    "simple_cnn": lambda: SimpleCNN(dropout=0),
    "dcgan": lambda: DCGANDiscriminator(width=4),
    "alexnet": lambda: AlexNet(width=4, hidden=4, dropout=0),
}


@pytest.mark.parametrize("name", [name for name in NETS if "frozen" not in name])
def test_a_network_in_these_forms_is_the_one_in_torchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, where no activation is so near to a kink, or two to the same maximum, that rounding takes sides."""
    quick = NETS[name]().double()
    for weights in quick.parameters():
        nn.init.normal_(weights, std=0.1)  # the CNN's head begins at zero, and would pass no gradient on
    plain, kept = deepcopy(quick), []
    for layer in quick.modules():
        if isinstance(layer, nn.Conv2d | nn.InstanceNorm2d | nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda _, inputs: kept.append(is_channels_last(inputs[0])))

    computed = plain.forward

    def without(x: Tensor) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            return computed(x)

    monkeypatch.setattr(plain, "forward", without)
    plain._forward_pre_hooks.clear()
    assert_same(quick, plain, torch.randn(3, 3, 64, 64, dtype=torch.float64), 1e-10)
    assert all(kept)  # every layer keeps channels last
    assert len(kept) > 3


@pytest.mark.parametrize("where", ["oneDNN", "bf16", "no oneDNN", "another device"])
@pytest.mark.parametrize("name", NETS)
def test_the_forms_that_are_named_are_those_that_are_used(
    name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another device is the meta device, which computes nothing but shapes."""
    device = torch.device("meta" if where == "another device" else "cpu")
    net, used = NETS[name]().to(device), set()

    def spied(function: Callable[..., Tensor], form: str) -> Callable[..., Tensor]:
        return lambda *inputs, **options: used.add(form) or function(*inputs, **options)

    def look(conv: nn.Module, inputs: tuple[Tensor]) -> None:
        used.update(["channels last"] if is_channels_last(inputs[0]) else [])

    monkeypatch.setattr(cpu._Winograd, "apply", spied(cpu._Winograd.apply, "Winograd convolutions"))
    monkeypatch.setattr(cpu._InstanceNorm, "apply", spied(cpu._InstanceNorm.apply, "InstanceNorm without copies"))
    folded = spied(F.conv_transpose2d, "folded upsampling")
    monkeypatch.setattr(cpu, "F", SimpleNamespace(**{**vars(F), "conv_transpose2d": folded}))
    next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d)).register_forward_pre_hook(look)
    if where == "no oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "bf16"):
        net(torch.randn(2, 3, 64, 64, device=device))
        named = forms_in_use([net], device)
    assert set(named) == used
    assert bool(named) == (where == "oneDNN")


def test_the_names_in_a_checkpoint_stay() -> None:
    """Written out from a file of an earlier version."""
    assert [name for name in AutoGAN(1, 4, code_channels=2).state_dict() if name.endswith("weight")] == [
        *(f"encoder.down.{i}.0.weight" for i in range(3)),
        *("encoder.blocks.0.body.0.weight", "encoder.blocks.0.body.3.weight", "encoder.to_code.weight"),
        *("decoder.from_code.weight", "decoder.up.1.0.weight", "decoder.up.3.0.weight", "decoder.to_rgb.weight"),
    ]


@pytest.mark.parametrize("make", [lambda: reflect(128, 128), lambda: nn.InstanceNorm2d(128), lambda: upsample(128, 2)])
def test_no_faces_and_gradients_of_any_layout(make: Callable[[], nn.Module]) -> None:
    layer = quickened(make())
    assert layer(torch.zeros(0, 128, 8, 8)).shape[0] == 0
    with torch.inference_mode():  # the cached transforms must serve those who learn later
        layer(torch.randn(1, 128, 8, 8))
    x = torch.randn(2, 128, 8, 8, requires_grad=True)
    y = layer(x)
    weights = torch.randn(y.shape)
    (of_planes,) = torch.autograd.grad((y * weights).sum(), x, retain_graph=True)
    (of_last,) = torch.autograd.grad(y, x, quick_layout(weights), retain_graph=True)
    torch.testing.assert_close(of_planes, of_last, rtol=0, atol=1e-5)
    (spread,) = torch.autograd.grad(y.sum(), x, retain_graph=True)  # a gradient of one number, expanded
    (whole,) = torch.autograd.grad(y, x, torch.ones(y.shape))
    torch.testing.assert_close(spread, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frozen", ["weight", "bias", "input"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_gets_its_own(frozen: str) -> None:
    plain, gradients = reflect(128, 128), []
    x = torch.randn(1, 128, 4, 4)
    for conv in (quickened(plain), plain):
        tensors = {"weight": conv.weight, "bias": conv.bias, "input": x.clone()}
        for name, tensor in tensors.items():
            tensor.requires_grad_(name != frozen)
        conv(tensors["input"]).square().sum().backward()
        gradients.append({name: tensor.grad for name, tensor in tensors.items()})
    ours, expected = gradients
    assert ours.pop(frozen) is expected.pop(frozen) is None
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_convolutions_are_float32s_within_a_block_and_as_they_were_after_it() -> None:
    cudnn = torch.backends.cudnn

    def precision() -> object:
        return cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32

    before = precision()
    assert before in {"tf32", True}  # torch's default
    for _ in range(2):
        assert devices.float32_convolutions()(precision)() in {"ieee", False}  # as a decorator
        assert precision() == before
    with devices.float32_convolutions():
        assert devices.float32_convolutions()(precision)() in {"ieee", False}
        assert precision() in {"ieee", False}  # as it was before the block within this one
    assert precision() == before
    with pytest.raises(UsageError), devices.float32_convolutions():
        raise UsageError("of a face, say")
    assert precision() == before
    assert cudnn.allow_tf32  # the older name can still be asked


def _operators(net: nn.Module, x: Tensor) -> set[str]:
    """The operators of a forward pass on a device that is no CPU, and has no memory."""
    names: set[str] = set()

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Noted():
        net.to("meta")(x.to("meta"))
    return names


def test_elsewhere_upsampling_calls_nothing_that_cuda_autocast_computes_in_float32() -> None:
    x = torch.randn(2, 4, 3, 5).contiguous(memory_format=torch.channels_last)
    names = _operators(quickened(upsample(4, 4)), x)
    assert "convolution" in names
    assert not [name for name in names if name.startswith("upsample")]
    doubled = cpu._doubled(x.bfloat16())
    assert torch.equal(doubled, F.interpolate(x.bfloat16(), scale_factor=2))
    assert is_channels_last(doubled)


@pytest.mark.parametrize("kernel", [3, 7])
def test_elsewhere_padding_is_deterministic_where_torch_is_asked_to_be(kernel: int) -> None:
    plain = nn.Conv2d(4, 4, kernel, padding=kernel // 2, padding_mode="reflect")
    x = torch.randn(2, 4, 8, 9)
    assert "reflection_pad2d" in _operators(quickened(plain), x)
    torch.use_deterministic_algorithms(True)
    try:
        assert "reflection_pad2d" not in _operators(quickened(plain), x)
    finally:
        torch.use_deterministic_algorithms(False)
    padded = cpu._reflected(x, kernel // 2)
    assert torch.equal(padded, F.pad(x, (kernel // 2,) * 4, mode="reflect"))
