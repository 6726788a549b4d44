"""Rows on whole commands: how long one waits for a first sign of work, and Experiment 1 on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.labels import FAKE, REAL
from tests.benchmarks.machine import ROOT
from tests.benchmarks.made_up import smooth_faces
from tests.benchmarks.results import Bound, NotMeasured, Result

FIRST_STEP = Path(__file__).parent / "first_step"  # on PYTHONPATH: Python ends at the first optimizer step
WHAT = "Experiment 1, budget=paper, on as many faces as the study's"
REALS, FAKES = 30_000, 30_000  # 16,000 + 4,000 + 10,000 real; as many fakes, so that the classes balance
AT_MOST = 600.0


def startup_rows(quick: bool) -> Iterator[Result]:
    """Wall-clock seconds of whole processes; the first, which fills caches, is not counted."""
    rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if not quick:
            words = [f"paths.data_dir={folder}/data", f"paths.artifact_dir={folder}/artifacts"]
            seconds = tuple(first_step(words, f"{folder}/run{i}") for i in range(rounds + 1))[1:]
            what = "train.py: from its start to the first optimizer step, built-in faces drawn before"
            note = "the defaults, but for folders: the autoencoder of budget=quick"
            yield Bound(what, "s", seconds, 8.0, note)
        for command in (["train.py"],) if quick else (["train.py"], ["evaluate.py"], ["-m", "fakegan.prepare"]):
            times = tuple(run_python([*command, "--help"], 0) for _ in range(rounds + 1))[1:]
            yield Bound(f"{' '.join(command)} --help", "s", times, 2.0)


def first_step(words: Sequence[str], run: str) -> float:
    """Seconds of train.py, as it is, to the end of its first optimizer step."""
    paths = filter(None, [str(FIRST_STEP), os.environ.get("PYTHONPATH")])
    return run_python(["train.py", *words, f"hydra.run.dir={run}"], 7, PYTHONPATH=os.pathsep.join(paths))


def run_python(arguments: Sequence[str], code: int, **variables: str) -> float:
    """Seconds of one Python process that must end with that code."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"python {' '.join(arguments)[:200]} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds


def rows(quick: bool) -> Iterator[Result]:
    """One run of the sweep; what the made-up faces show does not change the time."""
    if quick or not torch.cuda.is_available():
        yield NotMeasured(WHAT, "no GPU" if not quick else "takes minutes")
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_store(Path(folder) / "faces", REALS, FAKES)
        words = ["-m", "+experiment=paper_exp1", "budget=paper", "trainer=gpu", "data=faces"]
        places = [
            f"data.root={folder}/faces",
            f"paths.artifact_dir={folder}/artifacts",
            f"hydra.sweep.dir={folder}/sweep",
        ]
        started = time.perf_counter()
        subprocess.run([sys.executable, "train.py", *words, *places], cwd=ROOT, check=True)
        yield Bound(WHAT, "s", (time.perf_counter() - started,), AT_MOST, " ".join(["train.py", *words]))


def write_store(path: Path, reals: int, fakes: int) -> None:
    """A face store of made-up faces; the fakes carry a faint checkerboard, so that there is something to learn."""
    faces = (face for chunk in smooth_faces(reals + fakes) for face in chunk)
    with StoreWriter(path, Geometry()) as writer:
        for number, pixels in enumerate(faces):
            label, source, shown = REAL, "camera", pixels
            if number >= reals:
                label, source, shown = FAKE, "gan", pixels // 2 + 60
                shown[::2, ::2] += 6
            file = f"{source}/{number:06d}"
            writer.append(shown, Row.of(face_from_pixels(shown), file=file, label=label, source=source))
