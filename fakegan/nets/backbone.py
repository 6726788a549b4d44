"""A classification net of torchvision's, or of that form, with two logits: from scratch on small faces, or pretrained.

A pretrained net sees faces as its weights know pictures: enlarged, and normalised as theirs were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fakegan.checks import at_least
from fakegan.nets.cpu import take_channels_last

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1], for nearly all weights
_STEM_POOLS = ("maxpool", "features.pool0")  # of ResNet, ResNeXt and ShuffleNet; of DenseNet
_FURTHER_HEADS = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, which only ImageNet's training needs
_LARGEST_STRIDE = 4  # of a stem that may be lowered: a larger patch, as ViT's, is tied to the rest of its net
_LEAST_SIDE = 128  # pixels: pretrained weights find little in smaller pictures


class Backbone(nn.Module):
    """A net whose last linear layer is replaced by one of two logits; a ValueError for a net that does not fit.

    From scratch, its stem is for small faces and keeps twice as many pixels across and down as the net's own. The first
    convolution has half its stride: 1 in EfficientNet, MobileNet, MNASNet and RegNet, 2 in ConvNeXt, Swin and AlexNet.
    ResNet, ResNeXt, ShuffleNet and DenseNet get a 3x3 convolution of stride 2 without a pooling (He et al. 2015,
    arXiv:1512.03385, section 4.2). VGG's has stride 1 already, and ViT's patches stay.
    """

    def __init__(
        self,
        net: nn.Module,  # torchvision.models.resnet18, say
        in_channels: int = 3,
        pretrained: bool = False,  # whether `load_pretrained` follows: true with weights or classifier.weights_file
        input_size: int | None = None,  # side in pixels that faces are resized to; null: their own, pretrained at
        # least 128
        stride: int | None = None,  # of the stem from scratch; 1 keeps each pixel's detail; null: half of the net's
        mean: tuple[float, ...] | None = None,  # of the pictures that pretrained weights know, RGB in [0, 1];
        # null: as torchvision says, else ImageNet's
        std: tuple[float, ...] | None = None,  # of the same
    ) -> None:
        super().__init__()
        at_least(1, **{k: v for k, v in (("input_size", input_size), ("stride", stride)) if v is not None})
        self._first, self._last = _ends(net)
        self._given = {"mean": mean, "std": std}
        _refuse_options(pretrained, stride, self._given)
        if pretrained:
            _take_channels(net.get_submodule(self._first), in_channels)
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("std", torch.ones(3))
            self.mean: Tensor
            self.std: Tensor
            self._normalise_by(IMAGENET_MEAN, IMAGENET_STD)
        else:
            _shrink_stem(net, self._first, in_channels, stride)
        last = net.get_submodule(self._last)
        net.set_submodule(self._last, nn.Linear(last.in_features, 2))  # type: ignore[arg-type]
        self.net = net
        self.pretrained, self.input_size = pretrained, input_size
        if type(net).__module__.startswith("torchvision."):  # another may take views of its maps: they need planes
            take_channels_last(self)

    @property
    def head(self) -> nn.Module:
        """The last layer, which no weights are loaded for."""
        return self.net.get_submodule(self._last)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) in [-1, 1] -> (B, 2) logits
        side = self.input_size or (max(_LEAST_SIDE, *x.shape[2:]) if self.pretrained else x.shape[2])
        if x.shape[2:] != (side, side):
            exact = x.to(torch.promote_types(x.dtype, torch.float32))  # torch resizes no bfloat16 on a CPU
            x = F.interpolate(exact, size=(side, side), mode="bicubic", antialias=True).to(x.dtype)
        if self.pretrained:
            mean, std = (
                values.repeat(-(-x.shape[1] // 3))[: x.shape[1], None, None] for values in (self.mean, self.std)
            )
            x = ((x + 1) / 2 - mean) / std  # each RGB of the view alike
        logits: Tensor = self.net(x)
        return logits

    def load_pretrained(
        self,
        weights: Mapping[str, Tensor],  # the whole state dict of the net as its library makes it
        mean: Sequence[float] = IMAGENET_MEAN,  # of the pictures that they learnt from, where the constructor has none
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Take weights for all but the head; a view of more channels than RGB gets the first layer's again and again.

        Raises:
            ValueError: the weights are of another net.
        """
        first, state = f"{self._first}.weight", self.net.state_dict()
        given, own = (
            {k: value for k, value in tensors.items() if not k.startswith((f"{self._last}.", *_FURTHER_HEADS))}
            for tensors in (weights, state)
        )
        if first in given and given[first].dim() == 4 and given[first].numel():
            given[first] = spread(given[first], own[first].shape[1])
        refuse_misfits(given, own)
        state.update(given)  # of the head its own
        self.net.load_state_dict(state)
        self._normalise_by(mean, std)

    def _normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean.copy_(torch.tensor(self._given["mean"] or mean))
        self.std.copy_(torch.tensor(self._given["std"] or std))


def refuse_misfits(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise a ValueError that names the first tensor in which a state dict is not of a net with those of its own."""
    for name in dict.fromkeys([*own, *given]):
        if name not in given and name.endswith("num_batches_tracked"):  # of a file from before there was one
            continue
        if name not in given or name not in own:
            raise ValueError(f"{'it lacks' if name in own else 'the net has no'} {name}")
        if given[name].shape != own[name].shape:
            raise ValueError(f"its {name} is {tuple(given[name].shape)}, the net's {tuple(own[name].shape)}")


def spread(weight: Tensor, channels: int) -> Tensor:  # (O, I, h, w) -> (O, channels, h, w)
    """A first layer's weights for more channels, or fewer: repeated, and scaled so that outputs keep their size."""
    inputs = weight.shape[1]
    return weight.repeat(1, -(-channels // inputs), 1, 1)[:, :channels] * (inputs / channels)


def _refuse_options(pretrained: bool, stride: int | None, given: Mapping[str, Sequence[float] | None]) -> None:
    """Raise a ValueError for options of the other way to begin, or of colours that cannot be."""
    if pretrained and stride is not None:
        raise ValueError(f"stride={stride} is for training from scratch: pretrained weights keep their own stem")
    for name, value in given.items():
        if value is not None and not pretrained:
            raise ValueError(f"{name}={list(value)} is for pretrained weights: give weights or classifier.weights_file")
        if value is not None and (len(value) != 3 or (name == "std" and min(value) <= 0)):
            raise ValueError(f"{name}={list(value)} must be three numbers, of red, green and blue in [0, 1]")


def _ends(net: nn.Module) -> tuple[str, str]:
    """The names of a net's first convolution and last linear layer."""
    if not isinstance(net, nn.Module):
        raise ValueError("net must be a network: classifier.net.net._target_=torchvision.models.resnet18, say")
    found = {
        kind: [name for name, layer in net.named_modules() if isinstance(layer, kind)]
        for kind in (nn.Conv2d, nn.Linear)
    }
    for kind, names in found.items():
        if not any(names):
            raise ValueError(f"net: {type(net).__name__} has no {kind.__name__} layer: name another net")
    if getattr(net, "aux_logits", False):
        raise ValueError(f"net: {type(net).__name__} has further heads: add classifier.net.net.aux_logits=false")
    return found[nn.Conv2d][0], found[nn.Linear][-1]


def _take_channels(first: nn.Module, channels: int) -> None:
    assert isinstance(first, nn.Conv2d)
    if first.in_channels != channels:
        first.weight = nn.Parameter(spread(first.weight.detach(), channels))
        first.in_channels = channels


def _shrink_stem(net: nn.Module, name: str, channels: int, stride: int | None) -> None:
    """Give a net a stem for small pictures, in place."""
    first, names = net.get_submodule(name), dict(net.named_modules())
    assert isinstance(first, nn.Conv2d)
    pool = next((pool for pool in _STEM_POOLS if pool in names), None)
    if pool is not None:
        conv = nn.Conv2d(channels, first.out_channels, 3, stride=stride or 2, padding=1, bias=first.bias is not None)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        net.set_submodule(name, conv)
        net.set_submodule(pool, nn.Identity())
        return
    own = first.stride[0]
    chosen = stride or (max(own // 2, 1) if own <= _LARGEST_STRIDE else own)
    if own == first.kernel_size[0] and chosen < own:  # patches, which now overlap
        first.padding = ((own - chosen) // 2,) * 2
    first.stride = (chosen, chosen)
    _take_channels(first, channels)
