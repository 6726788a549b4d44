"""The trained detector: a judge (fakegan/judge.py) whose log odds come from autoencoder, view and classifier."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fakegan.config.building import TARGET, Node, build, untrained
from fakegan.config.sizes import refuse_larger
from fakegan.config.trust import NET_SOURCES, packages_to_trust, refuse_untrusted, trust_names, trusted_object
from fakegan.data.pixels import to_uint8, to_unit
from fakegan.errors import FakeganError, UsageError
from fakegan.judge import Judge
from fakegan.labels import FAKE, REAL
from fakegan.nets.cpu import forms_in_use, take_planes
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.config_file import with_new_target
from fakegan.runs.folder import DETECTOR_FILE, METRICS_FILE
from fakegan.runs.portable import is_portable, load_portable
from fakegan.runs.stamp import misfits_as_errors
from fakegan.system.devices import describe, float32_convolutions
from fakegan.system.shell import as_override, command, expanded
from fakegan.views import VIEWS, View, view


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
class Detector(Judge):
    """Scores faces: P(fake) for uint8 pictures of its own geometry. The file `detector.pt` of a run holds all of it."""

    view_name: str
    classifier_spec: NetSpec
    autoencoder_spec: NetSpec | None  # the run's, also where the view itself needs no reconstruction
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

    def parts(self) -> dict[str, str | None]:
        """The view, and the classes of classifier and autoencoder (None: there is none), by name."""
        nets = {"classifier": self.classifier_spec, "autoencoder": self.autoencoder_spec}
        return {
            "view": self.view_name,
            **{name: None if spec is None else str(spec.net[TARGET]) for name, spec in nets.items()},
        }

    @float32_convolutions()
    def described_device(self) -> str:
        """The device, the faster forms of layers that the scoring networks are computed in there, and mirror images."""
        nets = [self.classifier, *([self.autoencoder] if self.autoencoder and self.view.needs_recon else [])]
        described = describe(self.device, forms_in_use(nets, self.device))
        return f"{described}, faces and their mirror images" if self.flip_average else described

    def log_odds(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:  # (B, size, size, 3) -> (B,)
        """Log odds of fake of one batch, by its own reconstructions where the view needs them."""
        return self.log_odds_by(self._reconstruct, faces)

    @torch.inference_mode()
    @float32_convolutions()
    def log_odds_by(
        self,
        reconstruct: Callable[[Tensor], Tensor],  # uint8 (B, size, size, 3) -> the same, called where the view needs it
        faces: npt.NDArray[np.uint8],  # (B, size, size, 3)
    ) -> npt.NDArray[np.float64]:
        """Log odds of fake of one batch, (B,), by these reconstructions."""
        pixels = torch.from_numpy(faces).to(self.device)
        found = self._log_odds(pixels, reconstruct)
        if self.flip_average:
            found = (found + self._log_odds(pixels.flip(2), reconstruct)) / 2
        return found.cpu().numpy().astype(np.float64)

    def _log_odds(self, pixels: Tensor, reconstruct: Callable[[Tensor], Tensor]) -> Tensor:  # -> (B,)
        """Log odds of fake of a batch as it is."""
        arrays = {"image": to_unit(pixels)}
        if self.view.needs_recon:
            arrays["recon"] = to_unit(reconstruct(pixels))
        logits: Tensor = self.classifier(self.view(arrays)).float()
        return logits[:, FAKE] - logits[:, REAL]

    def reconstructions(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Each face (B, size, size, 3) through the autoencoder; None where there is none."""
        if self.autoencoder is None:
            return None
        return self._reconstruct(torch.from_numpy(faces).to(self.device)).cpu().numpy()

    def _reconstruct(self, pixels: Tensor) -> Tensor:  # uint8 (B, size, size, 3) -> the same
        assert self.autoencoder is not None  # a view that needs it is refused without it
        return reconstruct(self.autoencoder, pixels)

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        save_checkpoint(_as_tensors(self.content()), path)

    def content(self) -> dict[str, Any]:
        """All of it: the judgement, the view, and the networks' nodes and weights."""
        nets = {"classifier": self.classifier_spec, "autoencoder": self.autoencoder_spec}
        specs = {name: spec and asdict(spec) for name, spec in nets.items()}
        return {**self.judgement(), "view": self.view_name, **specs}

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],  # a run's folder, its detector.pt, or an exported .fakegan
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
        content = load_portable(path) if is_portable(path) else load_checkpoint(path)
        with misfits_as_errors(path):
            detector = cls._of(content, names)
        return detector.to(device or torch.device("cpu"))

    @classmethod
    def _of(cls, content: dict[str, Any], trust: Sequence[str]) -> Detector:
        """The detector of which `save` wrote this, on the CPU, after it has scored a blank face.

        Raises:
            ValueError, RuntimeError, ...: a number out of range, or parts that do not fit together.
        """
        autoencoder = content["autoencoder"]
        detector = cls(
            view_name=content["view"],
            classifier_spec=_spec(content["classifier"]),
            autoencoder_spec=None if autoencoder is None else _spec(autoencoder),
            trust=trust,
            **cls.values_of(content),
        )
        detector.check()
        return detector

    def to(self, device: torch.device) -> Detector:
        """The same detector, which scores on that device from now on."""
        self.device = device
        for net in (self.classifier, self.autoencoder):
            if net is not None:
                net.to(device)
        return self


def _spec(content: dict[str, Any]) -> NetSpec:
    """A network out of a file, whose weights may be arrays."""
    weights = {name: torch.as_tensor(value) for name, value in content["weights"].items()}
    return NetSpec(**{**content, "weights": weights})  # a TypeError for anything else in it


def _as_tensors(content: dict[str, Any]) -> dict[str, Any]:
    """The same with its arrays as tensors, which a checkpoint can hold."""
    arrays = {name: torch.from_numpy(value) for name, value in content.items() if isinstance(value, np.ndarray)}
    inner = {name: _as_tensors(value) for name, value in content.items() if isinstance(value, dict)}
    return content | arrays | inner


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
    take_planes(net)
    return net
