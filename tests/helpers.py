"""What several test files share: made-up pictures, settings of a run, and what a folder holds."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hydra import compose, initialize_config_dir
from PIL import Image

from fakegan.config.overrides import opened
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
        cfg = compose("train", list(map(opened, overrides)))
    return settings_of(RunSettings, cfg, overrides)
