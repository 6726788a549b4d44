"""Finished runs made without training: metrics from simulated scores of the generated faces."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fakegan.data.faces import open_faces
from fakegan.data.sheets import png
from fakegan.evaluation.metrics import measures
from fakegan.evaluation.verdicts import calls
from fakegan.runs import ledger
from fakegan.runs.finished import FinishedRun
from fakegan.runs.folder import FACES_FILE
from fakegan.runs.results import FaceScores, write_metrics, write_scores
from fakegan.runs.settings import RunSettings


def simulated(settings: RunSettings, strength: float, resamples: int = 40) -> FinishedRun:
    """A run folder as the stages leave it, with scores as good as `strength`: 0 is guessing.

    All runs find the same faces hard, and each has noise of its own.
    """
    faces = open_faces(settings.data, settings.paths.data_dir, needs={})
    store, rows = faces.store, faces.splits.test
    labels, sources = store.labels[rows], store.sources[rows]
    hard = np.random.default_rng(0).normal(size=len(rows))
    own = np.random.default_rng([settings.seed, len(settings.label())]).normal(size=len(rows))
    scores = 1 / (1 + np.exp(-(strength * (labels - 0.5) + 0.8 * hard + 0.6 * own)))
    run_dir = settings.paths.run_dir
    run_dir.mkdir(parents=True)
    fakes = np.unique(sources[labels == 1]).tolist()
    learnt_from = sorted({*sources.tolist()} - {*settings.data.split.only_tested(fakes)})
    test = measures(scores, labels, sources, store.groups[rows], 0.5, learnt_from=learnt_from, resamples=resamples)
    content: dict[str, Any] = {"val": test, "test": test, "objective": test["auroc"]["value"]}
    content |= {"threshold": 0.5, "temperature": 1.25, "band": [0.4, 0.6], "data_fingerprint": store.fingerprint}
    content |= {"learnt_from": learnt_from, "command": "train.py seed=<1>", "versions": {"torch": "2.6"}}
    if settings.pipeline.fakes == "reconstructed":
        content["test_reconstructed"] = test
    if settings.pipeline.needs_autoencoder:
        content["autoencoder"] = {"l1": 0.1, "psnr": 24.5, "ssim": 0.7}
        write_analysis(run_dir / "analysis", sources, labels, effect=-0.6)
    columns = (store.files[rows], sources, labels, store.groups[rows])
    write_scores(run_dir / "scores.csv", FaceScores(*columns, scores, scores >= 0.5, calls(scores >= 0.5)))
    (run_dir / FACES_FILE).write_text(f"{store.fingerprint}\n")
    ledger.record(run_dir, len(rows), store.fingerprint)
    write_metrics(run_dir / "metrics.json", content)
    return FinishedRun(settings, run_dir)


def write_analysis(folder: Path, sources: Any, labels: Any, effect: float, probed: float = 0.7) -> None:
    """analysis.json with a Cohen's d of `effect` and probes of AUROC `probed`, and a picture."""

    def measure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    p = 0.0001 if abs(effect) > 0.1 else 0.6
    by_source = {}
    for s in np.unique(sources).tolist():
        own = sources == s
        label = "fake" if labels[own][0] else "real"
        by_source[s] = {"label": label, "n": int(own.sum()), "mean": measure(0.3), "median": 0.3}
    of_classes = {
        "cohens_d": measure(effect),
        "mann_whitney": {"auc": measure(0.4), "p": p},
        "kolmogorov_smirnov": {"d": measure(0.2), "p": p},
    }
    probe = {"auroc": measure(probed), "accuracy": measure(0.6), "features": 8, "n_train": 10}
    error = {"by_source": by_source, "real_vs_fake": of_classes}
    content = {
        "autoencoder": {"depth": 4, "width": 4, "code_channels": 16, "code_numbers": 4096, "psnr": 24.5},
        "errors": dict.fromkeys(("l1", "psnr", "ssim", "high_frequency"), error),
        "probes": {"code": probe, "residual_spectrum": probe},
        "complexity": {
            "name": "total variation",
            "spearman": {"l1": measure(0.8)},
            "real_vs_fake": {"cohens_d": measure(0.1)},
            "l1_given_complexity": {"cohens_d": measure(0.05)},
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "spectra.png").write_bytes(png(np.zeros((6, 6, 3), dtype=np.uint8)))
    (folder / "analysis.json").write_text(json.dumps(content, allow_nan=False))
