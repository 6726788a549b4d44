"""The whole of Experiment 1 on a GPU, as its command runs it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.labels import FAKE, REAL
from tests.benchmarks.made_up import smooth_faces
from tests.benchmarks.results import Bound, NotMeasured, Result

ROOT = Path(__file__).parents[2]
WHAT = "Experiment 1, budget=paper, on as many faces as the study's"
REALS, FAKES = 30_000, 30_000  # 16,000 + 4,000 + 10,000 real; as many fakes, so that the classes balance
AT_MOST = 600.0


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
    with StoreWriter(path, Geometry()) as writer:
        written = 0
        for faces in smooth_faces(reals + fakes):
            for pixels in faces:
                label = REAL if written < reals else FAKE
                shown = pixels if label == REAL else pixels // 2 + 60
                if label == FAKE:
                    shown[::2, ::2] += 6
                source = "camera" if label == REAL else "gan"
                row = Row.of(face_from_pixels(shown), file=f"{source}/{written:06d}", label=label, source=source)
                writer.append(shown, row)
                written += 1
