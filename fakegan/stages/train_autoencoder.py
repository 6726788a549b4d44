"""Stage 1: the autoencoder, trained on real faces, found among the artifacts, or named by the config."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fakegan.config.building import untrained
from fakegan.config.trust import refuse_untrusted
from fakegan.data.faces import Faces
from fakegan.detector import is_among, sha256_bytes
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.artifacts import Artifact, begun_by, names_digest, obtain
from fakegan.runs.checkpoints import load_checkpoint, refusing_misfits, save_checkpoint
from fakegan.runs.folder import AUTOENCODER_FILE
from fakegan.runs.settings import RunSettings
from fakegan.system import ranks
from fakegan.system.files import replacing
from fakegan.training import parts
from fakegan.training.fitting import fit, weights_of

RECIPE = 1  # of training: raise it when the same settings, faces and seed give other weights


def train_autoencoder(settings: RunSettings, faces: Faces) -> Path:
    """The autoencoder's file in the run: trained, found among the artifacts, or the one the config names."""
    own = own_autoencoder(settings)
    if not ranks.on_rank_zero(own.is_file):
        if settings.model.checkpoint is not None:
            source = named_autoencoder(settings.model.checkpoint, settings)
        else:
            source = _trained_autoencoder(settings, faces).path / AUTOENCODER_FILE
        ranks.on_rank_zero(lambda: _copy(source, own))
    _refuse_seen_faces(own, faces)
    return own


def own_autoencoder(settings: RunSettings) -> Path:
    """Where the run keeps its autoencoder, once it has one."""
    return settings.paths.run_dir / "autoencoder" / AUTOENCODER_FILE


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as building:
        shutil.copyfile(source, building)


def _trained_autoencoder(settings: RunSettings, faces: Faces) -> Artifact:
    rows = {"train": faces.splits.autoencoder_train, "val": faces.splits.autoencoder_val}
    geometry = faces.store.geometry
    ingredients = {
        "model": settings.model.node,
        "data": settings.data.modules.get("autoencoder"),
        "budget": asdict(settings.autoencoder_budget),
        "trainer": settings.trainer.numbers,
        "callbacks": settings.callbacks_that_count(stops_early=False),
        "seed": settings.seed,
        "geometry": [*geometry.shape(), *(["srgb"] if geometry.to_srgb else [])],  # files are alike, pixels may differ
        "faces": {split: names_digest(faces.store.sha256[r]) for split, r in rows.items()},
    }
    width = settings.model.node["net"].get("width")
    name = settings.model.name if width is None else f"{settings.model.name}-w{width}"
    artifact = obtain(
        settings.paths.artifact_dir,
        "autoencoder",
        name,
        RECIPE,
        ingredients,
        lambda folder: _fit_autoencoder(settings, faces, folder),
    )
    if artifact.reused:
        print(f"autoencoder: found trained, {artifact.path.name}", flush=True)
    return artifact


def _fit_autoencoder(settings: RunSettings, faces: Faces, folder: Path) -> dict[str, Any]:
    stage = settings.paths.run_dir / "autoencoder"
    rows = (faces.splits.autoencoder_train, faces.splits.autoencoder_val)
    data = parts.data_module(
        settings,
        "autoencoder",
        images=faces.store.images,
        labels=faces.store.labels,
        train_rows=rows[0],
        val_rows=rows[1],
        batch_size=settings.autoencoder_budget.batch_size,
        seed=settings.seed,
        workers=settings.data.workers,
    )
    print(f"autoencoder: training {settings.model.name} on {len(rows[0])} real faces", flush=True)
    before = ranks.on_rank_zero(lambda: begun_by(folder, stage))
    budget = settings.autoencoder_budget
    best = fit(lambda: parts.autoencoder(settings), data, stage, settings, budget, begun=before)
    content = {
        "net": untrained(settings.model.node["net"]),
        "weights": weights_of(best, "autoencoder."),
        "metrics": load_checkpoint(best)["metrics"],
        "learnt": torch.from_numpy(sha256_bytes(faces.store.sha256[rows[0]])),
        "selected_on": torch.from_numpy(sha256_bytes(faces.store.sha256[rows[1]])),
    }
    ranks.on_rank_zero(lambda: save_checkpoint(content, folder / AUTOENCODER_FILE))
    return {"trained_by": stage.parent.name}


def named_autoencoder(path: Path, settings: RunSettings) -> Path:
    """The file that `model.checkpoint` names.

    Raises:
        UsageError: none there, no autoencoder, or of another net than the config's.
    """
    candidates = (path, path / AUTOENCODER_FILE, path / "autoencoder" / AUTOENCODER_FILE)
    file = next((p for p in candidates if p.is_file()), None)
    if file is None:
        wrong = f"holds no {AUTOENCODER_FILE}" if path.exists() else "does not exist"
        raise UsageError(f"model.checkpoint={path} {wrong}: name an {AUTOENCODER_FILE} or a run that holds one")
    content = load_checkpoint(file)
    if not isinstance(content.get("net"), dict):
        raise UsageError(f"model.checkpoint={path} is no autoencoder: name the {AUTOENCODER_FILE} of a run")
    with refusing_misfits(file):
        refuse_untrusted(content["net"], "net", settings.trusted)
    wanted = untrained(settings.model.node["net"])
    for key in dict.fromkeys([*content["net"], *wanted]):
        there, here = content["net"].get(key), wanted.get(key)
        if there != here:
            told = f"{key:.80} {there!a:.80}"
            raise UsageError(f"model.checkpoint={path} has {told}, but the config says model.net.{key:.80}={here}")
    autoencoder_metrics(file)
    return file


def _refuse_seen_faces(autoencoder: Path, faces: Faces) -> None:
    """No test face may have trained the autoencoder or selected it, no validation face may have trained it.

    The study's fifth mistake; by construction here, but `model.checkpoint` can name any autoencoder.
    """
    content = load_checkpoint(autoencoder)
    with refusing_misfits(autoencoder):
        learnt, selected_on = (content[name].numpy() for name in ("learnt", "selected_on"))
        known = np.concatenate([learnt, selected_on])
    test, val = (sha256_bytes(faces.store.sha256[rows]) for rows in (faces.splits.test, faces.splits.val))
    shared = {
        "test": is_among(test, known).sum(),
        "validation": is_among(val, learnt).sum(),
    }
    for split, count in shared.items():
        if count:
            raise FakeganError(
                f"{count} {split} faces were among the faces that trained {autoencoder}: "
                "use the data.split of the run that trained it, or train anew without model.checkpoint"
            )


def autoencoder_metrics(autoencoder: Path) -> dict[str, float]:
    """l1 (in [-1, 1]), psnr (dB) and ssim on the validation faces it was selected by."""
    content = load_checkpoint(autoencoder)
    with refusing_misfits(autoencoder):
        return {name: float(content["metrics"][f"val/{name}"]) for name in ("l1", "psnr", "ssim")}
