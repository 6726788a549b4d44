"""What a classifier learns from: real faces against generated ones, or against their own reconstructions.

An example is a picture with a label. Example i below the store's size is the face of row i; example N + i is the
reconstruction of that face and a fake: both come from one row, so no split can part them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import RowArray, Rows
from fakegan.data.faces import Faces, open_faces
from fakegan.data.splits import Needs
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from fakegan.runs.settings import RunSettings, began_with
from fakegan.stages.reconstruct import reconstruct_faces

RECONSTRUCTED = "reconstructed"  # the source of the fakes that are reconstructions


@dataclass(frozen=True)
class Examples:
    """Pictures by example number, and which of them train and validate."""

    arrays: dict[str, RowArray]  # "image" and, where the view or the fakes need it, "recon"
    labels: npt.NDArray[np.int64]  # (N,) or (2N,), REAL or FAKE
    sources: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]  # a face and its reconstruction share one
    train: Rows
    val: Rows
    faces: int  # N: example i shows the face of row i % N


def own_faces(settings: RunSettings, wanted: Needs) -> Faces:
    """The faces that a run learns from, or has learnt from.

    Raises:
        UsageError: the store is not where it was when the run began.
        FakeganError: as `open_faces`.
    """
    root, run_dir = settings.data.root, settings.paths.run_dir
    if root is not None and not root.exists() and began_with(run_dir):
        raise UsageError(
            f"{run_dir} began with a face store at {root}, which is not there any more: give its new place, "
            "to train.py by resume=RUN data.root=DIR, or to evaluate.py by data=faces data.root=DIR"
        )
    return open_faces(settings.data, settings.paths.data_dir, wanted)


def examples(
    settings: RunSettings,
    faces: Faces,
    autoencoder: Path | None,  # needed where the view or the fakes are reconstructions
) -> Examples:
    """The examples that the pipeline asks for; reconstructions are made, or found, on the way."""
    store, splits, pipeline = faces.store, faces.splits, settings.pipeline
    train, val = splits.train, splits.val
    if pipeline.fakes == RECONSTRUCTED:
        train, val = (rows[store.labels[rows] == REAL] for rows in (train, val))
    arrays: dict[str, RowArray] = {"image": store.images}
    examples = Examples(arrays, store.labels, store.sources, store.groups, train, val, len(store))
    if autoencoder is None:
        return examples
    rows = np.union1d(train, val)
    recon = reconstruct_faces(settings, store.images, store.fingerprint, rows, autoencoder)
    if pipeline.fakes != RECONSTRUCTED:
        arrays["recon"] = recon
        return examples

    size = len(store)
    pictures: dict[str, RowArray] = {"image": Joined(store.images, recon, size)}
    if pipeline.seen is not None and pipeline.seen.needs_recon:
        again = reconstruct_faces(settings, recon, f"{store.fingerprint} {RECONSTRUCTED}", rows, autoencoder)
        pictures["recon"] = Joined(recon, again, size)
    return Examples(
        pictures,
        labels=np.concatenate([store.labels, np.full(size, FAKE)]),
        sources=np.concatenate([store.sources, np.full(size, RECONSTRUCTED)]),
        groups=np.concatenate([store.groups, store.groups]),
        train=np.concatenate([train, train + size]),
        val=np.concatenate([val, val + size]),
        faces=size,
    )


class Joined:
    """Two arrays of pictures by row as one: rows from `size` on are those of the second."""

    def __init__(self, first: RowArray, second: RowArray, size: int) -> None:
        self.first, self.second, self.size = first, second, size

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:  # (B,) -> (B, 64, 64, 3)
        from_second = rows >= self.size
        pictures = np.empty((len(rows), 64, 64, 3), dtype=np.uint8)
        pictures[~from_second] = self.first[rows[~from_second]]
        pictures[from_second] = self.second[rows[from_second] - self.size]
        return pictures
