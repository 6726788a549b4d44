"""ResNet (He et al. 2015, arXiv:1512.03385) in torchvision's form, for 64x64 faces."""

from __future__ import annotations

from torch import Tensor, nn

from fakegan.checks import at_least
from fakegan.nets.cpu import take_channels_last


class ResNet(nn.Module):
    """A ResNet of torchvision's with a stem for small pictures, and two logits.

    The original's stem would leave a last map of 2x2. As is usual for small pictures (section 4.2 there), a 3x3
    convolution without a pooling stands in its place: maps of 32x32 down to 4x4. Raises a ValueError for another net
    than a ResNet, and for a stride below 1.
    """

    def __init__(
        self,
        net: nn.Module,  # torchvision.models.resnet18, say
        in_channels: int = 3,
        stride: int = 2,  # of the first convolution; 1 keeps each pixel's detail, and takes four times as long
    ) -> None:
        super().__init__()
        at_least(1, stride=stride)
        first, last = getattr(net, "conv1", None), getattr(net, "fc", None)
        if not isinstance(first, nn.Conv2d) or not isinstance(last, nn.Linear) or not hasattr(net, "maxpool"):
            raise ValueError(
                f"net: {type(net).__name__} is no ResNet of torchvision's: it has no conv1, maxpool and fc"
            )
        net.conv1 = nn.Conv2d(in_channels, first.out_channels, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
        net.fc = nn.Linear(last.in_features, 2)
        self.net = net
        take_channels_last(self)  # no other form: the net may be the user's

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 64, 64) in [-1, 1] -> (B, 2) logits
        logits: Tensor = self.net(x)
        return logits
