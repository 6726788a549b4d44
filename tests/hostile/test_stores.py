"""Stores, arrays of pictures and kept reconstructions from elsewhere."""

import csv
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.data import sources
from fakegan.data import store as store_module
from fakegan.data.images import Geometry
from fakegan.data.sources import open_container
from fakegan.data.store import COLUMNS, FaceStore
from fakegan.data.store_writer import StoreWriter
from fakegan.labels import FAKE, REAL
from fakegan.runs.artifacts import Reconstructions
from tests.helpers import smooth_faces, write_store
from tests.hostile.conftest import BAD_ARRAYS, Call, refused

ESCAPES = "\x1b[2J" * 999  # that would clear the terminal


@pytest.fixture
def small_store(tmp_path: Path) -> Path:
    rows = [("a", REAL, "camera"), ("b", FAKE, "gan"), ("c", REAL, "camera"), ("d", FAKE, "gan")]
    faces = zip(smooth_faces(4, np.random.default_rng(1)), rows, strict=True)
    path = write_store(tmp_path / "faces", [(pixels, *row) for pixels, row in faces])
    FaceStore.open(path).verify()
    return path


def cell(store: Path, column: str, value: str) -> None:
    """Another value in the first row of faces.csv."""
    with (store / "faces.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][COLUMNS.index(column)] = value
    with (store / "faces.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.mark.parametrize("in_an_array", [True, False])
def test_a_store_with_a_pickle_for_images_runs_nothing(small_store: Path, marker: Path, in_an_array: bool) -> None:
    call = Call(os.mkdir, str(marker))
    with (small_store / "images.npy").open("wb") as file:
        if in_an_array:
            np.save(file, np.array([call], dtype=object), allow_pickle=True)
        else:
            pickle.dump(call, file)
    refused(lambda: FaceStore.open(small_store), "images.npy", "not a whole array")


@pytest.mark.parametrize("harm", BAD_ARRAYS)
def test_images_that_are_no_array_of_pictures_are_refused(small_store: Path, harm: str) -> None:
    BAD_ARRAYS[harm](small_store / "images.npy")
    why = "is missing" if harm == "a pipe" else "not a whole array"  # nothing waits for it
    refused(lambda: FaceStore.open(small_store), "images.npy", why)


@pytest.mark.parametrize("name", [".faces.replaced", ".faces.replaced-1-abcd", ".faces.building"])
def test_a_link_named_like_a_writers_folder_moves_and_removes_nothing_behind_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "letter").write_text("mine")
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / name).symlink_to(tmp_path / "private")
    with StoreWriter(tmp_path / "faces", Geometry()):
        assert (tmp_path / "private" / "letter").read_text() == "mine"
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["letter"]
    assert len(FaceStore.open(tmp_path / "faces")) == 0
    assert not (tmp_path / "faces" / name).is_symlink()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"padding": "x" * 2**24}, "too large"),
        ({"format_version": ESCAPES}, "is of format version"),
        ({"format_version": 3}, "is of format version 3, this FakeGAN reads up to version 2"),
        ({"label_convention": ESCAPES}, "says labels mean"),
        ({"count": ESCAPES}, "the manifest says"),
        ({"fingerprint": "\x1b[2J"}, "no fingerprint"),
        ({"geometry": {"size": "64"}}, "geometry"),
        ({"geometry": {"size": 100, "crop": True, "max_megapixels": 256}}, "geometry"),
        ({"geometry": {"size": 64, "crop": True, "max_megapixels": "\x1b[2J"}}, "geometry"),
        *(
            ({"geometry": {"size": 64, "crop": True, "max_megapixels": 256, "equalise": numbers}}, "geometry")
            for numbers in ([64, 10**9], [63, 90], [10**9, 90], [64], [64, 90.5], "64,90", [], {})
        ),
        ({"sources": ["camera"]}, "sources are no table"),
        ({"warnings": [{}]}, "no list of sentences"),
        ("{", "not a store's manifest"),
        ("[" * 200_000, "not a store's manifest"),
    ],
)
def test_a_manifest_that_lies_is_one_sentence(small_store: Path, values: dict[str, Any] | str, why: str) -> None:
    file = small_store / "manifest.json"
    text = values if isinstance(values, str) else json.dumps(json.loads(file.read_text()) | values)
    file.write_text(text)
    refused(lambda: FaceStore.open(small_store), "images.npy" if "count" in values else file.name, why)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("file", "x" * 2**17, "too large a table for 4 images"),
        ("sha256", ESCAPES[:400], "a sha256 is"),
        ("label", ESCAPES[:400], "a label is"),
        ("label", "2", "a label is '2' instead of 0"),
        ("split", ESCAPES[:400], "a split is"),
        ("width", "9" * 40, "instead of a number of pixels"),
        ("height", "0", "instead of a number of pixels"),
    ],
)
def test_a_cell_that_lies_is_one_sentence(small_store: Path, column: str, value: str, why: str) -> None:
    cell(small_store, column, value)
    refused(lambda: FaceStore.open(small_store), "faces.csv", why)


def test_one_long_name_does_not_take_memory_for_every_row(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_MAX_COLUMN_BYTES", 4 * 4 * 99)
    cell(small_store, "file", "x" * 99)
    assert len(FaceStore.open(small_store)) == 4
    cell(small_store, "file", "x" * 100)
    refused(lambda: FaceStore.open(small_store), "faces.csv", "a cell has 100 characters")


@pytest.mark.parametrize("harm", BAD_ARRAYS)
@pytest.mark.parametrize("name", ["images.npy", "rows.npy"])
def test_reconstructions_with_a_header_that_lies_are_one_sentence(tmp_path: Path, name: str, harm: str) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 64, 64, 3), dtype=np.uint8))
    np.save(tmp_path / "rows.npy", np.array([1, 4, 6]))
    assert len(Reconstructions(tmp_path, 64)) == 3
    BAD_ARRAYS[harm](tmp_path / name)
    refused(lambda: Reconstructions(tmp_path, 64), str(tmp_path))


@pytest.mark.parametrize("rows", [[4, 1, 6], [1, 4, 4], [1.0, 4.0, 6.0], np.int32([1, 4, 6]), [[1], [4], [6]], [1], 1])
def test_the_rows_of_reconstructions_are_sorted_whole_numbers(tmp_path: Path, rows: Any) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 64, 64, 3), dtype=np.uint8))
    np.save(tmp_path / "rows.npy", np.asarray(rows))
    refused(lambda: Reconstructions(tmp_path, 64), str(tmp_path))


@pytest.mark.parametrize("harm", sorted(set(BAD_ARRAYS) - {"a pipe"}))
def test_an_array_of_pictures_with_a_header_that_lies_is_one_sentence(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "faces.npy"
    np.save(path, np.zeros((3, 64, 64, 3), dtype=np.uint8))
    assert len(list(open_container(path).entries())) == 3
    BAD_ARRAYS[harm](path)
    sources._open_array.cache_clear()
    refused(lambda: open_container(path), path.name, "no readable .npy array")
