"""How prepare is asked: layouts of folders, groups, and what is refused."""

import errno
import os

import numpy as np
import pytest

from fakegan.data.formats import NO_PICTURE
from fakegan.data.layout import rooted
from fakegan.data.store import FaceStore
from fakegan.labels import FAKE
from tests.helpers import as_zip, encode, fill, picture, snapshot


def test_root_layouts_kept_splits_and_a_limit(tmp_path, prepared):
    for number, name in enumerate(("train", "valid", "test")):
        fill(tmp_path / "d" / name / "real", 2, first_seed=100 * number)
        fill(tmp_path / "d" / name / "fake", 1, first_seed=100 * number + 50)
    store = prepared("--root", tmp_path / "d", "--keep-splits")
    assert store.kept_split.tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2 + ["train", "val", "test"]
    assert store.files[2] == "valid/real/000.png"
    assert store.sources.tolist() == ["real"] * 6 + ["fake"] * 3
    limited = prepared("--root", tmp_path / "d", "--limit", 3)  # of a source, which may have several folders
    assert set(limited.kept_split.tolist()) == {""}
    assert limited.files.tolist() == [store.files[row] for row in (0, 1, 2, 6, 7, 8)]
    assert prepared("--root", tmp_path / "d" / "train").files.tolist() == [
        "real/000.png",
        "real/001.png",
        "fake/000.png",
    ]


@pytest.mark.parametrize("kind", [lambda folder: folder, as_zip], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("folders", "taken", "left"),
    [
        (("Training/Real", "dev/0_real", "TEST/originals", "Training/1_fake", "dev/Generated", "TEST/fakes"), {}, ()),
        (("Real", "fake", "fake_stylegan3", "fake-StyleGAN2"), {"fake_stylegan3": 1, "fake_stylegan2": 1}, ()),
        (("validation/real_ffhq", "validation/fake", "train/real", "train/fake"), {"real_ffhq": 1, "val": 2}, ()),
        (("up/data/real", "up/data/fake"), {}, ()),
        (("real_vs_fake/real", "real_vs_fake/fake"), {}, ()),
        (("real", "fake", "stylegan3"), {}, ("stylegan3/ (1)",)),
        (("real", "fake", ""), {}, ("1 beside the folders of it",)),
        (("train/real", "train/fake", "train", "more"), {}, ("more/ (1)", "1 beside the folders of train/")),
        (("train/real", "train/fake", "holdout/real", "train/both/x"), {}, ("holdout/ (1)", "train/both/ (1)")),
    ],
)
def test_every_picture_under_a_root_is_taken_or_named(tmp_path, run_prepare, kind, folders, taken, left):
    for number, folder in enumerate(folders):
        fill(tmp_path / "d" / folder, 1, first_seed=number)
    (tmp_path / "d" / "notes").mkdir()  # without pictures: nothing is lost
    words = ("--root", kind(tmp_path / "d"), *(["--keep-splits"] if "dev" in folders[1] or "val" in taken else []))
    code, _, err = run_prepare(*words)
    assert (code == 1) == bool(left)
    for place in left:
        assert place in err
    if left:
        assert not (tmp_path / "faces").exists()
        code, out, _ = run_prepare(*words, "--skip-unknown")
        assert f"Left out, of no class: {', '.join(left)}" in out
    assert code == 0
    store = FaceStore.open(tmp_path / "faces")
    assert len(store) == len(folders) - len(left)
    assert set(store.sources) >= {"fake"}
    for name, count in taken.items():
        column = store.kept_split if name == "val" else store.sources
        assert np.count_nonzero(column == name) == count
    for file, label in zip(store.files, store.labels, strict=True):
        name = file.lower().replace("real_vs_fake", "")
        assert (label == FAKE) == ("fake" in name or "generated" in name)


def test_a_link_into_a_closed_folder_is_none_of_the_folders_of_a_root(tmp_path, monkeypatch):
    """Nothing is known of it, not even whether it is a folder; root, who runs tests in containers, may see all."""
    for name in ("real", "fake"):
        fill(tmp_path / name, 1)
    (tmp_path / "closed.txt").symlink_to("nowhere")

    def stat(path, *, found=os.stat, **options):
        if str(path).endswith("closed.txt"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return found(path, **options)

    monkeypatch.setattr("os.stat", stat)
    assert [source.name for source in rooted(tmp_path, False, False).sources] == ["fake", "real"]


def test_a_layout_without_val_says_where_it_comes_from(tmp_path, run_prepare):
    for number, name in enumerate(("train/real", "train/fake", "test/real", "test/fake", "val/real")):
        fill(tmp_path / "d" / name, 1, first_seed=number)
    _, out, _ = run_prepare("--root", tmp_path / "d", "--keep-splits")
    assert "no val folder of fake faces: train.py takes that from train" in out
    assert "of real faces" not in out


@pytest.fixture
def grouped(tmp_path, run_prepare):
    """Calls prepare on folders r (real, a) and f (fake, b) with these lines of --groups."""

    def call(*lines: str) -> tuple[int, str, str]:
        (tmp_path / "g.csv").write_text("\n".join(["file,group", *lines]))
        words = ["--real", f"a={tmp_path / 'r'}", "--fake", f"b={fill(tmp_path / 'f', 1, first_seed=99)}"]
        return run_prepare(*words, "--groups", tmp_path / "g.csv", "--overwrite")

    return call


def test_groups_and_duplicates_share_a_group(tmp_path, grouped):
    fill(tmp_path / "r", 5)
    (tmp_path / "r" / "copy.png").write_bytes((tmp_path / "r" / "003.png").read_bytes())
    (tmp_path / "r" / "near.jpg").write_bytes(encode(picture(4, 96), "JPEG", quality=60))
    code, out, _ = grouped("001.png,anna", "a/002.png,anna", "absent.png,bert")
    assert code == 0
    assert "lines of --groups that name no picture here: 1" in out
    store = FaceStore.open(tmp_path / "faces")
    group = dict(zip(store.files.tolist(), store.groups.tolist(), strict=True))
    assert group["a/001.png"] == group["a/002.png"] == "anna"
    assert group["a/003.png"] == group["a/copy.png"]
    assert group["a/004.png"] == group["a/near.jpg"]
    assert len(set(group.values())) == 5


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["absent.png,bert"], "none of its files is among the pictures"),
        (["000.png,ann"], "000.png could be a/000.png or b/000.png"),
        ([], "names no file"),
        (["a/000.png,"], "line 2 lacks a file or a group"),
        (["a/000.png,ann", "a/000.png,bert"], "is in two groups, ann and bert"),
    ],
)
def test_groups_that_cannot_be_meant_are_refused(tmp_path, grouped, lines, told):
    fill(tmp_path / "r", 1)
    code, _, err = grouped(*lines)
    assert code == 2
    assert told in err
    assert grouped("a/000.png,ann")[0] == 0


def test_a_declared_group_named_like_a_pictures_own_is_that_group(tmp_path, prepared, grouped):
    fill(tmp_path / "r", 3)
    own = prepared("--real", f"a={tmp_path / 'r'}").groups.tolist()
    assert grouped(f"a/000.png,{own[2]}", f"001.png,{own[1].upper()}")[0] == 0
    assert FaceStore.open(tmp_path / "faces").groups.tolist()[:3] == [own[2], own[1].upper(), own[2]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to prepare"),
        (("--real", "DIR"), "write NAME=PATH"),
        (("--real", "a=DIR", "--fake", "a=DIR"), "two sources are called a"),
        (("--real", "a=DIR", "--real", "a=DIR"), "two sources are called a"),
        (("--real", "a=DIR/none"), "none does not exist"),
        (("--real", "a=DIR/empty"), "empty holds no pictures"),
        (("--real", "a=DIR/000.png"), "neither a folder nor a .zip nor a .npy"),
        (("--real", "a/b=DIR"), "no slash"),
        (("--root", "DIR"), "real and fake"),
        (("--root", "DIR/classes"), "fake holds no pictures: it is empty"),
        (("--real", "a=DIR", "--keep-splits"), "--keep-splits needs --root"),
        (("--real", "a=DIR", "--groups", "DIR/none.csv"), "none.csv"),
        (("--real", "a=DIR/classes/real", "--group-by", "folder"), "none lies in a folder below its source's own"),
        (("--real", "a=DIR/classes/real", "--group-by", "name"), "none is numbered, with a name before the number"),
        (("--real", "a=DIR", "--group-by", "folder", "--groups", "g.csv"), "leave out --group-by"),
        (("--real", "a=DIR", "--workers", "0"), "--workers"),
        (("--real", "a=DIR", "--npy-range", "1,0"), "LOW must be below HIGH"),
        (("--real", "a=DIR", "--reel", "a=DIR"), "--reel"),
        (("--real", "a=DIR", "--out", "DIR"), "other things than a face store"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(tmp_path, run_prepare, words, told):
    fill(tmp_path / "d", 1)
    (tmp_path / "d" / "empty").mkdir()
    fill(tmp_path / "d" / "classes" / "real", 1)
    (tmp_path / "d" / "classes" / "fake").mkdir()
    code, out, err = run_prepare(*(word.replace("DIR", str(tmp_path / "d")) for word in words))
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "faces").exists()


def test_nothing_usable_is_exit_1(tmp_path, run_prepare):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a.png").write_text("no")
    (tmp_path / "bad.zip").write_text("no zip")
    for place, told in (("r", f"none of the 1 pictures of a could be used; most often: {NO_PICTURE}"), ("bad.zip", "")):
        code, _, err = run_prepare("--real", f"a={tmp_path / place}")
        assert code == 1
        assert (told or "bad.zip is no readable zip archive") in err
    assert {path.name for path in tmp_path.iterdir()} == {"r", "bad.zip"}


def test_ctrl_c_keeps_the_old_store_and_says_how_to_start_again(tmp_path, run_prepare, monkeypatch):
    fill(tmp_path / "r", 2)
    assert run_prepare("--real", f"a={tmp_path / 'r'}")[0] == 0
    before = snapshot(tmp_path)
    monkeypatch.setattr("fakegan.data.build._read_chunk", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run_prepare("--real", f"a={tmp_path / 'r'}", "--overwrite")
    assert code == 130
    assert "-m fakegan.prepare --real" in err
    assert snapshot(tmp_path) == before
