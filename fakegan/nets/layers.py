"""Cheaper forms of the networks' layers, for CPUs: fewer multiplications, fewer copies.

Each computes what the plain layer named in its docstring computes, with the same weights: in float32 outputs and first
derivatives agree to a few 1e-5 of the largest, in float64 to 1e-10 (tests/test_layers.py). Which form is taken depends
on device, number format and shape of the maps, and on whether gradients are taken; `forms` says it by name. Elsewhere
torch's own layers are taken: on a GPU their libraries choose among such forms themselves. docs/benchmarks.md has what
each form is worth.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# From here on the saved multiplications outweigh the transforms (AMD EPYC, maps of 16x16). With gradients, 64 channels
# take 0.6 to 0.8 of oneDNN's time; in a forward pass alone 64 take up to 1.2 of it, 128 take 0.7.
_CHANNELS_WITH_GRADIENTS = 64
_CHANNELS_FORWARD = 128


def is_for_cpus(x: Tensor) -> bool:
    """Whether the forms here are the quicker ones for this input: float32 or float64 on a CPU with oneDNN."""
    on_cpu = x.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    exact = x.dtype in {torch.float32, torch.float64} and not torch.is_autocast_enabled("cpu")  # else digits are lost
    return on_cpu and exact


def forms(nets: Iterable[nn.Module], device: torch.device) -> list[str]:
    """By name, the forms here that networks take for batches of faces on a device.

    As they are asked here and now: within torch.autocast, with weights that require gradients or are frozen.
    """
    faces = torch.empty(2, 3, 64, 64, device=device)
    if not is_for_cpus(faces):
        return []
    layers = [layer for net in nets for layer in net.modules()]
    has = {
        "channels last": any(isinstance(layer, QuickLayout) for layer in layers),
        "folded upsampling": any(isinstance(layer, UpsampleConv2d) for layer in layers),
        "Winograd convolutions": any(
            isinstance(layer, ReflectConv2d) and _winograd_is_faster(faces, layer.weight) for layer in layers
        ),
        "InstanceNorm without copies": any(isinstance(layer, InstanceNorm2d) for layer in layers),
    }
    return [name for name, taken in has.items() if taken]


def quick_layout(image: Tensor) -> Tensor:  # (B, C, H, W) -> the same numbers
    """The memory layout that convolutions are fastest in: channels last on a CPU, as it comes elsewhere.

    Every layer of a network keeps the layout of its input.
    """
    return image.contiguous(memory_format=torch.channels_last) if is_for_cpus(image) else image


class QuickLayout(nn.Module):
    """`quick_layout`, as the layer that a network begins with."""

    def forward(self, image: Tensor) -> Tensor:  # (B, C, H, W) -> the same numbers
        return quick_layout(image)


class UpsampleConv2d(nn.Conv2d):
    """nn.Upsample(scale_factor=2, mode="nearest"), then nn.Conv2d(in, out, 3, padding=1), as one layer.

    Each pixel of the 3x3 window lies on one of 2x2 pixels before upsampling. With the weights that fall on the same
    one added up, this is a transposed convolution of 4x4 and stride 2: 4 multiplications an output where there were 9.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, out, 2H, 2W)
        if not is_for_cpus(x):
            return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))
        doubled = self.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])  # (4, 3)
        weight = torch.einsum("ti,ocij,sj->cots", doubled, self.weight, doubled)  # (C, out, 4, 4)
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)


class ReflectConv2d(nn.Conv2d):
    """nn.Conv2d(in, out, 3, padding=1, padding_mode="reflect"), by Winograd's algorithm where that is faster."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, padding_mode="reflect", bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, out, H, W)
        if not (is_for_cpus(x) and _winograd_is_faster(x, self.weight)):
            return super().forward(x)
        y: Tensor = _Winograd.apply(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.weight, self.bias)
        return y


def _winograd_is_faster(x: Tensor, weight: Tensor) -> bool:
    """One face alone has too few tiles for its matrix products to be quick, unless gradients are taken as well."""
    whole_tiles = x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0
    channels = min(weight.shape[:2])
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return whole_tiles and channels >= _CHANNELS_WITH_GRADIENTS
    return whole_tiles and channels >= _CHANNELS_FORWARD and len(x) > 1


class _Winograd(torch.autograd.Function):
    """3x3 convolution of padded maps, four times fewer multiplications: F(4x4, 3x3) of Lavin and Gray (2016).

    arXiv:1509.09308. An output tile Y = A' [(G g G') * (B' d B)] A of 4x4 comes from an input tile d of 6x6 and a
    kernel g of 3x3. The product * within the brackets, summed over channels, is 36 matrix products. The two-sided
    transforms are written as one matrix each, of A' x A', B' x B' and G x G (Kronecker), over tiles flattened by rows;
    gradients pass through the transposes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (B, C, H + 2, W + 2), H and W multiples of 4
        weight: Tensor,  # (O, C, 3, 3)
        bias: Tensor | None,  # (O,)
    ) -> Tensor:  # (B, O, H, W)
        a, b, g = _transforms(x.dtype)
        size = len(x), x.shape[2] // 4, x.shape[3] // 4  # faces, rows of tiles, columns of tiles
        channels, out_channels = x.shape[1], len(weight)
        count = size[0] * size[1] * size[2]
        tiles = x.permute(0, 2, 3, 1).unfold(1, 6, 4).unfold(2, 6, 4)  # (B, h, w, C, 6, 6)
        tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(36, count * channels)
        data = (b @ tiles).view(36, count, channels)
        kernel = (g @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, out_channels)
        product = torch.bmm(data, kernel).view(36, count * out_channels)
        out = (a @ product).view(4, 4, *size, out_channels).permute(2, 3, 0, 4, 1, 5)
        out = out.reshape(size[0], 4 * size[1], 4 * size[2], out_channels)  # (B, H, W, O)
        if bias is not None:
            out += bias
        ctx.save_for_backward(data, kernel)
        ctx.size = size
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        data, kernel = ctx.saved_tensors
        a, b, g = _transforms(grad.dtype)
        faces, rows, columns = ctx.size
        channels, out_channels = kernel.shape[1:]
        count = faces * rows * columns
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
    whole = (torch.tensor(m, dtype=torch.float64, device="cpu") for m in (a, b, g))
    matrices = (m / n for m, n in zip(whole, (1, 1, 24), strict=True))
    a2, b2, g2 = (torch.kron(m, m).to(dtype) for m in matrices)
    return a2, b2, g2


class InstanceNorm2d(nn.Module):
    """nn.InstanceNorm2d(channels): every channel of every face to mean 0 and variance 1 (arXiv:1607.08022)."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> the same shape
        if not is_for_cpus(x):
            return F.instance_norm(x, eps=self.eps)
        y: Tensor = _InstanceNorm.apply(x, self.eps)
        return y


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
