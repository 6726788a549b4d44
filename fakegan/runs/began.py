"""The faces that a run began with, in a file of its folder: the store's fingerprint, and the size of larger faces."""

from __future__ import annotations

from pathlib import Path

from fakegan.checks import SIZES
from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError
from fakegan.runs.folder import FACES_FILE
from fakegan.system.files import replacing


def fingerprint_at_start(run_dir: Path) -> str:
    """The fingerprint of the store that a run began with; empty where it has opened none yet."""
    return _lines(run_dir)[0]


def size_at_start(run_dir: Path) -> int:
    """Pixels a side of the faces that a run began with; the smallest size where its folder does not say it."""
    stated = _lines(run_dir)[1:]
    return next((size for size in SIZES if stated == [str(size)]), SIZES[0])


def refuse_other_size(
    place: str,  # what holds the faces, as a sentence begins
    size: int,  # their pixels a side
    run_dir: Path,
) -> None:
    """Raise a FakeganError where a run that has begun would go on with faces of another size."""
    began = size_at_start(run_dir)
    if size != began:
        raise FakeganError(
            f"{place} holds faces of {size}x{size} pixels, but {run_dir} began with faces of {began}x{began}: "
            "name the store that it began with, or start a new run"
        )


def same_faces_as_before(run_dir: Path, store: FaceStore) -> None:
    """Note the faces of a run that begins; one that has begun goes on with these.

    Raises:
        FakeganError: the run began with other faces; some of these may have been tested on, or learnt from.
    """
    before, size = fingerprint_at_start(run_dir), store.geometry.size
    if not before:
        run_dir.mkdir(parents=True, exist_ok=True)
        with replacing(run_dir / FACES_FILE) as building:
            building.write_text("\n".join([store.fingerprint, *([str(size)] if size != SIZES[0] else []), ""]))
    elif before != store.fingerprint:
        refuse_other_size(str(store.path), size, run_dir)
        raise FakeganError(f"{store.path} has changed since this run began: start a new run")


def _lines(run_dir: Path) -> list[str]:
    path = run_dir / FACES_FILE
    return (path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "").split() or [""]
