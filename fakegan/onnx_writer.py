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

from fakegan.data.arrays import at_once
from fakegan.detector import Detector
from fakegan.errors import FakeganError, one_line
from fakegan.evaluation.calibration import probability
from fakegan.judge import BATCH
from fakegan.labels import FAKE, REAL
from fakegan.nets.cpu import torchs_layers
from fakegan.onnx_detector import LOG_ODDS, PIXELS, RECONSTRUCTION, SCORE, OnnxDetector
from fakegan.runs.finished import LEARNT_FROM
from fakegan.runs.portable import as_texts
from fakegan.system.files import disk_errors, replacing
from fakegan.system.places import install

TOLERANCE = 1e-4  # of P(fake): a file that is further from torch's scores is not kept
_LEVEL = 1  # of 255: a pixel of a reconstruction that lies between two levels may be rounded to the other


class _Pipeline(nn.Module):
    """What `Detector.log_odds` computes, as one graph: reconstructions are rounded to levels of uint8 as there."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.classifier, self.view = detector.classifier, detector.view
        self.autoencoder = detector.autoencoder if detector.view.needs_recon else None
        self.temperature, self.flip_average = detector.temperature, detector.flip_average

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:  # uint8 (B, size, size, 3) -> (B,) twice, and uint8
        found, *recon = self._log_odds(pixels)
        if self.flip_average:
            found = (found + self._log_odds(pixels.flip(2))[0]) / 2
        return found, torch.sigmoid(found / self.temperature), *recon

    def _log_odds(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Log odds, and the reconstructions where the view needs them, uint8 (B, size, size, 3)."""
        face = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        arrays, recon = {"image": face}, []
        if self.autoencoder is not None:
            levels = torch.round((self.autoencoder(face) + 1) * 127.5).clamp(0, 255)
            arrays["recon"] = levels / 127.5 - 1
            recon = [levels.to(torch.uint8).permute(0, 2, 3, 1)]
        logits: Tensor = self.classifier(self.view(arrays))
        return logits[:, FAKE] - logits[:, REAL], *recon


def write_onnx(
    detector: Detector,  # on the CPU
    path: Path,
    faces: npt.NDArray[np.uint8],  # (N, size, size, 3), to compare scores on
    card: str,
    learnt_from: Sequence[str] = (),  # sources; none: the file does not say
) -> float:
    """Write the file, and return the largest difference of its scores from torch's.

    Its input is `pixels`, uint8 (N, size, size, 3); its outputs are `score`, P(fake), and `log_odds` before the
    temperature, float32 (N,) each, and where the view needs them `reconstruction`, uint8 (N, size, size, 3). Threshold,
    band and the rest stand in its metadata.

    Before it is kept, its reconstructions are compared with torch's, and its scores with those that torch's classifier
    gives the same reconstructions. Rounding leaves a difference between the reconstructions, as it does between two
    machines, and so a larger difference may be returned.

    Raises:
        FakeganError: the package onnx is missing, a network cannot be written so, scores differ, the disk is full.
    """
    content = {**detector.judgement(), "parts": detector.parts(), LEARNT_FROM: list(learnt_from)}
    program = _exported(_Pipeline(detector).eval(), faces[:2])
    program.model.metadata_props.update({**as_texts(content), "card": card})
    with disk_errors(path), replacing(path, durable=True) as building:
        program.save(building)
        found = OnnxDetector.load(building)
        _refuse_other(found, detector, faces, path)
        return float(np.abs(found.scores(faces) - detector.scores(faces)).max())


def _refuse_other(found: OnnxDetector, detector: Detector, faces: npt.NDArray[np.uint8], path: Path) -> None:
    """Raise a FakeganError where the graph computes something else than the detector."""

    def given(pixels: Tensor) -> Tensor:
        recon, torchs = (judge.reconstructions(pixels.numpy()) for judge in (found, detector))
        assert recon is not None  # asked for where the view needs it alone
        assert torchs is not None
        levels = np.abs(recon.astype(np.int16) - torchs).max()
        if levels > _LEVEL:
            raise FakeganError(f"{path} was not kept: its reconstructions are up to {levels} levels from torch's")
        return torch.from_numpy(recon)

    length = at_once(BATCH, detector.geometry.size)
    batches = [faces[start : start + length] for start in range(0, len(faces), length)]
    margins = np.concatenate([detector.log_odds_by(given, batch) for batch in batches])
    apart = np.abs(found.scores(faces) - probability(margins, detector.temperature)).max()
    if not apart <= TOLERANCE:  # true for NaN
        raise FakeganError(
            f"{path} was not kept: its scores are up to {apart:.2g} from torch's on {len(faces)} faces, more than "
            f"{TOLERANCE:g}"
        )


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
                output_names=[LOG_ODDS, SCORE, *([RECONSTRUCTION] if pipeline.view.needs_recon else [])],
                verbose=False,
            )
    except ImportError as error:
        raise FakeganError(f"ONNX needs {install('export')} ({error.name} is missing)") from None
    except Exception as error:  # torch raises many kinds where an operator has no form in ONNX
        raise FakeganError(f"this detector cannot be written as ONNX: {one_line(error, 200)}") from error
