"""The commands fakegan-train and so on of an installed package: each runs its script or module as Python would."""

from __future__ import annotations

import runpy
from collections.abc import Callable

from fakegan.system import places


def _command(name: str) -> Callable[[], None]:
    def run() -> None:
        script = places.script(name)
        if script.is_file():  # train.py, evaluate.py
            runpy.run_path(str(script), run_name="__main__")
        else:
            runpy.run_module(f"fakegan.{name}", run_name="__main__", alter_sys=True)

    return run


_NAMES = ("train", "evaluate", "prepare", "audit", "predict", "export", "sample", "serve")
train, evaluate, prepare, audit, predict, export, sample, serve = map(_command, _NAMES)
