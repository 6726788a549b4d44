"""Uploads to verdicts: threads that read pictures, and the one thread that computes with the networks."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import at_once
from fakegan.data.build import Outcome
from fakegan.data.images import Face, ImageError, Pixels, read_face
from fakegan.data.sheets import over, png, residual_picture
from fakegan.errors import UsageError
from fakegan.evaluation.intervals import Floats
from fakegan.evaluation.verdicts import Row
from fakegan.grid import explanation
from fakegan.judge import Judge
from fakegan.system.processes import cores

FEW = 32  # faces of the smallest size
Upload = tuple[str, bytes]  # the client's name of a picture, and its file's content


@dataclass(frozen=True)
class Answer(Row):
    """A row of `predict`, and pictures where they are asked for."""

    pictures: dict[str, str] = field(default_factory=dict)  # face, reconstruction, residual: PNG as data: URLs


class Worker:
    """Answers requests at the same time. A request waits for one of its pictures at a time, so that none has to wait
    for all of another's."""

    def __init__(self, detector: Judge) -> None:
        self.detector = detector
        self._readers = ThreadPoolExecutor(cores(), "reader")
        self._net = ThreadPoolExecutor(1, "net")
        self._explainer = ThreadPoolExecutor(1, "explainer")

    async def predict(self, uploads: Sequence[Upload], pictures: bool) -> list[Answer]:
        """A row for each picture, in order: the same that `fakegan.predict` gives the same files."""
        loop, outcomes = asyncio.get_running_loop(), []
        for name, content in uploads:
            outcomes.append((name, await loop.run_in_executor(self._readers, self._read, content)))
        return await loop.run_in_executor(self._net, self._judged, outcomes, pictures)

    async def explain(self, content: bytes) -> tuple[bytes, float]:
        """A PNG of the face under the map of its explanation, and the largest value in it, in log odds.

        Raises:
            UsageError: the picture cannot be read.
        """
        loop = asyncio.get_running_loop()
        face = await loop.run_in_executor(self._readers, self._read, content)
        if isinstance(face, str):
            raise UsageError(face)
        found = await loop.run_in_executor(self._explainer, explanation, self.detector, face.pixels, self._margins)
        return png(over(face.pixels, found)), float(abs(found).max())

    def _margins(self, faces: npt.NDArray[np.uint8]) -> Floats:  # (N, size, size, 3) -> (N,)
        """The detector's, a few faces at a time, between which the net answers others: N faces may take minutes."""
        length = at_once(FEW, self.detector.geometry.size)
        parts = (faces[start : start + length] for start in range(0, len(faces), length))
        return np.concatenate([self._net.submit(self.detector.margins, part).result() for part in parts])

    def _read(self, content: bytes) -> Outcome:
        try:
            return read_face(content, self.detector.geometry)
        except ImageError as error:
            return str(error)

    def _judged(self, outcomes: Sequence[tuple[str, Outcome]], pictures: bool) -> list[Answer]:
        judged = list(self.detector.rows(outcomes))
        shown = iter(self._pictures([face for face, _ in judged if isinstance(face, Face)]) if pictures else [])
        return [
            Answer(**asdict(row), pictures=next(shown) if pictures and isinstance(face, Face) else {})
            for face, row in judged
        ]

    def _pictures(self, faces: Sequence[Face]) -> list[dict[str, str]]:
        """Of each face: the square that is judged, and what the autoencoder makes of it, if there is one."""
        if not faces:
            return []
        shown = {"face": np.stack([face.pixels for face in faces])}
        recon = self.detector.reconstructions(shown["face"])
        if recon is not None:
            shown |= {"reconstruction": recon, "residual": residual_picture(shown["face"], recon)}
        return [dict(zip(shown, map(_url, row), strict=True)) for row in zip(*shown.values(), strict=True)]


def _url(pixels: Pixels) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
