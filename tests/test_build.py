"""prepare from end to end, in process: folders, zips, arrays; what is refused, and what it says."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fakegan.data.build import count_pictures, read_pictures
from fakegan.data.file_facts import FactTable, FileFacts
from fakegan.data.formats import NO_PICTURE
from fakegan.data.images import Face, Geometry
from fakegan.data.shortcuts import Pictures
from fakegan.data.store import FaceStore
from fakegan.data.summary import SourceSummary, Summary
from fakegan.labels import FAKE
from tests.helpers import as_zip, csv_rows, encode, fill, picture, snapshot


def test_folders_to_store(tmp_path, run_prepare):
    fill(tmp_path / "r" / "b", 2)
    fill(tmp_path / "r" / "a", 2, first_seed=10, suffix="jpg")
    (tmp_path / "r" / "notes.txt").write_text("skipped")
    fill(tmp_path / "f", 3, first_seed=20, suffix="webp")
    code, out, _ = run_prepare("--real", f"ffhq={tmp_path / 'r'}", "--fake", f"stylegan={tmp_path / 'f'}")
    assert code == 0
    store = FaceStore.open(tmp_path / "faces")
    store.verify()
    assert store.files.tolist() == [
        *("ffhq/a/000.jpg", "ffhq/a/001.jpg", "ffhq/b/000.png", "ffhq/b/001.png"),
        *("stylegan/000.webp", "stylegan/001.webp", "stylegan/002.webp"),
    ]
    assert store.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert len(set(store.groups.tolist())) == 7
    assert csv_rows(tmp_path / "faces" / "rejected.csv") == []
    assert "JPEG 50% PNG 50%" in out
    assert "64x64" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("Next: ")
    assert "train.py model=autogan4 pipeline=recon_classify data=faces data.root=" in last


def test_the_same_bytes_for_any_number_of_workers_and_from_a_zip(tmp_path, run_prepare):
    folder = fill(tmp_path / "r", 70)
    fill(tmp_path / "f", 40, first_seed=100, suffix="jpg")
    (folder / "033.png").write_bytes(b"broken")
    for name, place, workers in (("one", folder, 1), ("two", folder, 2), ("zip", as_zip(folder), 1)):
        words = ("--real", f"a={place}", "--fake", f"b={tmp_path / 'f'}", "--workers", workers)
        assert run_prepare(*words, "--out", tmp_path / name / "faces")[0] == 0
    one, two, of_zip = (snapshot(tmp_path / name / "faces") for name in ("one", "two", "zip"))
    assert one == two
    manifests = [json.loads(content.pop("manifest.json")) for content in (one, of_zip)]
    places = [manifest.pop("originals")["a"]["path"] for manifest in manifests]
    assert places == [str(folder), str(folder.with_suffix(".zip"))]
    assert (one, manifests[0]) == (of_zip, manifests[1])
    assert len(FaceStore.open(tmp_path / "one" / "faces")) == 109


def test_arrays(tmp_path, prepared):
    levels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * 80 + np.zeros((1, 64, 64, 3), dtype=np.uint8)
    levels[:, 0, 0] = (1, 2, 3)
    unit = (levels / 127.5 - 1).astype(np.float32)
    arrays = {"last": levels, "first": levels.transpose(0, 3, 1, 2), "unit": unit}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        words = ["--npy-range=-1,1"] if name == "unit" else []
        assert (prepared("--real", f"a={tmp_path / name}.npy", *words).images == levels).all()


@pytest.mark.parametrize(
    ("array", "words", "code", "told"),
    [
        (np.zeros((2, 64, 64, 3), np.float32), (), 2, "holds float32: say what it spans, --npy-range=-1,1"),
        (np.full((2, 64, 64, 3), 2.0), ("--npy-range=-1,1",), 1, "values outside -1 to 1"),
        (np.full((2, 64, 64, 3), np.nan), ("--npy-range=0,1",), 1, "values outside 0 to 1"),
        # Taken at its word, that class would come out washed out: the easiest thing for a classifier to learn.
        (np.full((2, 64, 64, 3), 0.5), ("--npy-range=-1,1",), 2, "no value below 0: is --npy-range=0,1 meant"),
        (np.zeros((2, 64, 64, 3), np.int64), (), 2, "holds int64: save it as uint8"),
        (np.zeros((2, 32, 32, 3), np.uint8), (), 2, "has shape (2, 32, 32, 3)"),
        (np.array([{}]), (), 1, "no readable .npy array"),
        (np.zeros((0, 64, 64, 3), np.uint8), (), 2, "holds no pictures"),
    ],
)
def test_arrays_that_are_refused(tmp_path, run_prepare, array, words, code, told):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    got, _, err = run_prepare("--real", f"a={tmp_path / 'a.npy'}", *words)
    assert got == code
    assert told in err
    assert not (tmp_path / "faces").exists()


def test_a_hostile_zip(tmp_path, run_prepare):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ok.png", "../climbs.png", "/root.png", "a/../../out.png", "C:\\windows.png"):
            archive.writestr(name, encode(picture(1)))
        archive.writestr("bomb.png", bytes(8 * 2**20))
    before = {path.name for path in tmp_path.iterdir()}
    assert run_prepare("--real", f"a={tmp_path / 'z.zip'}")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == before | {"faces"}
    assert FaceStore.open(tmp_path / "faces").files.tolist() == ["a/ok.png"]
    reasons = {row["file"]: row["reason"] for row in csv_rows(tmp_path / "faces" / "rejected.csv")}
    assert reasons.pop("a/bomb.png").endswith("times in the archive, more than any picture")
    assert len(reasons) == 4
    assert set(reasons.values()) == {"its path climbs out of the archive"}


def test_links_in_a_circle_end(tmp_path, prepared):
    folder = fill(tmp_path / "r" / "in", 2)
    (folder / "up").symlink_to(tmp_path / "r")
    (tmp_path / "r" / "twice").symlink_to(folder)
    assert prepared("--real", f"a={tmp_path / 'r'}").files.tolist() == ["a/in/000.png", "a/in/001.png"]


def test_classes_that_differ_are_warned_about(tmp_path, run_prepare):
    fill(tmp_path / "r", 12, suffix="jpg")
    fill(tmp_path / "f", 12, first_seed=50)
    (tmp_path / "f" / "copy.png").write_bytes((tmp_path / "r" / "000.jpg").read_bytes())
    _, out, _ = run_prepare("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'f'}", "--dry-run")
    assert "warning: a against b: files alone tell real from fake: AUROC 0." in out
    assert "by format" in out
    assert "real in one place and fake in another: 1 pair;" in out
    assert not (tmp_path / "faces").exists()
    fill(tmp_path / "same", 12, first_seed=70, suffix="jpg")
    _, out, _ = run_prepare("--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'same'}", "--dry-run")
    assert "warning" not in out


def test_the_table_of_sources_fits_in_eighty_columns() -> None:
    files = FactTable()
    for _ in range(70_000):
        files.add(FileFacts("JPEG", 1024, 1024, 10.0))
    source = SourceSummary("stylegan3-ffhq", FAKE, count=70_000, files=files.columns())
    source.reasons["truncated or damaged"] = 12_345
    source.left_out[".txt"] = 1
    names = np.full(70_000, source.name)
    lines = Summary([source], Pictures(np.ones(70_000, dtype=np.int64), names, names, source.files)).lines()
    assert max(map(len, lines)) <= 80
    assert any(".txt" in line for line in lines)  # what is left out has a line of its own


def test_read_pictures_keeps_order_and_looks_into_folders_and_archives(tmp_path):
    """Files that are no pictures are passed over there, but not where they are named themselves."""
    folder = fill(tmp_path / "folder" / "b", 40).parent  # more than a worker reads at a time
    fill(folder / "a", 1, first_seed=50)
    (folder / "notes.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("in/1.png", encode(picture(60)))
        archive.writestr("notes.txt", "hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    single, notes, gone = folder / "a" / "000.png", folder / "notes.txt", folder / "gone.png"
    paths = [tmp_path / "some.zip", tmp_path / "empty", folder, tmp_path / "bad.zip", notes, gone, single]
    names, outcomes = zip(*read_pictures(paths, Geometry(), workers=2), strict=True)
    inside = [f"{folder}/a/000.png", *(f"{folder}/b/{number:03d}.png" for number in range(40))]
    some = f"{tmp_path}/some.zip/in/1.png"
    assert list(names) == [some, str(tmp_path / "empty"), *inside, *map(str, paths[3:])]
    assert count_pictures(paths) == len(names)
    reasons = [outcome for outcome in outcomes if not isinstance(outcome, Face)]
    assert reasons.pop(1).endswith("no readable zip archive")
    assert reasons == ["holds no pictures: it is empty", NO_PICTURE, "cannot be read: No such file or directory"]
    assert np.array_equal(outcomes[2].pixels, outcomes[-1].pixels)


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_store_and_no_orphans(tmp_path, run_prepare):
    fill(tmp_path / "r", 600)
    copies = [tmp_path / "r" / f"{i:05d}_{path.name}" for i in range(20) for path in sorted((tmp_path / "r").iterdir())]
    for path in copies:  # so that it takes long enough to be killed
        os.link(path.with_name(path.name[6:]), path)
    words = ["--real", f"a={tmp_path / 'r'}", "--out", str(tmp_path / "faces"), "--workers", "2"]
    command = [sys.executable, "-m", "fakegan.prepare", *words]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    images = tmp_path / ".faces.building" / "images.npy"
    while process.poll() is None and not (images.exists() and images.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert images.exists()
    assert not (tmp_path / "faces").exists()
    while group_lives(process.pid):
        time.sleep(0.02)
    for path in copies:
        path.unlink()
    code, out, _ = run_prepare(*words)
    assert code == 0
    assert out.startswith("Removed what a stopped run had left.")
    assert {path.name for path in tmp_path.iterdir()} == {"r", "faces"}
    FaceStore.open(tmp_path / "faces").verify()


def group_lives(group: int) -> bool:
    """Not counting zombies, which a container may never bury."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(int(pgid) == group and state[0] not in "ZX" for pgid, state in map(str.split, listed.splitlines()))


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


def test_preparing_needs_no_torch_and_help_does_not_wait_for_it() -> None:
    """Its import would take each worker of prepare seconds and some 200 MB."""
    script = "import sys, fakegan.prepare, fakegan.predict, fakegan.sample; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
