"""Whole batches of faces from the memory map to the device; order and flips depend on (seed, epoch, row) alone.

A batch leaves the store as uint8 in one gather. Flips and the conversion to [-1, 1] happen on the device, after the
transfer, so nothing is done in Python per picture. Where several processes train together, each training batch is
dealt to them face by face, and batches to validate on are divided among them: the same faces in the same order as in
one process, and none twice.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fakegan import ranks
from fakegan.data.pixels import to_unit
from fakegan.data.splits import ClassRatio
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from fakegan.processes import STOPPING

Rows = npt.NDArray[np.int64]  # store rows


class RowArray(Protocol):
    """Pictures by store row: a store's images, or reconstructions of some of them."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]: ...  # (B, 64, 64, 3)


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
        self.batches_done: Callable[[], int] = lambda: 0  # of the whole fit so far

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Draw]:
        return self._draws(*divmod(self.batches_done(), len(self)))  # read now: a worker process asks far ahead

    def _draws(self, epoch: int, skip: int) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.epoch_rows(rng))
        mirrored = flips(order, self.seed, epoch)
        for start in range(skip * self.batch_size, len(self) * self.batch_size, self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield Draw(ranks.dealt(order[batch]), ranks.dealt(mirrored[batch]))


class StoreOrder(Sampler[Draw]):
    """Every row once, as given, never mirrored; the last batch may be smaller."""

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        for start in range(0, len(self.rows), self.batch_size):
            yield self._draw(self.rows[start : start + self.batch_size])

    def _draw(self, rows: Rows) -> Draw:
        return Draw(rows, np.zeros(len(rows), dtype=bool))


class DealtStoreOrder(StoreOrder):
    """The batches of a StoreOrder that are this process's: whole ones, so that each looks as it does in one process.

    With fewer batches than processes, some get one without faces: all of them must meet at the end of a validation.
    """

    def __len__(self) -> int:
        return max(len(self._own()), 1)

    def __iter__(self) -> Iterator[Draw]:
        own = self._own()
        if not own:
            yield self._draw(self.rows[:0])
        for batch in own:
            yield self._draw(self.rows[batch * self.batch_size : (batch + 1) * self.batch_size])

    def _own(self) -> range:
        return ranks.dealt(range(super().__len__()))


class FaceBatches(Dataset[dict[str, Tensor]]):
    """Batches by Draw: {"image" and/or "recon": uint8 (B, 64, 64, 3), "label", "row": int64, "flip": bool (B,)}."""

    def __init__(self, arrays: Mapping[str, RowArray], labels: npt.NDArray[np.int64]) -> None:
        self.arrays = arrays
        self.labels = labels

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        pictures = {name: torch.from_numpy(np.ascontiguousarray(a[draw.rows])) for name, a in self.arrays.items()}
        return {
            **pictures,
            "label": torch.from_numpy(self.labels[draw.rows]),
            "row": torch.from_numpy(draw.rows),
            "flip": torch.from_numpy(draw.flips),
        }


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
    """In a loader's process: a terminal, a wrapper or SLURM tells a whole group of processes to stop.

    The run's own process answers, and to save it needs its loaders until the end of the step. By SIGTERM it ends them.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    for number in STOPPING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:  # dict[str, Tensor]; DataLoader's stub knows of lists of items only
    """In place of DataLoader's own search through each batch for arrays to convert: there are tensors only."""
    return batch


def on_device(batch: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """The named pictures of a batch, mirrored where drawn and converted to float (B, 3, 64, 64) in [-1, 1]."""
    return {name: to_unit(mirrored(batch[name], batch["flip"])) for name in names}


def mirrored(pixels: Tensor, flip: Tensor) -> Tensor:  # uint8 (B, 64, 64, 3), bool (B,) -> (B, 64, 64, 3)
    """The pictures, those of `flip` mirrored left to right.

    Torch has a fast mirror image for pixels of three bytes if it is told that they are channels. All are mirrored, and
    chosen by words of eight bytes: that takes less than picking out some.
    """
    all_mirrored = pixels.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)
    choice = torch.where(flip.view(-1, 1), _words(all_mirrored), _words(pixels))
    return choice.view(torch.uint8).view(pixels.shape)


def _words(pixels: Tensor) -> Tensor:  # uint8 (B, 64, 64, 3) -> int64 (B, 1536)
    return pixels.flatten(1).view(torch.int64)


class RealFacesDataModule(pl.LightningDataModule):
    """Real faces for the autoencoder: batches of {"image": float (B, 3, 64, 64) in [-1, 1], "row": int64 (B,)}."""

    def __init__(
        self,
        images: RowArray,
        labels: npt.NDArray[np.int64],
        train_rows: Rows,
        val_rows: Rows,
        batch_size: int,  # of one step
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if (labels[train_rows] != REAL).any() or (labels[val_rows] != REAL).any():
            raise ValueError("the autoencoder learns from real faces only, but some of these rows are fakes")
        _check_batch_size(batch_size, len(train_rows), "budget.autoencoder.batch_size", "autoencoder's training faces")
        self.batches = FaceBatches({"image": images}, labels)
        self.train_order = TrainOrder(lambda rng: train_rows, batch_size, seed)
        self.val_order = DealtStoreOrder(val_rows, batch_size=max(batch_size, 64))
        self.workers = workers

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Shuffled, mirrored batches, from where training stands."""
        self.train_order.batches_done = lambda: _batches_done(self.trainer)
        return loader(self.batches, self.train_order, self.workers, pinned=_to_gpu(self.trainer))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Validation faces in store order."""
        return loader(self.batches, self.val_order, pinned=_to_gpu(self.trainer))

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Mirror and convert on the device."""
        return {**on_device(batch, ("image",)), "row": batch["row"]}


class RealFakeDataModule(pl.LightningDataModule):
    """Real and fake faces through a view: {"x": float (B, C, 64, 64), "label": int64 (B,), "row": int64 (B,)}."""

    def __init__(
        self,
        arrays: Mapping[str, RowArray],  # what the view is made from: "image", "recon"
        labels: npt.NDArray[np.int64],
        view: Callable[[dict[str, Tensor]], Tensor],
        train_rows: Rows,
        val_rows: Rows,
        batch_size: int,  # of one step
        seed: int,
        ratio: ClassRatio = "balanced",
        workers: int = 0,
        predict_rows: Rows | None = None,  # what predict_dataloader walks through; default: train and val
        batch_key: str = "budget.classifier.batch_size",  # where batch_size stands in the config, for what is wrong
    ) -> None:
        super().__init__()
        self.batches = FaceBatches(arrays, labels)
        self.view = view
        epoch_rows = _class_ratio(train_rows, labels, ratio)
        faces = len(epoch_rows(np.random.default_rng(0)))
        _check_batch_size(batch_size, faces, batch_key, f"train split ({ratio} classes)")
        self.train_order = TrainOrder(epoch_rows, batch_size, seed)
        self.val_order = DealtStoreOrder(val_rows, batch_size=max(batch_size, 256))
        both = np.union1d(train_rows, val_rows)
        self.predict_order = StoreOrder(both if predict_rows is None else predict_rows, self.val_order.batch_size)
        self.workers = workers

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Shuffled, mirrored batches in the asked-for class ratio, from where training stands."""
        self.train_order.batches_done = lambda: _batches_done(self.trainer)
        return loader(self.batches, self.train_order, self.workers, pinned=_to_gpu(self.trainer))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Validation faces in store order, as many of each class as there are."""
        return loader(self.batches, self.val_order, pinned=_to_gpu(self.trainer))

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Faces in store order, neither shuffled nor mirrored."""
        return loader(self.batches, self.predict_order, pinned=_to_gpu(self.trainer))

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Mirror, convert and apply the view on the device."""
        arrays = on_device(batch, tuple(self.batches.arrays))
        return {"x": self.view(arrays), "label": batch["label"], "row": batch["row"]}


def _batches_done(trainer: pl.Trainer | None) -> int:
    """Of the whole fit; also right while Lightning restores a fit, which the samplers' set_epoch is too late for."""
    return 0 if trainer is None else trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _to_gpu(trainer: pl.Trainer | None) -> bool:
    return trainer is not None and trainer.strategy.root_device.type == "cuda"


def _class_ratio(rows: Rows, labels: npt.NDArray[np.int64], ratio: ClassRatio) -> Callable[[np.random.Generator], Rows]:
    """The rows of an epoch: all ("natural"), or the smaller class with a fresh equal draw from the larger."""
    if ratio == "natural":
        return lambda rng: rows
    if ratio != "balanced":
        raise UsageError(f"data.ratio={ratio!r} does not exist: choose balanced or natural")
    smaller, larger = sorted((rows[labels[rows] == REAL], rows[labels[rows] == FAKE]), key=len)
    # Sorted, so that the order that follows does not depend on which class is called fake.
    return lambda rng: np.sort(np.concatenate([smaller, rng.choice(larger, len(smaller), replace=False)]))


def _check_batch_size(batch_size: int, faces: int, key: str, what: str) -> None:
    if batch_size < 1:
        raise UsageError(f"{key} must be at least 1, got {batch_size}")
    if batch_size > faces:
        raise UsageError(f"{key}={batch_size} is larger than the {what} ({faces} faces): lower it to {faces} or less")
    ranks.divisible(batch_size, key, ranks.count())
