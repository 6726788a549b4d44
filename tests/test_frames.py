"""Groups by name, and the hint that a source needs them: for films, and not for faces that are merely numbered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakegan.data.frames import GroupBy, group_of
from fakegan.data.splits import SplitConfig, split_faces
from fakegan.data.store import FaceStore
from tests.helpers import as_zip

FILMS, FRAMES = 12, 5
Prepare = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("name", "folder", "stem"),
    [
        ("000001.jpg", "", ""),
        ("video3_000123.jpg", "", "video3"),
        ("033_097-0001.png", "", "033_097"),
        ("Ann Lee (12).png", "", "Ann Lee"),
        ("ann.png", "", ""),
        ("a/b/frame_1.png", "a/b", "a/b/frame"),
        ("a/0001.png", "a", ""),
        ("a/v2.jpg_7", "a", "a/v"),  # what follows the last dot is a suffix
    ],
)
def test_a_group_by_name(name: str, folder: str, stem: str) -> None:
    assert group_of(name, "folder") == folder
    assert group_of(name, "name") == stem


def _draw(folder: Path, names: Sequence[str], films: bool) -> Path:
    """A picture for each name: frames of films, FRAMES each, that differ by noise; or each picture another."""
    for i, name in enumerate(names):
        rng = np.random.default_rng(i // FRAMES if films else i)
        pixels = rng.integers(0, 256, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        noise = np.random.default_rng(1000 + i).integers(-50, 51, (8, 8, 1)).repeat(8, axis=0).repeat(8, axis=1)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels + noise * films, 0, 255).astype(np.uint8)).save(path)
    return folder


def _names(pattern: Callable[[int, int], str]) -> list[str]:
    return [pattern(film, frame) for film in range(FILMS) for frame in range(FRAMES)]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        (lambda film, frame: f"video_{film}/frame_{frame:04d}.png", "folder"),
        (lambda film, frame: f"{film:03d}/{frame:03d}.png", "folder"),
        (lambda film, frame: f"video{film}_{frame:06d}.png", "name"),
        (lambda film, frame: f"shard{film // 4}/{film:03d}_{frame:03d}.png", "name"),
    ],
)
def test_films_are_noticed_and_kept_together(
    tmp_path: Path, run_prepare: Prepare, pattern: Callable[[int, int], str], by: GroupBy, zipped: bool
) -> None:
    source = _draw(tmp_path / "films", _names(pattern), films=True)
    words = ["--real", f"a={as_zip(source) if zipped else source}"]
    assert f"the pictures of a look like frames of {FILMS} films" in run_prepare(*words)[1]
    alone = FaceStore.open(tmp_path / "faces")
    assert len(set(alone.groups)) > FILMS
    assert f"--group-by {by}" in alone.manifest["warnings"][0]
    assert "group_by" not in alone.manifest

    _, out, _ = run_prepare(*words, "--group-by", by, "--overwrite")
    assert f"grouped by {by}: {FILMS} groups" in out
    assert "look like" not in out
    grouped = FaceStore.open(tmp_path / "faces")
    assert grouped.manifest["group_by"] == by
    film_of = np.array([_names(pattern).index(file.removeprefix("a/")) // FRAMES for file in grouped.files])
    assert len({*zip(grouped.groups.tolist(), film_of.tolist(), strict=True)}) == FILMS
    splits = split_faces(
        grouped.labels, grouped.sources, grouped.groups, grouped.kept_split, SplitConfig(val=0.3, test=0.3), needs={}
    )
    assert not set(film_of[splits.test]) & set(film_of[splits.val])


@pytest.mark.parametrize(
    "pattern",
    [
        lambda film, frame: f"{film * FRAMES + frame:06d}.png",  # CelebA, FFHQ
        lambda film, frame: f"{film * FRAMES:05d}/{film * FRAMES + frame:05d}.png",  # FFHQ as it is downloaded
        lambda film, frame: f"batch_{film}/{frame:04d}.png",  # a generator's batches
        lambda film, frame: f"seed{film * FRAMES + frame:04d}.png",
        lambda film, frame: f"frame_{film * FRAMES + frame:04d}.png",  # one film: nothing to divide
        lambda film, frame: f"e{5 * (film // 4)}_r{film % 4:02d}c{frame:02d}.png",  # pictures cut from sheets
        lambda film, frame: f"gan{film % 3}/{film * FRAMES + frame:04x}.png",  # three generators
    ],
)
def test_other_faces_with_numbers_draw_no_hint(
    tmp_path: Path, prepared: Callable[..., FaceStore], pattern: Callable[[int, int], str]
) -> None:
    source = _draw(tmp_path / "people", _names(pattern), films=False)
    assert prepared("--real", f"a={source}").manifest["warnings"] == []


def test_names_that_speak_of_frames_are_enough(tmp_path: Path, prepared: Callable[..., FaceStore]) -> None:
    source = _draw(tmp_path / "films", _names(lambda film, frame: f"clip{film}/frame_{frame:04d}.png"), films=False)
    (warning,) = prepared("--real", f"a={source}").manifest["warnings"]
    assert f"frames of {FILMS} films, one a folder" in warning
