"""Training steps as CUDA graphs: recorded without a skip, and the numbers of steps that are launched one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch._dynamo.utils import counters
from torch.optim import Adam

from fakegan.data.store import FaceStore
from fakegan.nets.cpu import torchs_layers
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training import graphs
from fakegan.training.callbacks import StepSeed
from fakegan.training.classifier import Classifier
from fakegan.training.graphs import CudaGraphs
from tests.gpu.test_device import ON_DEVICES
from tests.helpers import autoencoder, faces_of_five_steps, fit, real_and_fake

pytestmark = [ON_DEVICES, pytest.mark.slow]
SEEN: dict[str, Callable[[FaceStore], Any]] = {
    "autoencoder": faces_of_five_steps,
    "classifier": partial(real_and_fake, batch_size=40),
}


def _made(stage: str, device: str) -> pl.LightningModule:
    torch.manual_seed(0)
    if stage == "autoencoder":
        made: pl.LightningModule = autoencoder(64 if device == "cuda" else 4)
        return made
    return Classifier(SimpleCNN(dropout=0.5), partial(Adam, lr=2e-4, fused=True))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("stage", SEEN)
def test_ten_steps_end_near_those_that_are_launched_one_by_one(
    device: str, store: FaceStore, monkeypatch: pytest.MonkeyPatch, stage: str, precision: str
) -> None:
    """Other noise in dropout, a step's tensor that was overwritten, or a gradient left out would be far away."""
    if device == "cpu":
        monkeypatch.setattr(graphs, "_BACKEND", "aot_eager")
    accelerator = "gpu" if device == "cuda" else "cpu"
    counters.clear()
    ended = []
    for asked in (False, True):
        module, callbacks = _made(stage, device), [StepSeed(0), CudaGraphs(stage, asked)]
        with torchs_layers():
            options = {"callbacks": callbacks, "accelerator": accelerator, "precision": precision}
            trainer = fit(module, SEEN[stage](store), epochs=2, **options)
        torch.compiler.set_stance("default")
        weights = torch.cat([p.detach().cpu().flatten() for p in module.parameters()])
        ended.append((weights, {name: float(value) for name, value in trainer.callback_metrics.items()}))
    torch.compiler.reset()
    (one_by_one, expected), (replayed, measured) = ended
    assert float((one_by_one - replayed).abs().mean()) < 2e-4  # the way of one of the ten steps
    tolerance = 0.02 if precision == "bf16-mixed" else 0.002
    assert {n: v for n, v in measured.items() if n.startswith("train/")} == pytest.approx(
        {n: v for n, v in expected.items() if n.startswith("train/")}, rel=tolerance, abs=tolerance
    )
    assert not counters["graph_break"]
    assert not counters["inductor"]["cudagraph_skips"]
