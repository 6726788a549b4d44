"""The audit: what tells real from fake without looking at faces, for which pairs, and where a run repeats it."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakegan import audit
from fakegan.data import shortcuts
from fakegan.data.faces import open_faces
from fakegan.data.file_facts import FactTable, FileFacts, described, file_facts
from fakegan.data.images import Equaliser, Geometry, face_from_pixels
from fakegan.data.store import FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.evaluation.probe import cross_validated
from fakegan.labels import FAKE, REAL
from fakegan.reports.write import write_report
from fakegan.stages.run import _say_shortcuts
from fakegan.system.shell import called
from tests.conftest import Compose, Finish
from tests.helpers import encode, fill, picture, smooth_faces

Audit = Callable[..., tuple[int, str, str]]
PNG, JPEG = FileFacts("PNG", 64, 64, bytes=9000, exif=0), FileFacts("JPEG", 64, 64, 36.5, "4:2:0", 2000, 0)
FACES = 40  # of each source


@pytest.fixture
def run_audit(capsys: pytest.CaptureFixture[str]) -> Audit:
    """Calls the audit in this process; returns exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return audit.main([str(word) for word in words]), *capsys.readouterr()

    return call


def store_of(
    path: Path, *sources: tuple[str, int, FileFacts], equalised: FileFacts | None = None, **brighter: int
) -> Path:
    """A store of smooth faces of one kind: name, label and facts of each source; some sources brighter."""
    rng = np.random.default_rng(3)
    with StoreWriter(path, Geometry(equalise=equalised and Equaliser(64))) as writer:
        for name, label, facts in sources:
            for i, pixels in enumerate(smooth_faces(FACES, rng)):
                light = np.clip(pixels.astype(int) + brighter.get(name, 0), 0, 255).astype(np.uint8)
                face = replace(face_from_pixels(light), facts=facts, equalised=equalised)
                writer.append(face.pixels, Row.of(face, file=f"{name}/{i}", label=label, source=name))
    return path


def test_a_source_of_which_half_is_png_and_half_is_jpeg(
    tmp_path: Path, run_audit: Audit, run_prepare: Callable[..., tuple[int, str, str]]
) -> None:
    for name, seed, kind in (("png", 0, {"format": "PNG"}), ("jpg", 100, {"format": "JPEG", "quality": 60})):
        (tmp_path / name).mkdir()
        for i in range(FACES):
            (tmp_path / name / f"{i}.{name}").write_bytes(encode(picture(seed + i), **kind))
    _, out, _ = run_prepare("--real", f"one={tmp_path / 'png'}", "--fake", f"two={tmp_path / 'jpg'}")
    warning = "warning: one against two: files alone tell real from fake: AUROC 1.000"
    assert warning in out
    code, out, _ = run_audit("--data", tmp_path / "faces")
    assert code == 0
    assert f"{warning} [0.91, 1.00] by format and bytes a pixel. A classifier will learn that." in out
    for group in ("size", "JPEG quality", "chroma", "EXIF", "colour profile"):  # of the PNGs no quality is known
        assert re.search(rf"\n  {group} +0\.500 \[0\.50, 0\.50\]\n", out), group
    assert run_audit("--data", tmp_path / "faces", "--strict")[0] == 1


def test_a_stop_while_prepare_audits_says_that_the_store_is_finished(
    tmp_path: Path, run_prepare: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fakegan.prepare.audit_store", stop)
    words = ("--real", f"one={fill(tmp_path / 'r', 2)}", "--fake", f"two={fill(tmp_path / 'f', 2, first_seed=9)}")
    code, _, err = run_prepare(*words)
    assert (code, len(FaceStore.open(tmp_path / "faces"))) == (130, 4)
    assert f"Stopped: {tmp_path / 'faces'} is finished, but not audited: " in err
    assert "nothing was written" not in err


def test_equal_files_and_pixels_are_at_chance(tmp_path: Path, run_audit: Audit) -> None:
    store = FaceStore.open(store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, PNG)))
    (pair,) = shortcuts.audit(shortcuts.Pictures.of(store), [("one", "two")])
    assert pair.found["files"]["all"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert pair.told_by("cheap pixels") == []
    code, out, _ = run_audit("--data", tmp_path / "s", "--strict")
    assert code == 0
    assert "Neither files nor cheap pixels tell real from fake where a classifier learns: no interval lies" in out


def test_brightness_alone_is_told_by_the_channel_means(tmp_path: Path) -> None:
    store = FaceStore.open(store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, PNG), two=40))
    (pair,) = shortcuts.audit(shortcuts.Pictures.of(store), [("one", "two")])
    assert pair.told_by("files") == []
    assert set(pair.told_by("cheap pixels")) == {"all", "channel means"}
    warning = pair.warning("cheap pixels")
    assert warning.startswith("one against two: cheap pixels alone tell real from fake: AUROC ")
    assert " by channel means. A classifier will learn that" in warning


def test_two_sizes_differ_by_their_spread_alone(tmp_path: Path) -> None:
    """A straight cut through the mean finds nothing; the common sizes and the squares do."""
    real = [replace_size(side) for side in (40, 100, 250)]
    sources = [(f"real{i}", REAL, facts) for i, facts in enumerate(real)]
    path = store_of(tmp_path / "s", *sources, ("fake", FAKE, replace_size(100)))
    pictures = shortcuts.Pictures.of(FaceStore.open(path))
    one = replace(pictures, sources=np.where(pictures.labels == REAL, "real", "fake"))
    (pair,) = shortcuts.audit(one, [("real", "fake")])
    assert pair.found["files"]["size"]["value"] == pytest.approx(1 - (1 / 3) / 2, abs=0.05)  # a third are alike


def replace_size(side: int) -> FileFacts:
    return FileFacts("PNG", side, side, bytes=side * side, exif=0)


def test_roles_decide_who_is_accused(tmp_path: Path, run_audit: Audit) -> None:
    sources = [("ffhq", REAL, PNG), ("celeba", REAL, JPEG), ("gan", FAKE, PNG), ("new", FAKE, JPEG)]
    data = ("--data", store_of(tmp_path / "s", *sources), "--strict")
    code, out, _ = run_audit(*data)
    assert code == 1
    assert {line.split(":")[1].strip() for line in out.splitlines() if line.startswith("warning")} == {
        "celeba against gan",
        "ffhq against new",
    }
    code, out, _ = run_audit(*data, "data.split.unseen=[new]", "data.split.autoencoder_sources=[celeba]")
    assert code == 0
    assert "only the autoencoder's, and set against no other: celeba" in out
    learnt, tested = out.partition("sources of which one is only tested")[::2]
    assert "ffhq  new" in tested
    assert "ffhq  new" not in learnt
    assert "tell real from fake where a classifier learns: no interval" in out
    assert out.splitlines()[-1] == "Only tested, and told apart without looking at faces: ffhq against new."
    _, out, _ = run_audit(*data, "data.split.unseen=[gan,new]")
    assert "no interval lies above" not in out
    assert "No classifier is judged: with this split it would learn from one class only." in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data.split.unseen=[nobody]",), "data.split.unseen names nobody, which the store does not hold"),
        (("seed=3",), "seed=3: an audit takes train.py's data.split.KEY=VALUE"),
        (("data.split.unsen=[gan]",), "data.split.unsen"),
        (("data.split.unseen=[one,two]",), "no real face is set against a fake one"),
    ],
)
def test_a_wrong_split_is_one_sentence(tmp_path: Path, run_audit: Audit, words: tuple[str, ...], told: str) -> None:
    code, out, err = run_audit("--data", store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, PNG)), *words)
    if "one,two" in words[0]:  # both are only tested, and shown as that
        assert code == 0
        return
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_one_class_no_store_and_damaged_facts_are_one_sentence(tmp_path: Path, run_audit: Audit) -> None:
    one = store_of(tmp_path / "one", ("one", REAL, PNG))
    both = store_of(tmp_path / "both", ("one", REAL, PNG), ("two", FAKE, PNG))
    content = (both / "files.csv").read_text()
    escapes = Path(shutil.copytree(both, tmp_path / "escapes"))
    (escapes / "files.csv").write_text(content.replace("PNG", "\x1b[2J", 1))
    (both / "files.csv").write_text(content.replace("PNG,64,64,,,9000", "PNG,64,64,,,many", 1))
    for place, code, told in (
        (one, 2, "holds no fake faces to audit: prepare it again with --fake NAME=PATH"),
        (tmp_path / "none", 2, "no face store at"),
        (escapes, 1, r"a format is '\x1b[2J' instead of a text that a terminal can show; prepare the store again"),
        (both, 1, "files.csv is damaged: a bytes is 'many' instead of a number or nothing; prepare the store again"),
    ):
        found, out, err = run_audit("--data", place)
        assert (found, out) == (code, "")
        assert told in err
        assert len(err.splitlines()) == 1


def test_too_few_faces_are_not_judged(tmp_path: Path, run_audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_audit.FACES", 9)
    code, out, _ = run_audit("--data", store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, JPEG)), "--strict")
    assert code == 0
    assert "Not known for one against two: 10 faces, or groups of them, of each are needed." in out


def test_an_older_store_is_audited_by_what_it_knows(tmp_path: Path, run_audit: Audit) -> None:
    path = store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, JPEG))
    (path / "files.csv").unlink()
    _, out, _ = run_audit("--data", path)
    assert "by format. A classifier will learn that." in out  # without bytes a pixel
    assert "bytes and EXIF are not known: they are no files, or an older FakeGAN prepared them" in out


def test_equalised_files_count_and_those_as_they_came_stand_beside(tmp_path: Path, run_audit: Audit) -> None:
    path = store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, JPEG), equalised=JPEG)
    code, out, _ = run_audit("--data", path, "--strict")
    assert code == 0
    row = next(line.split() for line in out.splitlines() if line.startswith("one   two"))
    assert row[2] == "0.500"
    assert row[-3] == "1.000"
    assert "real  fake  files               cheap pixels        files as they came" in out
    (path / "equalised.csv").unlink()
    code, _, err = run_audit("--data", path)
    assert (code, "equalised.csv is missing: prepare the store again" in err) == (1, True)


def test_what_is_found_is_kept_for_the_same_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, JPEG))
    store, pairs = FaceStore.open(path), [("one", "two")]
    first = shortcuts.audit_store(store, pairs)
    again = FaceStore.open(path)  # with the file of the audit in its folder
    again.verify()
    monkeypatch.setattr("fakegan.data.shortcuts.audit", lambda *_: pytest.fail("audited again"))
    assert shortcuts.audit_store(again, pairs) == first
    content = json.loads((path / "audit.json").read_text())
    for damage in ("[", "[[]]", json.dumps(content | {"pairs": [3]}), json.dumps(content | {"fingerprint": "0"})):
        (path / "audit.json").write_text(damage)
        assert shortcuts.stored(store) == {}
    half = {"value": 0.5, "low": 0.5, "high": 0.5}
    for kinds in (
        {"files": {}},  # from elsewhere, made to end in a trace or to act on a terminal
        {"files": {"all": half | {"value": math.nan}}},
        {"files": {"all": half | {"high": 9.0}}},
        {"files": {"all": half, "\x1b[2J": half}},
        {"others": {"all": half}},
    ):
        pair = {"real": "one", "fake": "two", "found": kinds}
        (path / "audit.json").write_text(json.dumps(content | {"pairs": [pair]}))
        assert shortcuts.stored(store) == {}


def test_a_killed_audit_does_not_keep_a_store_from_being_replaced(
    tmp_path: Path, run_prepare: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("--real", f"one={fill(tmp_path / 'r', 1)}")
    assert run_prepare(*words)[0] == 0
    (tmp_path / "faces" / ".audit.json.building").write_text("[")
    assert run_prepare(*words, "--overwrite")[0] == 0
    assert not (tmp_path / "faces" / ".audit.json.building").exists()


def test_a_run_and_its_report_repeat_the_warning(
    tmp_path: Path, finish: Finish, compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store_of(tmp_path / "s", ("camera", REAL, PNG), ("gan_a", FAKE, JPEG))
    words = ("pipeline=classify", f"data.root={path}")
    data = compose_settings(*words).data
    faces = open_faces(data, tmp_path, needs={})
    _say_shortcuts(faces, replace(data.split, unseen=("gan b",)))  # the audit's roles are those of the run
    said = capsys.readouterr().out
    assert "is not known: " in said
    assert said.endswith(f" --data {path} 'data.split.unseen=[\"gan b\"]'\n")
    shortcuts.audit_store(faces.store, [("camera", "gan_a")])
    _say_shortcuts(faces, data.split)
    told = (
        "camera against gan_a: files alone tell real from fake: AUROC 1.000 [0.91, 1.00] by format and bytes a pixel."
    )
    notes, said = capsys.readouterr()
    assert said.startswith(f"warning: {told}")
    assert len(said.splitlines()) == 1
    assert notes == f"by what, and for each source: {called('audit')} --data {path}\n"
    manifest = json.loads((path / "manifest.json").read_text())
    old = "real and fake pictures differ in size (172x182 / 256x256)"  # as of an older prepare
    (path / "manifest.json").write_text(json.dumps(manifest | {"warnings": [old, "kept"]}))
    write_report([finish(*words)], tmp_path / "report")
    for name, overview in (("report.html", "<main>"), ("report.md", "AUROC by generator")):
        content = (tmp_path / "report" / name).read_text()
        assert content.index("camera against gan_a: files alone") < content.index(overview)
        assert ("kept" in content, old in content) == (True, False)


def test_runs_that_hold_different_generators_out_give_one_warning(tmp_path: Path, finish: Finish) -> None:
    path = store_of(tmp_path / "s", ("one", REAL, PNG), *((name, FAKE, JPEG) for name in ("a", "b", "c")))
    store = FaceStore.open(path)
    shortcuts.audit_store(store, [("one", name) for name in ("a", "b", "c")])
    words = ("pipeline=classify", f"data.root={path}")
    write_report([finish(*words, f"data.split.unseen=[{name}]") for name in ("a", "b", "c")], tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text().partition("## Answers")[0].splitlines()
    told = [line for line in lines if "files alone tell real from fake" in line]
    assert len(told) == 1
    assert told[0].endswith("And 2 more pairs by files.")


def test_facts_of_a_file() -> None:
    photo = encode(picture(1, 80), "JPEG", quality=50, subsampling="4:2:0", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    facts = file_facts(photo)
    assert facts == FileFacts("JPEG", 80, 80, 3688 / 64, "4:2:0", len(photo), 1.0)
    assert file_facts(encode(picture(1), "JPEG", subsampling="4:4:4")).chroma == "4:4:4"
    plain = file_facts(encode(picture(1), "TIFF"))  # whose tags are no EXIF
    assert (plain.format, plain.exif, plain.chroma) == ("TIFF", 0.0, "")
    assert math.isnan(plain.jpeg_quantiser_mean)


def test_sizes_are_given_as_what_there_is() -> None:
    table = FactTable()
    for side in (10, 20, 20, 20):
        table.add(FileFacts("PNG", side, 30, bytes=600.0 * side, exif=1.0))
    assert described(table.columns())["size"] == "20x30 75% 10x30 25%"
    for side in range(11, 18):
        table.add(FileFacts("JPEG", side, 30, 57.625))
    found = described(table.columns())
    assert found["size"] == "width 11/15/20 height 30"  # no file of 15x30 stands for all
    assert found["format"] == "JPEG 64% PNG 36%"
    assert (found["JPEG"], found["bytes a pixel"], found["EXIF"]) == ("50", "20.00", "100%")


def test_a_group_is_in_one_fold() -> None:
    """Ten copies of each face: who has seen a copy knows the label; nothing else tells it."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(40), 10), np.repeat(rng.permutation(np.arange(40) % 2), 10)
    features = np.eye(40)[groups]
    scores = cross_validated(features, labels, groups.astype(str))
    assert np.abs(scores - 0.5).max() < 1e-6
    alone = cross_validated(features, labels, np.arange(400).astype(str))
    assert ((alone > 0.5) == labels).all()


def test_intervals_of_faces_that_do_not_differ_hold_one_half() -> None:
    rng = np.random.default_rng(5)
    labels, groups = np.arange(200) % 2, np.arange(200).astype(str)
    found = [shortcuts._areas({"x": rng.normal(size=(200, 8))}, labels, groups)["x"] for _ in range(60)]
    held = np.mean([measure["low"] <= 0.5 <= measure["high"] for measure in found])
    assert 0.9 <= held <= 1  # of a bootstrap alone some 0.83
    assert np.std([measure["value"] for measure in found]) > 1.2 * np.sqrt(2 / 100 / 12)  # what a bootstrap holds


def test_a_copied_store_takes_its_audit_along(tmp_path: Path) -> None:
    path = store_of(tmp_path / "s", ("one", REAL, PNG), ("two", FAKE, JPEG))
    first = shortcuts.audit_store(FaceStore.open(path), [("one", "two")])
    moved = FaceStore.open(shutil.copytree(path, tmp_path / "moved"))
    assert list(shortcuts.stored(moved).values()) == first
