from pathlib import Path

import numpy as np
import pytest
import torch

from fakegan.data.batches import FaceBatches, StoreOrder, loader, on_device
from fakegan.data.images import Geometry
from fakegan.data.pixels import to_unit
from fakegan.data.store import FaceStore
from fakegan.detector import Detector, NetSpec, reconstruct, sha256_bytes
from fakegan.errors import FakeganError
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs import checkpoints
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.training.classifier import fake_probability
from fakegan.views import VIEWS

NET = {"_target_": "fakegan.nets.simple_cnn.SimpleCNN", "dropout": 0.5}
AUTOGAN = {"_target_": "fakegan.nets.autogan.AutoGAN", "depth": 1, "width": 4, "norm": "none", "code_channels": None}


def _detector(view: str) -> Detector:
    autoencoder = NetSpec(AUTOGAN, AutoGAN(1, 4).state_dict()) if view != "pixels" else None
    options = {**NET, "in_channels": VIEWS[view].channels}
    net = SimpleCNN(VIEWS[view].channels, 0.5)
    torch.nn.init.normal_(net.head[-1].weight)  # type: ignore[arg-type]
    return Detector(Geometry(), view, NetSpec(options, net.state_dict()), autoencoder)


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_scores_are_what_the_classifier_saw_in_training(store: FaceStore, view: str) -> None:
    """By hand, through the data module's own conversion, from stored reconstructions."""
    detector = _detector(view)
    arrays = {"image": store.images}
    if detector.autoencoder is not None:
        arrays["recon"] = reconstruct(detector.autoencoder, torch.from_numpy(store.images[:])).numpy()
    expected = []
    for batch in loader(FaceBatches(arrays, store.labels), StoreOrder(np.arange(50), 50)):
        x = detector.view(on_device(batch, tuple(arrays)))
        expected.append(fake_probability(detector.classifier(x)))
    scores = detector.scores(store.images, np.arange(50))
    np.testing.assert_allclose(scores, torch.cat(expected).numpy(), atol=1e-5)


def test_scores_do_not_depend_on_batch_size_or_order(store: FaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = _detector("reconstruction")
    rows = np.arange(60)
    whole = detector.margins(store.images, rows)
    monkeypatch.setattr("fakegan.detector.BATCH", 7)
    np.testing.assert_allclose(detector.margins(store.images, rows[::-1])[::-1], whole, atol=whole.std() / 100)


@pytest.mark.parametrize("view", ["reconstruction", "pixels"])
def test_faces_are_reconstructed_and_scored_without_tf32(store: FaceStore, view: str) -> None:
    """A GPU would convolve with 10 bits where a CPU has 23."""
    cudnn, seen = torch.backends.cudnn, []

    def precision(*_: object) -> object:
        return cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32

    def note(*_: object) -> None:
        seen.append(precision())

    before = precision()
    detector = _detector(view)
    nets = [net for net in (detector.autoencoder, detector.classifier) if net is not None]
    for net in nets:
        net.register_forward_hook(note)
    detector.scores(store.images, np.arange(3))
    if detector.autoencoder is not None:
        reconstruct(detector.autoencoder, torch.from_numpy(store.images[:3]))
    assert len(seen) == 2 * len(nets) - 1
    assert set(seen) <= {"ieee", False}
    assert precision() == before
    assert before not in {"ieee", False}


def test_a_detector_says_where_it_computes_and_how() -> None:
    """Forward alone, a width of 4 takes no Winograd; a view without reconstructions runs the classifier only."""
    assert _detector("pixels").described_device() == "cpu, 1 thread, channels last"
    assert _detector("reconstruction").described_device() == "cpu, 1 thread, channels last, folded upsampling"
    detector = _detector("reconstruction")
    detector.view_name = "pixels"  # as experiment 2 has it, whose detector keeps the autoencoder
    assert detector.described_device() == "cpu, 1 thread, channels last"


def test_the_temperature_divides_the_log_odds_and_moves_no_verdict_across_one_half(store: FaceStore) -> None:
    detector = _detector("pixels")
    margins = detector.margins(store.images, np.arange(20))
    np.testing.assert_allclose(detector.scores(store.images, np.arange(20)), 1 / (1 + np.exp(-margins)))
    detector.temperature = 3.0
    np.testing.assert_allclose(detector.scores(store.images, np.arange(20)), 1 / (1 + np.exp(-margins / 3)))


def test_all_that_a_detector_decides_is_kept_in_its_file(store: FaceStore, tmp_path: Path) -> None:
    detector = _detector("reconstruction")
    detector.temperature, detector.threshold, detector.band = 1.5, 0.4, (0.3, 0.6)
    detector.seen = sha256_bytes(store.sha256[:5])
    detector.seen_labels = store.labels[:5]
    detector.save(tmp_path / "detector.pt")
    again = Detector.load(tmp_path)
    assert (again.temperature, again.threshold, again.band) == (1.5, 0.4, (0.3, 0.6))
    assert again.knows(store.sha256).tolist() == [True] * 5 + [False] * (len(store) - 5)
    np.testing.assert_array_equal(detector.scores(store.images), again.scores(store.images))


def test_a_picture_learnt_under_the_other_label_contradicts(store: FaceStore) -> None:
    detector = _detector("pixels")
    detector.seen, detector.seen_labels = sha256_bytes(store.sha256[:5]), store.labels[:5]
    assert detector.contradicts(store.sha256, store.labels) == 0
    assert detector.contradicts(store.sha256, 1 - store.labels) == 5
    assert detector.contradicts(store.sha256[5:], 1 - store.labels[5:]) == 0


def test_dropout_is_off_when_scoring(store: FaceStore) -> None:
    detector = _detector("pixels")
    first = detector.scores(store.images, np.arange(20))
    assert np.array_equal(first, detector.scores(store.images, np.arange(20)))
    assert not detector.classifier.training


def test_reconstructing_in_train_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="eval mode"):
        reconstruct(AutoGAN(1, 4).train(), torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_reconstructions_are_the_nets_output_rounded() -> None:
    net = AutoGAN(1, 4, norm="none").eval()
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    recon = reconstruct(net, pixels)
    assert recon.dtype == torch.uint8
    assert recon.shape == pixels.shape
    with torch.no_grad():
        assert (to_unit(recon) - net(to_unit(pixels))).abs().max() <= 1 / 127.5 / 2 + 1e-6


def test_a_saved_detector_scores_the_same(store: FaceStore, tmp_path: Path) -> None:
    detector = _detector("reconstruction")
    detector.threshold = 0.37
    detector.seen, detector.seen_labels = sha256_bytes(store.sha256[:10]), store.labels[:10]
    detector.save(tmp_path / DETECTOR_FILE)
    loaded = Detector.load(tmp_path)
    assert loaded.threshold == 0.37
    assert np.array_equal(loaded.scores(store.images[:30]), detector.scores(store.images[:30]))
    assert loaded.knows(store.sha256[:20]).tolist() == [True] * 10 + [False] * 10


def test_a_run_without_a_detector_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(FakeganError, match=f"resume={tmp_path}"):
        Detector.load(tmp_path)
    with pytest.raises(FakeganError, match="no run at"):
        Detector.load(tmp_path / "nothing")


def test_a_detector_of_flipped_labels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flipped = {"format": checkpoints.FORMAT, "label_convention": {"real": 1, "fake": 0}}
    monkeypatch.setattr(checkpoints, "stamp", lambda: flipped)
    _detector("pixels").save(tmp_path / DETECTOR_FILE)
    with pytest.raises(FakeganError, match="mean the opposite"):
        Detector.load(tmp_path)
