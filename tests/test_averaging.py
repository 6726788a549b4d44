"""Averaged weights: the mean by hand, what is validated with it, and what a checkpoint holds."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.training.averaging import AVERAGE, WeightAverage
from fakegan.training.classifier import Classifier
from fakegan.training.dcgan import DCGANClassifier
from fakegan.training.fitting import weights_of
from fakegan.training.trainer import AtomicCheckpointIO
from tests.helpers import fit, real_and_fake


class Watching(pl.Callback):
    """The net's tensors after each step, and as validation sees them; it comes after WeightAverage."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        self.steps.append(copy.deepcopy(module.net.state_dict()))

    def on_validation_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        self.validated.append(copy.deepcopy(module.net.state_dict()))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 8, 8), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(128, 2))


def test_the_mean_by_hand_is_validated_and_the_weights_come_back(store: FaceStore) -> None:
    module, average, watching = Classifier(net(), partial(SGD, lr=0.1)), WeightAverage(0.25), Watching()
    expected = {name: value.double() for name, value in copy.deepcopy(module.net.state_dict()).items()}
    batches = {"limit_train_batches": 3, "limit_val_batches": 1}
    fit(module, real_and_fake(store), epochs=2, callbacks=[average, watching], **batches)
    assert len(watching.steps) == 6
    for share, now in zip([1 / 10, 2 / 11, 3 / 12, 0.25, 0.25, 0.25], watching.steps, strict=True):
        expected = {name: share * expected[name] + (1 - share) * value for name, value in now.items()}
    assert len(watching.validated) == 2
    for name, value in watching.validated[-1].items():
        wanted = watching.steps[-1][name] if name.endswith("num_batches_tracked") else expected[name].float()
        torch.testing.assert_close(value, wanted)
        assert torch.equal(module.net.state_dict()[name], watching.steps[-1][name])
        assert torch.equal(average.average[name], value)


def test_a_validation_before_the_first_step_sees_the_weights(store: FaceStore) -> None:
    module, watching = Classifier(net(), partial(SGD, lr=0.1)), Watching()
    start = copy.deepcopy(module.net.state_dict())
    batches = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 1}
    fit(module, real_and_fake(store), callbacks=[WeightAverage(0.5), watching], **batches)
    before, after = watching.validated
    assert all(torch.equal(value, start[name]) for name, value in before.items())
    assert not torch.equal(after["0.weight"], start["0.weight"])


def test_of_a_dcgan_the_discriminator_is_averaged_once_a_step(store: FaceStore) -> None:
    module = DCGANClassifier(
        DCGANDiscriminator(width=4), DCGANGenerator(latent=5, width=4), partial(Adam, lr=1e-3, fused=True)
    )
    average, watching = WeightAverage(0.5), Watching()
    batches = {"limit_train_batches": 2, "limit_val_batches": 1}
    fit(module, real_and_fake(store), callbacks=[average, watching], **batches)
    assert average.updates == 2
    assert any(not torch.equal(value, watching.steps[-1][name]) for name, value in watching.validated[0].items())


def test_steps_that_wait_for_others_move_nothing(store: FaceStore) -> None:
    average = WeightAverage(0.5)
    module = Classifier(net(), partial(SGD, lr=0.1))
    batches = {"limit_train_batches": 4, "limit_val_batches": 0, "accumulate_grad_batches": 2}
    fit(module, real_and_fake(store), callbacks=[average], **batches)
    assert average.updates == 2


def test_a_checkpoint_holds_both_and_a_fit_goes_on_with_both(store: FaceStore, tmp_path: Path) -> None:
    def trained(epochs: int, before: Path | None = None) -> tuple[Classifier, pl.Trainer]:
        torch.manual_seed(0)
        module = Classifier(net(), partial(SGD, lr=0.1))
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        options: Any = {**dict.fromkeys((*quiet, "use_distributed_sampler"), False), "accelerator": "cpu"}
        plugins, callbacks = [AtomicCheckpointIO()], [WeightAverage(0.9)]
        trainer = pl.Trainer(**options, max_epochs=epochs, num_sanity_val_steps=0, plugins=plugins, callbacks=callbacks)
        trainer.fit(module, datamodule=real_and_fake(store), ckpt_path=None if before is None else str(before))
        return module, trainer

    whole, trainer = trained(2)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    trained(1)[1].save_checkpoint(tmp_path / "half.ckpt")
    resumed, again = trained(2, tmp_path / "half.ckpt")
    again.save_checkpoint(tmp_path / "again.ckpt")
    kept, kept_again = (weights_of(tmp_path / f"{name}.ckpt", "net.") for name in ("whole", "again"))
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
        assert torch.equal(kept[name], kept_again[name]), name
    assert not torch.equal(kept["0.weight"], whole.net.state_dict()["0.weight"])

    other = WeightAverage(0.9)
    other.on_load_checkpoint(trainer, whole, {AVERAGE: {"net.0.weight": torch.zeros(1)}})
    with pytest.raises(FakeganError, match="of another network: start a new run"):
        other.on_train_start(trainer, whole)
