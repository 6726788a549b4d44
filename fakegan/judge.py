"""All of a detector but its networks: from log odds to score, call, verdict and warnings. It needs no torch.

The test stage, evaluate.py and predict all score through `Judge.margins` and `calibration.probability`, so that they
cannot disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import RowArray, at_once
from fakegan.data.build import Outcome
from fakegan.data.colour import UNUSABLE
from fakegan.data.familiarity import Familiarity
from fakegan.data.given import Picture, read_given
from fakegan.data.images import Face, Geometry
from fakegan.data.store import is_geometry
from fakegan.errors import UsageError
from fakegan.evaluation.calibration import Validation, chosen, probability
from fakegan.evaluation.metrics import GUESSING_WORDS, judged
from fakegan.evaluation.verdicts import IN_TRAINING, Row, calls, verdicts

BATCH = 256  # faces of the smallest size at a time, fewer of larger ones
Progress = Callable[[int], None]  # called with the number of faces just done


@dataclass
class Judge(ABC):
    """Judges uint8 pictures of its own geometry by the log odds that a subclass computes: P(fake) and verdict."""

    geometry: Geometry
    _: KW_ONLY
    temperature: float = 1.0  # log odds are divided by it; chosen on validation
    threshold: float = 0.5  # a score at or above it is called fake; chosen on validation
    band: tuple[float, float] = (0.5, 0.5)  # from the first up to the second a verdict is unsure; of validation
    validation: Validation | None = None  # what threshold and band come from; older files do not have it
    flip_average: bool = False  # a score is made from the mean log odds of the face and of its mirror image
    # sha256 of every picture that took part in training, (N, 32), and their labels
    seen: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), dtype=np.uint8))
    seen_labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # (N,)
    familiarity: Familiarity | None = None  # the look and size of the training pictures

    @abstractmethod
    def log_odds(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:  # (B, size, size, 3) -> (B,)
        """Log odds of fake of one batch before the temperature, with the mean of mirror images where that is asked."""

    @abstractmethod
    def reconstructions(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Each face (B, size, size, 3) through the autoencoder; None where there is none."""

    @abstractmethod
    def parts(self) -> dict[str, str | None]:
        """The view, and the classes of classifier and autoencoder (None: there is none), by name."""

    @abstractmethod
    def described_device(self) -> str:
        """Where and how the networks are computed."""

    def scores(
        self,
        images: RowArray,  # (N, size, size, 3), may be a memory map
        rows: npt.NDArray[np.int64] | None = None,  # which of them, in this order; default: all
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float64]:
        """P(fake) of each face, (N,), in eval mode."""
        return probability(self.margins(images, rows, progress), self.temperature)

    def margins(
        self,
        images: RowArray,  # (N, size, size, 3), may be a memory map
        rows: npt.NDArray[np.int64] | None = None,  # which of them, in this order; default: all
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float64]:
        """Log odds of fake before the temperature, (N,), in eval mode; a UsageError for faces of another size."""
        return np.concatenate([np.empty(0), *map(self.log_odds, self._batches(images, rows, progress))])

    def margins_and_strangeness(
        self, images: RowArray, rows: npt.NDArray[np.int64] | None = None, progress: Progress | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The margins, and how unlike the training pictures each face is, (N,) each: `unknown` above 1."""
        found = [(self.log_odds(batch), self._strangeness(batch)) for batch in self._batches(images, rows, progress)]
        margins, strangeness = zip((np.empty(0), np.empty(0)), *found, strict=True)
        return np.concatenate(margins), np.concatenate(strangeness)

    def _batches(
        self, images: RowArray, rows: npt.NDArray[np.int64] | None, progress: Progress | None
    ) -> Iterator[npt.NDArray[np.uint8]]:  # (B, size, size, 3)
        """The faces as they are scored; `progress` is told of a batch when the next is asked for."""
        rows = np.arange(len(images)) if rows is None else rows  # type: ignore[arg-type]
        side, length = self.geometry.size, at_once(BATCH, self.geometry.size)
        for start in range(0, len(rows), length):
            batch = np.ascontiguousarray(images[rows[start : start + length]])
            if batch.shape[1:] != (side, side, 3):  # most networks would score them
                other = "x".join(map(str, batch.shape[1:]))
                wanted = f"this detector scores faces of {side}x{side}x3"
                raise UsageError(f"{wanted}, not {other}: `predict` resizes pictures")
            yield batch
            if progress is not None:
                progress(len(batch))

    def _strangeness(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:  # (B, size, size, 3) -> (B,)
        return np.zeros(len(faces)) if self.familiarity is None else self.familiarity.strangeness(faces)

    def verdicts(
        self,
        scores: npt.NDArray[np.float64],  # (N,), P(fake)
        strangeness: npt.NDArray[np.float64],  # (N,)
    ) -> npt.NDArray[np.str_]:
        """Real, fake, unsure or unknown, (N,): the test stage, evaluate.py, predict and programs have it from here."""
        return verdicts(scores, self.threshold, self.band, strangeness > 1)

    def guessing(self) -> str:
        """What to think of all its scores, if it is not shown to tell real from fake; else empty."""
        auroc = self.validation and self.validation.auroc()
        words = GUESSING_WORDS.get(judged(auroc)) if auroc else None
        if not auroc or not words:
            return ""
        value, low, high = (auroc[name] for name in ("value", "low", "high"))
        return (
            f"this detector is {words}: AUROC {value:.3f} [{low:.2f}, {high:.2f}] on its validation faces. Train with "
            "more faces, or longer."
        )

    def decide_at(self, threshold: float | None = None, max_false_alarms: float | None = None) -> None:
        """Call faces fake from another threshold; the band moves with it. Without either, all stays.

        `max_false_alarms` chooses it: the share of real faces like those of validation that may be called fake. Raises
        what `calibration.chosen` does.
        """
        if threshold is not None or max_false_alarms is not None:
            self.threshold, self.band = chosen(threshold, max_false_alarms, self.band, self.validation)

    def predict(
        self,
        pictures: Iterable[Picture],
        *,
        max_megapixels: int = Geometry().max_megapixels,  # a larger picture's row says that it was refused
    ) -> list[Row]:
        """A row for each picture, in order: the same as `python -m fakegan.predict` gives the same files.

        Each is prepared as the run's training pictures were: the shape of a square, colours, size. Whether a picture
        took part in training is known by its file's bytes, so of a path, or of an array that was prepared as one.

        Raises:
            UsageError: no list of pictures, an empty one, or something in it that is no picture: a folder, floats.
        """
        geometry = replace(self.geometry, max_megapixels=max_megapixels)
        return [row for _, row in self.rows(read_given(pictures, geometry))]

    def rows(self, outcomes: Iterable[tuple[str, Outcome]]) -> Iterator[tuple[Outcome, Row]]:
        """Each picture's face, or the reason why there is none, and its row, in order; scored batch by batch."""
        left = iter(outcomes)
        while batch := list(islice(left, at_once(BATCH, self.geometry.size))):
            faces = [outcome for _, outcome in batch if isinstance(outcome, Face)]
            scored = iter(self._rows(faces) if faces else [])
            for name, outcome in batch:
                row = Row(name, error=outcome) if isinstance(outcome, str) else replace(next(scored), file=name)
                yield outcome, row

    def _rows(self, faces: Sequence[Face]) -> list[Row]:
        """A row for each face, still without its file's name; all are scored as one batch."""
        pixels = np.stack([face.pixels for face in faces])  # (N, size, size, 3)
        margins, strangeness = self.margins_and_strangeness(pixels)
        scores = probability(margins, self.temperature)
        called, verdicts = calls(scores >= self.threshold), self.verdicts(scores, strangeness)
        known = self.knows(np.array([face.sha256 for face in faces]))
        unlike: list[list[str]] = [[] for _ in faces]
        if self.familiarity:
            widths, heights = (np.array([getattr(face, side) for face in faces]) for side in ("width", "height"))
            unlike = self.familiarity.warnings(strangeness, widths, heights)
        rows = []
        for i, face in enumerate(faces):
            warnings = [IN_TRAINING] if known[i] else []
            if face.profile == UNUSABLE:
                warnings.append("its colour profile cannot be used: colours count as sRGB")
            side, least = self.geometry.first_side, min(face.width, face.height)
            if least < side:
                detail = "no" if least < self.geometry.size else "less"
                enlarged = f"{face.width}x{face.height}: enlarged to {side}x{side}"
                warnings.append(f"{enlarged}, and enlarged faces have {detail} detail to judge")
            said = float(scores[i]), str(called[i]), str(verdicts[i])
            rows.append(Row("", *said, "; ".join([*warnings, *unlike[i]])))
        return rows

    def knows(self, sha256: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:  # (N,) hex digests -> (N,)
        """Which of these pictures took part in training or validation, the autoencoder's included."""
        return is_among(sha256_bytes(sha256), self.seen)

    def contradicts(self, sha256: npt.NDArray[np.str_], labels: npt.NDArray[np.int64]) -> int:
        """How many of these pictures (N,) took part in training under the other label."""
        learnt = {row.tobytes(): label for row, label in zip(self.seen, self.seen_labels.tolist(), strict=True)}
        here = zip(sha256_bytes(sha256), labels.tolist(), strict=True)
        return sum(learnt.get(row.tobytes(), label) != label for row, label in here)

    def judgement(self) -> dict[str, Any]:
        """Everything of a judge as numbers and arrays, which `values_of` reads."""
        return {
            "geometry": self.geometry.values(),
            "temperature": self.temperature,
            "threshold": self.threshold,
            "band": list(self.band),
            "validation": self.validation and dict(vars(self.validation)),
            "flip_average": self.flip_average,
            "seen": self.seen,
            "seen_labels": self.seen_labels,
            "familiarity": None if self.familiarity is None else self.familiarity.to_arrays(),
        }

    @staticmethod
    def values_of(
        content: Mapping[str, Any],  # out of a file; arrays may be tensors
    ) -> dict[str, Any]:
        """The fields of a judge from what `judgement` gave; `check` looks at their ranges.

        Raises:
            ValueError, KeyError, TypeError, ...: something lacks, or is of another kind.
        """
        if not is_geometry(content["geometry"]):
            raise ValueError("its geometry is not one of this version")
        familiarity, validation = content["familiarity"], content.get("validation")  # older files lack the latter
        return {
            "geometry": Geometry.of(content["geometry"]),
            "temperature": float(content["temperature"]),
            "threshold": float(content["threshold"]),
            "band": (float(content["band"][0]), float(content["band"][1])),
            "validation": None if validation is None else Validation(**_arrays(validation)),
            "flip_average": content.get("flip_average", False),  # older files do not say
            "seen": np.asarray(content["seen"]),
            "seen_labels": np.asarray(content["seen_labels"]),
            "familiarity": None if familiarity is None else Familiarity.from_arrays(familiarity),
        }

    def check(self) -> None:
        """Refuse numbers out of range, and networks that give a blank face no finite log odds; raises ValueError."""
        low, high = self.band
        if not (0 < self.temperature < np.inf and 0 <= self.threshold <= 1 and 0 <= low <= high <= 1):
            raise ValueError("temperature, threshold or band is out of range")
        if not isinstance(self.flip_average, bool):
            raise ValueError("flip_average is neither true nor false")
        if self.seen.dtype != np.uint8 or self.seen.shape != (len(self.seen_labels), 32):
            raise ValueError("the pictures of training are no list of digests")
        if self.seen_labels.dtype != np.int64 or self.seen_labels.ndim != 1:
            raise ValueError("the labels of training are no list of numbers")
        side = np.array([self.geometry.size])
        blank = np.zeros((1, *side, *side, 3), dtype=np.uint8)
        if not np.isfinite(self.margins(blank)).all():
            raise ValueError("some weights are no numbers")
        if self.familiarity is not None:
            self.familiarity.warnings(self._strangeness(blank), side, side)


def _arrays(columns: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.asarray(column) for name, column in columns.items()}


def sha256_bytes(digests: npt.NDArray[np.str_]) -> npt.NDArray[np.uint8]:  # (N,) hex -> (N, 32)
    """Hex digests as bytes, 32 a row."""
    return np.frombuffer(bytearray.fromhex("".join(digests)), dtype=np.uint8).reshape(len(digests), 32)


def is_among(digests: npt.NDArray[np.uint8], known: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of the digests (N, 32) are rows of `known` (M, 32): (N,)."""
    rows = {row.tobytes() for row in known}
    return np.array([row.tobytes() in rows for row in digests], dtype=bool)
