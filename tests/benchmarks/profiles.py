"""Where a step's time goes, by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fakegan.nets.alexnet import AlexNet
from fakegan.training.classifier import Classifier
from tests.benchmarks.harness import Side, SideError, Turns, playing
from tests.benchmarks.results import NotMeasured, Profile, Result
from tests.benchmarks.trainer import ADAMW, PRECISION, autoencoder, dcgan, fit_in_turns, labelled, real, simple_cnn

TOP = 8

Build = tuple[Callable[[], pl.LightningModule], Callable[[], dict[str, Tensor]]]


def alexnet(hidden: int) -> Classifier:
    return Classifier(AlexNet(hidden=hidden), ADAMW)


def modules(tiny: bool) -> dict[str, Build]:
    """By name a module and the batch of its step."""
    few = 4 if tiny else 50
    depth, width, dcgan_width, samples, hidden = (1, 2, 4, 4, 8) if tiny else (4, 64, 64, 128, 1024)
    return {
        "autoencoder step, depth 4, width 64, batch 50": (partial(autoencoder, depth, width), partial(real, few)),
        "DCGAN step, width 64, batch 128": (partial(dcgan, dcgan_width), partial(labelled, samples)),
        "simple-CNN step, batch 50": (simple_cnn, partial(labelled, few)),
        "AlexNet step, batch 50": (partial(alexnet, hidden), partial(labelled, few)),
    }


def profiled(turns: Turns, build: Build, accelerator: str) -> None:
    """A side: a turn is so many steps under torch's profiler; the reply, seconds a step and the operators."""
    fit_in_turns(_Profiled(turns, accelerator), *build, accelerator)


class _Profiled(Turns):
    """Turns that profile all but the first, and reply with what was found."""

    def __init__(self, turns: Turns, accelerator: str) -> None:
        super().__init__(turns.pipe)
        self.on_gpu = accelerator == "gpu"
        self.profile: Any = None  # None: the warm-up
        self.units = 0

    def wait(self) -> int | None:
        units = super().wait()
        if self.units and units:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
            self.profile = profile(activities=kinds)
            self.profile.__enter__()
        self.units = units or 0
        return units

    def done(self, reply: Any) -> None:
        if self.profile is not None:
            self.profile.__exit__(None, None, None)
            reply, self.profile = _operators(self.profile, self.units, self.on_gpu), None
        super().done(reply)


def _operators(found: Any, steps: int, on_gpu: bool) -> tuple[float, tuple[tuple[str, float, float], ...]]:
    """Seconds of all operators a step, and the largest of them by their own time, without what they call."""

    def own(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    # On the GPU kernels have lines of their own beside the operators that started them: the operators count.
    events = [event for event in found.key_averages() if event.key.startswith("aten::")]
    total = sum(own(event) for event in events)
    largest = sorted(events, key=own, reverse=True)[:TOP]
    return total / steps / 1e6, tuple((event.key, own(event) / total, event.count / steps) for event in largest)


def rows(quick: bool) -> Iterator[Result]:
    """Each module's step on the CPU, then on a GPU where there is one."""
    devices = ["cpu", "gpu"] if torch.cuda.is_available() else ["cpu"]
    for accelerator in devices:
        for name, build in modules(quick).items():
            side = Side(profiled, (build, accelerator), sees_gpus=accelerator == "gpu")
            try:
                with playing(side, apart=not quick) as turn:
                    turn(2)
                    seconds, operators = turn(2 if accelerator == "cpu" else 10)
            except SideError as error:
                if not error.out_of_memory:
                    raise
                yield NotMeasured(f"profile of {name}, {accelerator.upper()}", f"too little free memory ({error})")
                continue
            yield Profile(name, f"{accelerator.upper()}, {PRECISION}", seconds, operators)
    if "gpu" not in devices:
        yield NotMeasured("profiles on a GPU", "no GPU")
