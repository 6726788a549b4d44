"""A detector as ONNX: the whole way from uint8 pixels to P(fake), autoencoder and view inside, for any runtime."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fakegan.detector import Detector
from fakegan.errors import FakeganError, one_line
from fakegan.labels import FAKE, REAL
from fakegan.nets.cpu import torchs_layers
from fakegan.onnx_detector import LOG_ODDS, PIXELS, SCORE, OnnxDetector
from fakegan.runs.finished import LEARNT_FROM
from fakegan.runs.portable import as_texts
from fakegan.system.files import disk_errors, replacing
from fakegan.system.places import install

TOLERANCE = 1e-4  # of P(fake): a file that is further from torch's scores is not kept
# Behind an autoencoder a pixel that lies between two levels may be rounded to the other: of so few faces, the score may
# be so much further away.
_ROUNDED, _FURTHER = 0.01, 10


class _Pipeline(nn.Module):
    """What `Detector.log_odds` computes, as one graph: reconstructions are rounded to levels of uint8 as there."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.classifier, self.view = detector.classifier, detector.view
        self.autoencoder = detector.autoencoder if detector.view.needs_recon else None
        self.temperature, self.flip_average = detector.temperature, detector.flip_average

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:  # uint8 (B, size, size, 3) -> (B,) twice
        found = self._log_odds(pixels)
        if self.flip_average:
            found = (found + self._log_odds(pixels.flip(2))) / 2
        return found, torch.sigmoid(found / self.temperature)

    def _log_odds(self, pixels: Tensor) -> Tensor:
        face = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        arrays = {"image": face}
        if self.autoencoder is not None:
            levels = torch.round((self.autoencoder(face) + 1) * 127.5).clamp(0, 255)
            arrays["recon"] = levels / 127.5 - 1
        logits: Tensor = self.classifier(self.view(arrays))
        return logits[:, FAKE] - logits[:, REAL]


def write_onnx(
    detector: Detector,  # on the CPU
    path: Path,
    faces: npt.NDArray[np.uint8],  # (N, size, size, 3), to compare scores on
    card: str,
    learnt_from: Sequence[str] = (),  # sources; none: the file does not say
) -> float:
    """Write the file, and return the largest difference of its scores from torch's.

    Its input is `pixels`, uint8 (N, size, size, 3); its outputs are `score`, P(fake), and `log_odds` before the
    temperature, float32 (N,) each. Threshold, band and the rest stand in its metadata.

    Raises:
        FakeganError: the package onnx is missing, a network cannot be written so, scores differ, the disk is full.
    """
    content = {**detector.judgement(), "parts": detector.parts(), LEARNT_FROM: list(learnt_from)}
    program = _exported(_Pipeline(detector).eval(), faces[:2])
    program.model.metadata_props.update({**as_texts(content), "card": card})
    with disk_errors(path), replacing(path, durable=True) as building:
        program.save(building)
        apart = np.abs(OnnxDetector.load(building).scores(faces) - detector.scores(faces))
        if not _near(apart, detector.view.needs_recon):
            raise FakeganError(
                f"{path} was not kept: its scores are up to {apart.max():.2g} from torch's on {len(faces)} faces, more "
                f"than {TOLERANCE:g}"
            )
    return float(apart.max())


def _near(apart: npt.NDArray[np.float64], rounds: bool) -> bool:
    """Whether differences of scores are those of rounding."""
    few = (apart > TOLERANCE).mean() <= (_ROUNDED if rounds else 0)
    return bool(few and (apart <= TOLERANCE * _FURTHER).all())  # false for NaN


def _exported(pipeline: _Pipeline, faces: npt.NDArray[np.uint8]) -> Any:
    """The pipeline as an ONNXProgram, for any number of faces."""
    dynamic = ({0: torch.export.Dim("faces", min=1)},)
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torchs_layers(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                pipeline,
                (torch.from_numpy(faces),),
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[PIXELS],
                output_names=[LOG_ODDS, SCORE],
                verbose=False,
            )
    except ImportError as error:
        raise FakeganError(f"ONNX needs {install('export')} ({error.name} is missing)") from None
    except Exception as error:  # torch raises many kinds where an operator has no form in ONNX
        raise FakeganError(f"this detector cannot be written as ONNX: {one_line(error, 200)}") from error
