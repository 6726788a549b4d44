"""Trained autoencoders, reconstructions and analyses that several runs may use, found again by fingerprint.

An artifact is a folder `artifact_dir/KIND/NAME-FINGERPRINT`. The fingerprint is of the ingredients and of the kind's
RECIPE, a number that stands beside the code that makes it: raise it when the same ingredients give other numbers
(tests/test_recipes.py notices), and each artifact of that kind is made anew.

An artifact is made in a folder beside its place and renamed into it, under a lock that dies with its process, so that
two runs never make the same one twice. Where a run has several processes, rank 0 looks, locks and renames, and all of
them make. Until it is finished, a file beside it names the run that makes it, so that another run can go on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import map_array
from fakegan.errors import FakeganError
from fakegan.runs.config_file import with_new_targets
from fakegan.system import ranks
from fakegan.system.files import building_folder, building_place, replacing

MANIFEST = "manifest.json"  # what an artifact was made from, and what came out
IMAGES_FILE, ROWS_FILE = "images.npy", "rows.npy"  # of reconstructions
log = logging.getLogger(__name__)


def fingerprint(ingredients: dict[str, Any]) -> str:
    """sha256 of plain values in canonical JSON, 16 hex digits."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def names_digest(names: npt.NDArray[np.str_]) -> str:
    """sha256 over a set of names in any order, 16 hex digits."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def obtain(
    root: Path,  # paths.artifact_dir
    kind: str,  # "autoencoder", "reconstructions" or "analysis"
    name: str,  # for people; the fingerprint decides
    recipe: int,  # the kind's RECIPE
    ingredients: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],  # fills an empty folder, in every process; returns results for the manifest
) -> Path:
    """The folder of the artifact that is made from these ingredients: found, waited for, or made now."""
    path = root / kind / f"{name}-{fingerprint({**ingredients, 'recipe': recipe})}"
    with contextlib.ExitStack() as stack:
        found = ranks.on_rank_zero(lambda: _find(path))
        if found is None:
            stack.enter_context(ranks.rank_zero_context(lambda: _locked(path)))
            found = ranks.on_rank_zero(lambda: _find(path))  # another run may have made it in the meantime
        if found is not None:
            log.info("%s: found, %s", kind, found.name)
            return found
        for outdated in _by_other_recipes(path.parent, name, recipe, ingredients):
            log.info("%s: %s is from another version of FakeGAN: made anew, and not deleted", kind, outdated)
        building = building_place(path)
        with ranks.rank_zero_context(lambda: building_folder(path)):
            manifest = {"kind": kind, "recipe": recipe, "ingredients": ingredients, "results": make(building)}
            ranks.wait()
            if ranks.is_rank_zero():
                (building / MANIFEST).write_text(json.dumps(manifest, indent=2))
        if ranks.is_rank_zero():
            _note(building).unlink(missing_ok=True)
    return path


def _find(path: Path) -> Path | None:
    """The finished artifact of this name and fingerprint; classes in its ingredients may have earlier names."""
    if (path / MANIFEST).is_file():
        return path
    name = path.name.rpartition("-")[0]
    for folder, recipe, made_from in _manifests(path.parent):
        renamed = f"{name}-{fingerprint({**made_from, 'recipe': recipe})}"
        if renamed == path.name and folder.name.rpartition("-")[0] == name:
            return folder
    return None


def _by_other_recipes(folder: Path, name: str, recipe: int, ingredients: dict[str, Any]) -> list[Path]:
    """The finished artifacts in a kind's folder that another recipe or version made from the same ingredients."""
    found = []
    for path, its_recipe, made_from in _manifests(folder):
        made_from.pop("code", None)  # which stood for the recipe in version 0.1.0
        other_keys = made_from.keys() != ingredients.keys() and path.name.startswith(f"{name}-")
        alike = all(made_from.get(key) == ingredients.get(key) for key in ("seed", "faces", "rows"))
        if (fingerprint(made_from) == fingerprint(ingredients) and its_recipe != recipe) or (other_keys and alike):
            found.append(path)
    return found


def _manifests(folder: Path) -> Iterator[tuple[Path, int | None, dict[str, Any]]]:
    """Each finished artifact in a kind's folder, its recipe, and its ingredients by the present names of classes."""
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            content = json.loads(manifest.read_text())
            yield manifest.parent, content.get("recipe"), dict(with_new_targets(content["ingredients"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged: nothing is said of it, and nothing is lost


def earlier_run(building: Path, stage: Path) -> Path | None:
    """The folder of the run that began to make this artifact and was stopped or killed; None if there is none.

    `make` asks for it, on rank 0. The folder `stage`, of this run, is noted in its place.
    """
    note = _note(building)
    before = Path(note.read_text("utf-8", "surrogateescape").strip()) if note.is_file() else None
    with replacing(note) as written:
        written.write_text(f"{stage.absolute()}\n", "utf-8", "surrogateescape")
    return before


def _note(building: Path) -> Path:
    return building.with_suffix(".begun_by")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("another run is making %s; waiting for it", path.name)
            lock.acquire()
    except OSError as error:
        raise FakeganError(f"{path.parent} cannot be written ({error}): set paths.artifact_dir=DIR") from error
    try:
        yield
    finally:
        lock.release()


class Reconstructions:
    """Reconstructions of some store rows, memory-mapped: uint8, indexed by store row.

    Raises:
        FakeganError: damaged.
        KeyError: a row that was not reconstructed (a test face never is, before the test).
    """

    def __init__(
        self,
        folder: Path,
        size: int,  # pixels a side of the faces
    ) -> None:
        damaged = FakeganError(f"{folder} is damaged or of another version: delete it, and the next run makes it again")
        try:
            self.images: npt.NDArray[np.uint8] = map_array(folder / IMAGES_FILE)
            rows: npt.NDArray[np.int64] = map_array(folder / ROWS_FILE)
        except ValueError as error:
            raise damaged from error
        if rows.dtype != np.int64 or rows.ndim != 1 or not (rows[1:] > rows[:-1]).all():
            raise damaged
        if self.images.dtype != np.uint8 or self.images.shape != (len(rows), size, size, 3):
            raise damaged
        self.rows = np.array(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:  # (B,) -> (B, size, size, 3)
        place = np.searchsorted(self.rows, rows)
        found = self.rows[np.minimum(place, len(self.rows) - 1)] == rows
        if not found.all():
            raise KeyError(f"store row {rows[~found][0]} has no reconstruction")
        return self.images[place]
