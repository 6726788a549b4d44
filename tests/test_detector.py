"""The detector: scores as in training, the same from its file, and a face's size, labels and device checked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fakegan.data.batches import FaceBatches, StoreOrder, loader, on_device
from fakegan.data.pixels import to_unit
from fakegan.data.store import FaceStore
from fakegan.detector import Detector, reconstruct
from fakegan.errors import FakeganError
from fakegan.evaluation.calibration import Validation
from fakegan.judge import sha256_bytes
from fakegan.nets.autogan import AutoGAN
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.training.classifier import fake_probability
from fakegan.views import VIEWS
from tests.pictures import detector


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_scores_are_those_of_the_classifier_in_training(store: FaceStore, view: str) -> None:
    """By hand, through the data module's own conversion, from stored reconstructions."""
    found = detector(view, weight=1.0)
    arrays = {"image": store.images}
    if found.autoencoder is not None:
        arrays["recon"] = reconstruct(found.autoencoder, torch.from_numpy(store.images[:])).numpy()
    expected = []
    for batch in loader(FaceBatches(arrays, store.labels), StoreOrder(np.arange(50), 50)):
        x = found.view(on_device(batch, tuple(arrays)))
        expected.append(fake_probability(found.classifier(x)))
    scores = found.scores(store.images, np.arange(50))
    np.testing.assert_allclose(scores, torch.cat(expected).numpy(), atol=1e-5)


def test_scores_do_not_depend_on_batch_size_order_or_dropout(store: FaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    found = detector(weight=1.0)
    rows = np.arange(60)
    whole = found.margins(store.images, rows)
    assert np.array_equal(found.margins(store.images, rows), whole)
    assert not found.classifier.training
    monkeypatch.setattr("fakegan.judge.BATCH", 7)
    np.testing.assert_allclose(found.margins(store.images, rows[::-1])[::-1], whole, atol=whole.std() / 100)


@pytest.mark.parametrize("view", ["reconstruction", "pixels"])
def test_faces_are_reconstructed_and_scored_without_tf32(store: FaceStore, view: str) -> None:
    """A GPU would convolve with 10 bits where a CPU has 23."""
    cudnn, seen = torch.backends.cudnn, []

    def precision(*_: object) -> object:
        return cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32

    def note(*_: object) -> None:
        seen.append(precision())

    before = precision()
    found = detector(view)
    nets = [net for net in (found.autoencoder, found.classifier) if net is not None]
    for net in nets:
        net.register_forward_hook(note)
    found.scores(store.images, np.arange(3))
    if found.autoencoder is not None:
        reconstruct(found.autoencoder, torch.from_numpy(store.images[:3]))
    assert len(seen) == 2 * len(nets) - 1
    assert set(seen) <= {"ieee", False}
    assert precision() == before
    assert before not in {"ieee", False}


def test_a_detector_says_where_it_computes_and_how() -> None:
    """Forward alone, a width of 4 takes no Winograd; a view without reconstructions runs the classifier only."""
    found = detector("reconstruction")
    assert found.described_device() == "cpu, 1 thread, channels last, folded upsampling"
    found.view_name = "pixels"  # as experiment 2 has it, whose detector keeps the autoencoder
    assert found.described_device() == detector("pixels").described_device() == "cpu, 1 thread, channels last"


def test_the_temperature_divides_the_log_odds_and_moves_no_verdict_across_one_half(store: FaceStore) -> None:
    found = detector("pixels", weight=1.0)
    margins = found.margins(store.images, np.arange(20))
    for temperature in (1.0, 3.0):
        found.temperature = temperature
        np.testing.assert_allclose(found.scores(store.images, np.arange(20)), 1 / (1 + np.exp(-margins / temperature)))


def test_a_saved_detector_keeps_all_that_it_decides_by(store: FaceStore, tmp_path: Path) -> None:
    saved = detector(weight=1.0, temperature=1.5, threshold=0.37, band=(0.3, 0.6), flip_average=True)
    saved.seen, saved.seen_labels = sha256_bytes(store.sha256[:5]), store.labels[:5]
    saved.validation = Validation.of(np.linspace(0, 1, 40), np.arange(40) % 2, np.arange(40).astype(str))
    saved.save(tmp_path / DETECTOR_FILE)
    again = Detector.load(tmp_path)
    again.decide_at(max_false_alarms=0.1)
    saved.decide_at(max_false_alarms=0.1)
    assert (again.threshold, again.band) == (saved.threshold, saved.band)
    again = Detector.load(tmp_path)
    assert (again.temperature, again.threshold, again.band, again.flip_average) == (1.5, 0.37, (0.3, 0.6), True)
    assert again.knows(store.sha256).tolist() == [True] * 5 + [False] * (len(store) - 5)
    assert np.array_equal(saved.scores(store.images), again.scores(store.images))


def test_a_file_of_an_earlier_version_scores_as_it_did_by_the_band_it_has(store: FaceStore, tmp_path: Path) -> None:
    saved, path = detector(weight=1.0, band=(0.3, 0.6)), tmp_path / DETECTOR_FILE
    saved.save(path)
    content = load_checkpoint(path)
    del content["flip_average"], content["validation"]
    save_checkpoint(content, path)
    loaded = Detector.load(path)
    assert not loaded.flip_average
    assert np.array_equal(loaded.margins(store.images), saved.margins(store.images))
    assert loaded.verdicts(np.array([0.2, 0.4, 0.7]), np.zeros(3)).tolist() == ["real", "unsure", "fake"]


class _LeftHalf(nn.Module):
    """Log odds of fake are the mean of the left half."""

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, 64, 64) -> (B, 2)
        fake = x[..., :32].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(fake), fake], dim=1)


class _TurnsRightHalf(nn.Module):
    """The negative of a face's right half."""

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, 64, 64) -> the same
        return torch.cat([x[..., :32], -x[..., 32:]], dim=3)


@pytest.mark.parametrize(
    ("view", "average", "margins"),
    [
        ("pixels", False, [-0.6, 1.0]),
        ("pixels", True, [0.2, 0.0]),  # the halves are -0.6 and 1, and 1 and -1
        ("reconstruction", True, [0.2, 0.0]),  # mirrored reconstructions: (-0.6 - 1) / 2, (1 + 1) / 2
    ],
)
def test_flip_averaging_takes_the_mean_log_odds_of_a_face_and_its_mirror_image(
    view: str, average: bool, margins: list[float]
) -> None:
    """The mirror image has a reconstruction of its own."""
    found = detector(view, flip_average=average)
    found.classifier = _LeftHalf()
    found.autoencoder = found.autoencoder and _TurnsRightHalf().eval()
    faces = np.empty((2, 64, 64, 3), dtype=np.uint8)
    faces[:, :, :32], faces[:, :, 32:] = np.reshape([51, 255], (2, 1, 1, 1)), np.reshape([255, 0], (2, 1, 1, 1))
    np.testing.assert_allclose(found.margins(faces), margins, atol=1e-6)
    assert found.described_device().endswith("faces and their mirror images") == average


def test_a_picture_learnt_under_the_other_label_contradicts(store: FaceStore) -> None:
    found = detector("pixels", seen=sha256_bytes(store.sha256[:5]), seen_labels=store.labels[:5])
    assert found.contradicts(store.sha256, store.labels) == 0
    assert found.contradicts(store.sha256, 1 - store.labels) == 5
    assert found.contradicts(store.sha256[5:], 1 - store.labels[5:]) == 0


def test_reconstructions_are_the_nets_output_rounded_in_eval_mode() -> None:
    net = AutoGAN(1, 4, norm="none").eval()
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    recon = reconstruct(net, pixels)
    assert (recon.dtype, recon.shape) == (torch.uint8, pixels.shape)
    with torch.no_grad():
        assert (to_unit(recon) - net(to_unit(pixels))).abs().max() <= 1 / 127.5 / 2 + 1e-6
    with pytest.raises(ValueError, match="eval mode"):
        reconstruct(net.train(), pixels)


def test_a_run_without_a_detector_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(FakeganError, match=f"resume={tmp_path}"):
        Detector.load(tmp_path)
