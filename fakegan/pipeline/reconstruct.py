"""Stage 2: reconstructions of the classifier's faces, made once, in large batches, kept as uint8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

import fakegan.data.pixels
import fakegan.nets.autogan
from fakegan.checkpoints import load_checkpoint
from fakegan.data.faces import Faces
from fakegan.detector import reconstruct
from fakegan.nets.autogan import AutoGAN
from fakegan.pipeline.artifacts import Reconstructions, file_digest, names_digest, obtain
from fakegan.pipeline.fitting import pick_device
from fakegan.pipeline.settings import RunSettings

BATCH = 256  # faces at a time
_CODE = (fakegan.nets.autogan, fakegan.data.pixels)  # what turns faces into reconstructions


def reconstruct_faces(settings: RunSettings, faces: Faces, autoencoder: Path) -> Reconstructions:
    """Reconstructions of the classifier's training and validation faces, made once in large batches."""
    rows = np.union1d(faces.splits.train, faces.splits.val)
    ingredients = {
        "autoencoder": file_digest(autoencoder),
        "faces": faces.store.fingerprint,
        "code": file_digest(*(Path(module.__file__ or "") for module in _CODE)),
        "rows": names_digest(rows.astype(str)),
    }
    artifact = obtain(
        settings.paths.artifact_dir,
        "reconstructions",
        settings.model.name,
        ingredients,
        lambda folder: _write_reconstructions(autoencoder, faces.store.images, rows, folder, settings),
    )
    if artifact.reused:
        print(f"reconstruct: found, {artifact.path.name}", flush=True)
    return Reconstructions(artifact.path)


def _write_reconstructions(
    autoencoder: Path,
    images: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    folder: Path,
    settings: RunSettings,
) -> dict[str, Any]:
    device = pick_device(settings.trainer.accelerator)
    net = _load_autoencoder(autoencoder).to(device).eval()
    np.save(folder / "rows.npy", rows)
    starts = range(0, len(rows), BATCH)
    with (folder / "images.npy").open("wb") as out:  # a memory map would meet a full disk with a crash
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), 64, 64, 3)}
        np.lib.format.write_array_header_1_0(out, header)
        for start in tqdm(starts, f"reconstructing {len(rows)} faces", disable=None):
            pixels = torch.from_numpy(images[rows[start : start + BATCH]]).to(device)
            out.write(reconstruct(net, pixels).cpu().numpy().tobytes())
    return {"count": len(rows)}


def _load_autoencoder(path: Path) -> AutoGAN:
    content = load_checkpoint(path)
    net = AutoGAN(**content["options"])
    net.load_state_dict(content["weights"])
    return net
