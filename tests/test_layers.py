"""The quicker layers against torch's own: outputs and every gradient."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fakegan.errors import UsageError
from fakegan.nets import layers
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator
from fakegan.nets.layers import InstanceNorm2d, ReflectConv2d, UpsampleConv2d, forms, quick_layout
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.system import devices

DTYPES = [(torch.float64, 1e-10), (torch.float32, 3e-5)]


def _assert_same(quick: nn.Module, plain: nn.Module, x: Tensor, tolerance: float) -> None:
    """Both with the same weights: the same output, and the same gradients of a random projection of it."""
    plain.load_state_dict(quick.state_dict())
    _assert_same_function(quick, plain, x, tolerance, list(quick.parameters()), list(plain.parameters()))


def _assert_same_function(
    quick: nn.Module, plain: nn.Module, x: Tensor, tolerance: float, ours: list[Tensor], theirs: list[Tensor]
) -> None:
    x.requires_grad_()
    y, expected = quick(x), plain(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))
    projection = torch.randn_like(expected)
    gradients = torch.autograd.grad(y, [x, *ours], projection)
    wanted = torch.autograd.grad(expected, [x, *theirs], projection)
    of_all = max(float(want.abs().max()) for want in wanted)
    for got, want in zip(gradients, wanted, strict=True):
        largest = max(float(want.abs().max()), 1e-3 * of_all)  # some are 0: of a bias that a norm subtracts again
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance * largest)


class _PaddedConv(nn.Conv2d):
    """What ReflectConv2d is said to be."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, padding_mode="reflect", bias=bias)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("channels", "size"),
    [((64, 68), (8, 12)), ((130, 128), (4, 4)), ((128, 128), (6, 8)), ((3, 128), (8, 8))],
    ids=["winograd", "one tile", "no whole tiles", "too narrow"],
)
def test_reflect_conv(
    channels: tuple[int, int], size: tuple[int, int], channels_last: bool, dtype: torch.dtype, tolerance: float
) -> None:
    x = torch.randn(3, channels[0], *size, dtype=dtype)
    x = quick_layout(x) if channels_last else x
    bias = channels != (130, 128)
    _assert_same(ReflectConv2d(*channels, bias).to(dtype), _PaddedConv(*channels, bias).to(dtype), x, tolerance)


def test_reflect_conv_is_winograds_where_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    apply = layers._Winograd.apply
    monkeypatch.setattr(layers._Winograd, "apply", lambda *inputs: calls.append(1) or apply(*inputs))

    def is_winograds(out_channels: int, faces: int = 2, channels: int = 128) -> bool:
        calls.clear()
        ReflectConv2d(channels, out_channels).requires_grad_(learns)(torch.randn(faces, channels, 8, 8))
        return bool(calls)

    learns = True
    assert is_winograds(64)
    assert is_winograds(64, faces=1)
    assert not is_winograds(63)
    assert not is_winograds(64, channels=63)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_winograds(128)
    with torch.no_grad():
        assert is_winograds(128)
        assert not is_winograds(127)
        assert not is_winograds(128, faces=1)
    learns = False
    assert is_winograds(128)
    assert not is_winograds(127)
    assert not is_winograds(128, faces=1)


def test_winograd_of_an_impulse_is_the_kernel() -> None:
    """By hand: a single 1 in the input leaves the kernel, turned round, in the output."""
    conv = ReflectConv2d(128, 128, bias=False).double()
    x = torch.zeros(1, 128, 8, 8, dtype=torch.float64)
    x[0, 5, 4, 3] = 1
    y = conv(x)
    assert "Winograd" in type(y.grad_fn).__name__
    torch.testing.assert_close(y[0, 7, 3:6, 2:5], conv.weight[7, 5].flip(0, 1), rtol=0, atol=1e-12)
    assert y[0, 7, 7].abs().max() < 1e-12


def test_a_batch_gives_what_its_faces_give_alone() -> None:
    conv = ReflectConv2d(128, 128)
    x = torch.randn(3, 128, 8, 8)
    torch.testing.assert_close(conv(x), torch.cat([conv(face[None]) for face in x]), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_upsample_conv(channels_last: bool, bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    plain = nn.Conv2d(5, 4, 3, padding=1, bias=bias).to(dtype)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = plain

        def forward(self, x: Tensor) -> Tensor:
            return plain(F.interpolate(x, scale_factor=2, mode="nearest"))

    quick = UpsampleConv2d(5, 4, bias).to(dtype)
    plain.load_state_dict(quick.state_dict())
    x = torch.randn(2, 5, 3, 7, dtype=dtype)
    x = quick_layout(x) if channels_last else x
    _assert_same_function(quick, Plain(), x, tolerance, list(quick.parameters()), list(plain.parameters()))


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("channels_last", [True, False])
def test_instance_norm(channels_last: bool, dtype: torch.dtype, tolerance: float) -> None:
    x = 3 * torch.randn(2, 5, 6, 7, dtype=dtype) + 2
    x = quick_layout(x) if channels_last else x
    _assert_same(InstanceNorm2d(), nn.InstanceNorm2d(5), x, tolerance)


def test_instance_norm_of_a_flat_channel_is_zero() -> None:
    """But for rounding. The mean of 15 times 7.1 is off by at most 15 roundings of 2^-24 each: by 6.3e-6.

    What is left is divided by sqrt(1e-5), or by nearly nothing if eps were lost: the result would be 1 or no number.
    """
    y = InstanceNorm2d()(torch.full((1, 2, 3, 5), 7.1))
    assert y.abs().max() < 7.1 * 15 * 2**-24 / 1e-5**0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: SimpleCNN(dropout=0),
        lambda: PatchDiscriminator(4),
        lambda: DCGANDiscriminator(width=4),
        lambda: AutoGAN(1, 4, "instance"),
        lambda: AlexNet(width=4, hidden=4, dropout=0),
    ],
    ids=["simple_cnn", "patch", "dcgan", "autogan", "alexnet"],
)
def test_a_network_in_the_quick_layout_is_the_one_in_the_plain(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where no activation is so near to a kink, or two to the same maximum, that rounding takes sides."""
    quick, plain = make().double(), make().double()
    for weights in quick.parameters():
        nn.init.normal_(weights, std=0.1)  # the CNN's head begins at zero, and would pass no gradient on
    seen: list[bool] = []
    first = next(layer for layer in quick.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_pre_hook(lambda conv, inputs: seen.append(_is_channels_last(inputs[0])))
    plain.layout = nn.Identity()
    _assert_same(quick, plain, torch.randn(3, 3, 64, 64, dtype=torch.float64), 1e-10)
    assert seen == [True]


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


NETS: dict[str, Callable[[], nn.Module]] = {
    "autogan of 64 channels": lambda: AutoGAN(1, 16),
    "autogan of 60 channels": lambda: AutoGAN(1, 15),
    "autogan, instance norm": lambda: AutoGAN(1, 4, "instance"),
    "frozen autogan of 64 channels": lambda: AutoGAN(1, 16).requires_grad_(False),
    "frozen autogan of 128 channels": lambda: AutoGAN(1, 32).requires_grad_(False),
    "patch discriminator": lambda: PatchDiscriminator(4),
    "simple_cnn": SimpleCNN,
    "dcgan": lambda: DCGANDiscriminator(width=4),
    "alexnet": lambda: AlexNet(width=4, hidden=4),
}


@pytest.mark.parametrize("where", ["oneDNN", "bf16", "no oneDNN"])
@pytest.mark.parametrize("name", NETS)
def test_the_forms_that_are_told_are_those_that_are_taken(
    name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, taken = NETS[name](), set()

    def spied(function: Callable[..., Tensor], form: str) -> Callable[..., Tensor]:
        return lambda *inputs, **options: taken.add(form) or function(*inputs, **options)

    def laid_out(conv: nn.Module, inputs: tuple[Tensor]) -> None:
        if _is_channels_last(inputs[0]):
            taken.add("channels last")

    monkeypatch.setattr(layers._Winograd, "apply", spied(layers._Winograd.apply, "Winograd convolutions"))
    monkeypatch.setattr(layers._InstanceNorm, "apply", spied(layers._InstanceNorm.apply, "InstanceNorm without copies"))
    folded = spied(F.conv_transpose2d, "folded upsampling")
    monkeypatch.setattr(layers, "F", SimpleNamespace(**{**vars(F), "conv_transpose2d": folded}))
    next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d)).register_forward_pre_hook(laid_out)
    if where == "no oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "bf16"):
        net(torch.randn(2, 3, 64, 64))
        told = forms([net], torch.device("cpu"))
    assert set(told) == taken
    assert bool(told) == (where == "oneDNN")
    assert forms([net], torch.device("meta")) == []


def test_every_layer_keeps_channels_last() -> None:
    net = AutoGAN(1, width=32, norm="instance")
    seen = []
    for layer in net.modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda module, _, out: seen.append((module, out.is_contiguous(memory_format=torch.channels_last)))
            )
    net(torch.rand(2, 3, 64, 64))
    assert len(seen) > 15
    assert not [module for module, kept in seen if not kept]


def test_the_names_in_a_checkpoint_stay() -> None:
    """Written out from a file of the time when upsampling was a layer of its own."""
    assert [name for name in AutoGAN(1, 4).state_dict() if name.startswith("decoder.")] == [
        *("decoder.up.1.0.weight", "decoder.up.1.0.bias", "decoder.up.3.0.weight", "decoder.up.3.0.bias"),
        *("decoder.to_rgb.weight", "decoder.to_rgb.bias"),
    ]


@pytest.mark.parametrize("make", [lambda: ReflectConv2d(128, 128), InstanceNorm2d, lambda: UpsampleConv2d(128, 2)])
def test_no_faces_and_gradients_of_any_layout(make: Callable[[], nn.Module]) -> None:
    layer = make()
    assert layer(torch.zeros(0, 128, 8, 8)).shape[0] == 0
    with torch.inference_mode():  # whoever comes first must not spoil what is remembered for those who learn
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
    conv = ReflectConv2d(128, 128)
    x = torch.randn(1, 128, 4, 4)
    every = {"weight": conv.weight, "bias": conv.bias, "input": x}
    for name, tensor in every.items():
        assert tensor is not None
        tensor.requires_grad_(name != frozen)
    conv(x).square().sum().backward()
    free = _PaddedConv(128, 128, bias=True)
    free.load_state_dict(conv.state_dict())
    y = x.detach().clone().requires_grad_()
    free(y).square().sum().backward()
    expected = {"weight": free.weight.grad, "bias": free.bias.grad, "input": y.grad}  # type: ignore[union-attr]
    for name, tensor in every.items():
        if name == frozen:
            assert tensor.grad is None  # type: ignore[union-attr]
        else:
            torch.testing.assert_close(tensor.grad, expected[name], rtol=1e-4, atol=1e-3)  # type: ignore[union-attr]


def test_elsewhere_torchs_own_forms_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which computes nothing but shapes."""
    monkeypatch.setattr(F, "conv_transpose2d", lambda *_, **__: pytest.fail("folded"))
    net = AutoGAN(1, width=32, norm="instance").to("meta")
    assert net(torch.rand(2, 3, 64, 64, device="meta")).shape == (2, 3, 64, 64)
    assert quick_layout(torch.rand(2, 3, 4, 4, device="meta")).is_contiguous()


def test_half_the_digits_take_torchs_own_forms_too() -> None:
    net = AutoGAN(1, width=32)
    image = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        recon = net(image)
    assert (recon.float() - net(image)).abs().max() < 0.05  # of a range of 2: bf16 has 8 bits


def test_a_device_says_what_is_done_for_it() -> None:
    assert devices.describe(torch.device("cpu"), ["channels last"]) == "cpu, 1 thread, channels last"
    assert devices.describe(torch.device("cpu"), []) == "cpu, 1 thread"
    assert devices.describe(torch.device("cuda", 1), []) == "cuda:1"


@pytest.mark.filterwarnings("error")
def test_convolutions_are_float32s_within_a_block_and_as_they_were_after_it() -> None:
    cudnn = torch.backends.cudnn

    def precision() -> object:
        return cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32

    @devices.float32_convolutions()
    def within() -> object:
        return precision()

    before = precision()
    assert before in {"tf32", True}  # torch's default
    for _ in range(2):
        assert within() in {"ieee", False}
        assert precision() == before
    with devices.float32_convolutions():
        assert within() in {"ieee", False}
        assert precision() in {"ieee", False}  # as it was before the block within this one
    assert precision() == before
    with pytest.raises(UsageError), devices.float32_convolutions():
        raise UsageError("of a face, say")
    assert precision() == before
    assert cudnn.allow_tf32  # the older name can still be asked


def test_the_same_again_is_the_same_to_the_bit() -> None:
    """What resuming a run relies on."""
    conv, x = ReflectConv2d(128, 128), torch.randn(4, 128, 8, 8, requires_grad=True)
    once, again = (torch.autograd.grad(conv(x).square().sum(), [x, *conv.parameters()]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
