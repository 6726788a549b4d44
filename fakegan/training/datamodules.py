"""The two data modules of training: the faces of an epoch, where a resumed fit continues, and the network's input."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fakegan.data.arrays import RowArray, Rows, at_once
from fakegan.data.augment import Augment
from fakegan.data.batches import DealtStoreOrder, FaceBatches, KeptBatches, TrainOrder, limited, loader, on_device
from fakegan.data.draws import Draws
from fakegan.data.splits import ClassRatio
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from fakegan.nets.cpu import takes_channels_last
from fakegan.system import ranks
from fakegan.system.devices import room

log = logging.getLogger(__name__)


class FaceDataModule(pl.LightningDataModule):
    """Faces of a store, in an order that depends on seed and epoch alone; a resumed fit continues within an epoch."""

    def __init__(
        self,
        batches: FaceBatches,
        train_rows: Rows,
        epoch_rows: Callable[[np.random.Generator], Rows],  # those of an epoch, from its generator
        val_rows: Rows,
        batch_size: int,  # of one step
        val_batch_size: int,  # at least, of faces of the smallest size
        seed: int,
        workers: int,  # DataLoader processes
        batch_key: str,  # where batch_size stands in the config, for error messages
        faces: str,  # the training faces, for error messages
    ) -> None:
        count = len(epoch_rows(np.random.default_rng(0)))
        if batch_size < 1:
            raise UsageError(f"{batch_key} must be at least 1, got {batch_size}")
        if batch_size > count:
            raise UsageError(
                f"{batch_key}={batch_size} is larger than the {faces} ({count} faces): lower it to {count} or less"
            )
        ranks.check_divisible(batch_size, batch_key, ranks.count())
        super().__init__()
        self.batches, self.train_rows = batches, train_rows
        self.train_order = TrainOrder(epoch_rows, batch_size, seed)
        self.val_order = DealtStoreOrder(val_rows, max(batch_size, at_once(val_batch_size, batches.size)))
        self.workers = workers

    def setup(self, stage: str) -> None:
        """Before a fit: keep its faces, training and validation, in the memory of a GPU that has room for them."""
        assert self.trainer is not None
        self.teardown(stage)  # which Lightning leaves out after an error
        device, rows = self.trainer.strategy.root_device, np.union1d(self.train_rows, self.val_order.rows)
        needed = self.batches.bytes_of(rows)
        if needed > room(device):
            return
        with contextlib.suppress(torch.OutOfMemoryError):  # another process was quicker
            self.batches = KeptBatches(self.batches, rows, device)
            unused = ", so data.workers have nothing to do" if self.workers else ""
            log.info("the faces stay on %s (%s MB)%s", device, f"{needed / 1e6:,.0f}", unused)

    def teardown(self, stage: str) -> None:
        """After a fit: let the memory go, whoever still has the batches; a trainer's loaders live on for a while."""
        if isinstance(self.batches, KeptBatches):
            self.batches.pictures.clear()
        self.batches = FaceBatches(self.batches.arrays, self.batches.labels)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Shuffled, mirrored batches, from where training stands."""
        self.train_order.trained = self._trained
        return loader(self.batches, self.train_order, self.workers, pinned=self._uses_cuda())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Validation faces in store order, as many of each class as there are."""
        return loader(self.batches, self.val_order, pinned=self._uses_cuda())

    def _uses_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _trained(self) -> tuple[int, int]:
        """Batches of the whole fit so far, and of an epoch.

        Right also while Lightning restores a fit; the samplers' set_epoch is called too late for that.
        """
        if self.trainer is None:
            return 0, self.train_order.batches
        taken = limited(self.train_order.batches, self.trainer.limit_train_batches)
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.ready, taken

    def _exact(self, pictures: Tensor) -> Tensor:
        """In the precision of the networks' weights, where the trainer has another than float32.

        In planes, unless a network asks for channels last: a module of the user's may take views of its maps.
        """
        if self.trainer is None:
            return pictures
        exact: Tensor = self.trainer.precision_plugin.convert_input(pictures)
        return exact if takes_channels_last(self.trainer.lightning_module) else exact.contiguous()


class RealFacesDataModule(FaceDataModule):
    """Real faces for the autoencoder: batches of {"image": float (B, 3, size, size) in [-1, 1], "row": int64 (B,)}."""

    def __init__(
        self,
        images: RowArray,
        labels: npt.NDArray[np.int64],
        train_rows: Rows,
        val_rows: Rows,
        batch_size: int,  # of one step
        seed: int,
        workers: int,  # DataLoader processes
        val_batch_size: int = 64,  # at least, of faces of the smallest size
    ) -> None:
        if (labels[train_rows] != REAL).any() or (labels[val_rows] != REAL).any():
            raise ValueError("the autoencoder learns from real faces only, but some of these rows are fakes")
        key, faces = "budget.autoencoder.batch_size", "autoencoder's training faces"
        batches = FaceBatches({"image": images}, labels)
        of_an_epoch, sizes = (train_rows, lambda rng: train_rows), (batch_size, val_batch_size)
        super().__init__(batches, *of_an_epoch, val_rows, *sizes, seed, workers, key, faces)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Mirror and convert on the device."""
        return {"image": self._exact(on_device(batch, ("image",))["image"]), "row": batch["row"]}


class RealFakeDataModule(FaceDataModule):
    """Real and fake faces through a view: {"x": float (B, C, size, size), "label": int64 (B,), "row": int64 (B,)}.

    A training batch of mixed faces has "other_label": int64 (B,), of the faces mixed in, and "other_share": float (),
    their share in the mixture, up to a half.
    """

    def __init__(
        self,
        arrays: Mapping[str, RowArray],  # the view is made from these: "image", "recon"
        labels: npt.NDArray[np.int64],
        view: Callable[[dict[str, Tensor]], Tensor],
        train_rows: Rows,
        val_rows: Rows,
        batch_size: int,  # of one step
        seed: int,
        ratio: ClassRatio,  # of real and fake in an epoch
        workers: int,  # DataLoader processes
        batch_key: str,  # where batch_size stands in the config, for error messages
        augment: Augment,  # of training faces
    ) -> None:
        if ratio not in {"balanced", "natural"}:
            raise UsageError(f"data.ratio={ratio!r} does not exist: choose balanced or natural")
        by_class = (train_rows[labels[train_rows] == REAL], train_rows[labels[train_rows] == FAKE])
        smaller, larger = sorted(by_class, key=len)

        def epoch_rows(rng: np.random.Generator) -> Rows:
            """All rows, or the smaller class with a fresh equal draw from the larger class."""
            if ratio == "natural":
                return train_rows
            # Sorted, so that the order that follows does not depend on which class is called fake.
            return np.sort(np.concatenate([smaller, rng.choice(larger, len(smaller), replace=False)]))

        batches, faces = FaceBatches(arrays, labels), f"train split ({ratio} classes)"
        sizes = batch_size, 256
        super().__init__(batches, train_rows, epoch_rows, val_rows, *sizes, seed, workers, batch_key, faces)
        self.view, self.augment = view, augment
        self.train_order.mirrors, self.train_order.mixes = augment.flip, augment.mixes

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Mirror, convert, augment training faces, apply the view and mix, on the device."""
        arrays = on_device(batch, tuple(self.batches.arrays))
        if "key" in batch:  # of a face to learn from
            arrays = self.augment(arrays, Draws(batch["key"]))
        x, label, row = self._exact(self._seen(arrays)), batch["label"], batch["row"]
        if "partner" not in batch:
            return {"x": x, "label": label, "row": row}
        partner, own = batch["partner"], slice(len(batch["partner"]))
        mixed, share = self.augment.mix(x[own], x[partner], Draws(batch["batch_key"]))
        return {
            "x": mixed,
            "label": label[own],
            "row": row[own],
            "other_label": label[partner],
            "other_share": share,
        }

    def _seen(self, arrays: dict[str, Tensor]) -> Tensor:
        """The view of a batch; of a process without faces to validate on, that of a blank face, taken out again.

        Not every view takes an empty batch: a Fourier transform does not.
        """
        if all(map(len, arrays.values())):
            return self.view(arrays)
        return self.view({name: faces.new_zeros(1, *faces.shape[1:]) for name, faces in arrays.items()})[:0]
