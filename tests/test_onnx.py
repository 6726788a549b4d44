"""ONNX files: torch's scores within 1e-4 for every view and classifier, by onnxruntime alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fakegan.config.building import TARGET
from fakegan.detector import Detector, NetSpec, reconstruct
from fakegan.errors import FakeganError
from fakegan.evaluation.calibration import Validation
from fakegan.loading import detector_of
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.backbone import Backbone
from fakegan.nets.dcgan import DCGANDiscriminator
from fakegan.system.places import PROJECT
from fakegan.views import VIEWS
from tests.helpers import fill, smooth_faces
from tests.pictures import detector

pytest.importorskip("onnxruntime")
import onnxruntime

from fakegan.onnx_detector import LOG_ODDS, OnnxDetector
from fakegan.onnx_writer import write_onnx

FACES = smooth_faces(5, np.random.default_rng(0), 12.0)


def _alike(made: Detector, path: Path) -> None:
    """The file's scores of one face and of several are torch's."""
    assert write_onnx(made, path, FACES, "# A card\n") < 1e-4
    found = detector_of(path, "cpu")
    for count in (1, 5):
        np.testing.assert_allclose(found.scores(FACES[:count]), made.scores(FACES[:count]), atol=1e-4)
    assert found.parts() == made.parts()


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_every_view_gives_torchs_scores(view: str, tmp_path: Path) -> None:
    _alike(detector(view, weight=0.1, temperature=1.5), tmp_path / "a.onnx")


NETS = {
    "AlexNet": (AlexNet, {TARGET: "fakegan.nets.alexnet.AlexNet", "in_channels": 3, "width": 8}),
    "DCGAN": (DCGANDiscriminator, {TARGET: "fakegan.nets.dcgan.DCGANDiscriminator", "in_channels": 3, "width": 4}),
}


@pytest.mark.parametrize("name", NETS)
def test_the_other_classifiers_give_torchs_scores_with_mirror_images(name: str, tmp_path: Path) -> None:
    kind, node = NETS[name]
    net = kind(**{key: value for key, value in node.items() if key != TARGET})
    spec = NetSpec(node, {key: value + 0.01 for key, value in net.state_dict().items() if value.is_floating_point()})
    spec.weights.update({k: v for k, v in net.state_dict().items() if not v.is_floating_point()})
    made = detector("pixels")
    _alike(Detector(made.geometry, "pixels", spec, None, flip_average=True), tmp_path / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny"])
def test_torchvisions_networks_give_torchs_scores(name: str, tmp_path: Path) -> None:
    inner = {TARGET: f"torchvision.models.{name}", "weights": None}
    node = {TARGET: "fakegan.nets.backbone.Backbone", "in_channels": 3, "net": inner}
    import torchvision

    net = Backbone(getattr(torchvision.models, name)(weights=None), in_channels=3)
    made = detector("pixels")
    _alike(Detector(made.geometry, "pixels", NetSpec(node, net.state_dict()), None), tmp_path / "a.onnx")


def test_a_verdict_needs_no_torch(tmp_path: Path) -> None:
    validation = Validation(np.array([0.1, 0.3, 0.7, 0.9]), np.array([0, 0, 1, 1]), np.arange(4))
    made = detector("pixels", weight=0.5, threshold=0.4, band=(0.3, 0.6), validation=validation)
    write_onnx(made, tmp_path / "a.onnx", FACES, "")
    pictures = fill(tmp_path / "pictures", 3)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from fakegan.predict import main\n"
        f"run, pictures = {str(tmp_path / 'a.onnx')!r}, {str(pictures)!r}\n"
        "sys.exit(main(['--run', run, '--format', 'csv', '--workers', '1', pictures]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()[1:]]
    expected = made.predict(sorted(pictures.iterdir()))
    assert [row[2:4] for row in rows] == [[row.call, row.verdict] for row in expected]
    np.testing.assert_allclose([float(row[1]) for row in rows], [row.score for row in expected], atol=1e-4)


def test_a_file_whose_scores_are_not_torchs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = detector("pixels", weight=0.5)
    monkeypatch.setattr(Detector, "log_odds_by", lambda self, given, faces: np.full(len(faces), np.nan))
    with pytest.raises(FakeganError, match=r"was not kept: its scores are up to .* from torch's on 5 faces"):
        write_onnx(made, tmp_path / "a.onnx", FACES, "")
    assert not list(tmp_path.iterdir())


def test_reconstructions_may_be_rounded_otherwise_by_one_level_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are compared on the same reconstructions, and the difference that rounding makes is told."""
    made = detector(weight=5.0)
    expected = made.reconstructions(FACES)
    assert expected is not None
    assert write_onnx(made, tmp_path / "a.onnx", FACES, "") < 1e-4
    found = detector_of(tmp_path / "a.onnx", "cpu").reconstructions(FACES)
    assert found is not None
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1

    def shifted(levels: int) -> None:
        def other(autoencoder: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
            return (reconstruct(autoencoder, pixels).int() + levels).clamp(0, 255).to(torch.uint8)

        monkeypatch.setattr("fakegan.detector.reconstruct", other)

    shifted(1)
    assert write_onnx(made, tmp_path / "b.onnx", FACES, "") > 1e-3  # of torch's own scores, with its other rounding
    shifted(3)
    with pytest.raises(FakeganError, match=r"c\.onnx was not kept: its reconstructions are up to [234] levels from"):
        write_onnx(made, tmp_path / "c.onnx", FACES, "")
    assert not (tmp_path / "c.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"no ONNX", b"\x08\x07" + bytes(50)])
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(FakeganError, match=r"a\.onnx is damaged or no"):
        detector_of(tmp_path / "a.onnx", "cpu")
    with pytest.raises(FakeganError, match="cannot be read: No such file"):
        detector_of(tmp_path / "gone.onnx", "cpu")


def _field(number: int, body: bytes) -> bytes:
    """A field of protobuf's wire format with fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(body)]) + body


@pytest.mark.parametrize("length", [b"\x08", b"\x88\x00"])  # of the key, as short as can be and padded
def test_a_graph_that_names_another_file_is_refused(
    length: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.bin").write_bytes(b"ABCD")
    key = b"\x0a" + length + b"location"
    tensor = b"\x08\x04\x10\x02" + _field(8, b"w") + _field(13, key + _field(2, b"data.bin")) + b"\x70\x01"
    kind = _field(1, b"\x08\x02" + _field(2, _field(1, b"\x08\x04")))  # uint8 of shape (4,)
    node = _field(1, b"w") + _field(2, b"y") + _field(4, b"Identity")
    graph = _field(1, node) + _field(2, b"g") + _field(5, tensor) + _field(12, _field(1, b"y") + _field(2, kind))
    content = b"\x08\x09" + _field(7, graph) + _field(8, b"\x10\x12")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert bytes(session.run(None, {})[0]) == b"ABCD"  # the runtime alone would read it
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(FakeganError, match=r"a\.onnx names other files, which are not read"):
        detector_of("a.onnx", "cpu")


def test_a_graph_that_gives_no_log_odds_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write_onnx(detector("pixels"), tmp_path / "a.onnx", FACES, "")
    content = (tmp_path / "a.onnx").read_bytes()
    assert content.count(LOG_ODDS.encode()) >= 2  # the node's output, and the graph's
    (tmp_path / "b.onnx").write_bytes(content.replace(LOG_ODDS.encode(), b"log_oddz"))
    with pytest.raises(FakeganError, match=r"b\.onnx is damaged or of another version"):
        detector_of(tmp_path / "b.onnx", "cpu")


def test_threads_are_those_of_openmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_onnx(detector("pixels"), tmp_path / "a.onnx", FACES, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    found = detector_of(tmp_path / "a.onnx", "cpu")
    assert isinstance(found, OnnxDetector)
    assert found.session.get_session_options().intra_op_num_threads == 3
