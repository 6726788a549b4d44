"""The order of a run's stages: train_autoencoder, reconstruct, train_classifier, analyse, test.

Stages hand files to each other, never live objects: a run that was stopped goes on from what is there. What a
stage may see is decided by its rows: test faces enter when the detector is finished and nowhere earlier.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakegan.data.faces import Faces, open_faces
from fakegan.detector import DETECTOR_FILE
from fakegan.errors import FakeganError
from fakegan.evaluation.results import METRICS_FILE, SCORES_FILE, read_metrics, table, write_metrics
from fakegan.pipeline.analyse import analyse
from fakegan.pipeline.examples import examples, needs
from fakegan.pipeline.fitting import pick_device
from fakegan.pipeline.settings import FACES_FILE, RunSettings
from fakegan.pipeline.test import provenance, test
from fakegan.pipeline.train_autoencoder import autoencoder_metrics, named_autoencoder, train_autoencoder
from fakegan.pipeline.train_classifier import make_classifier, train_classifier


@dataclass(frozen=True)
class Outcome:
    """What a run ends with."""

    objective: float  # the selection score, higher is better: validation AUROC, or an autoencoder's PSNR
    text: str  # a short table, and where to look next


def run(settings: RunSettings) -> Outcome:
    """Every stage that the pipeline needs and that has not finished before."""
    metrics_file = settings.paths.run_dir / METRICS_FILE
    if metrics_file.is_file():
        print(f"{settings.paths.run_dir} had finished already: nothing was done", flush=True)
    else:
        _run_stages(settings)
    metrics = read_metrics(metrics_file)
    return Outcome(float(metrics["objective"]), _closing_words(settings, metrics))


def _run_stages(settings: RunSettings) -> None:
    pick_device(settings.trainer.accelerator)  # what cannot be is said before anything starts
    if settings.pipeline.trains_classifier:
        make_classifier(settings)  # so that a wrong option costs no training
    if settings.model.checkpoint is not None and settings.pipeline.needs_autoencoder:
        named_autoencoder(settings.model.checkpoint, settings)
    faces = open_faces(settings.data, settings.paths.data_dir, needs(settings.pipeline))
    _same_faces_as_before(settings.paths.run_dir / FACES_FILE, faces)
    for reason, count in faces.splits.left_out.items():
        print(f"{count} faces are in no split: {reason}", flush=True)
    autoencoder = train_autoencoder(settings, faces) if settings.pipeline.needs_autoencoder else None
    view = settings.pipeline.seen
    if view is not None:
        shown = examples(settings, faces, autoencoder)
        if not (settings.paths.run_dir / DETECTOR_FILE).is_file():
            train_classifier(settings, faces, view, shown, autoencoder)
        if autoencoder is not None:
            analyse(settings, faces, autoencoder)
        test(settings, faces, shown, autoencoder)
    elif autoencoder is not None:
        values = autoencoder_metrics(autoencoder)
        metrics = {"autoencoder": values, "objective": values["psnr"], **provenance()}
        write_metrics(settings.paths.run_dir / METRICS_FILE, metrics)


def _same_faces_as_before(path: Path, faces: Faces) -> None:
    """A run that goes on must go on with the faces it began with: others may have been tested on, or learnt from."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{faces.store.fingerprint}\n")
    elif path.read_text().strip() != faces.store.fingerprint:
        raise FakeganError(f"{faces.store.path} has changed since this run began: start a new run")


def _closing_words(settings: RunSettings, metrics: dict[str, Any]) -> str:
    run_dir = Path(os.path.relpath(settings.paths.run_dir))
    lines = [""]
    if "autoencoder" in metrics:
        a = metrics["autoencoder"]
        values = f"PSNR {a['psnr']:.2f} dB, L1 {a['l1']:.4f}, SSIM {a['ssim']:.3f}"
        lines.append(f"{settings.model.name}, validation faces: {values}")
    if "test" in metrics:
        lines += [
            f"{settings.label()} · seed {settings.seed}: test split, 95% intervals",
            f"threshold {metrics['threshold']:.3f} and temperature {metrics['temperature']:.2f} from validation",
            table(metrics["test"]),
        ]
        if "test_reconstructed" in metrics:
            lines += ["test faces against their own reconstructions:", table(metrics["test_reconstructed"])]
        lines += [
            f"validation AUROC {metrics['objective']:.3f}",
            "",
            f"numbers:  {run_dir / METRICS_FILE} and {SCORES_FILE}",
            f"pictures: {run_dir / 'test'}, or all runs: tensorboard --logdir {run_dir.parent}",
            f"again:    python evaluate.py run={run_dir}",
        ]
    else:
        lines.append(f"use it:   python train.py model.checkpoint={run_dir} ... with the same model and budget words")
    return "\n".join(lines)
