"""Faces of other sizes: prepared, trained on, scored and drawn as faces of 64 pixels are; no two sizes are mixed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fakegan import predict, sample
from fakegan.data.arrays import at_once
from fakegan.data.demo import demo_faces
from fakegan.data.faces import built_in_store
from fakegan.data.familiarity import Familiarity
from fakegan.data.sheets import read_png, shrunk
from fakegan.data.store import FaceStore
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import FAKE, REAL
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.reports.evaluating import evaluate
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.config_file import give_places, write_down
from fakegan.runs.folder import AUTOENCODER_FILE, AUTOENCODER_FOLDER
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.stages import run as stages
from tests.conftest import Compose
from tests.helpers import begin, elsewhere, picture, record, refusal, smooth_faces, tiny_run, write_store


class FitsOneSize(nn.Module):
    """A user's net whose last layer counts pixels."""

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        self.last = nn.Linear(3 * size**2, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(x.flatten(1))
        return logits


class FitsTheSmallest(FitsOneSize):
    def __init__(self) -> None:
        super().__init__()


class MakesTheSmallest(DCGANGenerator):
    """A user's generator, whose faces have 64 pixels whatever the store's have."""

    def __init__(self, latent: int = 5, out_channels: int = 3) -> None:
        super().__init__(latent, 2, out_channels)


@pytest.fixture(scope="session")
def larger_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 real and 48 fake faces of 128 pixels."""
    rng = np.random.default_rng(3)
    faces = [
        (pixels, f"{source}/{i:04d}", label, source)
        for source, label, board in (("camera", REAL, 0.0), ("gan", FAKE, 12.0))
        for i, pixels in enumerate(smooth_faces(48, rng, board, 128))
    ]
    return write_store(tmp_path_factory.mktemp("stores") / "larger", faces, 128)


@pytest.fixture(scope="session")
def larger_run(larger_store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """A run on these, to its end, with an autoencoder, a classifier and a generator. Nothing may be written into it."""
    words = ("pipeline=recon_classify", "model=autogan1", "classifier=dcgan", "budget.width=2", "data.split.test=0.3")
    settings = tiny_run(larger_store, tmp_path_factory.mktemp("larger"), *words)
    write_down(settings, settings.paths.run_dir)
    stages.run(settings)
    return settings


Prepare = Callable[..., tuple[int, str, str]]


def test_prepare_brings_pictures_to_a_size_and_counts_smaller_ones(run_prepare: Prepare, tmp_path: Path) -> None:
    for name, sides in (("r", (160, 128, 127)), ("f", (300, 64, 90))):
        (tmp_path / name).mkdir()
        for i, side in enumerate(sides):
            picture(ord(name) + i, side).resize((side, side + 40)).save(tmp_path / name / f"{i}.png")
    words = ("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'f'}", "--size", 128)
    code, out, _ = run_prepare(*words)
    assert code == 0
    told = (
        "pictures smaller than 128x128: 1 of a, 2 of b; they were enlarged, and enlarged faces have no detail to judge"
    )
    assert f"warning: {told}: leave them out, or choose a smaller --size" in out
    store = FaceStore.open(tmp_path / "faces")
    assert (store.images.shape, store.geometry.size) == ((6, 128, 128, 3), 128)
    assert store.manifest["format_version"] == 2  # which programs that know 64 pixels alone refuse
    assert told in store.manifest["warnings"][-1]
    store.verify()
    with Image.open(tmp_path / "r" / "1.png") as whole:
        assert (store.images[1] == np.asarray(whole)[20:148]).all()  # its centre square, as it is

    assert run_prepare(*words[:-2], "--overwrite")[0] == 0
    smaller = FaceStore.open(tmp_path / "faces")
    assert (smaller.geometry.size, smaller.manifest["format_version"]) == (64, 1)
    assert "pictures smaller" not in str(smaller.manifest["warnings"])


def test_prepare_names_the_sizes_that_there_are(run_prepare: Prepare, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 128, 128), np.uint8))
    source = ("--real", f"a={tmp_path / 'a.npy'}")
    code, _, err = run_prepare(*source, "--size", 100)
    assert (code, err.count("\n")) == (2, 1)
    assert "--size: invalid choice: 100 (choose from 64, 128, 256)" in err.replace("'", "")
    code, _, err = run_prepare(*source)
    assert code == 2
    assert "has shape (2, 3, 128, 128): give N x 64 x 64 x 3 or N x 3 x 64 x 64, or add --size 128" in err
    assert run_prepare(*source, "--size", 128)[0] == 0
    assert FaceStore.open(tmp_path / "faces").images.shape == (2, 128, 128, 3)


def test_a_run_takes_its_size_from_the_store(larger_run: RunSettings, larger_store: Path) -> None:
    run_dir = larger_run.paths.run_dir
    assert larger_run.face_size == 128
    fingerprint = FaceStore.open(larger_store).fingerprint
    assert (run_dir / "faces.sha256").read_text() == f"{fingerprint}\n128\n"
    assert "size" not in larger_run.classifier.node["net"]  # nobody sets it: it follows from the store
    detector = Detector.load(run_dir)
    assert (detector.geometry.size, detector.classifier_spec.net["size"]) == (128, 128)
    autoencoder = load_checkpoint(run_dir / AUTOENCODER_FOLDER / AUTOENCODER_FILE)
    assert autoencoder["geometry"]["size"] == 128
    assert json.loads((run_dir / "analysis" / "analysis.json").read_text())["autoencoder"]["picture_numbers"] == 49152
    drawn = sorted((run_dir / "autoencoder").rglob("reconstructions_*.png"))
    assert read_png(drawn[0]).shape[0] == 3 * 130 + 2  # rows of 128 pixels and 2 of white


def test_a_run_of_another_size_is_scored_again_predicts_and_samples(
    larger_run: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = larger_run.paths.run_dir
    asked = EvaluateSettings(str(run_dir), (), tmp_path / "again", (), "cpu", larger_run.paths.data_dir)
    assert "gan (fake)" in evaluate(asked, larger_run)
    assert (tmp_path / "again" / "scores.csv").read_bytes() == (run_dir / "scores.csv").read_bytes()

    for name, side in (("large", 200), ("small", 100)):
        picture(side, side).save(tmp_path / f"{name}.png")
    words = [f"{tmp_path}/large.png", f"{tmp_path}/small.png", "--run", str(run_dir), "--device", "cpu"]
    capsys.readouterr()
    assert predict.main([*words, "--format", "json", "--grid", str(tmp_path / "grid.png"), "--workers", "1"]) == 0
    large, small = json.loads(capsys.readouterr().out)
    told = "100x100: enlarged to 128x128, and enlarged faces have no detail to judge"
    assert told in small["warning"]
    assert "enlarged" not in large["warning"]
    assert read_png(tmp_path / "grid.png").shape[1] == 10 + 640 + 10  # the legend is wider than two cards

    words = ["--run", str(run_dir), "--count", "3", "--out", str(tmp_path / "made"), "--device", "cpu"]
    assert sample.main(words) == 0
    assert "--real NAME=PATH --size 128 --out" in capsys.readouterr().out
    assert read_png(tmp_path / "made" / "000002.png").shape == (128, 128, 3)


def test_faces_and_runs_of_different_sizes_are_refused_by_both_names(
    larger_run: RunSettings, store_path: Path, larger_store: Path, tmp_path: Path
) -> None:
    run_dir = larger_run.paths.run_dir
    smaller = replace(larger_run.data, root=store_path, limit=None)
    asked = EvaluateSettings(str(run_dir), (), tmp_path / "out", (), "cpu", larger_run.paths.data_dir, smaller)
    told = "was prepared with --size 64, but the faces of the run with --size 128: prepare them again with the run's"
    with pytest.raises(UsageError, match=told):
        evaluate(asked, larger_run)
    told = r"holds faces of 64x64 pixels, but .* began with faces of 128x128: name the store .*, or start a new run$"
    with pytest.raises(FakeganError, match=told):
        give_places(str(run_dir), {"data.root": str(store_path)})
    other = elsewhere(larger_run, "other")
    other.paths.run_dir.mkdir()
    (other.paths.run_dir / "faces.sha256").write_bytes((run_dir / "faces.sha256").read_bytes())
    with pytest.raises(FakeganError, match=told):  # the store was prepared again in its place
        stages.run(replace(other, data=smaller))
    words = ("pipeline=recon_error", "model=autogan1", f"model.checkpoint={run_dir}", "budget.width=2")
    with pytest.raises(UsageError, match=r"faces prepared with --size 128, but those of .* --size 64: prepare"):
        stages.run(tiny_run(store_path, tmp_path, *words))
    missing = (f"data.root={tmp_path / 'nowhere'}", f"model.checkpoint={run_dir}")
    with pytest.raises(UsageError, match=r"no face store at .*nowhere: make one with"):
        stages.run(tiny_run(store_path, tmp_path, *words[:2], *words[3:], *missing))
    words = (f"data.root={larger_store}", "data=faces", "paths.run_dir=x", "pipeline=classify")
    for key in ("classifier.net.size", "classifier.generator.size"):
        told = f"{key}=64 is no choice: the store's faces have 128 pixels a side; leave it out"
        assert told in refusal(*words, "classifier=dcgan", f"+{key}=64")
        assert refusal(*words, "classifier=dcgan", f"+{key}=128") == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "classifier.net._target_=tests.test_sizes.FitsTheSmallest",
            r"blank faces: .*; the store's faces have 128x128",
        ),
        ("classifier=dcgan classifier.generator._target_=tests.test_sizes.MakesTheSmallest", r"\(2, 3, 64, 64\); the"),
        ("classifier.net._target_=tests.test_sizes.FitsOneSize", ""),
    ],
)
def test_a_users_network_fits_the_size_or_is_refused(
    larger_store: Path, tmp_path: Path, words: str, sentence: str
) -> None:
    settings = tiny_run(larger_store, tmp_path, "pipeline=classify", *words.split())
    if not sentence:
        (made,) = stages.try_networks(settings)
        assert made.get_parameter("net.last.weight").shape == (2, 3 * 128**2)
        return
    with pytest.raises(UsageError, match=sentence) as caught:
        stages.try_networks(settings)
    assert "option `size`" in str(caught.value)
    assert "--size 64" in str(caught.value)


def test_an_option_size_that_means_something_else_is_refused_where_a_run_would_change_it(
    larger_store: Path, tmp_path: Path
) -> None:
    """A config file of the user's may set it, or a run that began before the option was filled in."""
    settings = tiny_run(larger_store, tmp_path, "pipeline=classify")
    node = {**settings.classifier.node, "net": {"_target_": "tests.test_sizes.FitsOneSize", "size": 32}}
    with pytest.raises(UsageError, match=r"classifier.net.size=32 is no choice: .* 128 pixels .* needs another name$"):
        stages.try_networks(replace(settings, classifier=replace(settings.classifier, node=node)))


def test_what_counts_faces_takes_as_many_pixels_at_every_size() -> None:
    assert [at_once(256, size) for size in (64, 128, 256)] == [256, 64, 16]
    assert at_once(3, 256) == 1


def test_a_detector_scores_larger_faces_in_smaller_batches(larger_run: RunSettings, larger_store: Path) -> None:
    detector, lengths = Detector.load(larger_run.paths.run_dir), list[int]()
    detector.classifier.register_forward_hook(lambda _net, inputs, _out: lengths.append(len(inputs[0])))
    scores = detector.scores(FaceStore.open(larger_store).images)
    assert lengths == [64, 32]
    assert torch.isfinite(torch.from_numpy(scores)).all()
    with pytest.raises(UsageError, match="scores faces of 128x128x3, not 64x64x3: `predict` resizes pictures"):
        detector.scores(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.slow
def test_two_processes_reconstruct_larger_faces_as_one_does(larger_store: Path, tmp_path: Path) -> None:
    """Each writes its share of the batches into its place in one file; the learning rates are 0."""
    words = (
        "pipeline=recon_classify",
        "classifier=simple_cnn",
        "model.optimizer.lr=0.0",
        "classifier.optimizer.lr=0.0",
        "test.robustness=true",  # the networks are alike, so its file has the same bytes, too
    )
    runs = [begin(larger_store, tmp_path / trainer, *words, f"trainer={trainer}") for trainer in ("cpu", "ddp_cpu")]
    for settings in runs:
        record(settings)
    files = [next(settings.paths.artifact_dir.glob("reconstructions/a*/images.npy")) for settings in runs]
    assert np.load(files[0]).shape[0] > 64  # more than one batch
    assert files[0].read_bytes() == files[1].read_bytes()
    one, two = (json.loads((settings.paths.run_dir / "metrics.json").read_text()) for settings in runs)
    assert (one["val"], one["test"]) == (two["val"], two["test"])
    one_file, two_file = (settings.paths.run_dir / "robustness.json" for settings in runs)
    assert one_file.read_bytes() == two_file.read_bytes()


def test_faces_shrink_by_means_of_blocks() -> None:
    face: Any = np.zeros((4, 4, 3), np.uint8)
    face[:2, :2, 0] = [[1, 2], [3, 6]]
    assert shrunk(face, 2)[..., 0].tolist() == [[3, 0], [0, 0]]
    assert shrunk(face, 4).tolist() == face.tolist()
    assert shrunk(np.stack([face, face]), 1)[:, 0, 0, 0].tolist() == [1, 1]  # 12 / 16


def test_built_in_faces_are_the_same_people_at_every_size(compose_settings: Compose) -> None:
    drawn = [np.array([face.image for face in demo_faces(6, size=size, workers=1)]) for size in (64, 128)]
    assert drawn[1].shape == (6, 128, 128, 3)
    for small, large in zip(drawn[0], shrunk(drawn[1], 64), strict=True):
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97
    settings = compose_settings("data.demo_size=128", "data.demo_faces=100")
    settings = replace(settings, data=replace(settings.data, root=None))
    assert settings.face_size == 128
    path = built_in_store(settings.data, settings.paths.data_dir)
    assert (path.name, FaceStore.open(path).geometry.size) == ("demo-100-0-128px-r1", 128)
    assert refusal("data.demo_size=100", "paths.run_dir=x") == "data.demo_size=100 must be one of 64, 128, 256"


def test_familiarity_is_learnt_from_larger_faces() -> None:
    faces, sides = smooth_faces(60, np.random.default_rng(1), size=128), np.full(60, 128)
    found = Familiarity.learn(faces, sides, sides, np.arange(40), np.arange(40, 60))
    noise = np.random.default_rng(2).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    assert (found.strangeness(noise) > 1).all()
    assert (found.strangeness(faces[40:]) <= 1).mean() > 0.9
