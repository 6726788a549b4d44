"""Pictures as people feed and prepare them: a PIL image per item, a default DataLoader, a loop that saves.

Nothing of FakeGAN's is imported here. Where there is a choice, the faster way is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.harness import Turns

TO_BYTES = transforms.PILToTensor()
TO_FLOATS = transforms.Compose(
    [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)


class FaceArray(Dataset[tuple[Tensor, int]]):
    """Faces of a uint8 array (N, 64, 64, 3) in memory; each becomes a PIL image whenever it is asked for."""

    def __init__(self, images: npt.NDArray[np.uint8], transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), index % 2


def face_batches(turns: Turns, file: Path, to_floats: bool, batch_size: int) -> None:
    """A side: a unit is one shuffled batch of a .npy file's faces, all in memory: the study's Dataset."""
    _serve_batches(turns, FaceArray(np.load(file), TO_FLOATS if to_floats else TO_BYTES), batch_size)


def picture_batches(turns: Turns, folder: Path, to_floats: bool, batch_size: int) -> None:
    """A side: a unit is one shuffled batch of FOLDER/{real,fake}/*.jpg, opened when they are asked for."""
    resized = transforms.Compose([transforms.Resize((64, 64)), TO_FLOATS if to_floats else TO_BYTES])
    _serve_batches(turns, ImageFolder(str(folder), resized), batch_size)


def _serve_batches(turns: Turns, data: Dataset[tuple[Tensor, int]], batch_size: int) -> None:
    loader = DataLoader(data, batch_size, shuffle=True)  # the rest by its defaults
    turns.serve(taking(itertools.chain.from_iterable(itertools.repeat(loader))))


def taking(batches: Iterator[object]) -> Callable[[int], None]:
    """Work that takes so many batches and drops them."""

    def work(count: int) -> None:
        for _ in islice(batches, count):
            pass

    return work


def resize_loop(turns: Turns, pictures: Path, out: Path) -> None:
    """A side: a unit is one picture opened, resized to 64x64 and saved, one after the other in one process.

    Saved as JPEG: PNG would take longer.
    """
    out.mkdir()
    paths = sorted(pictures.rglob("*.jpg"))

    def work(count: int) -> None:
        for path in islice(itertools.cycle(paths), count):
            Image.open(path).convert("RGB").resize((64, 64)).save(out / path.name, quality=95)

    turns.serve(work)
