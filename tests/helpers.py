"""What several test files share: made-up pictures, settings of a run, and what a folder holds."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hydra import compose, initialize_config_dir
from PIL import Image

from fakegan.config.overrides import to_hydra
from fakegan.runs.compose import register_resolvers, settings_of
from fakegan.runs.settings import RunSettings
from fakegan.system.places import CONF


def smooth_faces(count: int, rng: np.random.Generator, checkerboard: float = 0.0) -> npt.NDArray[np.uint8]:
    """Smooth random colour fields (count, 64, 64, 3); fakes get a checkerboard of that amplitude."""
    coarse = rng.uniform(60, 190, (count, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    board = checkerboard * (2 * (np.indices((64, 64)).sum(axis=0) % 2) - 1)
    noise = rng.normal(0, 2, (count, 64, 64, 3))
    return np.clip(coarse + board[..., None] + noise, 0, 255).astype(np.uint8)


def encode(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    picture.save(content, format, **options)
    return content.getvalue()


def picture(seed: int, side: int = 48) -> Image.Image:
    """Blobs of colour: no two seeds are near copies."""
    blobs = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int, first_seed: int = 0, suffix: str = "png") -> Path:
    """Picture files 000.png and so on in a folder, made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        content = encode(picture(first_seed + number), "JPEG" if suffix == "jpg" else suffix)
        (folder / f"{number:03d}.{suffix}").write_bytes(content)
    return folder


def as_zip(folder: Path) -> Path:
    """The PNG files below a folder as an archive beside it, with what a Mac adds."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/._000.png", b"resource fork")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compose_run(*overrides: str) -> RunSettings:
    """The settings that `python train.py` makes of these words, but for the run's folder, if they do not name it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(map(to_hydra, overrides)))
    return settings_of(RunSettings, cfg, overrides)
