"""Files that name code, as anybody may write them, and the refusal of one."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from fakegan import sample
from fakegan.data.images import Geometry
from fakegan.detector import Detector, NetSpec
from fakegan.errors import FakeganError
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs.checkpoints import save_checkpoint
from fakegan.runs.folder import AUTOENCODER_FILE, DETECTOR_FILE, GENERATOR_FILE
from fakegan.stages.reconstruct import load_autoencoder

T = "_target_"
CNN: dict[str, Any] = {T: "fakegan.nets.simple_cnn.SimpleCNN"}
PYTHONS, NOBODYS = "Python's own, which no file may call", "is code from elsewhere"
# A package of the user's own; it makes a file when it is imported.
OWN_CODE = '''
import os
from os import system
import pathlib

pathlib.Path({marker!r}).touch()
from torch import nn
from fakegan.views import View
import pytorch_lightning as pl
from torchvision.models import resnet18

class Net(nn.Module):
    def __init__(self, in_channels=3, inner=None):
        super().__init__()
        self.last = nn.Linear(in_channels * 4096, 2)
    def forward(self, x):
        return self.last(x.flatten(1))

def make(in_channels=3):
    return Net(in_channels)

class Plan:
    """No network, for a network."""

class Watch(pl.Callback):
    pass

marked = View(3, ("image",), lambda image: image)
'''


@cache
def _whole() -> dict[str, Any]:
    """What a detector.pt of a simple CNN holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DETECTOR_FILE
        Detector(Geometry(), "pixels", NetSpec(CNN, SimpleCNN().state_dict()), None).save(path)
        return dict(torch.load(path, weights_only=True))


def detector(folder: Path, node: Any, weights: Any = None) -> Callable[..., Any]:
    """Write a detector.pt whose classifier a file of anybody's names; returns what loads it."""
    content = _whole()
    given = content["classifier"]["weights"] if weights is None else weights
    save_checkpoint({**content, "classifier": {"net": node, "weights": given}}, folder / DETECTOR_FILE)
    return lambda trust=(): Detector.load(folder, trust=trust)


def autoencoder(folder: Path, node: Any) -> Callable[..., Any]:
    path = folder / AUTOENCODER_FILE
    save_checkpoint({"net": node, "weights": AutoGAN(1, 4).state_dict()}, path)
    return lambda trust=(): load_autoencoder(path, 64, trust)


def generator(folder: Path, node: Any) -> Callable[..., Any]:
    content = {"net": node, "weights": DCGANGenerator(width=4).state_dict(), "view": "pixels"}
    save_checkpoint(content, folder / GENERATOR_FILE)
    return lambda trust=(): sample._load_generator(folder, trust)[0]


FILES = {DETECTOR_FILE: detector, AUTOENCODER_FILE: autoencoder, GENERATOR_FILE: generator}


def refused(load: Callable[[], Any], why: str) -> str:
    with pytest.raises(FakeganError, match=why) as caught:
        load()
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert sentence.isascii()
    assert len(sentence) < 800
    return sentence
