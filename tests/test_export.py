"""One file to hand on: the same detector to the bit, and nothing in it that could run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fakegan.data.familiarity import Familiarity
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UntrustedError
from fakegan.evaluation.calibration import Validation
from fakegan.loading import detector_of
from fakegan.runs.portable import save_portable, texts_of
from tests.helpers import smooth_faces
from tests.pictures import detector

FACES = smooth_faces(12, np.random.default_rng(0))


@pytest.fixture
def made() -> Detector:
    """A detector that has everything a run may give it."""
    sides = np.full(12, 64)
    validation = Validation(np.array([0.1, 0.3, 0.7, 0.9]), np.array([0, 0, 1, 1]), np.arange(4))
    return detector(
        "residual",
        temperature=1.5,
        threshold=0.25,
        band=(0.2, 0.75),
        validation=validation,
        flip_average=True,
        seen=np.arange(64, dtype=np.uint8).reshape(2, 32),
        seen_labels=np.array([0, 1]),
        familiarity=Familiarity.learn(FACES, sides, sides, np.arange(8), np.arange(8, 12)),
    )


@pytest.fixture
def exported(made: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "detector.fakegan"
    save_portable(made.content(), path, "# A card\n")
    return path


def test_an_exported_detector_judges_alike_to_the_bit(made: Detector, exported: Path) -> None:
    found = detector_of(exported, "cpu")
    assert np.array_equal(found.scores(FACES), made.scores(FACES))
    assert found.predict(FACES) == made.predict(FACES)
    assert found.parts() == made.parts()
    for name, value in made.judgement().items():
        np.testing.assert_equal(found.judgement()[name], value, err_msg=name)
    assert texts_of(exported)["card"] == "# A card\n"


def test_the_file_is_safetensors_and_json(exported: Path) -> None:
    with safe_open(exported, "pt") as file:
        assert {"classifier.weights.head.2.weight", "seen", "validation.scores"} <= set(file.keys())
        described = json.loads(file.metadata()["fakegan"])
    assert described["threshold"] == 0.25
    assert described["fakegan"]["label_convention"] == {"real": 0, "fake": 1}


def _rewritten(path: Path, **changes: object) -> Path:
    """The same file with other values in its JSON."""
    with safe_open(path, "pt") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    metadata["fakegan"] = json.dumps(json.loads(metadata["fakegan"]) | changes)
    save_file(arrays, path, metadata)
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threshold": 1.5}, "damaged or of another version"),
        ({"threshold": {"array": "nowhere"}}, "damaged or no exported detector"),
        ({"temperature": {"array": "seen"}}, "damaged or of another version"),
        ({"geometry": [64, "crop"]}, "damaged or of another version"),
        ({"fakegan": {"format": 3, "label_convention": {"real": 1, "fake": 0}}}, "scores would mean the opposite"),
        ({"fakegan": None}, "is not a FakeGAN checkpoint"),
    ],
)
def test_a_changed_file_is_refused_in_a_sentence(exported: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(FakeganError, match=sentence):
        detector_of(_rewritten(exported, **changes), "cpu")


def test_code_that_a_file_names_is_not_run(exported: Path) -> None:
    node = {"net": {"_target_": "os.system", "command": "touch ran"}, "weights": {}}
    with pytest.raises(UntrustedError):
        detector_of(_rewritten(exported, classifier=node), "cpu")


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"PK\x03\x04" + bytes(100), b"\xff" * 200])
def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.fakegan"
    path.write_bytes(content)
    with pytest.raises(FakeganError, match=r"other\.fakegan is damaged or no exported detector"):
        detector_of(path, "cpu")


def test_a_truncated_file_is_refused_in_a_sentence(exported: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:-10])
    with pytest.raises(FakeganError, match="damaged or no exported detector"):
        detector_of(exported, "cpu")


def test_weights_that_are_no_numbers_are_refused(made: Detector, tmp_path: Path) -> None:
    made.classifier_spec.weights["head.2.weight"].fill_(torch.nan)
    save_portable(made.content(), tmp_path / "nan.fakegan", "")
    with pytest.raises(FakeganError, match="damaged or of another version"):
        detector_of(tmp_path / "nan.fakegan", "cpu")
