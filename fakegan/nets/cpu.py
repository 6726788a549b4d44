"""Cheaper forms of layers for CPUs: fewer multiplications, fewer copies. Networks are written with torch's layers.

`quicken` gives a network these forms. Each computes what torch's layer computes, with the same weights: in float32,
outputs and first derivatives agree to a few 1e-5 of the largest; in float64 to 1e-10 (tests/test_cpu.py). A form is
used where it is faster, which depends on the device, the number format, the shapes and whether gradients are needed.
On a GPU torch's layers are used: their libraries choose among such forms. Three are written otherwise there: upsampling
keeps bf16, and padding by reflection and InstanceNorm keep channels last, which tensor cores want.
docs/benchmarks.md measures each form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fakegan.system.devices import uses_tensor_cores

# From this many channels on, the saved multiplications outweigh the transforms (AMD EPYC, maps of 16x16). With
# gradients, 64 channels take 0.6 to 0.8 of oneDNN's time; in a forward pass alone up to 1.2, and 128 take 0.7.
_CHANNELS_WITH_GRADIENTS = 64
_CHANNELS_FORWARD = 128
_forms = True  # False within `torchs_layers`


def quicken(net: nn.Module) -> None:
    """Let a network use the forms below, as the last step of its constructor; weights and names stay.

    Each nn.Upsample in it must stand right before the layer that its output goes to. A layer that differs from the
    layer in a form's docstring stays torch's.
    """
    take_channels_last(net)
    layers = [layer for layer in net.modules() if not list(layer.children())]
    for layer, following in pairwise([*layers, nn.Identity()]):
        doubles = type(layer) is nn.Upsample and (layer.scale_factor, layer.mode) == (2, "nearest")
        if type(layer) is nn.InstanceNorm2d and not (layer.affine or layer.track_running_stats):
            layer.__class__ = InstanceNorm2d
        elif _keeps_size(layer, "reflect"):
            layer.__class__ = ReflectConv2d
        elif doubles and _keeps_size(following, "zeros") and following.kernel_size == (3, 3):
            layer.__class__, following.__class__ = nn.Identity, UpsampleConv2d


def _keeps_size(layer: nn.Module, padding_mode: str) -> bool:
    """Whether a layer is nn.Conv2d(in, out, K, padding=K // 2) of an odd K, with this padding mode."""
    if type(layer) is not nn.Conv2d or layer.kernel_size[0] % 2 == 0:
        return False
    side = layer.kernel_size[0]
    return (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode) == (
        (side, side),
        (1, 1),
        (side // 2, side // 2),
        (1, 1),
        1,
        padding_mode,
    )


def take_channels_last(net: nn.Module) -> None:
    """Let a network's input become channels last where that is quicker; every layer then must keep it."""
    net.register_forward_pre_hook(_channels_last_input)


def _channels_last_input(_net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # none where the image is given by name; noise has no layout
    return tuple(quick_layout(x) if x.dim() == 4 else x for x in inputs)


def take_planes(net: nn.Module) -> None:
    """Let the input of a network that does not ask for channels last come in planes: `view` of its maps needs them."""
    if not takes_channels_last(net):
        net.register_forward_pre_hook(_planes_input)


def _planes_input(_net: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def takes_channels_last(module: nn.Module) -> bool:
    """Whether a network, or a network of a module, asks for channels last."""
    return any(_channels_last_input in net._forward_pre_hooks.values() for net in module.modules())


def lay_out_weights(module: nn.Module) -> None:
    """Put the channels last in the weights of a module's networks that take their input so."""
    for net in module.modules():
        if _channels_last_input in net._forward_pre_hooks.values():
            net.to(memory_format=torch.channels_last)


def quick_layout(image: Tensor) -> Tensor:  # (B, C, H, W) -> the same numbers
    """The memory layout that convolutions are fastest in: channels last on a CPU or by tensor cores, else unchanged."""
    is_quicker = is_for_cpus(image) or is_for_tensor_cores(image)
    return image.contiguous(memory_format=torch.channels_last) if is_quicker else image


@contextmanager
def torchs_layers() -> Iterator[None]:
    """Within, networks use torch's layers on a CPU too: a graph that is exported is for other runtimes."""
    global _forms  # noqa: PLW0603
    _forms = False
    try:
        yield
    finally:
        _forms = True


def is_for_cpus(x: Tensor) -> bool:
    """Whether the forms here are the faster ones for this input: float32 or float64 on a CPU with oneDNN."""
    if not _forms or x.device.type != "cpu":
        return False
    exact = x.dtype in {torch.float32, torch.float64} and not torch.is_autocast_enabled("cpu")  # else digits are lost
    return exact and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def is_for_tensor_cores(x: Tensor) -> bool:
    """Whether a GPU's tensor cores convolve this input, so that layers must keep their channels last."""
    return _forms and uses_tensor_cores(x.device, x.dtype)


def forms_in_use(nets: Iterable[nn.Module], device: torch.device) -> list[str]:
    """The names of the forms that networks use for batches of faces on a device.

    The answer holds for the present torch.autocast, and for weights that require gradients as they do now.
    """
    faces = torch.empty(2, 3, 4, 4, device=device)  # of a size that 4 divides, as faces are
    layers = [layer for net in nets for layer in net.modules()]
    convolutions = [layer for layer in layers if isinstance(layer, ReflectConv2d)]
    used = {
        "channels last": any(_channels_last_input in layer._forward_pre_hooks.values() for layer in layers),
        "folded upsampling": any(isinstance(layer, UpsampleConv2d) for layer in layers),
        "Winograd convolutions": any(_winograd_is_faster(faces, layer.weight) for layer in convolutions),
        "InstanceNorm without copies": any(isinstance(layer, InstanceNorm2d) for layer in layers),
    }
    here = set(used) if is_for_cpus(faces) else {"channels last"} if is_for_tensor_cores(faces) else set()
    return [name for name, is_used in used.items() if is_used and name in here]


class UpsampleConv2d(nn.Conv2d):
    """nn.Upsample(scale_factor=2), then nn.Conv2d(in, out, 3, padding=1), as one layer.

    Each pixel of the 3x3 window lies on one of 2x2 pixels before upsampling. With the weights that fall on the same
    pixel added up, this is a transposed convolution of 4x4 and stride 2: 4 multiplications an output instead of 9.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, out, 2H, 2W)
        if not is_for_cpus(x):
            return super().forward(_doubled(x))
        doubled = self.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])  # (4, 3)
        weight = torch.einsum("ti,ocij,sj->cots", doubled, self.weight, doubled)  # (C, out, 4, 4)
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)


def _doubled(x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, 2H, 2W), channels last
    """Each pixel four times: nearest upsampling, for which autocast would leave bf16 on a GPU."""
    faces, channels, rows, columns = x.shape
    last = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(faces, rows, 2, columns, 2, channels)
    return last.reshape(faces, 2 * rows, 2 * columns, channels).permute(0, 3, 1, 2)


class ReflectConv2d(nn.Conv2d):
    """nn.Conv2d(in, out, K, padding=K // 2, padding_mode="reflect"), K odd.

    3x3 is computed by Winograd's algorithm where that is faster. On a GPU torch's padding leaves channels last, and its
    backward has no deterministic form: a gather is used for tensor cores, and with torch.use_deterministic_algorithms
    (`trainer.deterministic=true`).
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, out, H, W)
        if is_for_cpus(x):
            if not _winograd_is_faster(x, self.weight):
                return super().forward(x)
            y: Tensor = _Winograd.apply(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.weight, self.bias)
            return y
        if is_for_tensor_cores(x) or torch.are_deterministic_algorithms_enabled():
            return F.conv2d(_reflected(x, self.kernel_size[0] // 2), self.weight, self.bias)
        return super().forward(x)


def _reflected(x: Tensor, width: int) -> Tensor:  # (B, C, H, W) -> (B, C, H + 2 width, W + 2 width), channels last
    """F.pad(x, (width,) * 4, mode="reflect"), as one gather of pixels."""
    faces, channels, rows, columns = x.shape
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
    padded = pixels.index_select(1, _reflected_places(rows, columns, width, x.device))
    return padded.view(faces, rows + 2 * width, columns + 2 * width, channels).permute(0, 3, 1, 2)


@cache
def _reflected_places(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Which pixel of H W each pixel of the padded map is, int64 ((H + 2 width) (W + 2 width),)."""

    def line(side: int) -> Tensor:
        from_start = torch.arange(-width, side + width, device=device).abs()
        return (side - 1) - (side - 1 - from_start).abs()

    with torch.inference_mode(False):  # who learns later takes it, too
        return (line(rows)[:, None] * columns + line(columns)).flatten()


def _winograd_is_faster(x: Tensor, weight: Tensor) -> bool:
    """One face has too few tiles for the matrix products to be fast, unless gradients are taken as well."""
    whole_tiles = x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0 and weight.shape[2:] == (3, 3)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return whole_tiles and min(weight.shape[:2]) >= _CHANNELS_WITH_GRADIENTS
    return whole_tiles and min(weight.shape[:2]) >= _CHANNELS_FORWARD and len(x) > 1


class InstanceNorm2d(nn.InstanceNorm2d):
    """nn.InstanceNorm2d(channels): every channel of every face to mean 0 and variance 1 (arXiv:1607.08022)."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> the same shape
        if is_for_cpus(x):
            y: Tensor = _InstanceNorm.apply(x, self.eps)
            return y
        if is_for_tensor_cores(x):  # a kernel in planes, between two copies: fewer launches than in any other way
            planes = x.to(torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format).flatten(2)
            normed = F.layer_norm(planes, planes.shape[2:], eps=self.eps)
            return normed.view(x.shape).to(x.dtype, memory_format=torch.channels_last)
        return super().forward(x)


class _InstanceNorm(torch.autograd.Function):
    """Instance normalisation of maps that have their channels last, which torch would copy to and fro."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        flat = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C)
        y = flat - flat.mean(dim=1, keepdim=True)
        inverse_std = y.square().mean(dim=1, keepdim=True).add_(eps).rsqrt_()
        y.mul_(inverse_std)
        ctx.save_for_backward(y, inverse_std)
        return y.view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        y, inverse_std = ctx.saved_tensors
        flat = grad.permute(0, 2, 3, 1).flatten(1, 2)
        along = (flat * y).mean(dim=1, keepdim=True)
        of_x = torch.addcmul(flat - flat.mean(dim=1, keepdim=True), y, along, value=-1).mul_(inverse_std)
        return of_x.view(len(grad), *grad.shape[2:], grad.shape[1]).permute(0, 3, 1, 2), None


class _Winograd(torch.autograd.Function):
    """3x3 convolution of padded maps with a quarter of the multiplications: F(4x4, 3x3) of arXiv:1509.09308.

    An output tile Y = A' [(G g G') * (B' d B)] A of 4x4 comes from an input tile d of 6x6 and a kernel g of 3x3. The
    product * in the brackets, summed over channels, is 36 matrix products. Each two-sided transform is one matrix over
    tiles flattened by rows: the Kronecker products of A' with A', B' with B', G with G. Gradients use the transposes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (B, C, H + 2, W + 2), H and W multiples of 4
        weight: Tensor,  # (O, C, 3, 3)
        bias: Tensor | None,  # (O,)
    ) -> Tensor:  # (B, O, H, W)
        a, b, g = _transforms(x.dtype)
        faces, rows, columns = len(x), x.shape[2] // 4, x.shape[3] // 4  # of tiles
        count, channels, out_channels = faces * rows * columns, x.shape[1], len(weight)
        tiles = x.permute(0, 2, 3, 1).unfold(1, 6, 4).unfold(2, 6, 4)  # (B, h, w, C, 6, 6)
        tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(36, count * channels)
        data = (b @ tiles).view(36, count, channels)
        kernel = (g @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, out_channels)
        product = torch.bmm(data, kernel).view(36, count * out_channels)
        out = (a @ product).view(4, 4, faces, rows, columns, out_channels).permute(2, 3, 0, 4, 1, 5)
        out = out.reshape(faces, 4 * rows, 4 * columns, out_channels)  # (B, H, W, O)
        if bias is not None:
            out += bias
        ctx.save_for_backward(data, kernel)
        ctx.size = faces, rows, columns
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        data, kernel = ctx.saved_tensors
        a, b, g = _transforms(grad.dtype)
        faces, rows, columns = ctx.size
        count, (_, channels, out_channels) = faces * rows * columns, kernel.shape
        last = grad.permute(0, 2, 3, 1)  # (B, H, W, O)
        tiles = last.reshape(faces, rows, 4, columns, 4, out_channels).permute(2, 4, 0, 1, 3, 5)
        product = (a.T @ tiles.reshape(16, count * out_channels)).view(36, count, out_channels)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_tiles = b.T @ torch.bmm(product, kernel.mT).view(36, count * channels)
            of_x = _overlapped(of_tiles.view(6, 6, faces, rows, columns, channels))
        if ctx.needs_input_grad[1]:
            of_kernel = torch.bmm(data.mT, product).view(36, -1)
            of_weight = (g.T @ of_kernel).view(3, 3, channels, out_channels).permute(3, 2, 0, 1)
        if ctx.needs_input_grad[2]:
            of_bias = last.sum(dim=(0, 1, 2))
        return of_x, of_weight, of_bias


def _overlapped(tiles: Tensor) -> Tensor:  # (6, 6, B, h, w, C) -> (B, C, 4h + 2, 4w + 2)
    """Tiles of 6x6 laid every four pixels and added where they overlap."""
    faces, rows, columns, channels = tiles.shape[2:]
    out = tiles.new_zeros(faces, rows + 1, 4, columns + 1, 4, channels)
    tiles = tiles.permute(2, 3, 0, 4, 1, 5)  # (B, h, 6, w, 6, C)
    out[:, :-1, :, :-1] = tiles[:, :, :4, :, :4]
    out[:, 1:, :2, :-1] += tiles[:, :, 4:, :, :4]
    out[:, :-1, :, 1:, :2] += tiles[:, :, :4, :, 4:]
    out[:, 1:, :2, 1:, :2] += tiles[:, :, 4:, :, 4:]
    whole = out.view(faces, 4 * rows + 4, 4 * columns + 4, channels)
    return whole[:, : 4 * rows + 2, : 4 * columns + 2].permute(0, 3, 1, 2)


@cache
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:  # (16, 36), (36, 36), (36, 9)
    """A' x A', B' x B' and G x G, of the interpolation points 0, 1, -1, 2, -2 and infinity."""
    a = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    b = [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    g = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # in 24ths
    matrices = (torch.tensor(m, dtype=torch.float64, device="cpu") / unit for m, unit in ((a, 1), (b, 1), (g, 24)))
    a2, b2, g2 = (torch.kron(m, m).to(dtype) for m in matrices)
    return a2, b2, g2
