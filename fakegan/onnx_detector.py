"""A detector that was exported as ONNX (fakegan/onnx_writer.py): scored by onnxruntime, without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.errors import FakeganError, one_line
from fakegan.judge import Judge
from fakegan.runs.portable import from_texts
from fakegan.runs.stamp import misfits_as_errors
from fakegan.system.places import install
from fakegan.system.processes import threads_of_one

# The graph's input, and its outputs; the last where the view needs it.
PIXELS, LOG_ODDS, SCORE, RECONSTRUCTION = "pixels", "log_odds", "score", "reconstruction"
# The key, in protobuf's wire format, of a tensor that lies in another file: its length is 8, also where a varint is
# padded. onnxruntime follows such names, also those of a graph that it gets as bytes.
_ELSEWHERE = re.compile(rb"[\x08\x00]location")


@dataclass
class OnnxDetector(Judge):
    """A judge whose log odds an ONNX graph computes, on the CPU."""

    session: Any  # onnxruntime.InferenceSession
    about: dict[str, str | None]  # `parts` of the detector that was exported
    texts: dict[str, str]  # the file's metadata: `fakegan`, JSON, and `card`, Markdown

    @classmethod
    def load(cls, path: Path) -> OnnxDetector:
        """Open a file of `fakegan.export`.

        A graph is a program: it may take much memory and time. A graph that names other files is refused.

        Raises:
            FakeganError: no such file, damaged, not FakeGAN's, or onnxruntime is missing.
        """
        try:
            import onnxruntime
        except ImportError:
            raise FakeganError(f"{path}: an ONNX file needs onnxruntime: {install('export')}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_of_one(1)
        options.log_severity_level = 4  # its errors come as sentences
        options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the content looks like
        try:
            content = path.read_bytes()
            if _ELSEWHERE.search(content):
                raise FakeganError(f"{path} names other files, which are not read: export the run again")
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            texts = session.get_modelmeta().custom_metadata_map
        except FakeganError:
            raise
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
        """Log odds of fake of one batch before the temperature; a FakeganError where the graph gives none."""
        return self._run(LOG_ODDS, faces).astype(np.float64).reshape(len(faces))

    def reconstructions(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Each face (B, size, size, 3) through the autoencoder; None where the graph has none."""
        if RECONSTRUCTION not in {output.name for output in self.session.get_outputs()}:
            return None
        return self._run(RECONSTRUCTION, faces).astype(np.uint8).reshape(faces.shape)

    def _run(self, output: str, faces: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        try:
            return np.asarray(self.session.run([output], {PIXELS: faces})[0])
        except Exception as error:  # onnxruntime's own kinds, which share no class
            raise FakeganError(f"this ONNX graph cannot score faces: {one_line(error, 200)}") from error

    def parts(self) -> dict[str, str | None]:
        """The view, and the classes of classifier and autoencoder (None: there is none), by name."""
        return self.about

    def described_device(self) -> str:
        """The runtime."""
        return "cpu, onnxruntime"
