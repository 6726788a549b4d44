"""predict in process: the same scores as a store gives, a row for each argument, formats that programs can read."""

import csv
import io
import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fakegan import predict, prepare
from fakegan.data.familiarity import UNLIKE, Familiarity
from fakegan.data.formats import NO_PICTURE
from fakegan.data.images import face_from_pixels
from fakegan.data.store import FaceStore
from fakegan.data.verdict_sheet import Sheet
from fakegan.detector import Detector
from fakegan.errors import UsageError
from fakegan.evaluation.calibration import Validation
from fakegan.evaluation.verdicts import CALLS
from fakegan.judge import sha256_bytes
from fakegan.runs.folder import DETECTOR_FILE
from tests.helpers import as_zip, smooth_faces
from tests.pictures import detector

any_bytes = pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")


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
        argv = ("--run", tmp_path / "run", "--device", "cpu", "--workers", 1, *words)
        code = predict.main([str(argument) for argument in argv])
        sys.stdout.flush()
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def rows(run):
    """The rows that predict gives as JSON."""
    return lambda found, *words: json.loads(run(found, *words, "--format", "json")[1])


@pytest.mark.parametrize("view", ["pixels", "reconstruction"])
def test_scores_are_those_of_a_store_and_an_archive_of_the_same_files(rows, photos, store, view, monkeypatch):
    found = detector(view)
    expected = found.scores(store.images)
    monkeypatch.setattr("fakegan.judge.BATCH", 3)
    predicted = rows(found, photos)
    assert [Path(row["file"]).name for row in predicted] == [Path(file).name for file in store.files]
    assert len(np.unique(expected.round(4))) > 3
    np.testing.assert_allclose([row["score"] for row in predicted], expected, atol=1e-6)
    assert [row["verdict"] for row in predicted] == ["fake" if score >= 0.5 else "real" for score in expected]
    packed = rows(found, as_zip(photos))
    assert [row["score"] for row in packed] == [row["score"] for row in predicted]
    assert packed[0]["file"] == f"{photos}.zip/0.png"


def test_an_unreadable_file_has_a_row_and_the_rest_goes_on(run, photos, tmp_path):
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:-200])
    (photos / "notes.txt").write_text("passed over")
    code, out, err = run(detector(), tmp_path / "gone.jpg", photos, photos / "notes.txt", "--format", "csv")
    predicted = list(csv.DictReader(io.StringIO(out)))
    assert (code, len(predicted)) == (1, 9)
    assert list(predicted[0]) == ["file", "score", "call", "verdict", "warning", "error"]
    assert {Path(row["file"]).name: row["error"] for row in predicted if row["error"]} == {
        "gone.jpg": "cannot be read: No such file or directory",
        "2.png": "truncated or damaged",
        "notes.txt": NO_PICTURE,
    }
    assert all(len({row[name] == "" for name in ("score", "call", "verdict")}) == 1 for row in predicted)
    assert all((row["score"] == "") == bool(row["error"]) for row in predicted)
    assert "9 pictures" in err
    assert "3 not read" in err
    code, out, _ = run(detector(), photos / "notes.txt", "--grid", tmp_path / "grid.png")  # nothing can be read
    assert code == 1
    assert "1 not read" in out
    assert "was not drawn" in out


def test_unsure_inside_the_band_only(run, photos, store):
    """Scores sorted: the band reaches from the third up to, not including, the sixth."""
    found = detector()
    ordered = np.sort(found.scores(store.images))
    found.band, found.threshold = (float(ordered[2]), float(ordered[5])), float(ordered[3])
    code, out, err = run(found, photos, "--format", "json")
    by_score = sorted(json.loads(out), key=lambda row: row["score"])
    assert code == 0
    assert [row["verdict"] for row in by_score] == ["real"] * 2 + ["unsure"] * 3 + ["fake"] * 2
    assert [row["call"] for row in by_score] == ["real"] * 3 + ["fake"] * 4
    said = re.search(r"unsure from (0\.\d+) to (0\.\d+)\.", err)
    assert said is not None
    assert [float(bound) for bound in said.groups()] == pytest.approx(ordered[[2, 5]], abs=5e-4)


def test_the_user_may_choose_the_threshold_or_a_rate_of_false_alarms(run, rows, photos, store):
    """19 real validation faces, of which the highest scores as high as the sixth picture; all fakes above all."""
    found = detector()
    ordered = np.sort(found.scores(store.images))
    scores, labels = np.append(np.linspace(0, ordered[5], 19), [1.0] * 19), np.repeat([0, 1], 19)
    found.validation = Validation.of(scores, labels, np.arange(38).astype(str))
    words = (found, photos, "--threshold", ordered[3])
    assert [row["call"] for row in sorted(rows(*words), key=lambda row: row["score"])] == ["real"] * 3 + ["fake"] * 4
    assert f"Called fake from P(fake) {ordered[3]:.3f}. " in run(*words)[1]
    predicted = sorted(rows(found, photos, "--max-false-alarms", 0.05), key=lambda row: row["score"])
    assert [row["call"] for row in predicted] == ["real"] * 6 + ["fake"]
    for options, sentence in (
        (("--max-false-alarms", 0.01), "takes 99 real validation faces"),
        (("--max-false-alarms", 0.1, "--threshold", 0.5), "not both"),
        (("--threshold", "nan"), "from 0 to 1"),
        (("--threshold", "high"), "--threshold: high is not a number from 0 to 1 (--help explains every argument)"),
    ):
        code, out, err = run(found, photos, *options)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert sentence in err
    code, _, err = run(detector(), photos, "--max-false-alarms", 0.1)
    assert (code, "of an earlier version" in err) == (1, True)


def test_pictures_of_training_and_pictures_unlike_them_are_warned_about(rows, photos, store):
    faces = smooth_faces(60, np.random.default_rng(2))
    found = detector(seen=sha256_bytes(store.sha256[:1]), seen_labels=store.labels[:1])
    found.familiarity = Familiarity.learn(faces, np.full(60, 64), np.full(60, 64), np.arange(40), np.arange(40, 60))
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "z.png")
    known, strange = rows(found, photos / "0.png", photos / "z.png")
    assert known["warning"].startswith("took part in training")
    assert strange["warning"] == f"{UNLIKE}; 128x64: training pictures were square; crop to the face first"
    assert (strange["verdict"], strange["call"] in CALLS) == ("unknown", True)
    assert sum(row.verdict == "unknown" for row in found.predict(faces)) <= 1


def test_the_table_is_for_people(run, photos):
    code, out, _ = run(detector("pixels", threshold=0.0), photos)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 9)
    assert lines[0].split() == ["P(fake)", "call", "verdict", "picture"]
    assert lines[1].split()[1:] == ["fake", "fake", str(photos / "0.png")]
    assert lines[-1].startswith("7 pictures: 7 fake. Called fake from P(fake) 0.000.")


@pytest.mark.parametrize(("labels", "warns"), [([0, 1], True), ([0] * 9 + [1] * 9, False)])
def test_a_detector_that_guesses_is_said_to_and_its_scores_have_the_digits_that_tell_them_apart(
    run, photos, labels, warns
):
    """Two faces show nothing, whatever their order; nine of each class, all in order, do."""
    found, many = detector("pixels"), len(labels)
    found.validation = Validation(np.linspace(0.1, 0.9, many), np.array(labels), np.arange(many))
    _, out, _ = run(found, photos / "0.png")
    assert bool(found.guessing()) is warns
    assert ("warning: this detector is not shown to be better than guessing: AUROC 1.000 [0." in out) is warns
    found.threshold, found.band = 0.5, (0.49999, 0.50001)
    _, out, _ = run(found, photos / "0.png")
    assert "unsure from 0.499990 to 0.500010" in out  # two digits of the band's width of 0.00002
    assert len(out.splitlines()[1].split()[0]) == len("0.123456")


@any_bytes
def test_names_can_break_no_table_and_no_json(run, rows, photos):
    name = os.fsdecode(b'a,"\n\x1b[31m\xff.png')
    (photos / "0.png").rename(photos / name)
    table = run(detector(), photos / name)[1]
    assert r"\n\x1b[31m\udcff.png" in table
    assert len(table.splitlines()) == 3
    assert rows(detector(), photos / name)[0]["file"] == str(photos / name)


@any_bytes
def test_csv_keeps_the_bytes_of_names(photos, tmp_path, capfdbinary):
    name = os.fsdecode(b'a,"\n\xff.png')
    (photos / "0.png").rename(photos / name)
    detector().save(tmp_path / DETECTOR_FILE)
    argv = ["--run", tmp_path, "--device", "cpu", "--workers", 1, "--format", "csv", photos / name]
    assert predict.main([str(argument) for argument in argv]) == 0
    sys.stdout.flush()
    written = capfdbinary.readouterr().out.decode("utf-8", "surrogateescape")
    lines = list(csv.reader(io.StringIO(written, newline="")))
    assert [len(line) for line in lines] == [6, 6]
    assert lines[1][0] == str(photos / name)


def _opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("view", ["pixels", "reconstruction"])
def test_the_grid_shows_the_first_faces(run, photos, tmp_path, view, monkeypatch):
    """Cards of 144 pixels after a margin of 10 and names of 96: a frame of 4, a face of twice its 64 pixels, a gap."""
    monkeypatch.setattr("fakegan.grid.MOST", 5)
    monkeypatch.setattr("fakegan.data.verdict_sheet.WIDTH", 96 + 4 * 144)
    (photos / "1.png").write_text("no face, no place")
    code, out, _ = run(detector(view, threshold=0.0), photos, "--grid", tmp_path / "grid.png")
    assert code == 1
    assert "grid.png: the first 5 of 6 faces" in out
    grid, card = _opened(tmp_path / "grid.png"), 16 + 20 + 8 + 22 + 18 + (1 if view == "pixels" else 3) * 132
    legend = grid.shape[0] - 2 * card
    assert grid.shape[1] == 10 + 96 + 4 * 144 + 10
    with Image.open(photos / "2.png") as second:
        face = np.asarray(second.resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=2.0))
    top, left = legend + 16 + 20 + 4, 10 + 96 + 144 + 4
    below = top + 128 + 4 + 22
    places = (top, below, below + 132)[: 1 if view == "pixels" else 3]
    shown = [grid[at : at + 128, left : left + 128] for at in places]
    assert np.array_equal(shown[0][::2, ::2], face)
    assert np.array_equal(shown[0][1::2, 1::2], face)
    assert (grid[top, left - 4 : left] == (213, 94, 0)).all()  # the frame of a fake
    if view == "reconstruction":
        assert np.array_equal(shown[2][::2, ::2], np.minimum(4 * abs(shown[1][::2, ::2] - face), 255))
        assert shown[2].any()


def test_an_explanation_colours_the_places_that_speak(run, photos, tmp_path):
    """The pictures are those of the grid without it, and a last row: of a net that has learnt nothing, in colour."""
    found = detector(weight=0.5)
    assert run(found, photos, "--grid", tmp_path / "plain.png")[0] == 0
    code, out, _ = run(found, photos, "--grid", tmp_path / "why.png", "--explain")
    assert (code, "why.png: all 7 faces" in out) == (0, True)
    plain, why = _opened(tmp_path / "plain.png"), _opened(tmp_path / "why.png")
    more = why.shape[0] - plain.shape[0]
    assert more == 128 + 4 + 2 * 18  # a row of pictures, and two lines of the legend
    bare = plain[-(3 * 132 + 84) : -22]
    assert np.array_equal(bare, why[-(4 * 132 + 84) : -(132 + 22)])
    last = why[-(132 + 22) : -22, 10 + 96 + 4 : 10 + 96 + 132]
    assert (abs(last[..., 0] - last[..., 2]) > 40).any()


@pytest.mark.parametrize(("name", "format", "pages"), [("g.pdf", "PDF", 3), ("g.jpg", "JPEG", 1), ("G.PNG", "PNG", 1)])
def test_the_grids_ending_chooses_its_format(run, photos, tmp_path, name, format, pages, monkeypatch):
    """Seven rows of one card; three fit a page."""
    monkeypatch.setattr("fakegan.data.verdict_sheet.WIDTH", 96 + 144)
    monkeypatch.setattr(Sheet, "rows_of_a_page", lambda *_: 3)
    assert run(detector("pixels"), photos, "--grid", tmp_path / name)[0] == 0
    content = (tmp_path / name).read_bytes()
    if format == "PDF":
        assert content.startswith(b"%PDF")
        assert content.count(b"/Type /Page\n") == pages
    else:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == format


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere.jpg", "gone"), "nowhere.jpg does not exist"),
        ((".", "--grid", "grid.gif"), "ends in .png, .jpg, .jpeg, .pdf"),
        ((".", "--explain"), "--grid faces.png --explain"),
        ((".", "--grid", "nowhere/grid.png"), "no folder nowhere"),
        ((".", "--grid", "there.png"), "is there already"),
        ((".", "--format", "xml"), "invalid choice"),
        ((".", "--run", "nothing"), "no run at nothing"),
        ((".", "--run", "empty"), "empty is not a run"),
        ((), "PATH"),
    ],
)
def test_bad_arguments_get_one_sentence(run, words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"a photograph")
    (tmp_path / "empty").mkdir()
    code, out, err = run(detector(), *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert sentence in err
    assert (tmp_path / "there.png").read_bytes() == b"a photograph"


def test_a_folder_of_runs_names_them(run, photos, tmp_path):
    for name in ("9_a", "10_b", "11_unfinished"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        (tmp_path / "sweep" / name / "config.yaml").touch()
    for name in ("9_a", "10_b"):
        (tmp_path / "sweep" / name / "metrics.json").touch()
    code, _, err = run(detector("pixels"), photos, "--run", tmp_path / "sweep")
    names = ", ".join(str(tmp_path / "sweep" / name) for name in ("9_a", "10_b"))
    assert code == 2
    assert f"is no run, but a folder of 3 runs: name one of them, such as {names}\n" in err


def test_a_program_gets_the_rows_of_the_command_to_the_bit(rows, photos, monkeypatch):
    """For files good and bad; the same pixels, as a program may hold them, are prepared the same way."""
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:-200])
    with Image.open(photos / "3.png") as picture:
        picture.convert("L").crop((0, 0, 70, 50)).save(photos / "3.png")
    with Image.open(photos / "4.png") as picture:
        turned = picture.getexif()
        turned[0x0112] = 6  # held upright by its EXIF
        picture.crop((0, 0, 60, 80)).save(photos / "4.jpg", exif=turned)
    files = sorted(photos.iterdir())
    printed = rows(detector(), *files)
    monkeypatch.chdir(photos.parent)
    loaded = Detector.load("run")
    predicted = [asdict(row) for row in loaded.predict([str(files[0]), *files[1:]])]
    assert predicted == printed
    assert [bool(row["error"]) for row in predicted] == [path.name == "2.png" for path in files]
    good = [path for path in files if path.name != "2.png"]
    scores = [row["score"] for row in predicted if not row["error"]]
    assert [row.score for row in loaded.predict(Image.open(path) for path in good)] == scores
    upright = [np.asarray(ImageOps.exif_transpose(Image.open(path))) for path in good]
    assert {picture.shape for picture in upright} == {(80, 80, 3), (50, 70), (60, 80, 3)}
    arrays = loaded.predict(upright)
    assert [row.score for row in arrays] == scores
    assert [row.file for row in arrays] == [f"[{number}]" for number in range(len(good))]


def test_the_training_pictures_of_an_array_are_known():
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
def test_no_list_of_pictures_is_refused_with_what_is_expected(pictures, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=sentence):
        detector("pixels").predict(pictures)
