"""Stage 4: the test split, scored once by the finished detector; metrics.json comes last."""

from __future__ import annotations

from typing import Any

from fakegan.data.faces import Faces
from fakegan.data.store import LABEL_CONVENTION
from fakegan.detector import Detector
from fakegan.errors import FakeganError
from fakegan.evaluation.metrics import measures
from fakegan.evaluation.results import METRICS_FILE, SCORES_FILE, write_metrics, write_scores
from fakegan.pipeline.fitting import pick_device
from fakegan.pipeline.settings import RunSettings
from fakegan.pipeline.summary import write_pictures, write_tensorboard
from fakegan.pipeline.train_autoencoder import AUTOENCODER_FILE, autoencoder_metrics


def test(settings: RunSettings, faces: Faces) -> None:
    """Score the test split once, write what people read, metrics.json last."""
    run_dir = settings.paths.run_dir
    detector = Detector.load(run_dir, pick_device(settings.trainer.accelerator))
    store, rows = faces.store, faces.splits.test
    known = int(detector.knows(store.sha256[rows]).sum())
    if known:
        raise FakeganError(f"{known} test faces took part in training: the store has changed since; start a new run")
    print(f"test: scoring {len(rows)} faces", flush=True)
    scores = detector.scores(store.images, rows)
    labels, sources = store.labels[rows], store.sources[rows]
    val = faces.splits.val
    val_scores = detector.scores(store.images, val)
    content: dict[str, Any] = {
        "val": measures(val_scores, store.labels[val], store.sources[val], detector.threshold),
        "test": measures(scores, labels, sources, detector.threshold),
        "threshold": detector.threshold,
        "label_convention": LABEL_CONVENTION,
        "data_fingerprint": store.fingerprint,
    }
    content["objective"] = content["val"]["auroc"]["value"]
    autoencoder = run_dir / "autoencoder" / AUTOENCODER_FILE
    if autoencoder.is_file():
        content["autoencoder"] = autoencoder_metrics(autoencoder)
    write_scores(run_dir / SCORES_FILE, store.files[rows], sources, labels, scores, detector.threshold)
    write_pictures(run_dir / "test", scores, labels, sources, detector.threshold)
    write_tensorboard(run_dir / "test", settings, content, scores, labels, sources)
    write_metrics(run_dir / METRICS_FILE, content)
