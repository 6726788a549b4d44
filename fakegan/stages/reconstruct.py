"""Reconstructions of faces by the run's autoencoder: made once, in large batches, by all processes, kept as uint8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fakegan.config.trust import trust_names
from fakegan.data.arrays import RowArray, Rows, at_once, npy_header
from fakegan.detector import reconstruct, trusted_net
from fakegan.judge import BATCH
from fakegan.runs.artifacts import IMAGES_FILE, ROWS_FILE, Reconstructions, file_digest, names_digest, obtain
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.stamp import misfits_as_errors
from fakegan.stages.stage import Run
from fakegan.system import ranks
from fakegan.system.log import quiet

RECIPE = 1  # of reconstructing: raise it when the same autoencoder makes other pixels of the same faces


def reconstruct_faces(
    run: Run,  # on all of its processes
    images: RowArray,  # by store row
    fingerprint: str,  # of those images
    rows: Rows,  # sorted: which of them
) -> Reconstructions:
    """Reconstructions of some faces, made now or found among the artifacts."""

    size = run.faces.store.geometry.size

    def write(folder: Path) -> dict[str, Any]:
        """Each process writes its share of the batches into its place in the one file."""
        live = LiveReconstructions(run, images)
        header, length, face_bytes = npy_header(len(rows), size), at_once(BATCH, size), 3 * size**2
        if ranks.is_rank_zero():
            np.save(folder / ROWS_FILE, rows)
            (folder / IMAGES_FILE).write_bytes(header)
        ranks.wait()
        starts = ranks.share(range(0, len(rows), length))
        with (folder / IMAGES_FILE).open("r+b") as out:  # a memory map would meet a full disk with a crash
            out.seek(len(header) + (starts[0] * face_bytes if starts else 0))
            hidden = quiet() or not ranks.is_rank_zero() or None  # None: where there is no terminal
            for start in tqdm(starts, f"reconstructing {len(rows)} faces", disable=hidden):
                out.write(live[rows[start : start + length]].tobytes())
        return {"count": len(rows)}

    ingredients = {
        "autoencoder": file_digest(run.autoencoder),
        "faces": fingerprint,
        "rows": names_digest(rows.astype(str)),
    }
    name, root = run.settings.model.name, run.settings.paths.artifact_dir
    return Reconstructions(obtain(root, "reconstructions", name, RECIPE, ingredients, write), size)


class LiveReconstructions:
    """Faces by row as the autoencoder reconstructs them, made when they are asked for."""

    def __init__(
        self,
        run: Run,  # with a trained autoencoder
        images: RowArray,  # by store row
    ) -> None:
        net = load_autoencoder(run.autoencoder, run.faces.store.geometry.size, run.settings.trusted)
        self.net = net.to(run.device)
        self.images, self.device = images, run.device

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:  # (B,) -> (B, size, size, 3)
        recon: npt.NDArray[np.uint8] = self.with_faces(rows)[1].cpu().numpy()
        return recon

    def with_faces(self, rows: Rows) -> tuple[Tensor, Tensor]:  # (B,) -> uint8 (B, size, size, 3) each
        """Faces and their reconstructions, on the run's device."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[rows])).to(self.device)
        return pixels, reconstruct(self.net, pixels)


def load_autoencoder(path: Path, size: int, trust: Sequence[str] = ()) -> nn.Module:
    """The net in an autoencoder's file, in eval mode; a FakeganError for damage, another version or untrusted code."""
    names = trust_names(trust)
    content = load_checkpoint(path)
    with misfits_as_errors(path):
        net = trusted_net(content["net"], content["weights"], "net", lambda _: (1, 3, size, size), names)
        if not all(weights.isfinite().all() for weights in net.state_dict().values()):
            raise ValueError("some weights are no numbers")
    return net.eval()
