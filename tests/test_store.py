"""The store on disk: what is written comes back, damage is told in a sentence, nothing half is left."""

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store import FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import FAKE, LABEL_CONVENTION, REAL
from tests.helpers import snapshot


def flat(level: int, size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), level, dtype=np.uint8)


def write_store(path: Path, levels=(10, 20, 30), overwrite: bool = False, groups=None) -> FaceStore:
    faces = [face_from_pixels(flat(level)) for level in levels]
    rows = [
        Row.of(face, file=f"s{i % 2}/{i}.png", label=FAKE if i % 2 else REAL, source=f"s{i % 2}", split="val")
        for i, face in enumerate(faces)
    ]
    with StoreWriter(path, Geometry(), overwrite=overwrite) as writer:
        for face, row in zip(faces, rows, strict=True):
            writer.append(face.pixels, row)
        writer.groups = groups
    return FaceStore.open(path)


def verified(path: Path) -> list[int]:
    """The levels of the store's flat faces."""
    store = FaceStore.open(path)
    store.verify()
    return store.images[:, 0, 0, 0].tolist()


def test_round_trip(tmp_path):
    store = write_store(tmp_path / "faces", groups=["one", "one", "two, and a comma"])
    assert len(store) == 3
    assert store.images.shape == (3, 64, 64, 3)
    assert store.images.dtype == np.uint8
    assert store.images[:, 5, 7, 1].tolist() == [10, 20, 30]
    assert not store.images.flags.writeable
    assert store.labels.tolist() == [0, 1, 0]
    assert store.sources.tolist() == ["s0", "s1", "s0"]
    assert store.files.tolist() == ["s0/0.png", "s1/1.png", "s0/2.png"]
    assert store.groups.tolist() == ["one", "one", "two, and a comma"]
    assert store.kept_split.tolist() == ["val", "val", "val"]
    assert store.widths.tolist() == store.heights.tolist() == [64, 64, 64]
    assert store.geometry == Geometry()
    assert store.manifest["label_convention"] == LABEL_CONVENTION == {"real": 0, "fake": 1}
    assert store.manifest["sources"]["s0"] == {"label": 0, "count": 2, "rejected": 0}
    store.verify()


def test_a_face_alone_is_in_a_group_of_its_own(tmp_path):
    store = write_store(tmp_path / "faces", levels=(1, 1, 2))
    assert store.groups.tolist() == [sha256[:16] for sha256 in store.sha256]


def test_file_names_that_are_not_utf8_survive(tmp_path):
    face = face_from_pixels(flat(1))
    with StoreWriter(tmp_path / "faces", Geometry()) as writer:
        writer.append(face.pixels, Row.of(face, file="s/\udcff,\n.png", label=REAL, source="s"))
    assert FaceStore.open(tmp_path / "faces").files.tolist() == ["s/\udcff,\n.png"]


def test_append_refuses_what_is_no_face(tmp_path):
    face = face_from_pixels(flat(1))
    row = Row.of(face, file="s/1", label=REAL, source="s")
    with StoreWriter(tmp_path / "faces", Geometry()) as writer:
        with pytest.raises(TypeError, match="float32"):
            writer.append(face.pixels.astype(np.float32) / 127.5 - 1, row)
        with pytest.raises(TypeError, match="32, 32"):
            writer.append(flat(1, size=32), row)
        with pytest.raises(ValueError, match="row"):
            writer.append(face.pixels, Row.of(face, file="s/1", label=2, source="s"))


def test_an_existing_store_is_kept_unless_asked(tmp_path):
    write_store(tmp_path / "faces")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="--overwrite"):
        write_store(tmp_path / "faces", levels=(9,))
    assert snapshot(tmp_path) == before
    assert len(write_store(tmp_path / "faces", levels=(9,), overwrite=True)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"faces"}


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("dear to me")
    (tmp_path / "loop").symlink_to("loop")
    for name, told in (("photos", r"me\.jpg"), ("photos/me.jpg", "is a file"), ("loop", "a link to itself")):
        with pytest.raises(UsageError, match=told):
            write_store(tmp_path / name, overwrite=True)
    assert (tmp_path / "photos" / "me.jpg").read_text() == "dear to me"
    (tmp_path / "empty").mkdir()
    assert len(write_store(tmp_path / "empty")) == 3


@pytest.mark.parametrize(
    ("harm", "error", "told"),
    [
        (RuntimeError("midway"), RuntimeError, "midway"),
        (["one", "two"], ValueError, "not as many groups"),
        (["one", "two", "three", "four"], ValueError, "not as many groups"),
        (OSError(errno.ENOSPC, "No space"), FakeganError, "disk that holds .*faces is full: nothing was written"),
    ],
)
def test_a_failure_leaves_nothing_and_the_old_store_whole(tmp_path, monkeypatch, harm, error, told):
    def fails(*_):
        raise harm

    write_store(tmp_path / "faces")
    before = snapshot(tmp_path)
    if isinstance(harm, RuntimeError):
        monkeypatch.setattr(StoreWriter, "append", fails)
    elif isinstance(harm, OSError):
        monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(error, match=told):
        write_store(tmp_path / "faces", overwrite=True, groups=harm if isinstance(harm, list) else None)
    assert snapshot(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"faces"}


def test_leftovers_of_a_dead_writer_are_swept_those_of_a_living_one_not(tmp_path):
    for name in (".faces.building", ".faces.building-1-abcd"):  # the second by an earlier version
        (tmp_path / name).mkdir()
        (tmp_path / name / "images.npy").write_bytes(b"half")
    with StoreWriter(tmp_path / "faces", Geometry()) as living:
        assert living.swept
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [".faces.building"]
        with pytest.raises(FakeganError, match="another process is writing"):
            write_store(tmp_path / "faces", levels=(8,))
        face = face_from_pixels(flat(9))
        living.append(face.pixels, Row.of(face, file="s/1", label=REAL, source="s"))
    assert verified(tmp_path / "faces") == [9]


def test_a_store_that_came_to_the_place_in_the_meantime_stays(tmp_path):
    write_store(tmp_path / "other")
    with pytest.raises(UsageError, match="--overwrite"), StoreWriter(tmp_path / "faces", Geometry()):
        (tmp_path / "other").rename(tmp_path / "faces")
    assert len(FaceStore.open(tmp_path / "faces")) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"faces"}


def test_a_store_set_aside_by_a_killed_swap_comes_back(tmp_path):
    write_store(tmp_path / "faces")
    (tmp_path / "faces").rename(tmp_path / ".faces.replaced")
    with pytest.raises(UsageError, match="--overwrite"):
        write_store(tmp_path / "faces", levels=(9,))
    assert len(FaceStore.open(tmp_path / "faces")) == 3


def test_a_store_in_a_mount_point_is_built_and_replaced_within_it(tmp_path, mounted):
    volume = mounted("volume")
    (volume / "lost+found").mkdir()
    write_store(volume, levels=(9,))
    with pytest.raises(UsageError, match="--overwrite"):
        write_store(volume, levels=(8,))
    write_store(volume, levels=(8, 7), overwrite=True)
    write_store(tmp_path / "beside", levels=(8, 7))
    files = {path.name for path in volume.iterdir()}
    assert files == {"images.npy", "faces.csv", "files.csv", "manifest.json", "rejected.csv", "lost+found"}
    assert snapshot(volume) == snapshot(tmp_path / "beside")
    assert {path.name for path in tmp_path.iterdir()} == {"volume", "beside"}


@contextmanager
def killed_after(moves, monkeypatch, cleanup):
    """Within the block, the process is killed once it has moved so many files: it does not call `cleanup` either."""
    done = []

    def replace(source, target, *, move=os.replace):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(move(source, target))

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("os.replace", replace)
        patch.setattr(cleanup, lambda *_, **__: None)
        yield


@pytest.mark.parametrize("moves", range(11))
def test_a_swap_within_a_mount_point_that_is_killed_costs_no_store(mounted, monkeypatch, moves):
    volume = mounted("volume")
    write_store(volume, levels=(9,))
    with killed_after(moves, monkeypatch, "fakegan.system.files._settle"):
        write_store(volume, levels=(8,), overwrite=True)
    with pytest.raises(UsageError, match="--overwrite"):  # what it has left is put in order first
        write_store(volume, levels=(7,))
    assert verified(volume) == [9 if moves < 10 else 8]  # five files go, then five come
    assert not [path for path in volume.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("moves", range(4))
def test_putting_back_a_store_within_a_mount_point_that_is_killed_costs_no_store(mounted, monkeypatch, moves):
    """The manifest comes back last: with it the store counts as whole, and what is still set aside is removed."""
    volume = mounted("volume")
    write_store(volume, levels=(9,))
    (volume / ".volume.replaced").mkdir()
    for path in volume.iterdir():
        if path.is_file():
            path.replace(volume / ".volume.replaced" / path.name)
    monkeypatch.setattr("os.listdir", lambda path, *, found=os.listdir: sorted(found(path), reverse=True))
    with killed_after(moves, monkeypatch, "shutil.rmtree"):
        write_store(volume, levels=(7,))
    with pytest.raises(UsageError, match="--overwrite"):
        write_store(volume, levels=(7,))
    assert verified(volume) == [9]


def test_a_store_named_like_a_writers_folder_is_built_beside_the_other(tmp_path):
    """Only whole names are a writer's own."""
    with StoreWriter(tmp_path / "faces.replaced", Geometry()) as other:
        write_store(tmp_path / "faces", levels=(8,))
        face = face_from_pixels(flat(9))
        other.append(face.pixels, Row.of(face, file="s/1", label=REAL, source="s"))
    assert (verified(tmp_path / "faces"), verified(tmp_path / "faces.replaced")) == ([8], [9])


def test_a_link_to_a_store_stays_and_the_store_behind_it_is_replaced(tmp_path):
    write_store(tmp_path / "disk" / "faces", levels=(9,))
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to(Path("disk", "faces"))
    dangling.symlink_to(tmp_path / "disk" / "new")
    with pytest.raises(UsageError, match="--overwrite"):
        write_store(link, levels=(8,))
    write_store(link, levels=(8,), overwrite=True)
    write_store(dangling, levels=(7,))
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert verified(tmp_path / "disk" / "faces") == [8]
    assert verified(tmp_path / "disk" / "new") == [7]
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link", "dangling"}


def swap(path: Path, old: str, new: str) -> None:
    content = (path / "faces.csv").read_text()
    assert old in content
    (path / "faces.csv").write_text(content.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "no face store at .*prepare"),
        (lambda path: (path / "faces.csv").unlink(), r"faces\.csv is missing"),
        (lambda path: os.truncate(path / "images.npy", 12_288), r"images\.npy is damaged: not a whole array"),
        (lambda path: np.save(path / "images.npy", np.zeros((3, 64, 64, 3))), "float64"),
        (lambda path: swap(path, "s0/2.png", "s0/2.png\n"), "rows for 3 images"),
        (lambda path: swap(path, "s0/2.png", "s0/2.png,x"), "cells"),
        (lambda path: swap(path, "file,label", "name,label"), "its columns"),
    ],
)
def test_damage_is_one_sentence(tmp_path, damage, told):
    write_store(tmp_path / "faces")
    damage(tmp_path / "faces")
    with pytest.raises(FakeganError, match=told) as error:
        FaceStore.open(tmp_path / "faces")
    assert "faces" in str(error.value)
    assert "\n" not in str(error.value)


def test_verify_sees_a_changed_pixel_and_a_changed_row(tmp_path):
    store = write_store(tmp_path / "faces")
    content = (tmp_path / "faces" / "images.npy").read_bytes()
    (tmp_path / "faces" / "images.npy").write_bytes(content[:-1] + b"\xff")
    with pytest.raises(FakeganError, match="fingerprint"):
        store.verify()
    (tmp_path / "faces" / "images.npy").write_bytes(content)
    store.verify()
    swap(tmp_path / "faces", "s0/2.png", "s0/3.png")
    with pytest.raises(FakeganError, match="fingerprint"):
        store.verify()
