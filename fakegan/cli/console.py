"""The commands fakegan-train and so on, of an installed package: each is its script or module, started as by Python."""

from __future__ import annotations

import runpy

from fakegan.system import places


def train() -> None:
    """Of fakegan-train: train.py."""
    _script("train")


def evaluate() -> None:
    """Of fakegan-evaluate: evaluate.py."""
    _script("evaluate")


def prepare() -> None:
    """Of fakegan-prepare: python -m fakegan.prepare."""
    _module("prepare")


def predict() -> None:
    """Of fakegan-predict: python -m fakegan.predict."""
    _module("predict")


def sample() -> None:
    """Of fakegan-sample: python -m fakegan.sample."""
    _module("sample")


def _script(name: str) -> None:
    runpy.run_path(str(places.script(name)), run_name="__main__")


def _module(name: str) -> None:
    runpy.run_module(f"fakegan.{name}", run_name="__main__", alter_sys=True)
