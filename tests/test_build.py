"""prepare from end to end, in process: folders, zips, arrays; what is refused, and what it says."""

import csv
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakegan import prepare
from fakegan.data.build import Recipe, Source, build_store, count_pictures, read_pictures
from fakegan.data.images import Face, Geometry
from fakegan.data.store import FaceStore
from fakegan.data.summary import SourceSummary, Summary
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from tests.helpers import encode, snapshot


def picture(seed: int, side: int = 48) -> Image.Image:
    """Blobs of colour: no two seeds are near copies."""
    blobs = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int, first_seed: int = 0, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        content = encode(picture(first_seed + number), "JPEG" if suffix == "jpg" else suffix)
        (folder / f"{number:03d}.{suffix}").write_bytes(content)
    return folder


def rejected(store: Path) -> dict[str, str]:
    with (store / "rejected.csv").open() as lines:
        return {row["file"]: row["reason"] for row in csv.DictReader(lines)}


@pytest.fixture
def run(tmp_path, capsys):
    """Calls prepare in this process with --out tmp_path/faces; returns exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        out = [] if "--out" in words else ["--out", tmp_path / "faces"]
        workers = [] if "--workers" in words else ["--workers", 1]
        code = prepare.main([str(word) for word in [*words, *out, *workers]])
        return code, *capsys.readouterr()

    return call


def test_folders_to_store(tmp_path, run):
    fill(tmp_path / "r" / "b", 2)
    fill(tmp_path / "r" / "a", 2, first_seed=10, suffix="jpg")
    (tmp_path / "r" / "notes.txt").write_text("skipped")
    fill(tmp_path / "f", 3, first_seed=20, suffix="webp")
    code, out, _ = run("--real", f"ffhq={tmp_path / 'r'}", "--fake", f"stylegan={tmp_path / 'f'}")
    assert code == 0
    store = FaceStore.open(tmp_path / "faces")
    store.verify()
    assert store.files.tolist() == [
        *("ffhq/a/000.jpg", "ffhq/a/001.jpg", "ffhq/b/000.png", "ffhq/b/001.png"),
        *("stylegan/000.webp", "stylegan/001.webp", "stylegan/002.webp"),
    ]
    assert store.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert len(set(store.groups.tolist())) == 7
    assert rejected(tmp_path / "faces") == {}
    assert "JPEG:2 PNG:2" in out
    assert "48x48" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("Next: ")
    assert "train.py model=autogan4 pipeline=recon_classify data=faces data.root=" in last
    assert last.endswith("faces")


def test_the_same_bytes_for_any_number_of_workers(tmp_path, run):
    fill(tmp_path / "r", 70)
    fill(tmp_path / "f", 40, first_seed=100, suffix="jpg")
    (tmp_path / "r" / "033.png").write_bytes(b"broken")
    words = ("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'f'}")
    assert run(*words, "--workers", 1, "--out", tmp_path / "one" / "faces")[0] == 0
    assert run(*words, "--workers", 2, "--out", tmp_path / "two" / "faces")[0] == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert len(FaceStore.open(tmp_path / "one" / "faces")) == 109


def test_a_zip_gives_the_same_faces_as_its_folder(tmp_path, run):
    fill(tmp_path / "r", 5)
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for path in sorted((tmp_path / "r").iterdir(), reverse=True):
            archive.write(path, path.name)
        archive.writestr("__MACOSX/._000.png", b"resource fork")
    assert run("--real", f"a={tmp_path / 'r'}")[0] == 0
    assert run("--real", f"a={tmp_path / 'r.zip'}", "--out", tmp_path / "zipped")[0] == 0
    assert snapshot(tmp_path / "faces") == snapshot(tmp_path / "zipped")


def test_arrays(tmp_path, run):
    levels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 80 + np.zeros((1, 64, 64, 3), dtype=np.uint8)
    levels[:, 0, 0] = (1, 2, 3)
    np.save(tmp_path / "last.npy", levels)
    np.save(tmp_path / "first.npy", levels.transpose(0, 3, 1, 2))
    np.save(tmp_path / "unit.npy", (levels / 127.5 - 1).astype(np.float32))
    for name, words in (("last", ()), ("first", ()), ("unit", ("--npy-range=-1,1",))):
        assert run("--real", f"a={tmp_path / name}.npy", "--out", tmp_path / name, *words)[0] == 0
        assert (FaceStore.open(tmp_path / name).images == levels).all()


@pytest.mark.parametrize(
    ("array", "words", "code", "told"),
    [
        (np.zeros((2, 64, 64, 3), np.float32), (), 2, "holds float32: say what it spans, --npy-range=-1,1"),
        (np.full((2, 64, 64, 3), 2.0), ("--npy-range=-1,1",), 1, "values outside -1 to 1"),
        (np.full((2, 64, 64, 3), np.nan), ("--npy-range=0,1",), 1, "values outside 0 to 1"),
        (np.zeros((2, 64, 64, 3), np.int64), (), 2, "holds int64: save it as uint8"),
        (np.zeros((2, 32, 32, 3), np.uint8), (), 2, r"has shape \(2, 32, 32, 3\)"),
        (np.array([{}]), (), 1, "no readable .npy array"),
        (np.zeros((0, 64, 64, 3), np.uint8), (), 2, "holds no pictures"),
    ],
)
def test_arrays_that_are_refused(tmp_path, run, array, words, code, told):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    got, _, err = run("--real", f"a={tmp_path / 'a.npy'}", *words)
    assert got == code
    assert told.replace("\\", "") in err
    assert not (tmp_path / "faces").exists()


def huge_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_bad_pictures_are_rejected_with_a_reason_and_the_rest_goes_on(tmp_path, run):
    folder = fill(tmp_path / "r", 1)
    whole = encode(picture(5, 256), "JPEG")
    (folder / "a_text.jpg").write_text("dear diary")
    (folder / "b_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "c_empty.png").write_bytes(b"")
    (folder / "d_huge.png").write_bytes(huge_png())
    (folder / "e_ppm.png").write_bytes(encode(picture(6), "PPM"))
    (folder / "f_cmyk.jpg").write_bytes(encode(picture(7).convert("CMYK"), "JPEG"))
    (folder / "g_link.png").symlink_to(folder / "nowhere.png")
    (folder / "h_itself.png").symlink_to("h_itself.png")
    code, out, _ = run("--real", f"a={folder}")
    assert code == 0
    assert FaceStore.open(tmp_path / "faces").files.tolist() == ["a/000.png", "a/f_cmyk.jpg"]
    assert rejected(tmp_path / "faces") == {
        "a/a_text.jpg": "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture",
        "a/b_cut.jpg": "truncated or damaged",
        "a/c_empty.png": "empty file",
        "a/d_huge.png": "20000x20000 is above the limit of 256 megapixels (--max-megapixels)",
        "a/e_ppm.png": "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture",
        "a/g_link.png": "cannot be read: No such file or directory",
        "a/h_itself.png": f"cannot be read: {os.strerror(errno.ELOOP)}",
    }
    assert "rejected: empty file (1)" in out
    assert "Only one class" in out.splitlines()[-1]


def test_a_hostile_zip(tmp_path, run):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ok.png", "../climbs.png", "/root.png", "a/../../out.png", "C:\\windows.png"):
            archive.writestr(name, encode(picture(1)))
        archive.writestr("bomb.png", bytes(8 * 2**20))
    before = {path.name for path in tmp_path.iterdir()}
    assert run("--real", f"a={tmp_path / 'z.zip'}")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == before | {"faces"}
    assert FaceStore.open(tmp_path / "faces").files.tolist() == ["a/ok.png"]
    reasons = rejected(tmp_path / "faces")
    assert reasons.pop("a/bomb.png").endswith("times in the archive, more than any picture")
    assert len(reasons) == 4
    assert set(reasons.values()) == {"its path climbs out of the archive"}


def test_links_in_a_circle_end(tmp_path, run):
    folder = fill(tmp_path / "r" / "in", 2)
    (folder / "up").symlink_to(tmp_path / "r")
    (tmp_path / "r" / "twice").symlink_to(folder)
    assert run("--real", f"a={tmp_path / 'r'}")[0] == 0
    assert FaceStore.open(tmp_path / "faces").files.tolist() == ["a/in/000.png", "a/in/001.png"]


def test_root_layouts_and_kept_splits(tmp_path, run):
    for number, name in enumerate(("train", "valid", "test")):
        fill(tmp_path / "d" / name / "real", 2, first_seed=100 * number)
        fill(tmp_path / "d" / name / "fake", 1, first_seed=100 * number + 50)
    assert run("--root", tmp_path / "d", "--keep-splits")[0] == 0
    store = FaceStore.open(tmp_path / "faces")
    assert store.kept_split.tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2 + ["train", "val", "test"]
    assert store.files[2] == "valid/real/000.png"
    assert store.sources.tolist() == ["real"] * 6 + ["fake"] * 3
    assert run("--root", tmp_path / "d", "--overwrite")[0] == 0
    assert set(FaceStore.open(tmp_path / "faces").kept_split.tolist()) == {""}
    assert run("--root", tmp_path / "d" / "train", "--overwrite")[0] == 0
    assert FaceStore.open(tmp_path / "faces").files.tolist() == [
        "real/000.png",
        "real/001.png",
        "fake/000.png",
    ]


def as_zip(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    return path


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
def test_every_picture_under_a_root_is_taken_or_named(tmp_path, run, kind, folders, taken, left):
    for number, folder in enumerate(folders):
        fill(tmp_path / "d" / folder, 1, first_seed=number)
    (tmp_path / "d" / "notes").mkdir()  # without pictures: nothing is lost
    words = ("--root", kind(tmp_path / "d"), *(["--keep-splits"] if "dev" in folders[1] or "val" in taken else []))
    code, _, err = run(*words)
    assert (code == 1) == bool(left)
    for place in left:
        assert place in err
    if left:
        assert not (tmp_path / "faces").exists()
        code, out, _ = run(*words, "--skip-unknown")
        assert f"Left out, of no class: {', '.join(left)}" in out
    assert code == 0
    store = FaceStore.open(tmp_path / "faces")
    assert len(store) == len(folders) - len(left)
    assert set(store.sources) >= {"fake"}
    for name, count in taken.items():
        column = store.kept_split if name == "val" else store.sources
        assert np.count_nonzero(column == name) == count
    for file, label in zip(store.files, store.labels, strict=True):
        assert (label == FAKE) == any(
            word in file.lower().replace("real_vs_fake", "") for word in ("fake", "generated")
        )


def test_a_layout_without_val_says_where_it_comes_from(tmp_path, run):
    for number, name in enumerate(("train/real", "train/fake", "test/real", "test/fake", "val/real")):
        fill(tmp_path / "d" / name, 1, first_seed=number)
    _, out, _ = run("--root", tmp_path / "d", "--keep-splits")
    assert "no val folder of fake faces: train.py takes that from train" in out
    assert "of real faces" not in out


def test_groups_and_duplicates_share_a_group(tmp_path, run):
    fill(tmp_path / "r", 5)
    (tmp_path / "r" / "copy.png").write_bytes((tmp_path / "r" / "003.png").read_bytes())
    (tmp_path / "r" / "near.jpg").write_bytes(encode(picture(4, 96), "JPEG", quality=60))
    (tmp_path / "g.csv").write_text("file,group\n000.png,anna\na/001.png,anna\nabsent.png,bert\n")
    code, out, _ = run("--real", f"a={tmp_path / 'r'}", "--groups", tmp_path / "g.csv")
    assert code == 0
    store = FaceStore.open(tmp_path / "faces")
    group = dict(zip(store.files.tolist(), store.groups.tolist(), strict=True))
    assert group["a/000.png"] == group["a/001.png"] == "anna"
    assert group["a/003.png"] == group["a/copy.png"]
    assert group["a/004.png"] == group["a/near.jpg"]
    assert len(set(group.values())) == 4
    assert "lines of --groups that name no picture here: 1" in out
    (tmp_path / "g.csv").write_text("file,group\nabsent.png,bert\n")
    code, _, err = run("--real", f"a={tmp_path / 'r'}", "--groups", tmp_path / "g.csv", "--overwrite")
    assert code == 2
    assert "none of its files is among the pictures" in err


def test_classes_that_differ_are_warned_about(tmp_path, run):
    fill(tmp_path / "r", 3, suffix="jpg")
    fill(tmp_path / "f", 3, first_seed=50)
    (tmp_path / "f" / "copy.png").write_bytes((tmp_path / "r" / "000.jpg").read_bytes())
    _, out, _ = run("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'f'}", "--dry-run")
    assert "real and fake pictures differ in format (100% JPEG / 25% JPEG + 75% PNG)" in out
    assert "real in one place and fake in another: 1 pairs" in out
    assert not (tmp_path / "faces").exists()
    fill(tmp_path / "same", 3, first_seed=70, suffix="jpg")
    _, out, _ = run("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'same'}", "--dry-run")
    assert "warning" not in out


def test_limit_takes_the_first(tmp_path, run):
    fill(tmp_path / "r", 5)
    assert run("--real", f"a={tmp_path / 'r'}", "--limit", 2)[0] == 0
    assert FaceStore.open(tmp_path / "faces").files.tolist() == ["a/000.png", "a/001.png"]


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
        (("--real", "a=DIR", "--keep-splits"), "--keep-splits needs --root"),
        (("--real", "a=DIR", "--groups", "DIR/none.csv"), "none.csv"),
        (("--real", "a=DIR", "--workers", "0"), "--workers"),
        (("--real", "a=DIR", "--npy-range", "1,0"), "LOW must be below HIGH"),
        (("--real", "a=DIR", "--reel", "a=DIR"), "--reel"),
        (("--real", "a=DIR", "--out", "DIR"), "other things than a face store"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(tmp_path, run, words, told):
    fill(tmp_path / "d", 1)
    (tmp_path / "d" / "empty").mkdir()
    code, out, err = run(*(word.replace("DIR", str(tmp_path / "d")) for word in words))
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "faces").exists()


def test_nothing_usable_is_exit_1(tmp_path, run):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a.png").write_text("no")
    (tmp_path / "bad.zip").write_text("no zip")
    code, _, err = run("--real", f"a={tmp_path / 'r'}")
    assert code == 1
    assert "none of the 1 pictures of a could be used; most often: not a JPEG, PNG, WebP" in err
    code, _, err = run("--real", f"a={tmp_path / 'bad.zip'}")
    assert code == 1
    assert "bad.zip is no readable zip archive" in err
    assert {path.name for path in tmp_path.iterdir()} == {"r", "bad.zip"}


def test_a_full_disk(tmp_path, run, monkeypatch):
    fill(tmp_path / "r", 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = run("--real", f"a={tmp_path / 'r'}")
    assert code == 1
    assert "is full: nothing was written; free some space or choose another --out" in err
    assert {path.name for path in tmp_path.iterdir()} == {"r"}


def test_ctrl_c_keeps_the_old_store_and_says_how_to_start_again(tmp_path, run, monkeypatch):
    fill(tmp_path / "r", 2)
    assert run("--real", f"a={tmp_path / 'r'}")[0] == 0
    before = snapshot(tmp_path)
    monkeypatch.setattr("fakegan.data.build._read_chunk", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run("--real", f"a={tmp_path / 'r'}", "--overwrite")
    assert code == 130
    assert "-m fakegan.prepare --real" in err
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_picture_without_permission(tmp_path, run):
    fill(tmp_path / "r", 2)
    (tmp_path / "r" / "001.png").chmod(stat.S_IWUSR)
    assert run("--real", f"a={tmp_path / 'r'}")[0] == 0
    assert rejected(tmp_path / "faces") == {"a/001.png": "cannot be read: Permission denied"}


def test_read_pictures_keeps_order_and_gives_reasons(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / "bad.jpg").write_text("no")
    paths = [tmp_path / name for name in ("002.png", "bad.jpg", "000.png", "gone.png")]
    read = list(read_pictures(paths, Geometry()))
    assert [name for name, _ in read] == [str(path) for path in paths]
    assert isinstance(read[0][1], Face)
    assert read[1][1] == "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"
    assert isinstance(read[2][1], Face)
    assert read[3][1] == "cannot be read: No such file or directory"


def test_read_pictures_looks_into_folders_and_archives(tmp_path):
    """Others than pictures are passed over there, and not where they are named themselves."""
    folder = fill(tmp_path / "folder" / "b", 40).parent  # more than a worker reads at a time
    fill(folder / "a", 1, first_seed=50)
    (folder / "notes.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("in/1.png", encode(picture(60)))
        archive.writestr("notes.txt", "hello")
    paths = [tmp_path / "some.zip", folder, folder / "notes.txt"]
    read = list(read_pictures(paths, Geometry(), workers=2))
    assert [name for name, _ in read] == [
        f"{tmp_path}/some.zip/in/1.png",
        f"{folder}/a/000.png",
        *(f"{folder}/b/{number:03d}.png" for number in range(40)),
        f"{folder}/notes.txt",
    ]
    ((_, alone),) = read_pictures([folder / "a" / "000.png"], Geometry())
    assert np.array_equal(read[1][1].pixels, alone.pixels)
    assert all(isinstance(outcome, Face) for _, outcome in read[:-1])
    assert read[-1][1] == "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"
    assert count_pictures(paths) == 43


def test_read_pictures_goes_on_after_what_cannot_be_opened(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    fill(tmp_path / "good", 1)
    read = dict(read_pictures([tmp_path / name for name in ("empty", "bad.zip", "good")], Geometry()))
    assert read[str(tmp_path / "empty")] == "holds no pictures: it is empty"
    assert "no readable zip archive" in read[str(tmp_path / "bad.zip")]
    assert isinstance(read[str(tmp_path / "good" / "000.png")], Face)


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_store_and_no_orphans(tmp_path, run):
    fill(tmp_path / "r", 600)
    copies = [tmp_path / "r" / f"{i:05d}_{path.name}" for i in range(20) for path in sorted((tmp_path / "r").iterdir())]
    for path in copies:  # so that it takes long enough to be killed
        os.link(path.with_name(path.name[6:]), path)
    words = ["--real", f"a={tmp_path / 'r'}", "--out", str(tmp_path / "faces"), "--workers", "2"]
    command = [sys.executable, "-m", "fakegan.prepare", *words]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(
        lambda: process.poll() is not None or any(map(holds_something, tmp_path.glob(".faces.building/images.npy")))
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "faces").exists()
    wait_for(lambda: not group_lives(process.pid))
    for path in copies:
        path.unlink()
    code, out, _ = run(*words)
    assert code == 0
    assert out.startswith("Removed what a stopped run had left.")
    assert {path.name for path in tmp_path.iterdir()} == {"r", "faces"}
    FaceStore.open(tmp_path / "faces").verify()


def wait_for(happened) -> None:
    while not happened():
        time.sleep(0.02)


def holds_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # it has been moved
        return False


def group_lives(group: int) -> bool:
    """Not counting zombies, which a container may never bury."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(int(pgid) == group and state[0] not in "ZX" for pgid, state in map(str.split, listed.splitlines()))


def test_floats_from_0_to_1_declared_as_minus_1_to_1_are_refused(tmp_path: Path) -> None:
    """Taken at its word, that class would come out washed out: the easiest thing for a classifier to learn."""
    np.save(tmp_path / "fakes.npy", np.random.default_rng(0).random((8, 64, 64, 3)))
    for value_range, accepted in (((-1.0, 1.0), False), ((0.0, 1.0), True)):
        recipe = Recipe([Source("gan", FAKE, tmp_path / "fakes.npy")], value_range=value_range)
        if accepted:
            assert build_store(recipe, tmp_path / "store", dry_run=True).count == 8
        else:
            with pytest.raises(UsageError, match=r"no value below 0: is --npy-range=0,1 meant"):
                build_store(recipe, tmp_path / "store", dry_run=True)


def test_a_bare_name_in_groups_that_fits_two_sources_is_refused(tmp_path: Path) -> None:
    sources = []
    for name, label in (("r", REAL), ("f", FAKE)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((64, 64, 3), 40 * (1 + label), np.uint8)).save(tmp_path / name / "000.png")
        sources.append(Source(name, label, tmp_path / name))
    groups = tmp_path / "groups.csv"
    groups.write_text("file,group\n000.png,ann\n")
    with pytest.raises(UsageError, match=r"000\.png could be r/000\.png or f/000\.png"):
        build_store(Recipe(sources, groups=groups), tmp_path / "store")
    groups.write_text("file,group\nr/000.png,ann\n")
    build_store(Recipe(sources, groups=groups), tmp_path / "store")
    groups.write_text("file,group\n")
    with pytest.raises(UsageError, match="names no file"):
        build_store(Recipe(sources, groups=groups), tmp_path / "store2")


def test_limit_counts_a_source_of_several_folders_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("real", "fake"):
            (tmp_path / "in" / split / kind).mkdir(parents=True)
            for i in range(3):
                noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / "in" / split / kind / f"{i}.png")
    words = ["--root", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--limit", "4", "--workers", "1"]
    assert prepare.main(words) == 0
    store = FaceStore.open(tmp_path / "out")
    assert [(store.labels == label).sum() for label in (REAL, FAKE)] == [4, 4]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """Ten times the pictures may cost a few bytes each (hashes, thumbnails, names), never a picture's 12 kB."""
    contents = [encode(picture(seed, side=64), "JPEG") for seed in range(50)]
    peaks = []
    for count in (400, 4000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:05d}.jpg").write_bytes(contents[number % 50] + str(number).encode())  # after the end
        script = (
            "import re; from fakegan import prepare; "
            f"assert prepare.main(['--real', 'a={folder}', '--out', '{folder}-out', '--workers', '1']) == 0; "
            "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[1] - peaks[0] < 3600 * 64 * 64 * 3 / 4  # a quarter of what keeping the faces would cost


def test_preparing_needs_no_torch() -> None:
    """Its import would take each worker seconds and some 200 MB."""
    script = "import sys, fakegan.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_declared_group_named_like_a_pictures_own_is_that_group(tmp_path: Path, run) -> None:
    fill(tmp_path / "r", 3)
    assert run("--real", f"a={tmp_path / 'r'}")[0] == 0
    own = FaceStore.open(tmp_path / "faces").groups.tolist()
    (tmp_path / "g.csv").write_text(f"file,group\n000.png,{own[2]}\n001.png,{own[1].upper()}\n")
    assert run("--real", f"a={tmp_path / 'r'}", "--groups", tmp_path / "g.csv", "--overwrite")[0] == 0
    assert FaceStore.open(tmp_path / "faces").groups.tolist() == [own[2], own[1].upper(), own[2]]


def test_the_table_of_sources_fits_in_eighty_columns() -> None:
    source = SourceSummary("stylegan3-ffhq", FAKE, rejected=12_345)
    source.left_out[".txt"] = 1
    source.formats["JPEG"] = 70_000
    source.widths.extend([1024] * 70_000)
    source.heights.extend([1024] * 70_000)
    source.quantisers.extend([10.0] * 70_000)
    lines = Summary([source]).lines()
    assert max(map(len, lines)) <= 80
    assert any(".txt" in line for line in lines)  # what is left out has a line of its own
