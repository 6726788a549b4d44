"""Stage 2: the examples for a classifier: real faces against generated ones, or against their own reconstructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import RowArray
from fakegan.data.faces import Faces, open_faces
from fakegan.data.splits import Needs
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from fakegan.runs.began import fingerprint_at_start
from fakegan.runs.settings import RunSettings
from fakegan.stages.reconstruct import reconstruct_faces
from fakegan.stages.stage import Examples, Run, Stage

RECONSTRUCTED = "reconstructed"  # the source of the fakes that are reconstructions


def own_faces(settings: RunSettings, wanted: Needs) -> Faces:
    """The faces that a run learns from, or has learnt from.

    Raises:
        UsageError: the store is not where it was when the run began.
        FakeganError: as `open_faces`.
    """
    root, run_dir = settings.data.root, settings.paths.run_dir
    if root is not None and not root.exists() and fingerprint_at_start(run_dir):
        raise UsageError(
            f"{run_dir} began with a face store at {root}, which is not there any more: give its new place, "
            "to train.py by resume=RUN data.root=DIR, or to evaluate.py by data=faces data.root=DIR"
        )
    return open_faces(settings.data, settings.paths.data_dir, wanted)


def make_examples(run: Run) -> None:
    """The examples that the pipeline asks for; reconstructions are made on the way, or found among the artifacts."""
    store, splits, pipeline = run.faces.store, run.faces.splits, run.settings.pipeline
    train, val, size = splits.train, splits.val, len(store)
    if pipeline.fakes == RECONSTRUCTED:
        train, val = (rows[store.labels[rows] == REAL] for rows in (train, val))
    arrays: dict[str, RowArray] = {"image": store.images}
    if pipeline.needs_autoencoder:
        rows = np.union1d(train, val)
        arrays["recon"] = recon = reconstruct_faces(run, store.images, store.fingerprint, rows)
    if pipeline.fakes != RECONSTRUCTED:
        run.examples = Examples(arrays, store.labels, store.sources, store.groups, train, val, size)
        return
    pictures: dict[str, RowArray] = {"image": Joined(store.images, recon, size)}
    if pipeline.seen is not None and pipeline.seen.needs_recon:
        again = reconstruct_faces(run, recon, f"{store.fingerprint} {RECONSTRUCTED}", rows)
        pictures["recon"] = Joined(recon, again, size)
    run.examples = Examples(
        pictures,
        labels=np.concatenate([store.labels, np.full(size, FAKE)]),
        sources=np.concatenate([store.sources, np.full(size, RECONSTRUCTED)]),
        groups=np.concatenate([store.groups, store.groups]),
        train=np.concatenate([train, train + size]),
        val=np.concatenate([val, val + size]),
        faces=size,
    )


class Joined:
    """Two arrays of pictures by row as one array: rows from `size` on are rows of the second."""

    def __init__(self, first: RowArray, second: RowArray, size: int) -> None:
        self.first, self.second, self.size = first, second, size

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:  # (B,) -> (B, size, size, 3)
        from_second = rows >= self.size
        parts = self.first[rows[~from_second]], self.second[rows[from_second] - self.size]
        pictures = np.empty((len(rows), *parts[0].shape[1:]), dtype=np.uint8)
        pictures[~from_second], pictures[from_second] = parts
        return pictures


EXAMPLES = Stage("reconstruct", make_examples, needed=lambda pipeline: pipeline.seen is not None)
