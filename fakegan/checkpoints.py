"""Checkpoint files: written so that a kill loses nothing, read so that no file can run code.

Every file carries a stamp (format, label convention), and a mismatch is an error before any number is made.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from fakegan.data.store import LABEL_CONVENTION
from fakegan.errors import FakeganError

FORMAT = 2
_STAMP = "fakegan"


def stamp() -> dict[str, Any]:
    """What every checkpoint says about itself."""
    return {"format": FORMAT, "label_convention": dict(LABEL_CONVENTION)}


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write `content` beside `path`, flush it to disk and rename it into place, stamped.

    Raises:
        FakeganError: the disk is full or the folder cannot be written; an earlier file is left as it was.
    """
    building = path.with_name(f".{path.name}.building-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.building-*"):  # of a process that was killed
            leftover.unlink()
        with building.open("wb") as file:
            torch.save({**content, _STAMP: stamp()}, file)
            file.flush()
            os.fsync(file.fileno())
        building.replace(path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        building.unlink(missing_ok=True)
        raise FakeganError(
            f"{path} could not be written ({error}); free some space or choose another folder"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, read with torch's restricted unpickler.

    Raises:
        FakeganError: no such file, a URL, damaged, not FakeGAN's, of another format or label convention.
    """
    if re.match(r"\w{2,}:/", str(path)):  # Path folds "//" into "/"
        raise FakeganError(f"{path} is a URL: download the checkpoint first and name the file")
    if not path.is_file():
        raise FakeganError(f"there is no checkpoint at {path}")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage surfaces as anything, IndexError in the unpickler among it
        raise FakeganError(f"{path} is damaged or not a FakeGAN checkpoint: name another, or train again") from error
    own = content.get(_STAMP) if isinstance(content, dict) else None
    if not isinstance(own, dict):
        raise FakeganError(f"{path} is not a FakeGAN checkpoint: name a .ckpt or .pt file from a run directory")
    if own.get("format") != FORMAT:
        raise FakeganError(
            f"{path} has checkpoint format {own.get('format')}, this version reads {FORMAT}: train again"
        )
    if own.get("label_convention") != LABEL_CONVENTION:
        raise FakeganError(
            f"{path} was trained with the labels {own.get('label_convention')}, but here they are "
            f"{LABEL_CONVENTION}: its scores would mean the opposite; train again"
        )
    return content


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written through `save_checkpoint` instead of a temporary folder elsewhere."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one checkpoint of a fit; a kill during the write leaves the last good one."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read one checkpoint of a fit, restricted and checked."""
        return load_checkpoint(Path(path))
