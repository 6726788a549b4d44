"""prepare --equalise: files of all kinds become files of one kind, and whatever reads for their store repeats it."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakegan.data.build import read_pictures
from fakegan.data.images import Equaliser, Face, Geometry, read_face
from fakegan.data.store import EQUALISED, FaceStore
from fakegan.detector import Detector
from fakegan.errors import UsageError
from fakegan.reports.evaluating import evaluate
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.stages import run as stages
from fakegan.stages.train_autoencoder import named_autoencoder
from tests.helpers import encode, fill, picture, snapshot, tiny_run
from tests.pictures import detector

Prepare = Callable[..., tuple[int, str, str]]


def jpeg(quality: int, square: Image.Image) -> Image.Image:
    content = encode(square, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(io.BytesIO(content))


def test_every_picture_becomes_the_same_kind_of_file_before_its_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, with Pillow; what is known of the picture stays that of its own file."""
    made: list[Image.Image] = []
    as_file = Equaliser.file

    def kept(equaliser: Equaliser, square: Image.Image) -> bytes:
        made.append(Image.open(io.BytesIO(content := as_file(equaliser, square))))
        return content

    monkeypatch.setattr(Equaliser, "file", kept)
    whole, equal = picture(5, 200), Geometry(equalise=Equaliser(96, 75))
    exif = Image.Exif()
    exif[0x0112] = 1
    for content in (encode(whole), encode(whole, "JPEG", quality=60, exif=exif), encode(whole, "WEBP")):
        plain, face = read_face(content, Geometry()), read_face(content, equal)
        decoded = Image.open(io.BytesIO(content)).convert("RGB")
        by_hand = jpeg(75, decoded.resize((96, 96), Image.Resampling.BICUBIC, reducing_gap=2.0))
        resized = by_hand.resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=2.0)
        assert (face.pixels == np.asarray(resized)).all()
        assert (face.pixels != plain.pixels).any()
        assert (face.facts, face.sha256) == (plain.facts, plain.sha256)
    assert [(file.format, file.size, file.layer, len(file.getexif())) for file in made] == [
        ("JPEG", (96, 96), made[0].layer, 0)  # type: ignore[attr-defined]
    ] * 3
    assert [row[1:3] for row in made[0].layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]  # 4:2:0
    assert {tuple(file.quantization[0]) for file in made} == {tuple(by_hand.quantization[0])}  # type: ignore


def test_prepare_equalises_all_sources_and_a_detector_of_the_store_does_the_same(
    tmp_path: Path, run_prepare: Prepare
) -> None:
    fill(tmp_path / "r", 3)
    fill(tmp_path / "f", 3, first_seed=9, suffix="jpg")
    rows = np.stack([np.asarray(picture(seed)) for seed in (30, 31)])
    np.save(tmp_path / "a.npy", rows)
    words = ("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'f'}", "--fake", f"c={tmp_path / 'a.npy'}")
    assert run_prepare(*words)[0] == 0
    plain = FaceStore.open(tmp_path / "faces")
    assert "equalise" not in plain.manifest["geometry"]  # which older FakeGANs read

    code, out, _ = run_prepare(*words, "--equalise", "80,70", "--overwrite", "--workers", 2)
    assert (code, "equalised: all became JPEGs of 80x80 pixels, quality 70\n" in out) == (0, True)
    told = "pictures smaller than 80x80: 3 of a, 3 of b, 2 of c; they were enlarged to be equalised, and"
    assert told in out
    assert "--equalise 64,70 enlarges none" in out  # with the quality that was asked for
    store, before = FaceStore.open(tmp_path / "faces"), snapshot(tmp_path / "faces")
    assert store.manifest["geometry"]["equalise"] == [80, 70]
    assert store.geometry == Geometry(equalise=Equaliser(80, 70))
    assert (store.sha256 == plain.sha256).all()
    as_they_came, equalised = store.file_facts(), store.file_facts(EQUALISED)
    assert as_they_came is not None
    assert equalised is not None
    assert as_they_came["format"].tolist() == ["PNG"] * 3 + ["JPEG"] * 3 + ["NPY"] * 2
    assert (set(equalised["format"]), set(equalised["width"]), set(equalised["chroma"])) == (
        {"JPEG"},
        {80.0},
        {"4:2:0"},
    )
    assert run_prepare(*words, "--equalise", "80,70", "--overwrite")[0] == 0
    assert snapshot(tmp_path / "faces") == before

    found = detector("pixels", weight=1.0)
    found.geometry = store.geometry
    found.save(tmp_path / DETECTOR_FILE)
    found = Detector.load(tmp_path / DETECTOR_FILE)
    assert found.geometry == store.geometry
    faces = [face for _, face in read_pictures([tmp_path / "r", tmp_path / "f"], found.geometry)]
    assert [face.pixels.tolist() for face in faces if isinstance(face, Face)] == store.images[:6].tolist()
    scores = [row.score for row in found.predict([tmp_path / "r" / "000.png", picture(0), *rows])]
    expected = found.scores(store.images, np.array([0, 0, 6, 7]))
    assert scores == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_detector_says_that_a_picture_was_enlarged() -> None:
    found = detector("pixels")
    found.geometry = Geometry(equalise=Equaliser(128))
    large, small, smallest = (row.warning for row in found.predict([picture(1, side) for side in (128, 100, 40)]))
    assert (large, small) == ("", "100x100: enlarged to 128x128, and enlarged faces have less detail to judge")
    assert smallest == "40x40: enlarged to 128x128, and enlarged faces have no detail to judge"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("63", "--equalise: a side of 63 pixels is not from 64, the size of the faces, to 4096"),
        ("5000,90", "a side of 5000 pixels is not"),
        ("64,49", "--equalise: a JPEG quality of 49 is not from 50 to 100"),
        ("64,101", "a JPEG quality of 101"),
        ("0", "a side of 0 pixels"),
        ("best", "best: write SIDE or SIDE,QUALITY, such as 64,50"),
        ("64,90,2", "64,90,2: write SIDE or"),
        ("", ": write SIDE or"),
    ],
)
def test_what_cannot_equalise_is_one_sentence(tmp_path: Path, run_prepare: Prepare, given: str, told: str) -> None:
    code, _, err = run_prepare("--real", f"a={fill(tmp_path / 'r', 1)}", "--equalise", given)
    assert (code, err.count("\n"), told in err) == (2, 1, True), err


def test_faces_that_were_equalised_otherwise_are_refused_by_what_prepare_was_asked(
    finished: RunSettings, store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path(shutil.copytree(store_path, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["geometry"]["equalise"] = [64, 90]
    (other / "manifest.json").write_text(json.dumps(manifest))
    data = replace(finished.data, root=other, limit=None)
    asked = EvaluateSettings(str(finished.paths.run_dir), (), tmp_path / "out", (), "cpu", tmp_path, data)
    told = r"was prepared with --size 64 --equalise 64,90, but the faces of the run with --size 64: prepare them again"
    with pytest.raises(UsageError, match=told):
        evaluate(asked, finished)
    words = ("pipeline=recon_error", "model=autogan4", f"model.checkpoint={finished.paths.run_dir}")
    settings = tiny_run(other, tmp_path / "by name", *words)
    told = r"prepared with --size 64, but those of the store were prepared with --size 64 --equalise 64,90: prepare it"
    with pytest.raises(UsageError, match=told):
        stages.run(settings)
    content = load_checkpoint(finished.paths.run_dir / "autoencoder" / "autoencoder.pt")
    file = tmp_path / "older.pt"
    save_checkpoint({name: value for name, value in content.items() if name != "geometry"}, file)
    older = replace(settings, model=replace(settings.model, checkpoint=file))
    assert named_autoencoder(file, replace(older, data=finished.data)) == file
    told = "it does not say whether its faces were equalised"
    assert told not in caplog.text
    assert named_autoencoder(file, older) == file
    assert told in caplog.text


def _texture(rng: np.random.Generator) -> Image.Image:
    """128x128 pixels of noise whose amplitude falls with frequency, as that of photographs does."""
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    frequency[0, 0] = 1
    waves = np.fft.fft2(rng.normal(size=(3, 128, 128))) / frequency**1.2
    field = np.fft.ifft2(waves).real
    field = 128 + 50 * field / field.std()
    return Image.fromarray(np.clip(field, 0, 255).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.slow
def test_a_classifier_finds_less_of_the_files_after_equalising(tmp_path: Path, run_prepare: Prepare) -> None:
    """One source, half of it as PNG and half as JPEG of quality 60: there is nothing else to learn."""
    rng = np.random.default_rng(0)
    for number in range(400):
        name, options = (("real", {}), ("fake", {"quality": 60}))[number % 2]
        (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
        content = encode(_texture(rng), "JPEG" if options else "PNG", **options)
        (tmp_path / "d" / name / f"{number:03d}").write_bytes(content)
    found = {}
    for name, options in (("plain", ()), ("equal", ("--equalise",))):
        assert run_prepare("--root", tmp_path / "d", "--out", tmp_path / name / "store", *options)[0] == 0
        words = ("pipeline=classify", "data.limit=null", "data.split.test=0.3", "data.split.autoencoder_share=0")
        words += ("budget.width=8", "trainer.max_epochs=10")
        settings = tiny_run(tmp_path / name / "store", tmp_path / name, *words)
        stages.run(settings)
        found[name] = json.loads((settings.paths.run_dir / "metrics.json").read_text())["test"]["auroc"]
    assert found["plain"]["low"] > 0.5
    assert found["equal"]["high"] < found["plain"]["value"]
