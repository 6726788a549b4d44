"""A detector as ONNX beside the same detector by torch: how long until the first score, and how many faces a second."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from fakegan.config.building import TARGET
from fakegan.data.images import Geometry
from fakegan.detector import Detector, NetSpec
from fakegan.loading import detector_of
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.onnx_writer import write_onnx
from tests.benchmarks.experiment import ROOT, run_python
from tests.benchmarks.harness import Side, Turns, repeating, take_turns
from tests.benchmarks.results import Bound, Result, Row
from tests.helpers import fill, smooth_faces

FACES = 256  # of a round


def made() -> Detector:
    """Approach 2 as budget=quick trains it, with random weights."""
    torch.manual_seed(0)
    options = {"depth": 4, "width": 16}
    autoencoder = NetSpec({TARGET: "fakegan.nets.autogan.AutoGAN", **options}, AutoGAN(**options).state_dict())
    classifier = NetSpec({TARGET: "fakegan.nets.simple_cnn.SimpleCNN"}, SimpleCNN().state_dict())
    return Detector(Geometry(), "reconstruction", classifier, autoencoder)


def scoring(turns: Turns, path: Path, count: int) -> None:
    """A unit is so many faces, scored."""
    judge, faces = detector_of(path, "cpu"), smooth_faces(count, np.random.default_rng(0))
    turns.serve(repeating(lambda: judge.scores(faces)))


def peak(run: Path, pictures: Path) -> float:
    """MB of resident memory, at most, of one process of predict, by what Linux says."""
    words = ["--run", str(run), "--format", "csv", "--workers", "1", str(pictures)]
    script = f"from fakegan.predict import main; main({words!r}); print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def rows(quick: bool) -> Iterator[Result]:
    """The same pictures by the same command, and the same faces in one process each."""
    rounds, count = (2, 8) if quick else (7, FACES)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, detector = Path(name), made()
        pictures, by_torch, by_onnx = fill(folder / "pictures", 1), folder / "detector.pt", folder / "detector.onnx"
        detector.save(by_torch)
        write_onnx(detector, by_onnx, smooth_faces(8, np.random.default_rng(1)), "")
        command = ["-m", "fakegan.predict", "--workers", "1", str(pictures), "--run"]
        times = [[run_python([*command, str(file)], 0) for file in (by_onnx, by_torch)] for _ in range(rounds + 1)][1:]
        ours, theirs = zip(*times, strict=True)
        what = "predict by ONNX: from its start to the verdict on one picture, depth 4, width 16"
        yield Row(what, "by the detector.pt, with torch", "start", ours, theirs)
        ours, theirs = zip(*[[peak(file, pictures) for file in (by_onnx, by_torch)] for _ in range(3)], strict=True)
        shares = tuple(a / b for a, b in zip(ours, theirs, strict=True))
        note = f"of its process (VmHWM): {median(ours):.0f} MB of {median(theirs):.0f} MB"
        yield Bound("predict by ONNX: peak memory as a share of torch's", "", shares, 1.0, note)
        sides = [Side(scoring, (file, count)) for file in (by_onnx, by_torch)]
        ours, theirs = take_turns(sides, rounds, [1, 1])
        yield Row(f"scores of {count} faces by ONNX, depth 4, width 16", "torch", f"{count} faces", ours, theirs)
