"""Whole runs on a device: killed and resumed they end alike, and the CPU gives their detector's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakegan.detector import Detector
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.training import datamodules
from fakegan.training.autoencoder import AdversarialAutoencoder
from tests.conftest import Compose
from tests.gpu.test_device import ON_DEVICES
from tests.helpers import csv_rows, elsewhere, same_run

pytestmark = [ON_DEVICES, pytest.mark.slow]
EXACT = ("trainer.deterministic=true", "trainer.precision=bf16-mixed", "model.optimizer.fused=true")


class Killed(Exception):
    pass


def _settings(compose_settings: Compose, device: str, tmp_path: Path, name: str, *more: str) -> RunSettings:
    """A run of two stages, with artifacts of its own."""
    trainer = "gpu" if device == "cuda" else "cpu"
    words = ("pipeline=recon_classify", "budget.autoencoder.max_epochs=2", f"trainer={trainer}", *EXACT, *more)
    return elsewhere(compose_settings(*words, f"paths.artifact_dir={tmp_path / name}"), name)


def test_with_determinism_a_killed_run_ends_as_one_that_was_not(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    whole, killed = (_settings(compose_settings, device, tmp_path, name) for name in ("whole", "killed"))
    stages.run(whole)
    real_end = AdversarialAutoencoder.on_train_epoch_end

    def killed_in_the_second_epoch(self: Any) -> None:
        if self.current_epoch == 1:
            raise Killed
        real_end(self)

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialAutoencoder, "on_train_epoch_end", killed_in_the_second_epoch)
        with pytest.raises(Killed):
            stages.run(killed)
    stages.run(killed)
    torch.use_deterministic_algorithms(False)
    same_run(killed.paths.run_dir, whole.paths.run_dir)


def test_the_cpu_gives_the_scores_of_a_run(compose_settings: Compose, tmp_path: Path, device: str) -> None:
    settings = _settings(compose_settings, device, tmp_path, "run")
    stages.run(settings)
    torch.use_deterministic_algorithms(False)
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    scores = [Detector.load(settings.paths.run_dir, torch.device(name)).scores(images) for name in ("cpu", device)]
    np.testing.assert_allclose(scores[1], scores[0], atol=0.01)
    assert len({row["score"] for row in csv_rows(settings.paths.run_dir / "scores.csv")}) > 1


def test_a_run_whose_faces_a_device_keeps_ends_as_one_that_reads_them(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Of faces and reconstructions, and of the reconstructions of these."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    views = "pipeline=recon_fakes", "pipeline.view=stack"
    ours, theirs = (_settings(compose_settings, device, tmp_path, name, *views) for name in ("kept", "read"))
    for settings, room in ((ours, 10**9), (theirs, 0)):
        monkeypatch.setattr(datamodules, "room", lambda _, room=room: room)
        stages.run(settings)
    torch.use_deterministic_algorithms(False)
    same_run(ours.paths.run_dir, theirs.paths.run_dir)
