"""predict in process: the same scores as a store gives, a row for whatever is named, formats that programs can read."""

import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fakegan import predict, prepare
from fakegan.data.familiarity import UNLIKE, Familiarity
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store import FaceStore
from fakegan.detector import Detector, NetSpec, sha256_bytes
from fakegan.errors import UsageError
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.system.places import PROJECT
from tests.helpers import smooth_faces

NET = {"_target_": "fakegan.nets.simple_cnn.SimpleCNN", "in_channels": 3, "dropout": 0.0}
AUTOGAN = {"_target_": "fakegan.nets.autogan.AutoGAN", "depth": 1, "width": 4}


def detector(view: str = "reconstruction", **chosen: object) -> Detector:
    autoencoder = NetSpec(AUTOGAN, AutoGAN(1, 4).state_dict()) if view != "pixels" else None
    weights = SimpleCNN(3, 0.0).state_dict()
    weights["head.2.weight"] = 0.02 * torch.randn_like(weights["head.2.weight"])  # untrained, it is zero
    return Detector(Geometry(), view, NetSpec(NET, weights), autoencoder, temperature=0.5, **chosen)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven pictures of 80x80 in a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(smooth_faces(7, np.random.default_rng(1))):
        Image.fromarray(pixels).resize((80, 80)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> FaceStore:
    """The same pictures, prepared."""
    assert prepare.main(["--real", f"a={photos}", "--out", str(tmp_path / "store"), "--workers", "1"]) == 0
    return FaceStore.open(tmp_path / "store")


@pytest.fixture
def run(tmp_path, capfd):
    """Saves the detector as a run and calls predict on it; returns exit code, stdout, stderr."""

    def call(found: Detector, *words: object) -> tuple[int, str, str]:
        (tmp_path / "run").mkdir(exist_ok=True)
        found.save(tmp_path / "run" / DETECTOR_FILE)
        capfd.readouterr()
        code = predict.main(
            [str(word) for word in ("--run", tmp_path / "run", "--device", "cpu", "--workers", 1, *words)]
        )
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("view", ["pixels", "reconstruction"])
def test_scores_are_those_of_a_store_of_the_same_files(run, photos, store, view, monkeypatch):
    found = detector(view)
    expected = found.scores(store.images)
    monkeypatch.setattr("fakegan.detector.BATCH", 3)
    code, out, _ = run(found, photos, "--format", "json")
    rows = json.loads(out)
    assert code == 0
    assert [Path(row["file"]).name for row in rows] == [Path(file).name for file in store.files]
    assert len(np.unique(expected.round(4))) > 3
    np.testing.assert_allclose([row["score"] for row in rows], expected, atol=1e-6)
    assert [row["verdict"] for row in rows] == ["fake" if score >= 0.5 else "real" for score in expected]


def test_what_cannot_be_read_has_a_row_and_the_rest_goes_on(run, photos, tmp_path):
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:-200])
    (photos / "notes.txt").write_text("passed over")
    code, out, err = run(detector(), tmp_path / "gone.jpg", photos, photos / "notes.txt", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert list(rows[0]) == ["file", "score", "verdict", "warning", "error"]
    unread = {Path(row["file"]).name: row["error"] for row in rows if row["error"]}
    assert unread == {
        "gone.jpg": "cannot be read: No such file or directory",
        "2.png": "truncated or damaged",
        "notes.txt": "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture",
    }
    assert all((row["score"] == "") == bool(row["error"]) == (row["verdict"] == "") for row in rows)
    assert len(rows) == 9
    assert "9 pictures" in err
    assert "3 not read" in err


def test_nothing_that_can_be_read_is_told_too(run, photos, tmp_path):
    (tmp_path / "a.jpg").write_text("no")
    code, out, _ = run(detector(), tmp_path / "a.jpg", "--grid", tmp_path / "grid.png")
    assert code == 1
    assert "not read" in out
    assert "was not drawn" in out


def test_an_archive_gives_the_scores_of_its_files(run, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for file in sorted(photos.iterdir()):
            archive.write(file, f"in/{file.name}")
    found = detector()
    packed = json.loads(run(found, tmp_path / "faces.zip", "--format", "json")[1])
    plain = json.loads(run(found, *sorted(photos.iterdir()), "--format", "json")[1])
    assert [row["score"] for row in packed] == [row["score"] for row in plain]
    assert packed[0]["file"] == f"{tmp_path}/faces.zip/in/0.png"


def test_unsure_inside_the_band_only(run, photos, store):
    """Scores sorted: the band reaches from the third up to, not including, the sixth."""
    found = detector()
    ordered = np.sort(found.scores(store.images))
    found.band, found.threshold = (float(ordered[2]), float(ordered[5])), float(ordered[3])
    code, out, err = run(found, photos, "--format", "json")
    verdicts = [row["verdict"] for row in sorted(json.loads(out), key=lambda row: row["score"])]
    assert code == 0
    assert verdicts == ["real"] * 2 + ["unsure"] * 3 + ["fake"] * 2
    assert f"unsure from {ordered[2]:.3f} to {ordered[5]:.3f}" in err


def test_what_training_knew_and_what_it_never_saw_is_a_warning(run, photos, store):
    faces = smooth_faces(60, np.random.default_rng(2))
    found = detector(seen=sha256_bytes(store.sha256[:1]), seen_labels=store.labels[:1])
    found.familiarity = Familiarity.learn(faces, np.full(60, 64), np.full(60, 64), np.arange(40), np.arange(40, 60))
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "z.png")
    rows = json.loads(run(found, photos / "0.png", photos / "z.png", "--format", "json")[1])
    assert rows[0]["warning"].startswith("took part in training")
    assert rows[1]["warning"] == f"{UNLIKE}; 128x64: training pictures were square; crop to the face first"


def test_the_table_is_for_people(run, photos):
    code, out, _ = run(detector("pixels", threshold=0.0), photos)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["P(fake)", "verdict", "picture"]
    assert len(lines) == 9
    assert lines[1].split()[1:] == ["fake", str(photos / "0.png")]
    assert lines[-1].startswith("7 pictures: 7 fake. Fake from P(fake) 0.000.")


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="file names of any bytes")
def test_names_can_break_no_format(run, photos):
    name = os.fsdecode(b'a,"\n\x1b[31m\xff.png')
    (photos / "0.png").rename(photos / name)
    table = run(detector(), photos / name)[1]
    assert r"\n\x1b[31m\udcff.png" in table
    assert len(table.splitlines()) == 3
    assert json.loads(run(detector(), photos / name, "--format", "json")[1])[0]["file"] == str(photos / name)


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="file names of any bytes")
def test_csv_keeps_the_bytes_of_names(photos, tmp_path, capfdbinary):
    name = os.fsdecode(b'a,"\n\xff.png')
    (photos / "0.png").rename(photos / name)
    detector().save(tmp_path / DETECTOR_FILE)
    words = ["--run", tmp_path, "--device", "cpu", "--workers", 1, "--format", "csv", photos / name]
    assert predict.main([str(word) for word in words]) == 0
    sys.stdout.flush()
    written = capfdbinary.readouterr().out.decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert [len(row) for row in rows] == [5, 5]
    assert rows[1][0] == str(photos / name)


@pytest.mark.parametrize(("view", "rows"), [("pixels", 1), ("reconstruction", 3)])
def test_the_grid_shows_the_first_faces(run, photos, tmp_path, view, rows, monkeypatch):
    """Bands of three columns; each has its rows of 64 pixels and 2 of white, 2 more below, and a line of text."""
    monkeypatch.setattr(predict, "_GRID_FACES", 5)
    monkeypatch.setattr(predict, "_GRID_COLUMNS", 3)
    (photos / "1.png").write_text("no face, no place")
    code, out, _ = run(detector(view), photos, "--grid", tmp_path / "grid.png")
    assert code == 1
    assert "grid.png: the first 5 of 6 faces" in out
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (3 * 66 + 2, 2 * (rows * 66 + 2 + 12))
        grid = np.asarray(picture)
    with Image.open(photos / "2.png") as second:
        face = np.asarray(second.resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=2.0))
    assert np.array_equal(grid[2:66, 68:132], face)


def test_the_residual_is_four_times_the_error(run, photos, store, tmp_path):
    found = detector("reconstruction")
    assert run(found, photos, "--grid", tmp_path / "grid.png")[0] == 0
    with Image.open(tmp_path / "grid.png") as picture:
        grid = np.asarray(picture).astype(int)
    face, recon, residual = (grid[2 + at : 66 + at, 2:66] for at in (0, 66, 132))
    assert np.array_equal(face, store.images[0])
    assert np.array_equal(residual, np.minimum(4 * abs(recon - face), 255))
    assert residual.any()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nowhere.jpg", "gone"), 2, "nowhere.jpg does not exist"),
        ((".", "--grid", "grid.jpg"), 2, "ends in .png"),
        ((".", "--grid", "nowhere/grid.png"), 2, "no folder nowhere"),
        ((".", "--format", "xml"), 2, "invalid choice"),
        ((".", "--run", "nothing"), 2, "no run at nothing"),
        ((), 2, "PATH"),
    ],
)
def test_bad_words_get_one_sentence(run, words, code, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    got, out, err = run(detector(), *words)
    assert got == code
    assert out == ""
    assert len(err.splitlines()) == 1
    assert sentence in err


def test_a_program_gets_the_rows_of_the_command_to_the_bit(run, photos, monkeypatch):
    """For files good and bad; the same pixels, as a program may hold them, are prepared the same way."""
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:-200])
    with Image.open(photos / "3.png") as picture:
        picture.convert("L").crop((0, 0, 70, 50)).save(photos / "3.png")
    with Image.open(photos / "4.png") as picture:
        turned = picture.getexif()
        turned[0x0112] = 6  # held upright by its EXIF
        picture.crop((0, 0, 60, 80)).save(photos / "4.jpg", exif=turned)
    files = sorted(photos.iterdir())
    found = detector()
    printed = json.loads(run(found, *files, "--format", "json")[1])
    monkeypatch.chdir(photos.parent)
    loaded = Detector.load("run")
    rows = [asdict(row) for row in loaded.predict([str(files[0]), *files[1:]])]
    assert rows == printed
    assert [bool(row["error"]) for row in rows] == [path.name == "2.png" for path in files]
    good = [path for path in files if path.name != "2.png"]
    scores = [row["score"] for row in rows if not row["error"]]
    assert [row.score for row in loaded.predict(Image.open(path) for path in good)] == scores
    upright = [np.asarray(ImageOps.exif_transpose(Image.open(path))) for path in good]
    assert {picture.shape for picture in upright} == {(80, 80, 3), (50, 70), (60, 80, 3)}
    arrays = loaded.predict(upright)
    assert [row.score for row in arrays] == scores
    assert [row.file for row in arrays] == [f"[{number}]" for number in range(len(good))]


def test_the_training_pictures_of_an_array_are_known(photos):
    faces = smooth_faces(2, np.random.default_rng(5))
    learnt = np.array([face_from_pixels(faces[1]).sha256])
    found = detector("pixels", seen=sha256_bytes(learnt), seen_labels=np.zeros(1, dtype=np.int64))
    assert [row.warning for row in found.predict(faces)] == ["", "took part in training"]
    assert [row.warning for row in found.predict(map(Image.fromarray, faces))] == ["", "took part in training"]


EXPECTED = r"give paths of picture files, PIL images, or uint8 arrays \(0 to 255\) of shape \(H, W, 3\) or \(H, W\)$"


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [
        ("photo.jpg", r"^'photo.jpg' is no list of pictures: give a list, as in predict\(\[picture\]\)$"),
        (np.zeros((64, 64, 3), np.uint8), r"^an array of uint8, \(64, 64, 3\) is no list of pictures"),
        (Image.new("RGB", (64, 48)), "^a PIL image of 64x48 is no list of pictures"),
        (None, "^of type NoneType is no list of pictures"),
        ([], f"^there are no pictures in the list: {EXPECTED}"),
        (np.zeros((0, 64, 64, 3), np.uint8), f"^there are no pictures in the list: {EXPECTED}"),
        (["nowhere.jpg", "gone.jpg"], f"^nowhere.jpg does not exist: {EXPECTED}"),
        (["."], r"^. holds pictures, and each needs a row of its own: list its files, as in predict\(sorted"),
        (["a.zip"], "^a.zip holds pictures"),
        ([np.zeros((8, 8, 3))], rf"^picture 0 is an array of float64, \(8, 8, 3\): {EXPECTED}"),
        ([""], "^an empty path"),
        ([Image.new("L", (8, 8)), np.zeros((3, 8, 8), np.uint8)], f"^picture 1 is an array of uint8, .*: {EXPECTED}"),
        ([torch.zeros(3, 8, 8)], f"^picture 0 is of type Tensor: {EXPECTED}"),
        ([b"photo.jpg"], f"^picture 0 is b'photo.jpg': {EXPECTED}"),
        ([np.zeros((0, 8, 3), np.uint8)], f"^picture 0 is an array of uint8, .*: {EXPECTED}"),
    ],
)
def test_what_is_no_list_of_pictures_is_told_what_is(pictures, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=sentence):
        detector("pixels").predict(pictures)


def test_help_does_not_wait_for_torch():
    code = "import sys, fakegan.predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False, timeout=600).returncode == 0


def test_a_picture_that_is_there_is_never_drawn_over(run, photos, tmp_path):
    there = tmp_path / "there.png"
    there.write_bytes(b"a photograph")
    got, _, err = run(detector(), str(photos), "--grid", str(there))
    assert got == 2
    assert "is there already" in err
    assert there.read_bytes() == b"a photograph"


def test_a_run_may_be_named_by_its_detector_and_a_folder_of_runs_names_them(run, photos, tmp_path):
    found = detector("pixels")
    _, by_folder, _ = run(found, photos, "--format", "csv")
    code, by_file, _ = run(found, photos, "--format", "csv", "--run", tmp_path / "run" / DETECTOR_FILE)
    assert (code, by_file) == (0, by_folder)
    for name in ("9_a", "10_b", "11_unfinished"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        (tmp_path / "sweep" / name / "config.yaml").touch()
    for name in ("9_a", "10_b"):
        (tmp_path / "sweep" / name / "metrics.json").touch()
    code, _, told = run(found, photos, "--run", tmp_path / "sweep")
    names = ", ".join(str(tmp_path / "sweep" / name) for name in ("9_a", "10_b"))
    assert code == 2
    assert f"is no run, but a folder of 3: name one of them, such as {names}\n" in told
    (tmp_path / "empty").mkdir()
    code, _, told = run(found, photos, "--run", tmp_path / "empty")
    assert (code, "empty is not a run" in told) == (2, True)
