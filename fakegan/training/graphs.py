"""CUDA graphs: the kernels of a small training step, launched as a few graphs in place of one by one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fakegan.checks import SIZES
from fakegan.errors import FakeganError, one_line
from fakegan.system import ranks
from fakegan.system.devices import convolves_in_tf32
from fakegan.training.callbacks import EndAfter

# Estimates, no measurements: recording takes about ten seconds, and a step that waits for launches then saves two
# milliseconds. A step of more pixels than these has more arithmetic than launches.
_STEPS = 5_000
_PIXELS = 128 * SIZES[0] ** 2
_BACKEND: Any = "cudagraphs"  # of torch.compile; another in tests

log = logging.getLogger(__name__)


class GraphsFailedError(FakeganError):
    """A training whose steps are CUDA graphs failed; without them it may not."""


class CudaGraphs(pl.Callback):
    """Records a module's networks, forward and backward, in the first three training steps, and replays them then.

    The kernels are those that torch launches otherwise. torch.compile finds them (its backend `cudagraphs` writes none
    of its own) and records again where shapes, weights that learn or precision differ. Noise begins with each step's
    seed as ever, and losses, optimizers, sums, validation and pictures are computed as ever, outside of graphs.
    """

    def __init__(
        self,
        stage: str,
        asked: str | bool = "auto",  # TrainerSettings.cuda_graphs
    ) -> None:
        self.stage, self.asked = stage, asked
        self.on: bool | None = None  # None: not decided before the first step

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the fit's first step: decide. Before each: the tensors of the step before may be overwritten."""
        if self.on is None:
            wanted = self.asked is True or (self.asked == "auto" and _pays(trainer, module, batch))
            self.on = wanted and self._compile(module)
        if self.on:
            torch.compiler.set_stance("default")
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def _compile(self, module: pl.LightningModule) -> bool:
        """Whether there are networks: those that it names, or `net`. Nothing is traced before their first call."""
        found = (getattr(module, name, None) for name in getattr(module, "networks", ("net",)))
        networks = [network for network in found if isinstance(network, nn.Module)]
        # Layers ask for it, and torch.compile cannot read torch's settings: each layer would end a graph.
        torch.compiler.assume_constant_result(convolves_in_tf32)  # type: ignore[no-untyped-call]
        for network in networks:
            network.compile(backend=_BACKEND, dynamic=False)  # in place: names of weights stay
        what = "its networks' kernels become" if networks else "it has no `net`, and no `networks` that it names, for"
        log.info("%s: %s CUDA graphs (trainer.cuda_graphs=%s)", self.stage, what, self.asked)
        return bool(networks)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Until the next step, networks run as they are written."""
        if self.on:
            torch.compiler.set_stance("force_eager")


def _pays(trainer: pl.Trainer, module: pl.LightningModule, batch: Any) -> bool:
    """Whether launches are what the steps of this fit wait for, and enough of them are left."""
    alone = ranks.count() == 1 and trainer.accumulate_grad_batches == 1
    if module.device.type != "cuda" or not alone or torch.are_deterministic_algorithms_enabled():
        return False
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    left = ((trainer.max_epochs or 0) - trainer.current_epoch) * trainer.num_training_batches
    steps = min([left, *(callback.steps for callback in callbacks if isinstance(callback, EndAfter))])
    return steps >= _STEPS and _pixels(batch) <= _PIXELS


def _pixels(batch: Any) -> float:
    """Pixels of a batch's faces; infinitely many where it has no pictures that are known as such."""
    values = batch.values() if isinstance(batch, dict) else ()
    return max((x[:, 0].numel() for x in values if isinstance(x, Tensor) and x.dim() == 4), default=math.inf)


@contextmanager
def failure_as_error(trainer: pl.Trainer) -> Iterator[None]:
    """Within, a fit; afterwards no graph is kept. An error while steps are graphs becomes a GraphsFailedError."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    graphs = next(callback for callback in callbacks if isinstance(callback, CudaGraphs))
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # torch's, its compiler's and its allocator's
        if not graphs.on:
            raise
        raise GraphsFailedError(one_line(error)) from error
    finally:
        if graphs.on:
            torch.compiler.set_stance("default")
            torch.compiler.reset()
