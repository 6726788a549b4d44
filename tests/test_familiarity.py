"""Familiarity: pictures of another kind are warned about, and new faces are not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fakegan.data.demo import demo_faces
from fakegan.data.familiarity import UNLIKE, Familiarity, Normal
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint

FACES = np.stack([drawn.image for drawn in demo_faces(240, seed=3)])
TRAIN, VAL, NEW = np.arange(120), np.arange(120, 180), np.arange(180, 240)


def learn(width: int = 256, height: int = 256, train: np.ndarray = TRAIN, val: np.ndarray = VAL) -> Familiarity:
    return Familiarity.learn(FACES, np.full(len(FACES), width), np.full(len(FACES), height), train, val)


@pytest.fixture(scope="module")
def learnt() -> Familiarity:
    return learn()


def not_faces(count: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 64)[:, None, None] * rng.uniform(0.5, 1, (count, 1, 1, 3))
    stripes = np.where(np.arange(64) // 2 % 3 == 0, 0, 255)[:, None, None] + np.zeros((count, 1, 64, 3))
    pictures = {"noise": rng.integers(0, 256, (count, 64, 64, 3)), "gradient": ramp, "lines of text": stripes}
    pictures["fine noise"] = rng.integers(0, 256, (count, 64, 4, 64, 4, 3)).mean(axis=(2, 4))  # of 256 pixels, resized
    return {name: np.broadcast_to(values, (count, 64, 64, 3)).astype(np.uint8) for name, values in pictures.items()}


def test_distance_by_hand() -> None:
    """Two numbers without correlation, deviations 1 and 2; of 8 rows and 2 numbers the shrinkage changes nothing."""
    train = np.array([[1, 2], [1, -2], [-1, 2], [-1, -2]] * 2, dtype=float)
    normal = Normal.learn(train, np.array([[0.0, 4.0]]))
    np.testing.assert_allclose(normal.distance(np.array([[0.0, 4.0], [3.0, 8.0]])), [np.sqrt(2), 5 / np.sqrt(2)])
    assert normal.limit == pytest.approx(np.sqrt(2) * 2.05)  # one face held out: 1.05 + 1 / sqrt(1)


def test_correlated_numbers_are_shrunk_towards_independence() -> None:
    """Two equal numbers, three rows: correlation 1 becomes 3 / 5, so (1, -1) / spread lies 1 / sqrt(0.4) away."""
    train = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    spread = np.sqrt(2 / 3)
    distance = Normal.learn(train, train).distance(np.array([[spread, -spread]]))
    assert distance[0] == pytest.approx(1 / np.sqrt(0.4))


def test_new_faces_pass_and_other_things_do_not(learnt: Familiarity) -> None:
    assert (learnt.strangeness(FACES[NEW]) > 1).sum() <= 2
    for kind, pictures in not_faces().items():
        assert (learnt.strangeness(pictures) > 1).all(), kind
    of_twenty = learn(train=np.arange(20), val=np.arange(20, 30))  # which are enough
    assert (of_twenty.strangeness(FACES[30:]) > 1).mean() < 0.1
    assert (of_twenty.strangeness(not_faces()["noise"]) > 1).all()


def test_warnings_name_the_size(learnt: Familiarity) -> None:
    pixels = FACES[NEW[:4]].copy()
    pixels[3] = not_faces()["noise"][0]
    widths, heights = np.array([256, 640, 127, 260]), np.array([250, 360, 128, 256])
    assert learnt.warnings(learnt.strangeness(pixels), widths, heights) == [
        [],
        ["640x360: training pictures were square; crop to the face first"],
        ["127x128: training pictures had 256 pixels or more on a side"],
        [UNLIKE],
    ]
    upright = learn(178, 218)
    assert upright.warnings(np.zeros(2), np.array([300, 89]), np.array([300, 109])) == [
        ["300x300: training pictures were 0.82 to 0.82 times as wide as high; crop to the face first"],
        [],
    ]


def test_a_batch_changes_nothing(learnt: Familiarity, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learnt.strangeness(FACES)
    monkeypatch.setattr("fakegan.data.familiarity.BATCH", 7)
    np.testing.assert_allclose(learn().strangeness(FACES), whole, rtol=1e-12)
    assert learnt.strangeness(FACES[:0]).shape == (0,)


def test_it_survives_a_checkpoint(learnt: Familiarity, tmp_path: Path) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in learnt.to_arrays().items()}
    save_checkpoint({"familiarity": tensors}, tmp_path / "a.pt")
    loaded = Familiarity.from_arrays(load_checkpoint(tmp_path / "a.pt")["familiarity"])
    assert np.array_equal(loaded.strangeness(FACES), learnt.strangeness(FACES))
    assert (loaded.aspects, loaded.shortest) == (learnt.aspects, learnt.shortest) == ((1.0, 1.0), 256.0)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="some are none"):
        learn(val=VAL[:0])
