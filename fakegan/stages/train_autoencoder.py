"""Stage 1: the autoencoder, trained on real faces, found among the artifacts, or named by the config."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fakegan.checks import SIZES
from fakegan.config.building import Node, untrained
from fakegan.config.trust import refuse_untrusted
from fakegan.data.faces import Faces
from fakegan.data.images import Geometry
from fakegan.data.store import is_geometry
from fakegan.errors import FakeganError, UsageError
from fakegan.judge import BATCH, is_among, sha256_bytes
from fakegan.runs.artifacts import earlier_run, names_digest, obtain
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import AUTOENCODER_FILE, AUTOENCODER_FOLDER
from fakegan.runs.settings import RunSettings
from fakegan.runs.stamp import misfits_as_errors
from fakegan.stages.stage import Run, Stage
from fakegan.system import ranks
from fakegan.system.files import replacing
from fakegan.training import parts
from fakegan.training.fitting import fit, weights_of

RECIPE = 1  # of training: raise it when the same settings, faces and seed give other weights
VAL_BATCH = 64  # faces of the smallest size at a time, on a CPU, which gains nothing by more; a GPU takes `BATCH`
log = logging.getLogger(__name__)


def train_autoencoder(run: Run) -> None:
    """Copy the autoencoder's file into the run: the file that the config names, an artifact, or one trained now."""
    own, named = run.autoencoder, run.settings.model.checkpoint
    source = find_trained(run) if named is None else named_autoencoder(named, run.settings, tell=log.debug)

    def keep() -> None:
        _refuse_seen_faces(source, run.faces)
        own.parent.mkdir(parents=True, exist_ok=True)
        with replacing(own) as building:
            shutil.copyfile(source, building)

    ranks.on_rank_zero(keep)


def find_trained(run: Run) -> Path:
    """The file of an autoencoder trained by this run's settings: an artifact, made now if there is none."""
    settings, faces = run.settings, run.faces
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
    root = settings.paths.artifact_dir
    found = obtain(root, "autoencoder", name, RECIPE, ingredients, lambda building: _fit(run, building))
    return found / AUTOENCODER_FILE


def _fit(run: Run, building: Path) -> dict[str, Any]:
    """Train, and write the artifact's file into the folder `building`."""
    settings, store, splits = run.settings, run.faces.store, run.faces.splits
    stage, budget = run.folder / AUTOENCODER_FOLDER, settings.autoencoder_budget
    data = parts.data_module(
        settings,
        "autoencoder",
        images=store.images,
        labels=store.labels,
        train_rows=splits.autoencoder_train,
        val_rows=splits.autoencoder_val,
        batch_size=budget.batch_size,
        seed=settings.seed,
        workers=settings.data.workers,
        val_batch_size=VAL_BATCH if run.device.type == "cpu" else BATCH,
    )
    log.info("autoencoder: training %s on %d real faces", settings.model.name, len(splits.autoencoder_train))
    before = ranks.on_rank_zero(lambda: earlier_run(building, stage))
    best = fit(lambda: parts.autoencoder(settings), data, stage, settings, budget, begun=before)
    content = {
        "net": untrained(_fitted(settings)["net"]),
        "weights": weights_of(best, "autoencoder."),
        "metrics": load_checkpoint(best)["metrics"],
        "learnt": torch.from_numpy(sha256_bytes(store.sha256[splits.autoencoder_train])),
        "selected_on": torch.from_numpy(sha256_bytes(store.sha256[splits.autoencoder_val])),
        "geometry": store.geometry.values(),
    }
    ranks.on_rank_zero(lambda: save_checkpoint(content, building / AUTOENCODER_FILE))
    return {"trained_by": run.folder.name}


def named_autoencoder(path: Path, settings: RunSettings, tell: Callable[[str], None] = log.warning) -> Path:
    """The file that `model.checkpoint` names; `tell` gets a sentence where it does not say how its faces were prepared.

    Raises:
        UsageError: none there, no autoencoder, of faces prepared otherwise, or of another net than the config's.
    """
    candidates = (path, path / AUTOENCODER_FILE, path / AUTOENCODER_FOLDER / AUTOENCODER_FILE)
    file = next((p for p in candidates if p.is_file()), None)
    if file is None:
        wrong = f"holds no {AUTOENCODER_FILE}" if path.exists() else "does not exist"
        raise UsageError(f"model.checkpoint={path} {wrong}: name an {AUTOENCODER_FILE} or a run that holds one")
    content = load_checkpoint(file)
    found, here = content.get("net"), settings.geometry
    if not isinstance(found, dict):
        raise UsageError(f"model.checkpoint={path} is no autoencoder: name the {AUTOENCODER_FILE} of a run")
    with misfits_as_errors(file):
        refuse_untrusted(found, "net", settings.trusted)
        learnt = _geometry_of(content, here)
    if learnt.shape() != here.shape():
        raise UsageError(
            f"model.checkpoint={path} learnt from faces prepared with {learnt.options()}, but those of the store were "
            f"prepared with {here.options()}: prepare it again as the former, or train an autoencoder on it"
        )
    if here.equalise and "geometry" not in content:
        tell(f"model.checkpoint={path} is of an earlier version: it does not say whether its faces were equalised")
    wanted = untrained(_fitted(settings)["net"])
    for key in dict.fromkeys([*found, *wanted]):
        if found.get(key) != wanted.get(key):
            has = f"{key:.80} {found.get(key)!a:.80}"
            raise UsageError(
                f"model.checkpoint={path} has {has}, but the config says model.net.{key:.80}={wanted.get(key)}"
            )
    autoencoder_metrics(file)
    return file


def _geometry_of(content: dict[str, Any], here: Geometry) -> Geometry:
    """How the faces of an autoencoder's file were prepared; of older files, which know the size at most, as `here`.

    Raises a ValueError for what is no geometry.
    """
    older = {**Geometry(crop=here.crop).values(), "size": content.get("size", SIZES[0])}
    if not is_geometry(found := content.get("geometry", older)):
        raise ValueError("its geometry is not one of this version")
    return Geometry.of(found) if "geometry" in content else replace(Geometry.of(found), equalise=here.equalise)


def _fitted(settings: RunSettings) -> Node:
    return parts.with_size(settings.model.node, "model", settings.face_size)


def autoencoder_metrics(autoencoder: Path) -> dict[str, float]:
    """l1 (in [-1, 1]), psnr (dB) and ssim on the validation faces it was selected by."""
    content = load_checkpoint(autoencoder)
    with misfits_as_errors(autoencoder):
        return {name: float(content["metrics"][f"val/{name}"]) for name in ("l1", "psnr", "ssim")}


def _refuse_seen_faces(autoencoder: Path, faces: Faces) -> None:
    """No test face may have trained the autoencoder or selected it, no validation face may have trained it.

    The study's fifth mistake. Splits prevent it, but `model.checkpoint` can name any autoencoder.
    """
    content = load_checkpoint(autoencoder)
    with misfits_as_errors(autoencoder):
        learnt, selected_on = (content[name].numpy() for name in ("learnt", "selected_on"))
        known = np.concatenate([learnt, selected_on])
    test, val = (sha256_bytes(faces.store.sha256[rows]) for rows in (faces.splits.test, faces.splits.val))
    for split, count in (("test", is_among(test, known).sum()), ("validation", is_among(val, learnt).sum())):
        if count:
            raise FakeganError(
                f"{count} {split} faces were among the faces that trained {autoencoder}: "
                "use the data.split of the run that trained it, or train anew without model.checkpoint"
            )


def _is_done(run: Run) -> bool:
    """Whether the run has its autoencoder; a FakeganError where it learnt from faces that this run keeps from it."""
    has_it = run.autoencoder.is_file()
    if has_it:
        _refuse_seen_faces(run.autoencoder, run.faces)
    return has_it


AUTOENCODER = Stage("autoencoder", train_autoencoder, needed=lambda pipeline: pipeline.needs_autoencoder, done=_is_done)
