"""AlexNet (Krizhevsky et al. 2012, in torchvision's one-column form) for faces of 64 to 256 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights

from fakegan.checks import SIZES, a_share, at_least, one_of
from fakegan.errors import FakeganError
from fakegan.nets.backbone import IMAGENET_MEAN, IMAGENET_STD
from fakegan.nets.cpu import quicken
from fakegan.nets.dropout import Dropout

_WIDTH = 64  # of torchvision's AlexNet, which ImageNet weights fit
_SIDE = 6  # of the map that its head reads


class AlexNet(nn.Module):
    """torchvision's five convolutions, the first with stride 2 instead of 4, under a smaller head: two logits.

    At 64x64 the original's stride of 4 leaves a 1x1 map after the third pooling, stretched to 6x6 by repeating
    one number 36 times. Stride 2 leaves 2x2 and four times the detail, which is where generators leave their
    traces; at 128x128 it leaves the original's 6x6, and at 256x256 a map that is averaged to 6x6, as the original's
    is. At width 64 the convolutions have torchvision's shapes, so ImageNet weights fit. All weights start as
    torch draws them, as torchvision's do: with a last layer at zero, training stands still for longer. Raises a
    ValueError for an option out of its range, and for ImageNet weights of another width or view than theirs.
    """

    def __init__(
        self,
        in_channels: int = 3,  # channels of the view
        width: int = 64,  # channels of the first convolution; the others have torchvision's proportions
        hidden: int = 1024,  # units of the two hidden layers; torchvision's have 4096, on a map of 9216 numbers
        dropout: float = 0.5,  # share of the units left out in training, before each hidden layer
        imagenet: bool = False,  # take inputs as ImageNet's weights expect them; `load_imagenet` downloads the weights
        size: int = SIZES[0],  # pixels a side of the faces
    ) -> None:
        super().__init__()
        at_least(1, in_channels=in_channels, width=width, hidden=hidden)
        a_share(dropout=dropout)
        one_of(SIZES, size=size)
        if imagenet and in_channels != 3:
            raise ValueError(f"imagenet=true takes RGB, not a view of {in_channels} channels: set imagenet=false")
        if imagenet and width != _WIDTH:
            raise ValueError(f"imagenet=true needs torchvision's channels: set width={_WIDTH}, not {width}")
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 11, stride=2, padding=2),
            nn.ReLU(inplace=True),  # (B, W, 29, 29)
            nn.MaxPool2d(3, stride=2),  # (B, W, 14, 14)
            nn.Conv2d(width, 3 * width, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # (B, 3W, 6, 6)
            nn.Conv2d(3 * width, 6 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(6 * width, 4 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # (B, 4W, 2, 2) at size 64
        )
        side = _side_of_map(size)
        if side > _SIDE:  # not an adaptive pooling, whose windows differ and which has no deterministic form on a GPU
            self.features.append(nn.AvgPool2d(side - 2 * (_SIDE - 1), stride=2))
        self.head = nn.Sequential(
            nn.Flatten(),
            Dropout(dropout),
            nn.Linear(4 * width * min(side, _SIDE) ** 2, hidden),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, 2),
        )
        self.imagenet = imagenet
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        quicken(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, size, size) in [-1, 1] -> (B, 2) logits
        if self.imagenet:
            x = ((x + 1) / 2 - self.mean) / self.std  # the range the weights were trained on
        logits: Tensor = self.head(self.features(x))
        return logits

    def load_imagenet(self) -> None:
        """Start the convolutions from ImageNet weights; a FakeganError where they cannot be downloaded."""
        try:
            weights = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # urllib, ssl and hash errors all mean the same to the reader
            advice = "set classifier.net.imagenet=false to train from scratch"
            raise FakeganError(f"AlexNet's ImageNet weights could not be downloaded ({error}); {advice}") from error
        prefix = "features."
        self.features.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})


def _side_of_map(size: int) -> int:
    """Of the convolutions' map of a face: a kernel of 11, padded by 2, and three poolings of 3 have stride 2."""
    side = (size + 4 - 11) // 2 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
