"""AlexNet (Krizhevsky et al. 2012, in torchvision's one-column form) for 64x64 faces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet

from fakegan.errors import FakeganError
from fakegan.nets.dropout import Dropout
from fakegan.nets.heads import zero_init

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class AlexNet(nn.Module):
    """torchvision's five convolutions, the first with stride 2 instead of 4, under a smaller head: two logits.

    At 64x64 the original's stride of 4 leaves a 1x1 map after the third pooling, stretched to 6x6 by repeating
    one number 36 times. Stride 2 leaves 2x2 and four times the detail, which is where generators leave their
    traces; the convolutions keep their shapes, so ImageNet weights still fit. The map of 256 x 2 x 2 numbers
    then feeds two hidden layers of `hidden` units in place of 4096 (the original's map has 9,216 numbers).
    """

    def __init__(
        self,
        in_channels: int = 3,
        hidden: int = 1024,  # units of the two hidden layers
        dropout: float = 0.5,  # share of the units before the hidden layers that are left out in training
        imagenet: bool = False,  # take inputs as ImageNet's weights expect them; `load_imagenet` fetches those
    ) -> None:
        super().__init__()
        self.features = alexnet(weights=None).features
        first = self.features[0]
        first.stride = (2, 2)
        if in_channels != first.in_channels:
            self.features[0] = nn.Conv2d(in_channels, 64, 11, stride=2, padding=2)
        self.head = nn.Sequential(
            nn.Flatten(),
            Dropout(dropout),
            nn.Linear(256 * 2 * 2, hidden),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            zero_init(nn.Linear(hidden, 2)),
        )
        self.imagenet = imagenet
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 64, 64) in [-1, 1] -> (B, 2) logits
        if self.imagenet:
            x = ((x + 1) / 2 - self.mean) / self.std  # the range the weights were trained on
        # Planes: its convolutions and poolings, unlike the other nets', are no faster with channels last.
        logits: Tensor = self.head(self.features(x.contiguous()))
        return logits

    def load_imagenet(self) -> None:
        """Start the convolutions from ImageNet weights; torch keeps the download.

        Raises:
            FakeganError: another view than RGB, or the weights cannot be downloaded.
        """
        if self.features[0].in_channels != 3:
            raise FakeganError(
                "ImageNet weights take RGB, but this view has more channels: set classifier.net_options.imagenet=false"
            )
        try:
            weights = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # urllib, ssl and hash errors all mean the same to the reader
            raise FakeganError(
                f"AlexNet's ImageNet weights could not be downloaded ({error}); "
                "set classifier.net_options.imagenet=false to train from scratch"
            ) from error
        prefix = "features."
        self.features.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
