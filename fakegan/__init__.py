"""FakeGAN: tell real faces from GAN-made ones, directly or through an autoencoder that knows only real faces.

fakegan.load("outputs/RUN").predict(["photo.jpg"])    # a verdict on each picture
fakegan.train("model=autogan1", "pipeline=classify")  # one run, as train.py would
print(fakegan.compose("model=autogan1"))              # its config

Nothing heavy is loaded before it is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fakegan.cli.calling import Run
    from fakegan.detector import Detector
    from fakegan.errors import FakeganError, UsageError
    from fakegan.evaluation.verdicts import Row

__version__ = "0.1.0"
__all__ = ["Detector", "FakeganError", "Row", "Run", "UsageError", "compose", "load", "train"]

_HOMES = {
    "Detector": "detector",
    "FakeganError": "errors",
    "Row": "evaluation.verdicts",
    "Run": "cli.calling",
    "UsageError": "errors",
}


def load(
    path: str | os.PathLike[str],  # the run's folder, or its detector.pt
    device: str = "auto",  # a GPU if there is one; or cpu, cuda, mps
    trust: Sequence[str] = (),  # packages whose networks the file may name
) -> Detector:
    """The detector of a finished run, by its folder or its detector.pt: `load(path).predict(pictures)` scores faces.

    `device` is auto (a GPU if there is one), cpu, cuda or mps. The file may name networks of FakeGAN, torch.nn and
    torchvision.models, and of the packages in `trust`.

    Raises:
        UsageError: no such run, no such device.
        FakeganError: a run that has not finished, or whose file is damaged, not trusted or of another version.
    """
    from fakegan.predict import detector_of

    return detector_of(path, device, trust)


def train(*words: str) -> Run:
    """One run, in a process of its own, to its end: its folder, metrics and detector.

    The words are those of `python train.py`: "model=autogan1", "pipeline=classify", "resume=outputs/RUN". What it
    prints appears as this program's output. Ctrl-C, or a notebook's stop, lets it save first.

    Raises:
        UsageError: words that train.py refuses; a sweep, which is not one run.
        FakeganError: the run failed, for the reason that it says.
        KeyboardInterrupt: it was stopped; the message says how to go on.
    """
    from fakegan.cli import calling

    return calling.train(*words)


def compose(*words: str) -> DictConfig:
    """The config of the run that `train` would begin with these words; printed, it is YAML.

    It is what the run's config.yaml will say; the run's folder, which is not known before, is missing (???).

    Raises:
        UsageError: words that train.py refuses, or resume: a run that is gone on with has a config.yaml.
    """
    from fakegan.cli import calling

    return calling.compose(*words)


def __getattr__(name: str) -> Any:
    """The names above that live in modules which take long to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fakegan' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"fakegan.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
