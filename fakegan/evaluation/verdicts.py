"""The row of results for a picture: of fakegan.predict and of `Detector.predict`."""

from __future__ import annotations

from dataclasses import dataclass

UNSURE = "unsure"  # beside `results.VERDICTS`: the score lies in the run's band


@dataclass(frozen=True)
class Row:
    """The results for a picture, by column."""

    file: str  # its path; for a picture in memory its place in the list, [0]
    score: float | None = None  # P(fake), 0 to 1; None where it could not be read
    verdict: str = ""  # real, fake, unsure; "" where it could not be read
    warning: str = ""
    error: str = ""  # why it could not be read
