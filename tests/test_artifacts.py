import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.errors import FakeganError
from fakegan.runs.artifacts import Reconstructions, fingerprint, names_digest, obtain


def _write(folder: Path) -> dict[str, Any]:
    (folder / "content").write_text("made")
    return {"made": 1}


def _made_from(seed: int, package: str = "modules") -> dict[str, Any]:
    """Ingredients that name a class by its place in version 0.1.0, or by its present one: "training"."""
    return {"seed": seed, "model": {"_target_": f"fakegan.{package}.classifier.Classifier", "betas": (0.5, 0.9)}}


@pytest.mark.parametrize(
    ("name", "recipe", "ingredients", "told"),
    [
        ("a", 1, _made_from(1), "autoencoder: found, {first.name}"),
        ("a", 1, _made_from(1, "training"), "autoencoder: found, {first.name}"),
        ("a", 2, _made_from(1, "training"), "{first} is from another version"),
        ("a", 1, _made_from(2), ""),
        ("b", 1, _made_from(1, "training"), ""),
    ],
)
def test_an_artifact_is_found_or_made_anew_by_name_recipe_and_ingredients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, recipe: int, ingredients: Any, told: str
) -> None:
    first = obtain(tmp_path, "autoencoder", "a", 1, _made_from(1), _write)
    assert json.loads((first / "manifest.json").read_text())["results"] == {"made": 1}
    assert capsys.readouterr().out == ""
    again = obtain(tmp_path, "autoencoder", name, recipe, ingredients, _write)
    assert (again == first) == ("found" in told)
    printed = capsys.readouterr().out
    assert told.format(first=first) in printed
    assert bool(printed) == bool(told)
    assert (first / "content").read_text() == "made"


def test_an_artifact_of_version_0_1_0_is_made_anew_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifests = {
        "a-0123456789abcdef": '{"ingredients": {"seed": 1, "code": "5f2a"}}',
        "a-fedcba9876543210": '{"ingredients": {"seed": 1, "code": "5f2a", "precision": "x"}}',  # with other keys
        "b": "damaged",
        "c": "[]",
    }
    for folder, content in manifests.items():
        (tmp_path / "autoencoder" / folder).mkdir(parents=True)
        (tmp_path / "autoencoder" / folder / "manifest.json").write_text(content)
    obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    assert capsys.readouterr().out.count("another version") == 2
    obtain(tmp_path, "autoencoder", "a", 1, {"seed": 2}, _write)
    assert capsys.readouterr().out == ""


def test_fingerprints_follow_content_not_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert names_digest(np.array(["x", "y"])) == names_digest(np.array(["y", "x"]))


def test_what_a_dead_run_left_is_made_anew(tmp_path: Path) -> None:
    path = obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    building = path.with_name(f".{path.name}.building")
    path.rename(building)
    (building / "manifest.json").unlink()
    (building / "half").write_text("left by a killed run")
    again = obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    assert sorted(p.name for p in again.iterdir()) == ["content", "manifest.json"]


def _obtain_slowly(root: Path) -> None:
    def write(folder: Path) -> dict[str, Any]:
        time.sleep(0.5)
        with (folder.parent / "made.log").open("a") as log:
            log.write("made\n")
        return {}

    obtain(root, "autoencoder", "a", 1, {"seed": 1}, write)


def test_two_processes_make_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_obtain_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "autoencoder" / "made.log").read_text() == "made\n"


def test_reconstructions_by_store_row(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "rows.npy", np.array([2, 5, 9]))
    recon = Reconstructions(tmp_path, 64)
    assert np.array_equal(recon[np.array([9, 2])], images[[2, 0]])
    for missing in (0, 3, 10):
        with pytest.raises(KeyError, match=f"store row {missing} "):
            recon[np.array([2, missing])]
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    with pytest.raises(FakeganError, match="damaged"):
        Reconstructions(tmp_path, 64)
