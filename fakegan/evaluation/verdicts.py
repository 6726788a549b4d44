"""What is said of a picture: its score, the call at the threshold, the verdict; and `predict`'s row of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fakegan.evaluation.calibration import unsure
from fakegan.evaluation.intervals import Floats

CALLS = ("real", "fake")  # by label
UNSURE = "unsure"  # the score lies in the run's band
UNKNOWN = "unknown"  # the picture is unlike all pictures of training
VERDICTS = (*CALLS, UNSURE, UNKNOWN)
IN_TRAINING = "took part in training"  # a warning


@dataclass(frozen=True)
class Row:
    """The results for a picture, by column."""

    file: str  # its path; for a picture in memory its place in the list, [0]
    score: float | None = None  # P(fake), 0 to 1; None where it could not be read
    call: str = ""  # real or fake: the side of the threshold; "" where it could not be read
    verdict: str = ""  # real, fake, unsure, unknown; "" where it could not be read
    warning: str = ""
    error: str = ""  # why it could not be read


def calls(fake: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:  # (N,) -> (N,)
    """Real or fake, for scores at or above the threshold."""
    return np.array(CALLS)[fake.astype(np.int64)]


def verdicts(
    scores: Floats,  # (N,)
    threshold: float,
    band: tuple[float, float],  # which holds the threshold
    unlike: npt.NDArray[np.bool_],  # (N,), whether a picture is unlike all pictures of training
) -> npt.NDArray[np.str_]:  # (N,)
    """Real, fake, unsure or unknown: the call, where validation faces bear it out and the picture is like them."""
    said = np.where(unsure(scores, *band), UNSURE, calls(scores >= threshold))
    return np.where(unlike, UNKNOWN, said)
