"""What training changes in a classifier's faces, on the device of the batch; validation and test see them unchanged.

Every number drawn is a function of seed, epoch and face, or of the number of the batch, so that a resumed run and
several processes train on the same pictures to the bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fakegan.checks import a_probability, a_share, at_least
from fakegan.data.draws import Draws


class Augment(nn.Module):
    """The changes of training faces: places and sizes, then the picture itself, then mixtures of two faces.

    A subclass of the user's own may override `forward`, `mix`, or both.
    """

    def __init__(
        self,
        flip: bool = True,  # mirror half of the faces, each epoch another half; the autoencoder's are mirrored anyway
        shift: int = 0,  # pixels at most, to each side; the border is reflected
        scale: float = 0.0,  # larger or smaller by this share at most: 0.1 is 10%
        scaled: float = 0.5,  # share of the faces that are scaled: it blurs them, and the faces of a test are not
        mixup: float = 0.0,  # probability that the faces of a batch are each mixed with another (arXiv:1710.09412)
        cutmix: float = 0.0,  # probability that they get a box of another face instead (arXiv:1905.04899)
        degrade: nn.Module | None = None,  # changes the picture: fakegan.data.degrade.Degrade, or a module of your own
    ) -> None:
        super().__init__()
        at_least(0, shift=shift, mixup=mixup, cutmix=cutmix)
        a_share(scale=scale)
        a_probability(scaled=scaled)
        if mixup + cutmix > 1:
            raise ValueError(f"mixup={mixup} and cutmix={cutmix} are more than all batches: lower one, to a sum of 1")
        self.flip, self.shift, self.scale, self.scaled = flip, shift, scale, scaled
        self.mixup, self.cutmix, self.degrade = mixup, cutmix, degrade

    @property
    def mixes(self) -> bool:
        """Whether two faces are ever mixed: their batch then has two labels a face."""
        return self.mixup + self.cutmix > 0

    @property
    def shows(self) -> bool:
        """Whether a sheet of augmented faces shows more than mirrored ones."""
        return self.mixes or bool(self.shift or self.scale) or self.degrade is not None

    def forward(
        self,
        pictures: dict[str, Tensor],  # "image" and/or "recon", each (B, 3, H, W) in [-1, 1]
        draws: Draws,
    ) -> dict[str, Tensor]:
        """The faces at other places and sizes, their reconstructions alike, and degraded; the same shapes and range."""
        if self.shift or self.scale:
            shift = (draws.uniform(2) * (2 * self.shift + 1)).floor() - self.shift  # (B, 2), whole pixels
            is_scaled = draws.uniform() < self.scaled
            scale = torch.where(is_scaled, draws.between(1 - self.scale, 1 + self.scale), 1)
            pictures = {name: moved(faces, shift, scale) for name, faces in pictures.items()}
        if self.degrade is not None:
            pictures = {name: self.degrade(faces, draws) for name, faces in pictures.items()}
        return pictures

    def mix(
        self,
        x: Tensor,  # (B, C, H, W), what the classifier sees
        others: Tensor,  # the same of the faces to mix in
        draws: Draws,  # of the batch: one key
    ) -> tuple[Tensor, Tensor]:
        """The mixtures, and the others' share in them, (): from 0 to a half, the same for all faces of a batch.

        Shares up to a half are all there are: a larger share of one face is a smaller share of the other. mixup's are
        uniform, as those of its Beta(1, 1) are; cutmix's area is uniform, and its box lies within the picture.
        """
        kind, share, top, left = draws.uniform(4)[0].unbind()
        share = share / 2
        box = _span(x.shape[2], share, top)[:, None] & _span(x.shape[3], share, left)  # (H, W)
        at = torch.where(kind < self.mixup, share, box.float()) * (kind < self.mixup + self.cutmix)
        return x.lerp(others, at.to(x.dtype)), at.mean()


def moved(
    faces: Tensor,  # (B, C, H, W)
    shift: Tensor,  # (B, 2), pixels to the right and down
    scale: Tensor,  # (B,), factors of the size; the centre stays
) -> Tensor:
    """Faces of another size, then at another place: bilinear, and the border reflected."""

    def sources(side: int, by: Tensor) -> Tensor:
        """Where each pixel of a line comes from, (B, side); -1 and 1 are the edges of the picture."""
        centres = (2 * torch.arange(side, device=faces.device) + 1) / side - 1
        return (centres - 2 * by[:, None] / side) / scale[:, None]

    x, y = sources(faces.shape[3], shift[:, 0]), sources(faces.shape[2], shift[:, 1])
    grid = torch.stack([x[:, None, :].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], dim=3)
    return F.grid_sample(faces, grid.to(faces.dtype), padding_mode="reflection", align_corners=False)


def _span(side: int, area: Tensor, place: Tensor) -> Tensor:  # -> bool (side,)
    """Which of a line's pixels lie in a box of that share of the area, at a place from 0 to 1 of those within."""
    length = (area.sqrt() * side).round()
    first = (place * (side - length + 1)).floor()
    pixels = torch.arange(side, device=area.device)
    return (pixels >= first) & (pixels < first + length)
