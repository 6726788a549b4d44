"""The built-in faces: a function of seed and index, half real, flawed where they are fake and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fakegan.data.demo import SOURCES, DemoFace, demo_faces
from fakegan.evaluation.roc import auroc
from fakegan.nets.simple_cnn import SimpleCNN


@pytest.fixture(scope="module")
def faces() -> list[DemoFace]:
    return list(demo_faces(480, seed=1))


def images(faces: list[DemoFace], source: str | None = None) -> NDArray[np.float64]:
    """(N, 64, 64, 3), 0 to 255."""
    return np.array([face.image for face in faces if source in (None, face.source)], np.float64)


def test_a_face_depends_on_seed_and_index_alone(faces: list[DemoFace]) -> None:
    assert [face.file for face in demo_faces(0)] == []
    for count, workers in ((3, 1), (60, 2)):
        for face, same in zip(demo_faces(count, seed=1, workers=workers), faces[:count], strict=True):
            np.testing.assert_array_equal(face.image, same.image)
            assert (face.source, face.is_fake, face.file) == (same.source, same.is_fake, same.file)
    other = next(iter(demo_faces(1, seed=2)))
    assert not np.array_equal(other.image, faces[0].image)


def test_half_are_real_and_the_fakes_a_third_each(faces: list[DemoFace]) -> None:
    assert all(face.image.dtype == np.uint8 and face.image.shape == (64, 64, 3) for face in faces)
    assert [sum(face.source == source for face in faces) for source in SOURCES] == [240, 80, 80, 80]
    assert all(face.is_fake == (face.source != "demo_camera") for face in faces)
    assert faces[12].file == "demo_camera/00012"
    assert len({face.file for face in faces}) == 480


def test_no_two_faces_look_alike(faces: list[DemoFace]) -> None:
    small = images(faces).reshape(len(faces), 8, 8, 8, 8, 3).mean((2, 4)).reshape(len(faces), -1)  # noise averages out
    squares = (small**2).sum(1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * small @ small.T, 0) / small.shape[1])
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 6  # levels of 255; camera noise alone comes to less than 1


def test_transposed_convolution_leaves_a_checkerboard(faces: list[DemoFace]) -> None:
    """Median amplitude, in levels of 255, of the three patterns that alternate from pixel to pixel."""
    amplitude = {}
    for source in SOURCES:
        spectrum = np.abs(np.fft.fft2(images(faces, source).mean(3))) / 64**2
        amplitude[source] = float(np.median(spectrum[:, 32, 32] + spectrum[:, 0, 32] + spectrum[:, 32, 0]))
    camera, transposed, nearest, bilinear = (amplitude[source] for source in SOURCES)
    assert transposed > 5 * camera
    assert max(nearest, bilinear) < 2 * camera


def logistic_auroc(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean AUROC on the half not learnt from, both ways round."""
    half = np.arange(len(labels)) < len(labels) // 2
    found = []
    for learn in (half, ~half):
        weights = np.zeros(features.shape[1])
        for _ in range(1000):
            guess = 1 / (1 + np.exp(-features[learn] @ weights))
            weights -= 0.5 * features[learn].T @ (guess - labels[learn]) / learn.sum()
        found.append(auroc(features[~learn] @ weights, labels[~learn]))
    return float(np.mean(found))


def test_channel_totals_do_not_tell_real_from_fake(faces: list[DemoFace]) -> None:
    labels, pictures = np.array([face.is_fake for face in faces], np.int64), images(faces)
    totals = np.concatenate([pictures.mean((1, 2)), pictures.std((1, 2))], axis=1)  # (N, 6)
    features = np.pad((totals - totals.mean(0)) / totals.std(0), ((0, 0), (0, 1)), constant_values=1)
    assert logistic_auroc(features, labels) < 0.6
    features[:, 0] += labels  # one standard deviation of brightness would be found
    assert logistic_auroc(features, labels) > 0.7


@pytest.mark.slow
def test_a_small_cnn_learns_to_tell_them_apart() -> None:
    torch.manual_seed(0)
    drawn = [face for face in demo_faces(1200, seed=2) if face.source != "demo_bilinear"]
    pictures = torch.from_numpy(images(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.tensor([face.is_fake for face in drawn]).long()
    learn, held_out = slice(0, 700), slice(700, None)
    net = SimpleCNN()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(8):
        for batch in torch.randperm(700).split(50):
            mirror = torch.rand(len(batch), 1, 1, 1) < 0.5
            flipped = torch.where(mirror, pictures[batch].flip(-1), pictures[batch])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(flipped), labels[learn][batch]).backward()
            optimizer.step()
    with torch.no_grad():
        logits = net.eval()(pictures[held_out]).double()
    scores = (logits[:, 1] - logits[:, 0]).numpy()
    assert auroc(scores, labels[held_out].numpy()) > 0.8
