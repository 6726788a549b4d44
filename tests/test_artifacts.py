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


def test_made_once_found_again(tmp_path: Path) -> None:
    first = obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    assert (first / "content").read_text() == "made"
    assert json.loads((first / "manifest.json").read_text())["results"] == {"made": 1}
    assert obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, lambda _: pytest.fail("made twice")) == first
    assert obtain(tmp_path, "autoencoder", "a", 1, {"seed": 2}, _write) != first


def test_another_recipe_makes_it_anew_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    assert capsys.readouterr().out == ""
    second = obtain(tmp_path, "autoencoder", "a", 2, {"seed": 1}, _write)
    assert first.is_dir()
    assert second != first
    assert f"{first} is from another version" in capsys.readouterr().out
    assert obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write) == first
    assert capsys.readouterr().out == f"autoencoder: found, {first.name}\n"


def test_another_name_of_the_same_recipe_is_not_called_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    obtain(tmp_path, "autoencoder", "b", 1, {"seed": 1}, _write)
    assert capsys.readouterr().out == ""


def test_an_artifact_of_version_0_1_0_is_made_anew_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "autoencoder" / "a-0123456789abcdef"
    old.mkdir(parents=True)
    (old / "manifest.json").write_text(json.dumps({"ingredients": {"seed": 1, "code": "5f2a"}}))
    otherwise = tmp_path / "autoencoder" / "a-fedcba9876543210"  # its settings had other keys
    otherwise.mkdir()
    (otherwise / "manifest.json").write_text(json.dumps({"ingredients": {"seed": 1, "code": "5f2a", "precision": "x"}}))
    (tmp_path / "autoencoder" / "b").mkdir()
    (tmp_path / "autoencoder" / "b" / "manifest.json").write_text("damaged")
    (tmp_path / "autoencoder" / "c").mkdir()
    (tmp_path / "autoencoder" / "c" / "manifest.json").write_text("[]")
    obtain(tmp_path, "autoencoder", "a", 1, {"seed": 1}, _write)
    assert capsys.readouterr().out.count("another version") == 2
    obtain(tmp_path, "autoencoder", "a", 1, {"seed": 2}, _write)
    assert capsys.readouterr().out == ""


def test_an_artifact_by_earlier_names_of_classes_is_found(tmp_path: Path) -> None:
    made_from = {"model": {"_target_": "fakegan.modules.classifier.Classifier", "betas": (0.5, 0.9)}, "seed": 1}
    present = {**made_from, "model": {**made_from["model"], "_target_": "fakegan.training.classifier.Classifier"}}  # type: ignore[dict-item]
    earlier = obtain(tmp_path, "autoencoder", "a", 1, made_from, _write)
    assert obtain(tmp_path, "autoencoder", "a", 1, present, lambda _: pytest.fail("made twice")) == earlier
    assert obtain(tmp_path, "autoencoder", "b", 1, present, _write) != earlier


def test_an_outdated_artifact_by_earlier_names_of_classes_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = obtain(tmp_path, "autoencoder", "a", 1, {"model": {"_target_": "fakegan.modules.x.Y"}}, _write)
    obtain(tmp_path, "autoencoder", "a", 2, {"model": {"_target_": "fakegan.training.x.Y"}}, _write)
    assert f"{earlier} is from another version" in capsys.readouterr().out


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


def _slow_write(folder: Path) -> dict[str, Any]:
    time.sleep(0.5)
    with (folder.parent / "made.log").open("a") as log:
        log.write("made\n")
    return {}


def _obtain_slowly(root: Path) -> None:
    obtain(root, "autoencoder", "a", 1, {"seed": 1}, _slow_write)


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
    recon = Reconstructions(tmp_path)
    assert np.array_equal(recon[np.array([9, 2])], images[[2, 0]])
    for missing in (0, 3, 10):
        with pytest.raises(KeyError, match=f"store row {missing} "):
            recon[np.array([2, missing])]


def test_damaged_reconstructions_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 64, 64, 3), dtype=np.float32))
    np.save(tmp_path / "rows.npy", np.arange(3))
    with pytest.raises(FakeganError, match="damaged"):
        Reconstructions(tmp_path)
