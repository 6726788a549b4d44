"""A detector that was exported as ONNX (fakegan/onnx_writer.py): scored by onnxruntime, without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError
from fakegan.judge import Judge
from fakegan.runs.portable import from_texts
from fakegan.runs.stamp import misfits_as_errors
from fakegan.system.places import install
from fakegan.system.processes import cores

PIXELS, LOG_ODDS, SCORE = "pixels", "log_odds", "score"  # the graph's input, and its outputs


@dataclass
class OnnxDetector(Judge):
    """A judge whose log odds an ONNX graph computes, on the CPU. It has no reconstructions to show."""

    session: Any  # onnxruntime.InferenceSession
    about: dict[str, str | None]  # `parts` of the detector that was exported
    texts: dict[str, str]  # the file's metadata: `fakegan`, JSON, and `card`, Markdown

    @classmethod
    def load(cls, path: Path) -> OnnxDetector:
        """Open a file of `fakegan.export`.

        A graph is a program: it cannot read files or reach a network, but it may take much memory and time.

        Raises:
            FakeganError: no such file, damaged, not FakeGAN's, or onnxruntime is missing.
        """
        try:
            import onnxruntime
        except ImportError:
            raise FakeganError(f"{path}: an ONNX file needs onnxruntime: {install('export')}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or cores())
        options.log_severity_level = 4  # its errors come as sentences
        try:
            content = path.read_bytes()  # so that a graph cannot name files beside it
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            texts = session.get_modelmeta().custom_metadata_map
        except OSError as error:
            raise FakeganError(f"{path} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # onnxruntime's own kinds, which share no class
            raise FakeganError(f"{path} is damaged or no ONNX file: export the run again") from error
        content_of = from_texts(texts, path)
        with misfits_as_errors(path):
            about = {str(name): None if part is None else str(part) for name, part in content_of["parts"].items()}
            detector = cls(session=session, about=about, texts=texts, **cls.values_of(content_of))
            side = detector.geometry.size
            (given,) = session.get_inputs()
            if (given.name, given.type, given.shape[1:]) != (PIXELS, "tensor(uint8)", [side, side, 3]):
                raise ValueError("its input is not the pixels of faces")
            detector.check()
        return detector

    def log_odds(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:  # (B, size, size, 3) -> (B,)
        """Log odds of fake of one batch before the temperature."""
        found: npt.NDArray[np.float32] = self.session.run([LOG_ODDS], {PIXELS: faces})[0]
        return found.astype(np.float64)

    def reconstructions(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """None: the graph gives scores alone."""
        return None

    def parts(self) -> dict[str, str | None]:
        """The view, and the classes of classifier and autoencoder (None: there is none), by name."""
        return self.about

    def described_device(self) -> str:
        """The runtime."""
        return "cpu, onnxruntime"
