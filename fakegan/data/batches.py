"""Whole batches of faces from the memory map to the device; order and draws depend on (seed, epoch, row) alone.

A batch leaves the store as uint8 in one gather; flips and the conversion to [-1, 1] happen on the device. Where the
device keeps the faces, batches are gathered there, by draws that are there for a whole epoch. Where several processes
train together, each training batch is dealt to them face by face, and whole batches to validate on: the same faces in
the same order as in one process, and none twice.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fakegan.data.arrays import RowArray, Rows, at_once
from fakegan.data.draws import face_keys
from fakegan.data.pixels import to_unit
from fakegan.system import ranks
from fakegan.system.processes import STOP_SIGNALS

_COPIED = 4096  # faces of the smallest size that are copied to a device at once


@dataclass(frozen=True)
class Draw:
    """One batch to fetch: arrays, or tensors where the faces are kept on a device."""

    rows: Any  # int64 (B,)
    flips: Any  # bool (B,), which faces are mirrored
    random: Mapping[str, Any] = field(default_factory=dict)  # int64, of a training batch, for FaceBatches


def flips(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:  # (B,) -> (B,)
    """Which faces are mirrored in an epoch: the lowest bit of their keys."""
    return (keys & 1).astype(bool)


def limited(
    batches: int,
    limit: float | None,  # as Lightning's limit_train_batches: a whole number, or a share
) -> int:
    """How many of the batches are taken."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


class Order(Sampler[Draw]):
    """Batches to fetch, one after the other."""

    device: torch.device | None = None  # that keeps the faces; `loader` sets it

    def placed(self, numbers: npt.NDArray[Any]) -> Any:
        """The numbers of a whole epoch as they are, or as a tensor on the device: its batches then are views."""
        return numbers if self.device is None else torch.from_numpy(numbers).to(self.device)


class TrainOrder(Order):
    """Shuffled full batches, epoch after epoch; the last faces that fill no batch wait for another epoch's order.

    An iterator goes from where training stands to the end of that epoch, so a fit that was stopped in the middle of
    an epoch goes on there. Of each batch it gives this process's share. Where faces are mixed, the partner of a face is
    the next face of the whole batch, whichever process has that: of several processes, each fetches its partners too.
    """

    def __init__(self, epoch_rows: Callable[[np.random.Generator], Rows], batch_size: int, seed: int) -> None:
        self.epoch_rows = epoch_rows  # the rows of one epoch, in any order, from the epoch's generator
        self.batch_size = batch_size  # of one step, over all processes
        self.seed = seed
        self.batches = len(epoch_rows(np.random.default_rng(0))) // batch_size  # of an epoch; all are equally long
        self.repeats = False  # whether every epoch repeats the first
        self.mirrors, self.mixes = True, False  # whether half of the faces are mirrored, whether two faces are mixed
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
        keys = face_keys(order, self.seed, epoch).numpy()
        of_batches = face_keys(-1 - np.arange(self.batches), self.seed, epoch).numpy()  # as of rows that there are not
        here, partners = self._places()
        places = np.arange(self.batches)[:, None] * self.batch_size + here  # (batches, faces of each)
        numbers = order[places], (flips(keys) & self.mirrors)[places], keys[places], of_batches[:, None]
        rows, mirrored, keys_of_faces, keys_of_batches = map(self.placed, numbers)
        partners = {name: self.placed(positions) for name, positions in partners.items()}
        for number in range(skip, self.batches):
            random = {"key": keys_of_faces[number], "batch_key": keys_of_batches[number], **partners}
            yield Draw(rows[number], mirrored[number], random)

    def _places(self) -> tuple[Rows, dict[str, Rows]]:
        """Where in a whole batch the faces are that this process fetches, and where among them each partner is."""
        whole = np.arange(self.batch_size)
        own, following = ranks.dealt(whole), np.roll(whole, -1)
        if not self.mixes:
            return own, {}
        if len(own) == len(whole):
            return own, {"partner": following}
        return np.concatenate([own, ranks.dealt(following)]), {"partner": np.arange(len(own)) + len(own)}


class StoreOrder(Order):
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
        rows, none = self.placed(self.rows), self.placed(np.zeros(len(self.rows), dtype=bool))
        for number in self.own():
            batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
            yield Draw(rows[batch], none[batch])


class DealtStoreOrder(StoreOrder):
    """This process's batches of a StoreOrder: whole batches, so that each is the same as in a single process.

    With fewer batches than processes, some get one without faces: all of them must meet at the end of a validation.
    """

    def own(self) -> range:
        """The numbers of this process's batches; the one after the last has no faces."""
        return ranks.dealt(range(self.batches)) or range(self.batches, self.batches + 1)


class FaceBatches(Dataset[dict[str, Tensor]]):
    """Batches by Draw: {"image" and/or "recon": uint8 (B, size, size, 3), "label", "row": int64, "flip": bool (B,)}.

    A training batch has random bits besides: int64 (B,), "key" of each face, and (1,), "batch_key", the same in every
    process. Where faces are mixed, "partner" has the position of each face's partner in the batch: as many as there are
    faces that this process trains on, which come first; the faces behind them are partners only.
    """

    device: torch.device | None = None  # that keeps the faces

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
        batch |= {"label": self.labels[draw.rows], "row": draw.rows, "flip": draw.flips, **draw.random}
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def bytes_of(self, rows: Rows) -> int:
        """How much memory the pictures of so many rows take."""
        return len(rows) * len(self.arrays) * 3 * self.size**2


class KeptBatches(FaceBatches):
    """The same batches of some rows, whose pictures a device keeps: a step copies nothing from the host's memory."""

    def __init__(self, batches: FaceBatches, rows: Rows, device: torch.device) -> None:
        super().__init__(batches.arrays, batches.labels)
        self.device = device
        self.pictures = {name: _copied(pictures, rows, batches.size, device) for name, pictures in self.arrays.items()}
        places = np.zeros_like(self.labels)  # of each row among the pictures
        places[rows] = np.arange(len(rows))
        self.places_and_labels = torch.from_numpy(np.stack([places, self.labels])).to(device)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        place, label = self.places_and_labels.index_select(1, draw.rows)
        batch = {name: pictures.index_select(0, place) for name, pictures in self.pictures.items()}
        return {**batch, "label": label, "row": draw.rows, "flip": draw.flips, **draw.random}


def _copied(pictures: RowArray, rows: Rows, size: int, device: torch.device) -> Tensor:
    """The pictures of some rows on a device, uint8 (N, size, size, 3), copied in parts."""
    kept = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, device=device)
    for part in torch.split(kept, at_once(_COPIED, size)):
        rows_of_part, rows = rows[: len(part)], rows[len(part) :]
        part.copy_(torch.from_numpy(np.ascontiguousarray(pictures[rows_of_part])))
    return kept


def loader(
    batches: FaceBatches,
    order: Order,
    workers: int = 0,
    pinned: bool = False,  # for batches that go to a GPU: it needs one, and a CUDA context in this process
) -> DataLoader[dict[str, Tensor]]:
    """A DataLoader that asks for whole batches; neither a memory map nor a device needs worker processes."""
    order.device = batches.device
    if batches.device is not None:
        workers, pinned = 0, False
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
