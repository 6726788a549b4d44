"""Detectors and autoencoders from elsewhere, once their checkpoint is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakegan.data.familiarity import Familiarity
from fakegan.detector import Detector
from fakegan.evaluation.calibration import Validation
from fakegan.nets.autogan import AutoGAN
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.stages.reconstruct import load_autoencoder
from tests.helpers import smooth_faces
from tests.hostile.conftest import refused
from tests.pictures import AUTOGAN, detector


@pytest.fixture
def detector_file(tmp_path: Path) -> Path:
    """A detector of reconstructions, whole."""
    sides, rows = np.full(40, 64), np.arange(40)
    familiarity = Familiarity.learn(smooth_faces(40, np.random.default_rng(1)), sides, sides, rows[:20], rows[20:])
    validation = Validation(np.full(40, 0.5), rows % 2, rows)
    detector(familiarity=familiarity, validation=validation).save(tmp_path / DETECTOR_FILE)
    assert Detector.load(tmp_path).view_name == "reconstruction"
    return tmp_path / DETECTOR_FILE


MISFITS: dict[str, list[Any]] = {  # by place in detector.pt
    "geometry": [None],
    "geometry/size": [128],
    "geometry/crop": ["yes"],
    "geometry/path": ["/"],
    "geometry/equalise": [[64], [63, 90], [10**9, 90], 64],
    "view": [["pixels"], "stack"],  # stack has nine channels, and the net takes three
    "classifier": [[]],
    "classifier/more": [1],
    "classifier/net/hidden": [5],
    "classifier/net/in_channels": [-1, 10**12],
    "classifier/net/_partial_": [True],
    "classifier/net/_args_": [3],
    "classifier/net/_recursive_": ["yes"],
    "classifier/weights": [{}, 5],
    "classifier/weights/head.2.bias": [torch.zeros(3), "zero", torch.full((2,), torch.nan)],
    "autoencoder": [None],
    "autoencoder/net/depth": [0],
    "autoencoder/net/width": ["4", 10**12],
    "autoencoder/weights/decoder.to_rgb.bias": [torch.full((3,), torch.nan)],
    "temperature": ["hot", 0.0, 10**400],
    "threshold": [float("nan")],
    "band": [[0.5], [0.6, 0.4]],
    "validation": [[1], {}],
    "validation/scores": [torch.zeros(5, dtype=torch.float64), torch.full((40,), torch.nan, dtype=torch.float64)],
    "validation/labels": [torch.zeros(40, dtype=torch.int64), torch.zeros(40)],
    "validation/groups": ["alone"],
    "flip_average": [None, 1, "yes"],
    "seen": [[1], torch.zeros(5, 32, dtype=torch.uint8), torch.zeros(0, 31, dtype=torch.uint8)],  # 5 have no labels
    "seen_labels": [torch.zeros(0)],
    "familiarity": [{}],
    "familiarity/aspects": [1.0],
    "familiarity/colours.mean": [torch.zeros(5)],
    "familiarity/edges.whitening": [torch.zeros(3, 3)],
}


@pytest.mark.parametrize(("keys", "value"), [(keys, value) for keys, values in MISFITS.items() for value in values])
def test_a_detector_whose_parts_do_not_fit_is_one_sentence(detector_file: Path, keys: str, value: Any) -> None:
    content = load_checkpoint(detector_file)
    part = content
    *path, last = keys.split("/")
    for key in path:
        part = part[key]
    part[last] = value
    save_checkpoint(content, detector_file)
    refused(lambda: Detector.load(detector_file.parent), DETECTOR_FILE)


def test_a_detector_without_one_of_its_keys_is_one_sentence(detector_file: Path) -> None:
    whole = load_checkpoint(detector_file)
    for key in set(whole) - {"fakegan", "flip_average", "validation"}:
        save_checkpoint({k: v for k, v in whole.items() if k != key}, detector_file)
        refused(lambda: Detector.load(detector_file.parent), DETECTOR_FILE)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"net": AUTOGAN},
        {"net": [], "weights": {}},
        {"net": {**AUTOGAN, "head": "os.system"}, "weights": {}},
        {"net": {**AUTOGAN, "norm": "os.system"}, "weights": {}},
        {"net": AUTOGAN, "weights": {"encoder": torch.zeros(1)}},
        {"net": AUTOGAN, "weights": {k: v * torch.nan for k, v in AutoGAN(1, 4).state_dict().items()}},
    ],
)
def test_an_autoencoder_whose_parts_do_not_fit_is_one_sentence(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "autoencoder.pt"
    save_checkpoint({"net": AUTOGAN, "weights": AutoGAN(1, 4).state_dict()}, path)
    assert not load_autoencoder(path, 64).training
    save_checkpoint(content, path)
    refused(lambda: load_autoencoder(path, 64), path.name)
