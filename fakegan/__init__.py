"""FakeGAN: tell real faces from GAN-made ones, directly or through an autoencoder that knows only real faces.

fakegan.load("outputs/RUN").predict(["photo.jpg"])    # a verdict on each picture
fakegan.train("model=autogan1", "pipeline=classify")  # one run, as train.py would
print(fakegan.compose("model=autogan1"))              # its config

A name is imported when it is first used, because torch takes seconds to load.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakegan.cli.calling import Run, compose, train
    from fakegan.detector import Detector
    from fakegan.errors import FakeganError, UsageError
    from fakegan.evaluation.verdicts import Row
    from fakegan.judge import Judge

__version__ = "0.1.0"
__all__ = ["Detector", "FakeganError", "Row", "Run", "UsageError", "compose", "load", "train"]

_MODULES = {
    "Detector": "detector",
    "FakeganError": "errors",
    "Row": "evaluation.verdicts",
    "Run": "cli.calling",
    "UsageError": "errors",
    "compose": "cli.calling",
    "train": "cli.calling",
}


def load(
    path: str | os.PathLike[str],  # the run's folder, or its detector.pt
    device: str = "auto",  # a GPU if there is one; or cpu, cuda, mps
    trust: Sequence[str] = (),  # packages whose networks the file may name
) -> Judge:
    """The detector of a finished run: `load(path).predict(pictures)` scores faces.

    The file may name networks of FakeGAN, torch.nn and torchvision.models, and of the packages in `trust`.

    Raises:
        UsageError: no such run, no such device.
        FakeganError: a run that has not finished, or whose file is damaged, not trusted or of another version.
    """
    from fakegan.loading import detector_of

    return detector_of(path, device, trust)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fakegan' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fakegan.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
