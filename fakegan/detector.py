"""The trained detector: preprocessing, autoencoder, view, classifier, temperature, threshold; all scores come from it.

The test stage, evaluate.py and predict all score through `Detector.margins` and `calibration.probability`, so that they
cannot disagree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fakegan.config.building import Node, build, untrained
from fakegan.config.sizes import refuse_larger
from fakegan.config.trust import NET_SOURCES, packages_to_trust, refuse_untrusted, trust_names, trusted_object
from fakegan.data.arrays import RowArray, at_once
from fakegan.data.build import Outcome
from fakegan.data.colour import UNUSABLE
from fakegan.data.familiarity import Familiarity
from fakegan.data.given import Picture, read_given
from fakegan.data.images import Face, Geometry
from fakegan.data.pixels import to_uint8, to_unit
from fakegan.data.store import is_geometry
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.calibration import Validation, chosen, probability
from fakegan.evaluation.verdicts import Row, calls, verdicts
from fakegan.labels import FAKE, REAL
from fakegan.nets.cpu import forms_in_use
from fakegan.runs.checkpoints import load_checkpoint, misfits_as_errors, save_checkpoint
from fakegan.runs.config_file import with_new_target
from fakegan.runs.folder import DETECTOR_FILE, METRICS_FILE
from fakegan.system.devices import describe, float32_convolutions
from fakegan.system.shell import as_override, command, expanded
from fakegan.views import VIEWS, View, view

BATCH = 256  # faces of the smallest size at a time, fewer of larger ones
Progress = Callable[[int], None]  # called with the number of faces just done


@dataclass(frozen=True)
class NetSpec:
    """A net: how it is built, and its weights."""

    net: Node  # `_target_` and options
    weights: dict[str, Tensor]


@torch.inference_mode()
@float32_convolutions()
def reconstruct(autoencoder: nn.Module, pixels: Tensor) -> Tensor:  # uint8 (B, size, size, 3) -> the same
    """Faces through the autoencoder and back to uint8; stored and scored reconstructions both come from here.

    Raises:
        ValueError: the autoencoder is in train mode.
        FakeganError: a reconstruction holds values that are no numbers.
    """
    if autoencoder.training:
        raise ValueError("reconstruct takes an autoencoder in eval mode")
    recon = autoencoder(to_unit(pixels))
    if not torch.isfinite(recon).all():
        raise FakeganError("the autoencoder's training diverged: some reconstructions are not numbers; train it anew")
    return to_uint8(recon)


@dataclass
class Detector:
    """Scores faces: P(fake) for uint8 pictures of its own geometry. The file `detector.pt` of a run holds all of it."""

    geometry: Geometry
    view_name: str
    classifier_spec: NetSpec
    autoencoder_spec: NetSpec | None  # the run's, also where the view itself needs no reconstruction
    temperature: float = 1.0  # log odds are divided by it; chosen on validation
    threshold: float = 0.5  # a score at or above it is called fake; chosen on validation
    band: tuple[float, float] = (0.5, 0.5)  # from the first up to the second a verdict is unsure; of validation
    validation: Validation | None = None  # what threshold and band come from; older files do not have it
    flip_average: bool = False  # a score is made from the mean log odds of the face and of its mirror image
    # sha256 of every picture that took part in training, (N, 32), and their labels
    seen: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), dtype=np.uint8))
    seen_labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # (N,)
    familiarity: Familiarity | None = None  # the look and size of the training pictures
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    trust: Sequence[str] = ()  # packages whose networks a file may name, besides FakeGAN's, torch's and torchvision's

    def __post_init__(self) -> None:
        if isinstance(self.view_name, str) and self.view_name not in VIEWS and "." in self.view_name:  # the user's own
            trusted_object(self.view_name, "view", self.trust, View, sources=())
        self.classifier = self._built(self.classifier_spec, "classifier", view(self.view_name).channels)
        self.autoencoder: nn.Module | None = None
        if self.autoencoder_spec is not None:
            self.autoencoder = self._built(self.autoencoder_spec, "autoencoder", 3)
        elif self.view.needs_recon:
            raise FakeganError(f"view {self.view_name!r} needs an autoencoder, but this detector has none")

    def _built(self, spec: NetSpec, name: str, channels: int) -> nn.Module:
        shape = (1, channels, self.geometry.size, self.geometry.size)
        net = trusted_net(spec.net, spec.weights, f"{name}.net", lambda _: shape, self.trust)
        return net.to(self.device).eval().requires_grad_(False)

    @property
    def view(self) -> View:
        """The classifier's input."""
        return view(self.view_name)

    def described_device(self) -> str:
        """The device, the faster forms of layers that the scoring networks are computed in there, and mirror images."""
        nets = [self.classifier, *([self.autoencoder] if self.autoencoder and self.view.needs_recon else [])]
        described = describe(self.device, forms_in_use(nets, self.device))
        return f"{described}, faces and their mirror images" if self.flip_average else described

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
        return np.concatenate([np.empty(0), *map(self._margins, self._batches(images, rows, progress))])

    def margins_and_strangeness(
        self, images: RowArray, rows: npt.NDArray[np.int64] | None = None, progress: Progress | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The margins, and how unlike the training pictures each face is, (N,) each: `unknown` above 1."""
        found = [(self._margins(batch), self._strangeness(batch)) for batch in self._batches(images, rows, progress)]
        margins, strangeness = zip((np.empty(0), np.empty(0)), *found, strict=True)
        return np.concatenate(margins), np.concatenate(strangeness)

    def _batches(
        self, images: RowArray, rows: npt.NDArray[np.int64] | None, progress: Progress | None
    ) -> Iterator[npt.NDArray[np.uint8]]:  # (B, size, size, 3)
        """The faces as they are scored; `progress` is told of a batch when the next is asked for."""
        rows = np.arange(len(images)) if rows is None else rows  # type: ignore[arg-type]
        length = at_once(BATCH, self.geometry.size)
        for start in range(0, len(rows), length):
            batch = np.ascontiguousarray(images[rows[start : start + length]])
            yield batch
            if progress is not None:
                progress(len(batch))

    @torch.inference_mode()
    @float32_convolutions()
    def _margins(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:  # (B, size, size, 3) -> (B,)
        pixels = torch.from_numpy(faces).to(self.device)
        found = self._log_odds(pixels)
        if self.flip_average:
            found = (found + self._log_odds(pixels.flip(2))) / 2
        return found.cpu().numpy().astype(np.float64)

    def _strangeness(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:  # (B, size, size, 3) -> (B,)
        return np.zeros(len(faces)) if self.familiarity is None else self.familiarity.strangeness(faces)

    def verdicts(
        self,
        scores: npt.NDArray[np.float64],  # (N,), P(fake)
        strangeness: npt.NDArray[np.float64],  # (N,)
    ) -> npt.NDArray[np.str_]:
        """Real, fake, unsure or unknown, (N,): the test stage, evaluate.py, predict and programs have it from here."""
        return verdicts(scores, self.threshold, self.band, strangeness > 1)

    def decide_at(self, threshold: float | None = None, max_false_alarms: float | None = None) -> None:
        """Call faces fake from another threshold; the band moves with it. Without either, all stays.

        `max_false_alarms` chooses it: the share of real faces like those of validation that may be called fake. Raises
        what `calibration.chosen` does.
        """
        if threshold is not None or max_false_alarms is not None:
            self.threshold, self.band = chosen(threshold, max_false_alarms, self.band, self.validation)

    def _log_odds(self, pixels: Tensor) -> Tensor:  # uint8 (B, H, W, 3) -> (B,)
        """Log odds of fake of a batch as it is, with its own reconstructions."""
        side = self.geometry.size
        if pixels.shape[1:] != (side, side, 3):  # most networks would score them
            other = "x".join(map(str, pixels.shape[1:]))
            raise UsageError(f"this detector scores faces of {side}x{side}x3, not {other}: `predict` resizes pictures")
        arrays = {"image": to_unit(pixels)}
        if self.autoencoder is not None and self.view.needs_recon:
            arrays["recon"] = to_unit(reconstruct(self.autoencoder, pixels))
        logits: Tensor = self.classifier(self.view(arrays)).float()
        return logits[:, FAKE] - logits[:, REAL]

    def reconstructions(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Each face (B, size, size, 3) through the autoencoder; None where there is none."""
        if self.autoencoder is None:
            return None
        return reconstruct(self.autoencoder, torch.from_numpy(faces).to(self.device)).cpu().numpy()

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
            warnings = ["took part in training"] if known[i] else []
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

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        save_checkpoint(
            {
                "geometry": self.geometry.values(),
                "view": self.view_name,
                "classifier": asdict(self.classifier_spec),
                "autoencoder": None if self.autoencoder_spec is None else asdict(self.autoencoder_spec),
                "temperature": self.temperature,
                "threshold": self.threshold,
                "band": list(self.band),
                "validation": self.validation and {k: torch.from_numpy(v) for k, v in vars(self.validation).items()},
                "flip_average": self.flip_average,
                "seen": torch.from_numpy(self.seen),
                "seen_labels": torch.from_numpy(self.seen_labels),
                "familiarity": None if self.familiarity is None else self.familiarity.to_arrays(),
            },
            path,
        )

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],  # a run's folder, or a detector.pt
        device: torch.device | None = None,  # default: the CPU
        trust: Sequence[str] = (),  # packages whose networks its file may name
    ) -> Detector:
        """The detector of a finished run.

        Raises:
            UsageError: no such run.
            FakeganError: the run has no trained classifier, or its file is damaged or of another version.
        """
        run_dir = Path(expanded(run) if isinstance(run, str) else run)
        path = run_dir if run_dir.is_file() else run_dir / DETECTOR_FILE
        if not path.parent.is_dir():
            raise UsageError(f"there is no run at {run_dir}: name a folder that train.py wrote")
        if not path.is_file() and (run_dir / METRICS_FILE).is_file():
            raise FakeganError(f"{run_dir} trained an autoencoder only: there is no classifier to score faces with")
        if not path.is_file():
            raise FakeganError(
                f"{run_dir} holds no trained detector ({DETECTOR_FILE}): it has not finished; "
                f"resume it with {command('train.py', as_override('resume', run_dir))}"
            )
        names = trust_names(trust)
        content = load_checkpoint(path)
        with misfits_as_errors(path):
            detector = cls._of(content, names)
        return detector.to(device or torch.device("cpu"))

    @classmethod
    def _of(cls, content: dict[str, Any], trust: Sequence[str]) -> Detector:
        """The detector of which `save` wrote this, on the CPU, after it has scored a blank face.

        Raises:
            ValueError, RuntimeError, ...: a number out of range, or parts that do not fit together.
        """
        if not is_geometry(content["geometry"]):
            raise ValueError("its geometry is not one of this version")
        autoencoder, familiarity = content["autoencoder"], content["familiarity"]
        validation = content.get("validation")  # older files do not have it
        if validation is not None:
            validation = Validation(**{name: values.numpy() for name, values in validation.items()})
        detector = cls(
            geometry=Geometry.of(content["geometry"]),
            view_name=content["view"],
            classifier_spec=NetSpec(**content["classifier"]),
            autoencoder_spec=None if autoencoder is None else NetSpec(**autoencoder),
            temperature=float(content["temperature"]),
            threshold=float(content["threshold"]),
            band=(float(content["band"][0]), float(content["band"][1])),
            validation=validation,
            flip_average=content.get("flip_average", False),  # older files do not say
            seen=content["seen"].numpy(),
            seen_labels=content["seen_labels"].numpy(),
            familiarity=None if familiarity is None else Familiarity.from_arrays(familiarity),
            trust=trust,
        )
        detector._check()
        return detector

    def _check(self) -> None:
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

    def to(self, device: torch.device) -> Detector:
        """The same detector, which scores on that device from now on."""
        self.device = device
        for net in (self.classifier, self.autoencoder):
            if net is not None:
                net.to(device)
        return self


def sha256_bytes(digests: npt.NDArray[np.str_]) -> npt.NDArray[np.uint8]:  # (N,) hex -> (N, 32)
    """Hex digests as bytes, 32 a row."""
    return np.frombuffer(bytearray.fromhex("".join(digests)), dtype=np.uint8).reshape(len(digests), 32)


def is_among(digests: npt.NDArray[np.uint8], known: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of the digests (N, 32) are rows of `known` (M, 32): (N,)."""
    rows = {row.tobytes() for row in known}
    return np.array([row.tobytes() in rows for row in digests], dtype=bool)


def trusted_net(
    node: Node,  # from a file
    weights: dict[str, Tensor],  # from the same file
    where: str,  # its place in that file
    shape: Callable[[nn.Module], Sequence[int]],  # of an input
    trust: Sequence[str] = (),  # packages whose networks it may name, besides FakeGAN's, torch's and torchvision's
) -> nn.Module:
    """The network that a file names, with its weights.

    Raises:
        UntrustedError: its name is not trusted, or names no network.
        UsageError, ValueError, RuntimeError, ...: it cannot be built so, is far too large, or its weights do not fit.
    """
    node = with_new_target(node)  # nothing in it is looked at before it is trusted
    refuse_untrusted(node, where, trust, kinds=lambda _: nn.Module)
    node = untrained(node)
    if not packages_to_trust(node, NET_SOURCES):  # the user's own code may make nets of any size
        refuse_larger(lambda: build(node, where, nn.Module), weights, shape)
    net = build(node, where, nn.Module)
    net.load_state_dict(weights)
    return net
