from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fakegan.data import demo
from fakegan.data.pixels import to_unit
from fakegan.training.autoencoder import AdversarialAutoencoder, psnr
from fakegan.training.datamodules import RealFacesDataModule
from fakegan.training.modules import EpochMeans
from fakegan.training.pool import ReconstructionPool
from fakegan.training.schedules import constant, cosine, falling
from tests.helpers import adam, autoencoder, fit


def _faces(count: int, batch_size: int = 8) -> RealFacesDataModule:
    images = np.stack([f.image for f in demo.demo_faces(2 * count, seed=1, workers=0) if not f.is_fake])
    rows = np.arange(count)
    return RealFacesDataModule(images, np.zeros(count, np.int64), rows, rows[:16], batch_size, seed=0, workers=0)


@pytest.fixture(scope="module")
def faces() -> RealFacesDataModule:
    return _faces(32)


def _copy(net: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def _same(before: list[Tensor], net: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


class _Phases(AdversarialAutoencoder):
    """Records which network's parameters each optimizer step changed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.changed: list[tuple[bool, bool]] = []
        self.forwards = 0
        self.disc_calls: list[int] = []
        self.autoencoder.register_forward_hook(lambda *_: self._count())
        self.discriminator.register_forward_hook(lambda _, args, __: self.disc_calls.append(len(args[0])))

    def _count(self) -> None:
        self.forwards += 1

    def toggled_optimizer(self, optimizer: Any) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def watched() -> Any:
            before = _copy(self.autoencoder), _copy(self.discriminator)
            with super(_Phases, self).toggled_optimizer(optimizer):
                yield
            self.changed.append((not _same(before[0], self.autoencoder), not _same(before[1], self.discriminator)))

        return watched()


def test_each_phase_moves_its_own_network_only_and_reconstructs_once(faces: RealFacesDataModule) -> None:
    module = autoencoder(kind=_Phases)
    fit(module, faces, limit_train_batches=2, limit_val_batches=0)
    assert module.changed == [(True, False), (False, True)] * 2
    assert module.forwards == 2  # one a step
    assert module.disc_calls == [8, 16] * 2  # the reconstruction for G, then both halves in one batch for D


def test_loss_falls_and_psnr_rises_on_the_built_in_faces(faces: RealFacesDataModule) -> None:
    module = autoencoder(width=8, reconstruction_weight=50, optimizer=adam(2e-3))
    first = fit(module, faces).callback_metrics
    last = fit(module, faces, epochs=12).callback_metrics
    assert last["train/l1"] < 0.6 * first["train/l1"]
    assert last["val/psnr"] > first["val/psnr"] + 3
    assert 0 < last["val/ssim"] <= 1


def test_the_discriminator_rests_below_its_floor(faces: RealFacesDataModule) -> None:
    class Rests(pl.Callback):
        """Raises the floor after the first epoch, when Adam's moments would carry the weights on."""

        def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                module.discriminator_floor = 100.0
                self.before = _copy(module.discriminator)  # type: ignore[arg-type]
                self.autoencoder = _copy(module.autoencoder)  # type: ignore[arg-type]

    module, rests = autoencoder(discriminator_floor=0.0), Rests()
    initial = _copy(module.discriminator)
    fit(module, faces, epochs=2, limit_val_batches=0, callbacks=[rests])
    assert not all(torch.equal(a, b) for a, b in zip(initial, rests.before, strict=True))  # it learnt in epoch 0
    assert _same(rests.before, module.discriminator)
    assert not _same(rests.autoencoder, module.autoencoder)  # the autoencoder goes on


def test_the_schedule_really_steps(faces: RealFacesDataModule) -> None:
    module = autoencoder(optimizer=adam(1e-3), schedule=cosine)
    trainer = fit(module, faces, epochs=2, limit_val_batches=0)
    rates = {group["lr"] for opt in trainer.optimizers for group in opt.param_groups}
    assert rates == {0.0}  # a cosine ends at zero


def test_schedule_factors_by_hand() -> None:
    def factor(schedule: Callable[..., LambdaLR], **options: Any) -> Callable[[int], float]:
        return schedule(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), **options).lr_lambdas[0]

    rising = factor(cosine, total_steps=100)
    assert rising(0) == pytest.approx(1 / 5)  # a twentieth of 100 steps
    assert rising(50) == pytest.approx(0.5)
    assert rising(100) == pytest.approx(0)
    step = factor(falling, steps_per_epoch=10, step_epochs=3)
    assert [step(0), step(29), step(30), step(60)] == pytest.approx([1, 1, 0.1, 0.01])
    assert factor(constant)(99) == 1


def test_psnr_by_hand() -> None:
    real = torch.zeros(1, 3, 2, 2)
    assert psnr(real + 0.2, real).item() == pytest.approx(20.0, abs=1e-4)  # 10 log10(4 / 0.04)


def test_epoch_means_weigh_by_faces() -> None:
    means = EpochMeans("a", "b")
    means.update({"a": torch.tensor(1.0), "b": torch.tensor(0.0)}, weight=1)
    means.update({"b": torch.tensor(4.0), "a": torch.tensor(2.0)}, weight=3)
    assert {k: v.item() for k, v in means.compute().items()} == pytest.approx({"a": 1.75, "b": 3.0})


def test_pool_fills_then_exchanges_about_half() -> None:
    pool = ReconstructionPool(size=50)
    for _ in range(5):
        first = torch.rand(10, 3, 64, 64)
        assert torch.equal(pool(first), first)
    assert pool.images.flatten(1).any(dim=1).all()  # every slot is filled
    exchanged = 0
    for _ in range(40):
        new = torch.rand(10, 3, 64, 64)
        before = pool.images.clone()
        shown = pool(new)
        older = [i for i in range(10) if not torch.equal(shown[i], new[i])]
        exchanged += len(older)
        for i in older:  # what is shown was in the pool, in a slot of its place, and the new one took its place
            was = (before == shown[i]).all(dim=(1, 2, 3)).nonzero().item()
            assert was % 10 == i
            assert torch.equal(pool.images[int(was)], new[i])
    assert 150 < exchanged < 250  # 200 expected, 10 the standard deviation


def test_pool_takes_a_batch_larger_than_itself() -> None:
    """Of eleven faces the first four have a slot; the others are always shown as they are."""
    pool = ReconstructionPool(size=4)
    first, second = torch.rand(2, 11, 3, 64, 64)
    assert torch.equal(pool(first), first)
    assert torch.equal(pool.images, first[:4])
    older = 0
    for _ in range(20):
        shown = pool(second)
        assert torch.equal(shown[4:], second[4:])
        older += int((shown[:4] != second[:4]).any())
    assert older > 0


def test_pool_with_places_of_unequal_slots_fills_every_slot_once() -> None:
    pool = ReconstructionPool(size=5)
    steps = torch.rand(3, 2, 3, 64, 64)  # place 0 has slots 0, 2, 4; place 1 has 1 and 3
    for batch in steps[:2]:
        assert torch.equal(pool(batch), batch)
    pool(steps[2])
    assert torch.equal(pool.images[[0, 2, 4]], steps[:, 0])


@pytest.mark.parametrize(
    "kind",
    [
        partial(SGD, lr=0.01, momentum=0.9, weight_decay=0.1),
        partial(Adam, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1),
        partial(AdamW, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1),
    ],
    ids=["sgd", "adam", "adamw"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_fused_optimizers_do_what_plain_ones_do(
    kind: Callable[..., Optimizer], dtype: torch.dtype, tolerance: float
) -> None:
    """Three steps of weights up to 3 or so: but for a few roundings, of 2^-52 or 2^-23 each."""
    start = [torch.randn(shape, dtype=dtype) for shape in ((7, 5), (5,), (1,))]
    gradients = [[torch.randn_like(weights) for weights in start] for _ in range(3)]
    ours, theirs = ([nn.Parameter(weights.clone()) for weights in start] for _ in range(2))
    optimizers = [kind(ours, fused=True), kind(theirs, foreach=False)]
    for step in gradients:
        for side, opt in zip((ours, theirs), optimizers, strict=True):
            for weights, gradient in zip(side, step, strict=True):
                weights.grad = gradient.clone()
            opt.step()
    for got, want, then in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
        assert (got - then).detach().abs().max() > 1e-5  # each tensor has moved


@pytest.mark.parametrize(("size", "batch"), [(50, 50), (13, 8), (5, 16), (50, 16), (1, 4), (0, 4)])
def test_the_pool_is_what_a_loop_over_faces_does(size: int, batch: int) -> None:
    """To the bit, in the pictures that are shown and in those that are kept."""
    pool, kept = ReconstructionPool(size), torch.zeros(size, 3, 64, 64)
    older = 0
    for step in range(20):
        recon = torch.rand(batch, 3, 64, 64)
        shown = recon.clone()
        draws = torch.rand(batch, 2, generator=torch.Generator().manual_seed(step))
        for place, (chance, choice) in enumerate(draws):
            slots = range(place, size, batch)
            if step < len(slots):
                kept[slots[step]] = recon[place]
            elif slots and chance < 0.5:
                slot = slots[int(choice * len(slots))]
                shown[place] = kept[slot]
                kept[slot] = recon[place]
                older += 1
        torch.manual_seed(step)
        assert torch.equal(pool(recon), shown)
        assert torch.equal(pool.images, kept)
    assert older > 0 or size == 0


def test_the_pool_travels_in_the_state_dict(tmp_path: Path) -> None:
    module = autoencoder(pool_size=6)
    module.pool(torch.rand(5, 3, 64, 64))
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other = autoencoder(pool_size=6)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (other.pool.steps, other.pool.batch) == (1, 5)
    assert torch.equal(other.pool.images, module.pool.images)


def test_validation_is_in_the_right_range(faces: RealFacesDataModule) -> None:
    module = autoencoder().eval()
    batch = faces.on_after_batch_transfer(next(iter(faces.val_dataloader())), 0)
    assert batch["image"].min() >= -1
    assert batch["image"].max() <= 1
    expected = to_unit(torch.from_numpy(np.asarray(faces.batches.arrays["image"][np.arange(16)])))
    assert torch.equal(batch["image"], expected)
    assert module(batch["image"]).abs().max() <= 1
