"""What several test files share: made-up pictures, settings of a run, and what a folder holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from fakegan.config.building import TARGET
from fakegan.config.overrides import to_hydra
from fakegan.data.faces import Faces, open_faces
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store import Row, StoreWriter
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.compose import register_resolvers, settings_of
from fakegan.runs.settings import RunSettings
from fakegan.system.places import CONF

if TYPE_CHECKING:
    from fakegan.stages.stage import Run, Stage

PATHS = {"run_dir": "run", "artifact_dir": "artifacts", "data_dir": "data"}


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


def intervals(content: Any) -> Iterator[dict[str, float]]:
    """Every measure with its interval in the content of metrics.json or analysis.json."""
    if isinstance(content, dict):
        if set(content) == {"value", "low", "high"}:
            yield content
        for inner in content.values():
            yield from intervals(inner)


def compose_run(*overrides: str) -> RunSettings:
    """The settings that `python train.py` makes of these words, but for the run's folder, if they do not name it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(map(to_hydra, overrides)))
    return settings_of(RunSettings, cfg, overrides)


def tiny_run(store_path: Path, folder: Path, *overrides: str) -> RunSettings:
    """The settings of a run of seconds on a store of faces, in a folder of its own."""
    fixed = [
        *("data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu"),
        "classifier=simple_cnn",  # which learns a little in seconds
        *(f"paths.{name}={folder / place}" for name, place in PATHS.items()),
    ]
    return compose_run(*fixed, *overrides)


def elsewhere(settings: RunSettings, name: str) -> RunSettings:
    """The same run in another folder, beside its own."""
    return replace(settings, paths=replace(settings.paths, run_dir=settings.paths.run_dir.with_name(name)))


def write_store(path: Path, faces: Iterable[tuple[npt.NDArray[np.uint8], str, int, str]]) -> Path:
    """A store of faces: pixels (64, 64, 3), file, label and source of each."""
    with StoreWriter(path, Geometry()) as writer:
        for pixels, file, label, source in faces:
            face = face_from_pixels(np.asarray(pixels))
            writer.append(face.pixels, Row.of(face, file=file, label=label, source=source))
    return path


def stages_with(**replaced: Callable[[Run], None]) -> list[Stage]:
    """The stages of a run, some of them by name with another function to run."""
    from fakegan.stages.run import STAGES  # which loads Lightning

    return [replace(stage, run=replaced.get(stage.name, stage.run)) for stage in STAGES]


def run_of(settings: RunSettings, faces: Faces | None = None) -> Run:
    """A run as its stages get it, on the CPU."""
    from fakegan.stages.stage import Run

    return Run(settings, torch.device("cpu"), faces or open_faces(settings.data, settings.paths.data_dir, needs={}))


def save_autoencoder(
    path: Path,
    alike: bool = False,  # whether all reconstructions are
    **options: Any,
) -> Path:
    """The file of a small autoencoder that has learnt nothing: what changes training changes nothing of it."""
    from fakegan.nets.autogan import AutoGAN

    torch.manual_seed(0)
    options = {"depth": 1, "width": 2, "norm": "none", "code_channels": 3} | options
    weights = AutoGAN(**options).state_dict()
    if alike:
        weights = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    node = {TARGET: "fakegan.nets.autogan.AutoGAN", **options}
    save_checkpoint({"net": node, "weights": weights, "metrics": {"val/psnr": 12.5}}, path)
    return path


def steps_done(last: Path) -> int:
    """Of the fit that goes on from this checkpoint, since its first epoch."""
    return int(load_checkpoint(last)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


def same(ours: Any, theirs: Any, at: str = "") -> None:
    """Every tensor and number in two nested structures has the same bits."""
    assert type(ours) is type(theirs), at
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), at
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), at
        for key, value in ours.items():
            same(value, theirs[key], f"{at}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), at
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{at}[{i}]")
    elif not isinstance(ours, str):
        assert ours == theirs, at


def same_run(ours: Path, theirs: Path) -> None:
    """Both runs end with the same networks, optimizers, pools and metrics."""
    names = sorted(str(p.relative_to(ours)) for p in ours.rglob("*.ckpt"))
    assert names == sorted(str(p.relative_to(theirs)) for p in theirs.rglob("*.ckpt"))
    assert names
    for name in names:
        a, b = load_checkpoint(ours / name), load_checkpoint(theirs / name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics"):
            same(a[part], b[part], f"{name}: {part}")
    kept = [json.loads((run / "metrics.json").read_text()) for run in (ours, theirs)]
    for metrics in kept:
        del metrics["command"]
    assert kept[0] == kept[1]
