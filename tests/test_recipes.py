"""Numbers of each kind of artifact: where one changes, its RECIPE must be raised, so that no run reuses an old one.

Each test states what one small run of the kind gives today. A test that fails says which RECIPE to raise; then copy the
new numbers here. The tolerances are far above what another processor's rounding changes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fakegan.config.building import TARGET
from fakegan.data import demo
from fakegan.data.faces import Faces, open_faces
from fakegan.nets.autogan import AutoGAN
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.stages import analyse, reconstruct, train_autoencoder
from tests.conftest import Compose

AUTOGAN = "fakegan.nets.autogan.AutoGAN"
RECIPES = {"training": 1, "reconstructing": 1, "analysis": 2, "drawing": 1}  # those that the numbers below belong to


def _hold(kind: str, recipe: int, found: Mapping[str, float], golden: Mapping[str, float], within: float) -> None:
    assert recipe == RECIPES[kind], f"the RECIPE of {kind} is {recipe}: state its numbers and {recipe} in this file"
    assert found == pytest.approx(golden, rel=within), f"{kind} gives other numbers: raise its RECIPE, then state them"


@pytest.fixture
def faces(compose_settings: Compose) -> Faces:
    settings = compose_settings("pipeline=autoencoder")
    return open_faces(settings.data, settings.paths.data_dir, needs={})


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    """One that learnt nothing: what training changes, changes nothing here."""
    torch.manual_seed(0)
    options: Any = {"depth": 1, "width": 2, "norm": "none", "code_channels": 3}
    content = {
        "net": {TARGET: AUTOGAN, **options},
        "weights": AutoGAN(**options).state_dict(),
        "metrics": {"val/psnr": 12.5},
    }
    save_checkpoint(content, tmp_path / "autoencoder.pt")
    return tmp_path / "autoencoder.pt"


def test_training(compose_settings: Compose, faces: Faces) -> None:
    settings = compose_settings("pipeline=autoencoder")
    content = load_checkpoint(train_autoencoder.train_autoencoder(settings, faces))
    found: dict[str, float] = {name: content["metrics"][f"val/{name}"] for name in ("l1", "psnr", "disc_recon")}
    found["weights"] = sum(float(weights.double().square().sum()) for weights in content["weights"].values())
    golden = {"l1": 0.251218, "psnr": 16.83204, "disc_recon": 0.288697, "weights": 57.77395}
    _hold("training", train_autoencoder.RECIPE, found, golden, within=1e-4)


def test_reconstructing(compose_settings: Compose, faces: Faces, autoencoder: Path) -> None:
    settings, rows = compose_settings("pipeline=autoencoder"), faces.splits.test
    recon = reconstruct.reconstruct_faces(settings, faces.store.images, "its fingerprint", rows, autoencoder)[rows]
    found = _spread(recon)
    _hold(
        "reconstructing",
        reconstruct.RECIPE,
        found,
        {"mean": 122.0398, "deviation": 13.12907, "fine": 0.237636},
        within=1e-3,
    )


def test_analysis(compose_settings: Compose, faces: Faces, autoencoder: Path) -> None:
    settings = compose_settings("pipeline=autoencoder")
    analyse.analyse(settings, faces, autoencoder)
    content = json.loads((settings.paths.run_dir / "analysis" / analyse.ANALYSIS_FILE).read_text())
    found = {name: of["real_vs_fake"]["cohens_d"]["value"] for name, of in content["errors"].items()}
    del found["l1"], found["ssim"]  # close to 0 here: rounding would decide
    found |= {name: of["auroc"]["value"] for name, of in content["probes"].items()}
    golden = {"psnr": -0.257328, "high_frequency": 7.80215, "code": 1.0, "residual_spectrum": 1.0}
    _hold("analysis", analyse.RECIPE, found, golden, within=1e-2)


def test_drawing() -> None:
    images = np.stack([face.image for face in demo.demo_faces(24, seed=0, workers=1)])
    found = _spread(images)
    _hold("drawing", demo.RECIPE, found, {"mean": 121.08244, "deviation": 55.146255, "fine": 8.193404}, within=1e-4)


def _spread(images: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Mean, deviation, and mean difference of neighbouring pixels, in levels of 255."""
    levels = images.astype(np.float64)
    return {"mean": levels.mean(), "deviation": levels.std(), "fine": np.abs(np.diff(levels, axis=2)).mean()}
