"""The adversarial autoencoder: phases, the discriminator's rest, schedules, means, and the pool of reconstructions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from fakegan.data import demo
from fakegan.errors import UsageError
from fakegan.nets.likeness import psnr
from fakegan.training.datamodules import RealFacesDataModule
from fakegan.training.modules import EpochMeans
from fakegan.training.pool import ReconstructionPool
from fakegan.training.schedules import constant, cosine, falling
from tests.helpers import adam, autoencoder, fit, record_phases


@pytest.fixture(scope="module")
def faces() -> RealFacesDataModule:
    images = np.stack([f.image for f in demo.demo_faces(64, seed=1, workers=0) if not f.is_fake])
    rows = np.arange(32)
    return RealFacesDataModule(images, np.zeros(32, np.int64), rows, rows[:16], 8, seed=0, workers=0)


def test_each_phase_moves_its_own_network_only_and_reconstructs_once(faces: RealFacesDataModule) -> None:
    module, calls = autoencoder(), list[tuple[str, int]]()
    for name in ("autoencoder", "discriminator"):
        network = getattr(module, name)
        network.register_forward_hook(lambda _, args, __, name=name: calls.append((name, len(args[0]))))
    phases = record_phases(module, "autoencoder", "discriminator")
    fit(module, faces, limit_train_batches=2, limit_val_batches=0)
    assert phases == [({"weights"}, set()), (set(), {"weights"})] * 2
    # One reconstruction a step, which the generator's phase scores; then both halves in one batch.
    assert calls == [("autoencoder", 8), ("discriminator", 8), ("discriminator", 16)] * 2


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

        def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
            module.discriminator_floor = 100.0 if trainer.current_epoch else 0.0

    module = autoencoder()
    phases = record_phases(module, "autoencoder", "discriminator")
    fit(module, faces, epochs=2, limit_train_batches=3, limit_val_batches=0, callbacks=[Rests()])
    learns, rests = (set(), {"weights"}), (set(), set())
    assert phases[1::2] == [learns] * 3 + [rests] * 3
    assert phases[::2] == [({"weights"}, set())] * 6  # the autoencoder goes on


def test_the_schedule_really_steps(faces: RealFacesDataModule) -> None:
    trainer = fit(autoencoder(optimizer=adam(1e-3), schedule=cosine), faces, epochs=2, limit_val_batches=0)
    rates = {group["lr"] for opt in trainer.optimizers for group in opt.param_groups}
    assert rates == {0.0}  # a cosine ends at zero


def test_schedule_factors_by_hand() -> None:
    def factor(schedule: Callable[..., LambdaLR], **options: Any) -> Callable[[int], float]:
        return schedule(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), **options).lr_lambdas[0]

    rising = factor(cosine, total_steps=100)
    assert [rising(0), rising(50), rising(100)] == pytest.approx([1 / 5, 0.5, 0])  # 5 of 100 steps of warm-up
    step = factor(falling, steps_per_epoch=10, step_epochs=3)
    assert [step(0), step(29), step(30), step(60)] == pytest.approx([1, 1, 0.1, 0.01])
    assert factor(constant)(99) == 1


def test_psnr_by_hand() -> None:
    real = torch.zeros(1, 3, 2, 2)
    assert psnr(real + 0.2, real).item() == pytest.approx(20.0, abs=1e-4)  # 10 log10(4 / 0.04)


def test_epoch_means_weigh_by_faces() -> None:
    means = EpochMeans("a", "b")
    assert means.here() == {}
    means.update({"a": torch.tensor(1.0), "b": torch.tensor(0.0)}, weight=1)
    means.update({"b": torch.tensor(4.0), "a": torch.tensor(2.0)}, weight=3)
    for found in (means.here(), means.compute()):
        assert {name: value.item() for name, value in found.items()} == pytest.approx({"a": 1.75, "b": 3.0})


@pytest.mark.parametrize(("size", "batch"), [(50, 50), (13, 8), (5, 16), (50, 16), (1, 4), (0, 4)])
def test_the_pool_is_what_a_loop_over_faces_does(size: int, batch: int) -> None:
    """To the bit, in the pictures that are shown and in those that are kept; about half are exchanged."""
    pool, kept = ReconstructionPool(size), torch.zeros(size, 3, 64, 64)
    exchanged = possible = 0
    for step in range(20):
        recon = torch.rand(batch, 3, 64, 64)
        shown = recon.clone()
        draws = torch.rand(batch, 2, generator=torch.Generator().manual_seed(step))
        for place, (chance, choice) in enumerate(draws):
            slots = range(place, size, batch)
            possible += 0 < len(slots) <= step
            if step < len(slots):
                kept[slots[step]] = recon[place]
            elif slots and chance < 0.5:
                slot = slots[int(choice * len(slots))]
                shown[place] = kept[slot]
                kept[slot] = recon[place]
                exchanged += 1
        torch.manual_seed(step)
        assert torch.equal(pool(recon), shown)
        assert torch.equal(pool.images, kept)
    assert abs(exchanged - possible / 2) <= 4 * math.sqrt(possible / 4)  # four standard deviations
    assert exchanged > 0 or size == 0


def test_a_pool_for_the_smallest_faces_refuses_larger_ones() -> None:
    """As in a module of the user's own that does not pass the option `size` on."""
    with pytest.raises(UsageError, match=r"of 64x64 pixels, but the faces have 128x128: give the class of"):
        ReconstructionPool(2)(torch.zeros(1, 3, 128, 128))
    assert ReconstructionPool(2, 128)(torch.zeros(1, 3, 128, 128)).shape == (1, 3, 128, 128)
