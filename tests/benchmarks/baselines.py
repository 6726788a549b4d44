"""Pictures as people feed and prepare them: a PIL image per item, a default DataLoader, a loop that saves.

Nothing of FakeGAN's is imported here. Where there is a choice, the faster way is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.harness import Turns

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


def picture_batches(turns: Turns, folder: Path, to_floats: bool, batch_size: int, image_folder: bool = False) -> None:
    """A side: a unit is one shuffled batch from a DataLoader with its defaults."""
    transform = TO_FLOATS if to_floats else TO_BYTES
    data = ImageFolder(str(folder), transform) if image_folder else PictureFolder(folder, transform)
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(data, batch_size, shuffle=True)
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
