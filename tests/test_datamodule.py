"""Batches of the data modules: their order, mirror images, classes and limits."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fakegan.data.augment import Augment
from fakegan.data.batches import FaceBatches, KeptBatches, StoreOrder, TrainOrder, flips, loader, mirrored
from fakegan.data.draws import face_keys
from fakegan.data.pixels import to_unit
from fakegan.data.store import FaceStore
from fakegan.errors import UsageError
from fakegan.labels import FAKE, REAL
from fakegan.system import devices
from fakegan.training import datamodules
from fakegan.training.datamodules import RealFacesDataModule, RealFakeDataModule
from fakegan.views import VIEWS
from tests.helpers import autoencoder, faces_of_five_steps, fit, same


def _module(store: FaceStore, **changes: Any) -> RealFakeDataModule:
    rows = np.arange(len(store))
    options: dict[str, Any] = {"train_rows": rows[::2], "val_rows": rows[1::2], "batch_size": 20, "seed": 3}
    options |= {"ratio": "balanced", "workers": 0, "batch_key": "budget.classifier.batch_size"}
    options |= {"augment": Augment(), **changes}
    return RealFakeDataModule({"image": store.images}, store.labels, VIEWS["pixels"], **options)


def _epoch(order: TrainOrder, epoch: int) -> np.ndarray:
    order.trained = lambda: (epoch * len(order), len(order))
    return np.concatenate([np.stack([d.rows, d.flips]) for d in order], axis=1)


def test_order_and_flips_depend_on_seed_epoch_and_row_alone(store: FaceStore) -> None:
    first, second = _module(store).train_order, _module(store).train_order
    _epoch(second, 0)
    fifth = _epoch(first, 5)
    assert np.array_equal(fifth, _epoch(second, 5))  # after another epoch too
    assert not np.array_equal(fifth, _epoch(first, 6))
    assert not np.array_equal(fifth, _epoch(_module(store, seed=4).train_order, 5))


def test_flips_are_even_and_follow_the_row() -> None:
    rows = np.arange(20_000)
    mirrored = flips(face_keys(rows, seed=1, epoch=2).numpy())
    assert abs(mirrored.mean() - 0.5) < 0.02
    assert np.array_equal(flips(face_keys(rows[::-1], 1, 2).numpy()), mirrored[::-1])
    assert 0.45 < (mirrored != flips(face_keys(rows, 1, 3).numpy())).mean() < 0.55


def test_balanced_epochs_hold_as_many_reals_as_fakes_and_use_all_of_the_larger_class(store: FaceStore) -> None:
    rows = np.concatenate([np.flatnonzero(store.labels == REAL)[:30], np.flatnonzero(store.labels == FAKE)[:90]])
    order = _module(store, train_rows=rows, seed=0).train_order
    used: set[int] = set()
    for epoch in range(20):
        drawn = _epoch(order, epoch)[0]
        assert len(drawn) == len(set(drawn)) == 60
        assert (store.labels[drawn] == REAL).sum() == 30
        used |= set(drawn.tolist())
    assert used == set(rows.tolist())


def test_natural_epochs_hold_every_face_once(store: FaceStore) -> None:
    order = _module(store, ratio="natural", batch_size=32).train_order
    drawn = _epoch(order, 0)[0]
    assert sorted(drawn) == list(range(0, 320, 2))
    with pytest.raises(UsageError, match="balanced or natural"):
        _module(store, ratio="even")


def test_a_batch_is_one_gather_and_one_conversion(store: FaceStore) -> None:
    class Counting:
        gathers = 0

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            Counting.gathers += 1
            return store.images[rows]

    seen = list(loader(FaceBatches({"image": Counting()}, store.labels), StoreOrder(np.arange(100), 32)))
    assert [len(b["label"]) for b in seen] == [32, 32, 32, 4]
    assert Counting.gathers == 4


def test_batches_are_the_stores_faces_mirrored_where_drawn(store: FaceStore) -> None:
    module = _module(store)
    batch = next(iter(module.train_dataloader()))
    out = module.on_after_batch_transfer(batch, 0)
    assert out["x"].shape == (20, 3, 64, 64)
    assert out["label"].tolist() == store.labels[out["row"].numpy()].tolist()
    for x, row, flip in zip(out["x"], out["row"], batch["flip"], strict=True):
        face = to_unit(torch.from_numpy(store.images[[int(row)]]))[0]
        assert torch.equal(x, face.flip(2) if flip else face)
    assert batch["flip"].any()
    assert not batch["flip"].all()


def test_only_the_faces_named_are_mirrored() -> None:
    pixels = torch.arange(3 * 64 * 64 * 3).remainder(251).to(torch.uint8).view(3, 64, 64, 3)
    before = pixels.clone()
    out = mirrored(pixels, torch.tensor([True, False, True]))
    for face, (source, flip) in zip(out, ((0, True), (1, False), (2, True)), strict=True):
        for column in (0, 5, 63):
            assert torch.equal(face[:, column], before[source][:, 63 - column if flip else column])
    assert torch.equal(pixels, before)
    assert mirrored(pixels[:0], torch.zeros(0, dtype=torch.bool)).shape == (0, 64, 64, 3)


def test_validating_walks_in_store_order_without_flips(store: FaceStore) -> None:
    batches = list(_module(store).val_dataloader())
    assert torch.cat([b["row"] for b in batches]).tolist() == list(range(1, 320, 2))
    assert not torch.cat([b["flip"] for b in batches]).any()


@pytest.mark.parametrize(("limit", "taken"), [(3, 3), (0.5, 4), (50, 8), (1.0, 8)])
def test_an_epoch_of_fewer_batches_is_the_beginning_of_the_whole_one(
    store: FaceStore, limit: float, taken: int
) -> None:
    """Of eight batches; the next epoch follows it, with an order of its own."""
    order = _module(store, ratio="natural").train_order
    whole = [_epoch(order, epoch)[0] for epoch in (0, 1)]
    order.take(limit)
    assert len(order) == taken
    assert [_epoch(order, epoch)[0].tolist() for epoch in (0, 1)] == [w[: 20 * taken].tolist() for w in whole]
    order.trained = lambda: (taken + 1, taken)  # one step into the second
    rest = [row for draw in order for row in draw.rows]
    assert rest == whole[1][20 : 20 * taken].tolist()
    order.repeats = True
    assert _epoch(order, 5).tolist() == _epoch(order, 0).tolist()


def test_lightnings_own_limit_counts_epochs_alike(store: FaceStore) -> None:
    module: Any = _module(store, ratio="natural")
    whole = [_epoch(module.train_order, epoch)[0] for epoch in (0, 1)]
    done = SimpleNamespace(total=SimpleNamespace(ready=3))
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=done))
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(limit_train_batches=3, fit_loop=loops, strategy=strategy)
    batches = list(module.train_dataloader())
    assert torch.cat([b["row"] for b in batches])[:60].tolist() == whole[1][:60].tolist()


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda:1", True), ("mps", False)])
def test_memory_is_pinned_for_batches_that_go_to_a_gpu(
    store: FaceStore, device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not wherever there is one: trainer=cpu would make a CUDA context in each process."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    rows = np.flatnonzero(store.labels == REAL)
    reals = RealFacesDataModule(store.images, store.labels, rows[:9], rows[9:], 8, seed=0, workers=0)
    for module in (_module(store), reals):
        assert not module.train_dataloader().pin_memory  # nothing trains yet
        module.trainer = trainer
        assert module.train_dataloader().pin_memory == module.val_dataloader().pin_memory == pinned


def test_a_batch_larger_than_the_split_and_fakes_for_the_autoencoder_are_refused(store: FaceStore) -> None:
    with pytest.raises(UsageError, match=r"budget\.classifier\.batch_size=5000.*lower it to 160"):
        _module(store, ratio="natural", batch_size=5000)
    reals = np.flatnonzero(store.labels == REAL)
    with pytest.raises(UsageError, match=r"budget\.autoencoder\.batch_size"):
        RealFacesDataModule(store.images, store.labels, reals[:10], reals[10:], batch_size=11, seed=0, workers=0)
    with pytest.raises(ValueError, match="real faces only"):
        RealFacesDataModule(store.images, store.labels, np.arange(320), reals, batch_size=4, seed=0, workers=0)


@pytest.mark.parametrize("name", ["pixels", "spectrum", "npr"])
def test_a_process_without_faces_to_validate_on_has_an_empty_batch_of_any_view(store: FaceStore, name: str) -> None:
    data = _module(store)
    data.view = VIEWS[name]
    batch = {key: values[:0] for key, values in next(iter(data.val_dataloader())).items()}
    assert data.on_after_batch_transfer(batch, 0)["x"].shape == (0, 3, 64, 64)


class _FromHost(TorchDispatchMode):
    """Names the operators that bring a tensor of the host to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = ({x.device.type for x in tree_leaves(xs) if isinstance(x, Tensor)} for xs in (args, out))
        if "cpu" in given and "meta" in given | made:
            self.seen.append(str(func))
        return out


class _Counting:
    """A store's pictures, and how often they were asked for."""

    def __init__(self, store: FaceStore) -> None:
        self.images, self.gathers = store.images, 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.gathers += 1
        return self.images[rows]


def _on(module: RealFakeDataModule, device: str) -> RealFakeDataModule:
    rows = np.union1d(module.train_rows, module.val_order.rows)
    module.batches = KeptBatches(module.batches, rows, torch.device(device))
    return module


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_batches_of_kept_faces_are_the_same_and_nobody_asks_the_store_again(store: FaceStore, mixup: float) -> None:
    """Of two arrays and some of the rows, in another order than the store's, from the third batch of an epoch on."""
    rows, counting = np.random.default_rng(0).permutation(len(store)), _Counting(store)
    some: dict[str, Any] = {"train_rows": rows[:150], "val_rows": rows[150:200], "augment": Augment(mixup=mixup)}
    kept, plain = (_module(store, **some, workers=workers) for workers in (2, 0))
    for module in (kept, plain):
        module.batches = FaceBatches({"image": counting, "recon": counting}, store.labels)
    _on(kept, "cpu")
    seen = counting.gathers
    for of in (kept, plain):
        of._trained = lambda: (8, 6)  # type: ignore[method-assign]
    batches = [[*module.train_dataloader(), *module.val_dataloader()] for module in (kept, plain)]
    assert len(batches[0]) > 5
    assert counting.gathers == seen + 2 * len(batches[1])
    assert ("partner" in batches[0][0]) == bool(mixup)
    same(*batches)


def test_a_step_copies_nothing_to_the_device_that_keeps_the_faces(store: FaceStore) -> None:
    """A device without memory shows which tensors come from the host: those of an epoch, before its first batch."""
    module = _on(_module(store, augment=Augment(mixup=1.0, shift=2)), "meta")
    for data in (module.train_dataloader(), module.val_dataloader()):
        batches = iter(data)
        next(batches)
        with _FromHost() as copies:
            for batch in batches:
                assert {value.device.type for value in batch.values()} == {"meta"}
                module.on_after_batch_transfer(batch, 0)
        assert not copies.seen


def test_a_fit_of_kept_faces_ends_with_the_same_bits(store: FaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 faces of 12,288 bytes: kept where there is room for all of them."""
    ended, logged = [], []
    monkeypatch.setattr(datamodules.log, "info", lambda text, *words: logged.append(text % words))
    for bytes_free in (50 * 12_288, 50 * 12_288 - 1):
        monkeypatch.setattr(datamodules, "room", lambda device, free=bytes_free: free)
        data, module = faces_of_five_steps(store), autoencoder()
        torch.manual_seed(0)
        module.load_state_dict(autoencoder().state_dict())
        fit(module, data, epochs=2)
        assert type(data.batches) is FaceBatches  # the memory is free again
        ended.append(module.state_dict())
    same(*ended)
    assert logged == ["the faces stay on cpu (1 MB)"]


def test_faces_leave_the_memory_when_a_fit_ends_or_failed(store: FaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datamodules, "room", lambda device: 50 * 12_288)
    data: Any = faces_of_five_steps(store)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    data.setup("fit")
    failed = data.batches
    assert list(failed.pictures) == ["image"]
    data.setup("fit")  # Lightning calls no teardown after an error
    ended = data.batches
    assert (list(failed.pictures), list(ended.pictures)) == ([], ["image"])
    data.teardown("fit")
    assert not ended.pictures  # though a loader may hold the batches


def test_a_quarter_of_a_gpus_free_memory_may_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 bytes, 60 are free, and 12 of the 20 that this process holds; a limit may leave it less."""
    sizes = {"mem_get_info": (60, 100), "memory_allocated": 8, "memory_reserved": 20}
    for name, size in sizes.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, size=size: size)
    for share, expected in ((1.0, 18), (0.4, 8), (0.05, 0)):
        monkeypatch.setattr(
            torch.cuda, "get_per_process_memory_fraction", lambda device, share=share: share, raising=False
        )
        assert max(0, devices.room(torch.device("cuda", 1))) == expected
    assert devices.room(torch.device("cpu")) == devices.room(torch.device("mps")) == 0
