"""The other side of every row: plain code as people write it today, none of it FakeGAN's but the nets.

Where the original leaves a choice, the faster way is taken here, so that no ratio is won by a straw man.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TO_BYTES = transforms.Compose([transforms.Resize((64, 64)), transforms.PILToTensor()])
TO_FLOATS = transforms.Compose(
    [
        transforms.Resize((64, 64)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)


class PictureFolder(Dataset[tuple[Tensor, int]]):
    """FOLDER/real/*.jpg and FOLDER/fake/*.jpg, opened one by one whenever an item is asked for."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], Tensor]) -> None:
        self.items = [
            (path, label) for label, name in enumerate(("real", "fake")) for path in (folder / name).iterdir()
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.items[index]
        return self.transform(Image.open(path).convert("RGB")), label


def picture_batches(
    folder: Path, transform: Callable[[Image.Image], Tensor], batch_size: int
) -> Iterator[list[Tensor]]:
    """Shuffled batches without end from a DataLoader with its defaults."""
    loader = DataLoader(PictureFolder(folder, transform), batch_size, shuffle=True)
    return itertools.chain.from_iterable(itertools.repeat(loader))


class ImagePool:
    """Past reconstructions, one picture at a time, after the ImagePool of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> the same
        """Each picture, or with probability 1/2, once the pool is full, one from the past in its place."""
        if self.size == 0:
            return images
        shown = []
        for picture in images.unsqueeze(1):
            if len(self.images) < self.size:
                self.images.append(picture)
                shown.append(picture)
            elif random.uniform(0, 1) > 0.5:
                place = random.randrange(self.size)
                past = self.images[place].clone()
                self.images[place] = picture
                shown.append(past)
            else:
                shown.append(picture)
        return torch.cat(shown)


class StudyStep:
    """The adversarial step as the study wrote it.

    The loss of the generator runs it twice, the discriminator sees real and reconstructed faces in two batches,
    Adam is not fused, the pool is a loop over pictures. Gradients of the discriminator's weights are off while
    the generator learns, as in CycleGAN.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, pool_size: int = 50) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.pool = ImagePool(pool_size)
        self.opt_gen = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.8, 0.9))
        self.opt_disc = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.8, 0.9))

    def __call__(self, real: Tensor) -> dict[str, Tensor]:  # (B, 3, 64, 64) -> the step's losses
        """One step of both networks."""
        self.discriminator.requires_grad_(False)
        score = self.discriminator(self.generator(real))
        adversarial = F.mse_loss(score, torch.ones_like(score))
        recon = self.generator(real)
        l1 = F.l1_loss(recon, real)
        loss = (adversarial + 0.8 * l1) / 1.8
        self.opt_gen.zero_grad()
        loss.backward()
        self.opt_gen.step()

        self.discriminator.requires_grad_(True)
        real_score = self.discriminator(real)
        recon_score = self.discriminator(self.pool.query(recon.detach()))
        on_real = F.mse_loss(real_score, torch.ones_like(real_score))
        on_recon = F.mse_loss(recon_score, torch.zeros_like(recon_score))
        disc = (on_real + on_recon) / 2
        self.opt_disc.zero_grad()
        disc.backward()
        self.opt_disc.step()
        return {"l1": l1.detach(), "adversarial": adversarial.detach(), "discriminator": disc.detach()}


def classifier_step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, label: Tensor) -> Tensor:
    """One step of a classifier in a bare loop: its loss."""
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), label)
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def reconstruct_one_by_one(autoencoder: nn.Module, faces: Tensor) -> Tensor:  # uint8 (N, 64, 64, 3) -> the same
    """Faces through the autoencoder in batches of one."""
    out = torch.empty_like(faces)
    for i in range(len(faces)):
        x = faces[i].permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1  # (1, 3, 64, 64)
        recon = autoencoder(x)[0]
        out[i] = ((recon + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8)
    return out
