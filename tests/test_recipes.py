"""Numbers of each kind of artifact: where one changes, its RECIPE must be raised, so that no run reuses an old one.

Each test states what one small run of the kind gives today. A test that fails says which RECIPE to raise; then copy the
new numbers here. The tolerances are far above what another processor's rounding changes.
"""

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from fakegan.data import demo
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.folder import ANALYSIS_FILE, ANALYSIS_FOLDER
from fakegan.stages import analyse, reconstruct, train_autoencoder
from fakegan.stages.stage import Run
from tests.conftest import Compose
from tests.helpers import run_of, save_autoencoder

RECIPES = {"training": 1, "reconstructing": 1, "analysis": 3, "drawing": 1}  # those that the numbers below belong to


def _hold(kind: str, recipe: int, found: Mapping[str, float], golden: Mapping[str, float], within: float) -> None:
    assert recipe == RECIPES[kind], f"the RECIPE of {kind} is {recipe}: state its numbers and {recipe} in this file"
    assert found == pytest.approx(golden, rel=within), f"{kind} gives other numbers: raise its RECIPE, then state them"


@pytest.fixture
def run(compose_settings: Compose) -> Run:
    run = run_of(compose_settings("pipeline=autoencoder"))
    save_autoencoder(run.autoencoder)
    return run


def test_training(run: Run) -> None:
    content = load_checkpoint(train_autoencoder.find_trained(run))
    found: dict[str, float] = {name: content["metrics"][f"val/{name}"] for name in ("l1", "psnr", "disc_recon")}
    found["weights"] = sum(float(weights.double().square().sum()) for weights in content["weights"].values())
    golden = {"l1": 0.251218, "psnr": 16.83204, "disc_recon": 0.288697, "weights": 57.77395}
    _hold("training", train_autoencoder.RECIPE, found, golden, within=1e-4)


def test_reconstructing(run: Run) -> None:
    rows = run.faces.splits.test
    found = _spread(reconstruct.reconstruct_faces(run, run.faces.store.images, "its fingerprint", rows)[rows])
    golden = {"mean": 122.0398, "deviation": 13.12907, "fine": 0.237636}
    _hold("reconstructing", reconstruct.RECIPE, found, golden, within=1e-3)


def test_analysis(run: Run) -> None:
    analyse.analyse(run)
    content = json.loads((run.folder / ANALYSIS_FOLDER / ANALYSIS_FILE).read_text())
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
