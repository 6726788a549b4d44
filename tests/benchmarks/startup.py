"""How long one waits for a command's first sign of work."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.results import Bound, Result

ROOT = Path(__file__).parents[2]
FIRST_STEP = Path(__file__).parent / "first_step"  # on PYTHONPATH: Python ends at the first optimizer step


def rows(quick: bool) -> Iterator[Result]:
    """Wall-clock seconds of whole processes; the first, which fills caches, is not counted."""
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if not quick:
            seconds = tuple(_first_step(_folders(folder), f"{folder}/run{i}") for i in range(rounds + 1))[1:]
            what = "train.py: from its start to the first optimizer step, built-in faces drawn before"
            note = "the defaults, but for folders: the autoencoder of budget=quick"
            yield Bound(what, "s", seconds, 8.0, note)
        for command in (["train.py"],) if quick else (["train.py"], ["evaluate.py"], ["-m", "fakegan.prepare"]):
            times = tuple(_run([*command, "--help"], 0) for _ in range(rounds + 1))[1:]
            yield Bound(f"{' '.join(command)} --help", "s", times, 2.0)


def _folders(folder: str) -> list[str]:
    return [f"paths.data_dir={folder}/data", f"paths.artifact_dir={folder}/artifacts"]


def _first_step(words: Sequence[str], run: str) -> float:
    """Seconds of train.py, as it is, to the end of its first optimizer step."""
    paths = [str(FIRST_STEP), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    return _run(["train.py", *words, f"hydra.run.dir={run}"], 7, variables)


def _run(arguments: Sequence[str], code: int, variables: Mapping[str, str] | None = None) -> float:
    """Seconds of one Python process that must end with that code."""
    environment = {**os.environ, **(variables or {})}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"python {' '.join(arguments)[:200]} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds
