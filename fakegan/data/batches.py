"""Whole batches of faces from the memory map to the device; order and flips depend on (seed, epoch, row) alone.

A batch leaves the store as uint8 in one gather; flips and the conversion to [-1, 1] happen on the device. Where several
processes train together, each training batch is dealt to them face by face, and whole batches to validate on: the same
faces in the same order as in one process, and none twice.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fakegan.data.arrays import RowArray, Rows
from fakegan.data.pixels import to_unit
from fakegan.system import ranks
from fakegan.system.processes import STOP_SIGNALS


@dataclass(frozen=True)
class Draw:
    """One batch to fetch."""

    rows: Rows  # (B,)
    flips: npt.NDArray[np.bool_]  # (B,), which faces are mirrored


def flips(rows: Rows, seed: int, epoch: int) -> npt.NDArray[np.bool_]:
    """Which rows are mirrored in an epoch: one bit of splitmix64 over (seed, epoch, row)."""
    with np.errstate(over="ignore"):
        key = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(epoch) * np.uint64(0xD1B54A32D192ED03)
        z = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits: npt.NDArray[np.bool_] = ((z ^ (z >> np.uint64(31))) & np.uint64(1)).astype(bool)
    return bits


def limited(
    batches: int,
    limit: float | None,  # as Lightning's limit_train_batches: a whole number, or a share
) -> int:
    """How many of the batches are taken."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


class TrainOrder(Sampler[Draw]):
    """Shuffled full batches, epoch after epoch; the last faces that fill no batch wait for another epoch's order.

    An iterator goes from where training stands to the end of that epoch, so a fit that was stopped in the middle of
    an epoch goes on there. Of each batch it gives this process's share.
    """

    def __init__(self, epoch_rows: Callable[[np.random.Generator], Rows], batch_size: int, seed: int) -> None:
        self.epoch_rows = epoch_rows  # the rows of one epoch, in any order, from the epoch's generator
        self.batch_size = batch_size  # of one step, over all processes
        self.seed = seed
        self.batches = len(epoch_rows(np.random.default_rng(0))) // batch_size  # of an epoch; all are equally long
        self.repeats = False  # whether every epoch repeats the first
        self.trained: Callable[[], tuple[int, int]] = lambda: (0, self.batches)  # batches so far, and of an epoch

    def take(self, limit: float | None) -> None:
        """Keep the first `limit` batches of each epoch, or such a share of them; None: all."""
        self.batches = limited(self.batches, limit)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Draw]:
        done, of_an_epoch = self.trained()  # read now: a worker process asks far ahead
        epoch, skip = divmod(done, of_an_epoch)
        return self._draws(0 if self.repeats else epoch, skip)

    def _draws(self, epoch: int, skip: int) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.epoch_rows(rng))
        mirrored = flips(order, self.seed, epoch)
        for start in range(skip * self.batch_size, self.batches * self.batch_size, self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield Draw(ranks.dealt(order[batch]), ranks.dealt(mirrored[batch]))


class StoreOrder(Sampler[Draw]):
    """Every row once, as given, never mirrored; the last batch may be smaller."""

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size

    @property
    def batches(self) -> int:
        """How many there are, over all processes."""
        return math.ceil(len(self.rows) / self.batch_size)

    def take(self, limit: float | None) -> None:
        """Keep the first `limit` batches, or such a share of them; None: all."""
        self.rows = self.rows[: limited(self.batches, limit) * self.batch_size]

    def own(self) -> range:
        """The numbers of this process's batches."""
        return range(self.batches)

    def __len__(self) -> int:
        return len(self.own())

    def __iter__(self) -> Iterator[Draw]:
        for batch in self.own():
            rows = self.rows[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield Draw(rows, np.zeros(len(rows), dtype=bool))


class DealtStoreOrder(StoreOrder):
    """This process's batches of a StoreOrder: whole batches, so that each is the same as in a single process.

    With fewer batches than processes, some get one without faces: all of them must meet at the end of a validation.
    """

    def own(self) -> range:
        """The numbers of this process's batches; the one after the last has no faces."""
        return ranks.dealt(range(self.batches)) or range(self.batches, self.batches + 1)


class FaceBatches(Dataset[dict[str, Tensor]]):
    """Batches by Draw: {"image" and/or "recon": uint8 (B, size, size, 3), "label", "row": int64, "flip": bool (B,)}."""

    def __init__(self, arrays: Mapping[str, RowArray], labels: npt.NDArray[np.int64]) -> None:
        self.arrays = arrays
        self.labels = labels

    @property
    def size(self) -> int:
        """Pixels a side of the faces."""
        none = np.zeros(0, dtype=np.int64)
        return int(next(iter(self.arrays.values()))[none].shape[1])

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        batch: dict[str, npt.NDArray[Any]]
        batch = {name: np.ascontiguousarray(pictures[draw.rows]) for name, pictures in self.arrays.items()}
        batch |= {"label": self.labels[draw.rows], "row": draw.rows, "flip": draw.flips}
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def loader(
    batches: FaceBatches,
    order: Sampler[Draw],
    workers: int = 0,
    pinned: bool = False,  # for batches that go to a GPU: it needs one, and a CUDA context in this process
) -> DataLoader[dict[str, Tensor]]:
    """A DataLoader that asks for whole batches; a memory map needs no worker processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=order,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=pinned,
        persistent_workers=workers > 0,
    )


def _leave_signals_to_the_run(_worker: int) -> None:
    """In a loader's process: a terminal, a wrapper or SLURM asks a whole group of processes to stop.

    The run's own process answers; to save, it needs its loaders until the end of the step, and ends them by SIGTERM.
    """
    os.setpgrp()
    for number in set(STOP_SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    """In place of DataLoader's own search through each batch for arrays to convert: there are tensors only."""
    return batch


def on_device(batch: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """The named pictures of a batch, mirrored where drawn and converted to float (B, 3, size, size) in [-1, 1]."""
    return {name: to_unit(mirrored(batch[name], batch["flip"])) for name in names}


def mirrored(pixels: Tensor, flip: Tensor) -> Tensor:  # uint8 (B, size, size, 3), bool (B,) -> (B, size, size, 3)
    """The pictures; where `flip` is set, mirrored left to right.

    Torch mirrors pixels of three bytes fast if it is told that they are channels. All are mirrored, and then chosen
    by words of eight bytes: that takes less than picking out some.
    """
    all_mirrored = pixels.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)
    a, b = (picture.flatten(1).view(torch.int64) for picture in (all_mirrored, pixels))
    return torch.where(flip.view(-1, 1), a, b).view(torch.uint8).view(pixels.shape)
