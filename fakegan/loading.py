"""Opening a detector by its path, for every command and program that scores: torch loads only when a path needs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fakegan.errors import UsageError
from fakegan.judge import Judge
from fakegan.onnx_detector import OnnxDetector
from fakegan.runs.config_file import run_at
from fakegan.runs.folder import DETECTOR_FILE, ONNX
from fakegan.system import signals
from fakegan.system.shell import expanded


def detector_of(run: str | os.PathLike[str], device: str, trust: Sequence[str] = ()) -> Judge:
    """The detector of a run, by its folder, its detector.pt or an exported file; `fakegan.load` says more.

    Raises:
        FakeganError: no such run or device; where the path is a folder of runs, it names some.
    """
    place = Path(expanded(run) if isinstance(run, str) else run)
    if place.suffix.lower() == ONNX:
        if device not in {"auto", "cpu"}:
            raise UsageError(f"{place} is scored on the CPU: leave {device} out")
        return OnnxDetector.load(place)
    with signals.exit_at_once():  # torch takes long to load, and leaves nothing to be undone
        from fakegan.detector import Detector
        from fakegan.system.devices import use_device

    if place.is_dir() and not (place / DETECTOR_FILE).is_file():
        run_at(place)  # says where there are runs, if it is none itself
    return Detector.load(place, use_device(device), trust)
