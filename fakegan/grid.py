"""The grid of `predict --grid`: the first faces, with what a detector makes of them, drawn into a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fakegan.data.arrays import at_once
from fakegan.data.build import Outcome
from fakegan.data.images import Pixels
from fakegan.data.sheets import COPIED, over, residual_picture
from fakegan.data.verdict_sheet import FORMATS, Card, Sheet, content
from fakegan.errors import FakeganError
from fakegan.evaluation.intervals import Floats
from fakegan.evaluation.occlusion import LogOdds, occlusion
from fakegan.evaluation.verdicts import Row
from fakegan.judge import BATCH, Judge
from fakegan.system.files import replacing

MOST = 60  # faces of a grid


def explanation(
    detector: Judge,
    face: Pixels,
    margins: LogOdds | None = None,  # None: the detector's; or a way of its own to call them
) -> Floats:  # (size, size)
    """Where the face's score comes from, in log odds of P(fake): above 0 a place speaks for fake (`occlusion`)."""
    found = margins or detector.margins
    return occlusion(lambda faces: found(faces) / detector.temperature, face)


@dataclass
class Grid:
    """The first faces and their rows; with an autoencoder their reconstructions, too, and explanations if asked for."""

    detector: Judge
    path: Path  # its ending is one of `FORMATS`
    explain: bool = False  # takes some 150 scores a face
    faces: list[Pixels] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    count: int = 0  # of all faces, drawn or not

    def add(self, outcome: Outcome, row: Row) -> None:
        """Keep a face while there is room."""
        if isinstance(outcome, str):
            return
        self.count += 1
        if len(self.faces) < MOST:
            self.faces.append(outcome.pixels)
            self.rows.append(row)

    def draw(self, has_bar: bool = False) -> str:
        """Writes the file; returns the sentence that says so.

        Raises:
            FakeganError: it cannot be written.
        """
        if not self.faces:
            return f"{self.path} was not drawn: no picture could be read."
        pictures, notes = self._pictures(), [""] * len(self.faces)
        if self.explain:
            with tqdm(self.faces, unit=" explanations", disable=not has_bar) as faces:
                maps = [explanation(self.detector, face) for face in faces]
            pictures["explanation"] = [over(face, found) for face, found in zip(self.faces, maps, strict=True)]
            notes = [f"full: {most:.2f}" if (most := abs(found).max()) >= 0.005 else "full: < 0.01" for found in maps]
        columns = zip(self.rows, zip(*pictures.values(), strict=True), notes, strict=True)
        cards = [Card(*column) for column in columns]
        sheet = Sheet(list(pictures), self.detector.threshold, self.detector.band, self.explain)
        format = FORMATS[self.path.suffix.lower()]
        pages = sheet.pages(cards, sheet.rows_of_a_page(cards) if format == "PDF" else None)
        try:
            with replacing(self.path) as building:
                building.write_bytes(content(pages, format))
        except OSError as error:
            raise FakeganError(f"{self.path} could not be written ({error.strerror}): name another --grid") from error
        if self.count == 1:
            return f"{self.path}: the face with its score."
        which = "all" if self.count == len(self.faces) else f"the first {len(self.faces)} of"
        return f"{self.path}: {which} {self.count:,} faces with their scores."

    def _pictures(self) -> dict[str, list[Pixels]]:
        """Each face and what the autoencoder makes of it, by the name of the row."""
        length = at_once(BATCH, self.detector.geometry.size)
        batches = [np.stack(self.faces[start : start + length]) for start in range(0, len(self.faces), length)]
        found = [self.detector.reconstructions(batch) for batch in batches]
        copies = [recon for batch in found if batch is not None for recon in batch]
        if not copies:
            return {COPIED[0]: self.faces}
        residuals = [residual_picture(*pair) for pair in zip(self.faces, copies, strict=True)]
        return dict(zip(COPIED, (self.faces, copies, residuals), strict=True))
