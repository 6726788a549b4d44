"""Stage 4: the test split, scored once by the finished detector; metrics.json comes last."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fakegan
from fakegan.data.faces import Faces
from fakegan.detector import Detector
from fakegan.errors import FakeganError
from fakegan.labels import REAL
from fakegan.runs.finished import LEARNT_FROM
from fakegan.runs.folder import METRICS_FILE
from fakegan.runs.ledger import command, record
from fakegan.runs.results import write_metrics
from fakegan.runs.settings import RunSettings
from fakegan.stages.examples import RECONSTRUCTED, Examples
from fakegan.stages.reconstruct import LiveReconstructions
from fakegan.stages.scoring import chosen, decisions, score, score_examples, score_reconstructed
from fakegan.stages.summary import log_test
from fakegan.stages.train_autoencoder import autoencoder_metrics
from fakegan.system.devices import use_device


def test(settings: RunSettings, faces: Faces, examples: Examples, autoencoder: Path | None) -> None:
    """Score the test split once, write what people read, metrics.json last."""
    run_dir = settings.paths.run_dir
    device = use_device(settings.trainer.accelerator)
    detector = Detector.load(run_dir, device, settings.trusted)
    store, rows = faces.store, faces.splits.test
    known = int(detector.knows(store.sha256[rows]).sum())
    if known:
        raise FakeganError(f"{known} test faces took part in training: the store has changed since; start a new run")
    print(f"test: scoring {len(rows)} faces", flush=True)
    record(run_dir, len(rows), store.fingerprint)
    learnt_from = np.unique(examples.sources[np.concatenate([examples.train, examples.val])]).tolist()
    tested = replace(score(detector, store, rows, "test faces"), learnt_from=frozenset(learnt_from))
    content: dict[str, Any] = {
        "val": score_examples(detector, examples, examples.val).measures(),
        "test": tested.measures(),
    }
    content["objective"] = content["val"]["auroc"]["value"]
    if settings.pipeline.fakes == RECONSTRUCTED and autoencoder is not None:
        real = store.labels[rows] == REAL
        recon = LiveReconstructions(autoencoder, store.images, device, settings.trusted)
        own_task = score_reconstructed(detector, store, recon, rows[real], chosen(tested, real))
        own_task.write(run_dir / "test_reconstructed")
        content["test_reconstructed"] = own_task.measures()
    if autoencoder is not None:
        content["autoencoder"] = autoencoder_metrics(autoencoder)
    content |= {**decisions(detector, store), LEARNT_FROM: learnt_from}
    tested.write(run_dir, "test")
    log_test(settings, content, tested)
    write_metrics(run_dir / METRICS_FILE, {**content, **provenance()})


def provenance() -> dict[str, Any]:
    """With what the numbers were made."""
    versions = {
        "fakegan": fakegan.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": version("pytorch_lightning"),
        "numpy": np.__version__,
    }
    return {"command": command(), "versions": versions}
