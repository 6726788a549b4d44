"""Stage 5: the finished detector scores the test split once; results go to files and loggers, last to metrics.json."""

from __future__ import annotations

import logging
import platform
import re
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

import fakegan
from fakegan.detector import Detector
from fakegan.errors import FakeganError
from fakegan.evaluation import plots
from fakegan.evaluation.error_plots import rendered
from fakegan.evaluation.metrics import seen_and_unseen
from fakegan.labels import FAKE, REAL
from fakegan.runs.finished import LEARNT_FROM
from fakegan.runs.folder import METRICS_FILE, RECONSTRUCTED_FOLDER, TEST_FOLDER, VALIDATION_FOLDER
from fakegan.runs.ledger import command, record
from fakegan.runs.results import write_metrics
from fakegan.runs.robustness import Robustness
from fakegan.runs.settings import RunSettings
from fakegan.stages.examples import RECONSTRUCTED
from fakegan.stages.reconstruct import LiveReconstructions
from fakegan.stages.robustness import figures_of_run, robust, subject, write_robustness
from fakegan.stages.scoring import ScoredFaces, chosen, detector_values, score, score_examples, score_reconstructed
from fakegan.stages.stage import Run, Stage
from fakegan.stages.train_autoencoder import autoencoder_metrics
from fakegan.system import shell
from fakegan.system.shell import as_override, trusting
from fakegan.training.loggers import hyperparameters, log_histogram, log_picture, log_results, stage_loggers

# Scalars beside the hyperparameters, by which a logger's page sorts runs.
HPARAM_METRICS = (
    *("auroc", "accuracy", "balanced_accuracy", "average_precision", "eer"),
    *("real_accuracy", "fake_accuracy"),
)
log = logging.getLogger(__name__)


def test(run: Run) -> None:
    """Score the test split once, write what people read, metrics.json last.

    A run that trains an autoencoder alone ends with the autoencoder's validation metrics.
    """
    content = _autoencoder_alone(run) if run.settings.pipeline.seen is None else _tested(run)
    versions = {
        "fakegan": fakegan.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_lightning": version("pytorch_lightning"),
        "numpy": np.__version__,
    }
    write_metrics(run.folder / METRICS_FILE, {**content, "command": command(), "versions": versions})


def _autoencoder_alone(run: Run) -> dict[str, Any]:
    metrics = autoencoder_metrics(run.autoencoder)
    finals = {**{f"validation/{name}": value for name, value in metrics.items()}, "objective": metrics["psnr"]}
    with stage_loggers(run.settings, run.folder / VALIDATION_FOLDER) as loggers:
        for logger in loggers:
            log_results(logger, hyperparameters(run.settings), finals)
    return {"autoencoder": metrics, "objective": metrics["psnr"]}


def _tested(run: Run) -> dict[str, Any]:
    """Score and write scores.csv, pictures and the loggers' files; returns the content of metrics.json."""
    settings, examples, store, rows = run.settings, run.examples, run.faces.store, run.faces.splits.test
    detector = Detector.load(run.folder, run.device, settings.trusted)
    known = int(detector.knows(store.sha256[rows]).sum())
    if known:
        raise FakeganError(f"{known} test faces took part in training: the store has changed since; start a new run")
    log.info("test: scoring %d faces", len(rows))
    record(run.folder, len(rows), store.fingerprint)
    learnt_from = np.unique(examples.sources[np.concatenate([examples.train, examples.val])]).tolist()
    tested = replace(score(detector, store, rows, "test faces"), learnt_from=frozenset(learnt_from))
    content = {"val": score_examples(detector, examples, examples.val).measures(), "test": tested.measures()}
    content["objective"] = content["val"]["auroc"]["value"]
    if settings.pipeline.fakes == RECONSTRUCTED:
        real = store.labels[rows] == REAL
        recon = LiveReconstructions(run, store.images)
        own_task = score_reconstructed(detector, store, recon, rows[real], chosen(tested, real))
        own_task.write(run.folder / RECONSTRUCTED_FOLDER)
        content["test_reconstructed"] = own_task.measures()
    if settings.pipeline.needs_autoencoder:
        content["autoencoder"] = autoencoder_metrics(run.autoencoder)
    content |= {**detector_values(detector, store), LEARNT_FROM: learnt_from}
    tested.write(run.folder, TEST_FOLDER)
    log_test(settings, content, tested, _degraded(run, detector, tested) if settings.test.robustness else None)
    return content


def _degraded(run: Run, detector: Detector, tested: ScoredFaces) -> Robustness | None:
    """robustness.json; None, and a warning, where original pictures have gone since the run began: it still ends."""
    originals = run.settings.test.originals
    try:
        found = robust(detector, [subject(run.faces.store, run.faces.splits.test, originals)], tested)
        return write_robustness(run.folder, found)
    except FakeganError as error:
        if not originals:
            raise
        asked = [as_override("run", run.folder), *trusting(run.settings.needed_to_score), "robustness=true"]
        later = shell.command("evaluate.py", *asked, "originals=true")
        log.warning("the faces are not scored degraded: %s. Do it later with %s", error, later)
        return None


def log_test(
    settings: RunSettings,
    content: dict[str, Any],  # of metrics.json
    tested: ScoredFaces,
    robustness: Robustness | None = None,
) -> None:
    """Give the loggers hyperparameters, test scalars, pictures and histograms, in the run's folder `test`.

    Where some generators were seen in training and others not, each kind has scalars (`test/seen/auroc`) and a
    histogram (`test/score_seen_fake`) of its own; no number covers both kinds. Each generator has its AUROC.
    """
    f, test = tested.faces, content["test"]
    kinds = seen_and_unseen(f.labels, f.sources, tested.learnt_from)
    parts = {f"test/{kind}": test[kind] for kind in kinds} or {"test": test}
    finals = {f"{at}/{name}": part[name]["value"] for at, part in parts.items() for name in HPARAM_METRICS}
    by_source = test["by_source"].items()
    finals |= {_named(f"test/auroc/{source}"): m["auroc"]["value"] for source, m in by_source if m["label"] == "fake"}
    finals["objective"] = content["objective"]
    fake = f.labels == FAKE
    histograms = {"score_real": f.labels == REAL}
    histograms |= {f"score_{kind}_fake": among & fake for kind, among in kinds.items()} or {"score_fake": fake}
    figures = tested.pictures() if plots.available() else {}
    if robustness is not None:
        finals |= {f"test/{name}": value for name, value in robustness.drops().items()}
        figures |= figures_of_run(robustness) if plots.available() else {}
    pictures = {name: rendered(figure) for name, figure in figures.items()}
    with stage_loggers(settings, settings.paths.run_dir / TEST_FOLDER) as loggers:
        for logger in loggers:
            log_results(logger, hyperparameters(settings), finals)
            for name, own in histograms.items():
                log_histogram(logger, f"test/{name}", f.scores[own])
            for name, picture in pictures.items():
                log_picture(logger, f"test/{name}", picture, 0)
            for step, values in enumerate([] if robustness is None else robustness.steps()):
                logger.log_metrics({f"test/{name}": value for name, value in values.items()}, step)


def _named(metric: str) -> str:
    """A metric's name with the signs that MLflow takes: a source may be called anything."""
    return re.sub(r"[^\w\-. :/]", "_", metric)


TEST = Stage("test", test, on_rank_0=True)
