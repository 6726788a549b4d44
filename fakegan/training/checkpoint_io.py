"""How Lightning writes and reads its checkpoints here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written through `save_checkpoint` instead of a temporary folder elsewhere."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one checkpoint of a fit; a kill during the write leaves the last good one."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read one checkpoint of a fit, restricted and checked."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint that another has replaced, as a file and nothing else.

        Its path may have come out of a checkpoint from elsewhere, and Lightning would remove whole folders.
        """
        file = Path(path)
        if file.suffix == ".ckpt" and ".." not in file.parts:
            file.unlink(missing_ok=True)
