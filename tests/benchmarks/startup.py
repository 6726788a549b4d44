"""How long one waits for a command's first sign of work."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.results import Bound, Result

ROOT = Path(__file__).parents[2]
FACES = 600  # drawing the default's 2,400 takes long, and opening them hardly longer
# Runs train.py as it is, and leaves at the end of the first optimizer step.
FIRST_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(7))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def rows(quick: bool) -> Iterator[Result]:
    """Wall-clock seconds of whole processes; the first, which fills caches, is not counted."""
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if not quick:
            words = _words(folder)
            seconds = tuple(_first_step(words, f"{folder}/run{i}") for i in range(rounds + 1))[1:]
            what = "train.py: from its start to the end of the first training step, built-in faces cached"
            yield Bound(
                what, "s", seconds, 8.0, "no words: the autoencoder of budget=quick; imports, config, faces, one step"
            )
        for command in (["train.py"],) if quick else (["train.py"], ["evaluate.py"], ["-m", "fakegan.prepare"]):
            times = tuple(_run([*command, "--help"], 0) for _ in range(rounds + 1))[1:]
            yield Bound(f"{' '.join(command)} --help", "s", times, 2.0)


def _words(folder: str) -> list[str]:
    return [f"data.demo_faces={FACES}", f"paths.data_dir={folder}/data", f"paths.artifact_dir={folder}/artifacts"]


def _first_step(words: Sequence[str], run: str) -> float:
    return _run(["-c", f"import sys; sys.argv[0] = 'train.py'{FIRST_STEP}", *words, f"hydra.run.dir={run}"], 7)


def _run(arguments: Sequence[str], code: int) -> float:
    """Seconds of one Python process that must end with that code."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"python {' '.join(arguments)[:200]} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds
