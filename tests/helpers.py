"""What several test files share: made-up pictures, settings of a run, what a folder holds, and small trainings."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fakegan.cli.start import start_run
from fakegan.config.building import TARGET
from fakegan.config.overrides import hydra_argv, to_hydra
from fakegan.data.augment import Augment
from fakegan.data.faces import Faces, open_faces
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store import FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.errors import UsageError
from fakegan.labels import REAL
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.runs import compose as composing
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.compose import register_resolvers, settings_of
from fakegan.runs.settings import RunSettings
from fakegan.stages.run import STAGES
from fakegan.stages.stage import Run, Stage
from fakegan.sweep.jobs import Ending, Job, Running
from fakegan.sweep.progress import Progress
from fakegan.sweep.table import Row as JobRow
from fakegan.system import processes
from fakegan.system.places import CONF, PROJECT
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.datamodules import RealFacesDataModule, RealFakeDataModule
from fakegan.views import VIEWS


def smooth_faces(
    count: int, rng: np.random.Generator, checkerboard: float = 0.0, size: int = 64
) -> npt.NDArray[np.uint8]:
    """Smooth random colour fields (count, size, size, 3); fakes get a checkerboard of that amplitude."""
    coarse = rng.uniform(60, 190, (count, 4, 4, 3)).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    board = checkerboard * (2 * (np.indices((size, size)).sum(axis=0) % 2) - 1)
    noise = rng.normal(0, 2, (count, size, size, 3))
    return np.clip(coarse + board[..., None] + noise, 0, 255).astype(np.uint8)


def encode(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    picture.save(content, format, **options)
    return content.getvalue()


def picture(seed: int, side: int = 64) -> Image.Image:
    """Blobs of colour: no two seeds are near copies."""
    blobs = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blobs).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int, first_seed: int = 0, suffix: str = "png") -> Path:
    """Picture files 000.png and so on in a folder, made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        content = encode(picture(first_seed + number), "JPEG" if suffix == "jpg" else suffix)
        (folder / f"{number:03d}.{suffix}").write_bytes(content)
    return folder


def as_zip(folder: Path) -> Path:
    """The PNG files below a folder as an archive beside it, with what a Mac adds."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/._000.png", b"resource fork")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def intervals(content: Any) -> Iterator[dict[str, float]]:
    """Every measure with its interval in the content of metrics.json or analysis.json."""
    if isinstance(content, dict):
        if set(content) == {"value", "low", "high"}:
            yield content
        for inner in content.values():
            yield from intervals(inner)


def compose_run(*overrides: str) -> RunSettings:
    """The settings that `python train.py` makes of these words, but for the run's folder, if they do not name it."""
    return settings_of(RunSettings, _config(map(to_hydra, overrides)), overrides)


def begin(store_path: Path, run_dir: Path, *words: str) -> RunSettings:
    """A tiny run, written down but not run."""
    fixed = [
        *("data=faces", f"data.root={store_path}", "+debug=fast", "logger=csv", f"paths.run_dir={run_dir}"),
        *(f"paths.artifact_dir={run_dir}/artifacts", f"paths.data_dir={run_dir}/data"),
    ]
    return start_run(_config(map(to_hydra, (*fixed, *words))))


def record(settings: RunSettings, *modes: str) -> list[dict[str, float]]:
    """Run it in processes of its own, as many as it asks for; returns the means of every training step."""
    run_dir, out = settings.paths.run_dir, settings.paths.run_dir / "steps.json"
    command = [sys.executable, "-m", "tests.recorded", str(run_dir), str(out), *modes]
    if settings.trainer.processes > 1:
        processes.run_ranks(command, settings.trainer.processes, run_dir)
    else:
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=PROJECT)
    steps: list[dict[str, float]] = json.loads(out.read_text())
    return steps


def be_job_17(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int = 0) -> Path:
    """Play scontrol: it writes its arguments to the returned file and ends with `answer`; it shows the file `shown`."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    asked = f'case "$1" in --oneliner) cat {tmp_path}/shown ;; *) echo "$@" > {tmp_path}/asked; exit {answer} ;; esac'
    scontrol.write_text(f"#!/bin/sh\n{asked}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    places = ("RANK", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
    for name in (*places, "FAKEGAN_PARENT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "asked"


class Recorded(Progress):
    """The progress of a sweep's jobs, which remembers how they ended and may act on its way."""

    def __init__(self, folder: Path, jobs: Sequence[Job], when_started: Callable[[Running], None] = lambda _: None):
        super().__init__(folder)
        self.rows = {job.number: JobRow(job.number, job.name, "waiting", folder=job.folder.name) for job in jobs}
        self.when_started = when_started
        self.when_going: Callable[[], None] = lambda: None
        self.endings: dict[int, Ending] = {}
        self.most = 0  # jobs that ran at once

    def started(self, running: Running) -> None:
        super().started(running)
        self.when_started(running)

    def going(self, jobs: Sequence[Running]) -> None:
        super().going(jobs)
        self.most = max(self.most, len(jobs))
        self.when_going()

    def ended(self, job: Job, ending: Ending) -> None:
        assert job.number not in self.endings
        self.endings[job.number] = ending
        super().ended(job, ending)

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.rows.values()]


def composed(*arguments: str, name: str = "train") -> DictConfig:
    """The config that Hydra composes for these arguments, as a user types them, with Hydra's own node."""
    register_resolvers()
    return composing.composed(name, hydra_argv(arguments))


def own_config(*arguments: str, name: str = "train") -> DictConfig:
    """The same without Hydra's node."""
    return _config(hydra_argv(arguments), name)


def _config(overrides: Iterable[str], name: str = "train") -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def refusal(*arguments: str, name: str = "train") -> str:
    """The one sentence with which a command refuses these arguments before it builds anything; empty if it does not."""
    try:
        settings_of(composing.SETTINGS[name], own_config(*arguments, name=name), hydra_argv(arguments))
    except UsageError as error:
        return str(error)
    except composing.HYDRAS_ERRORS as error:
        return composing.explain(error)
    return ""


def run_script(script: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, to its end: train.py, or fakegan/prepare.py as a module."""
    given = os.environ | {"OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "", "PYTHONPATH": str(PROJECT)} | environment
    module = script.removesuffix(".py").replace("/", ".")
    called = ["-m", module] if "/" in script else [str(PROJECT / script)]
    command = [sys.executable, *called, *arguments]
    return subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, timeout=1500, check=False)


def tiny_run(store_path: Path, folder: Path, *overrides: str) -> RunSettings:
    """The settings of a run of seconds on a store of faces, in a folder of its own."""
    fixed = [
        *("data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu"),
        "classifier=simple_cnn",  # which learns a little in seconds
        *(f"paths.run_dir={folder / 'run'}", f"paths.artifact_dir={folder / 'artifacts'}"),
        f"paths.data_dir={folder / 'data'}",
    ]
    return compose_run(*fixed, *overrides)


def elsewhere(settings: RunSettings, name: str) -> RunSettings:
    """The same run in another folder, beside its own."""
    return replace(settings, paths=replace(settings.paths, run_dir=settings.paths.run_dir.with_name(name)))


def write_store(path: Path, faces: Iterable[tuple[npt.NDArray[np.uint8], str, int, str]], size: int = 64) -> Path:
    """A store of faces: pixels (size, size, 3), file, label and source of each."""
    with StoreWriter(path, Geometry(size)) as writer:
        for pixels, file, label, source in faces:
            face = face_from_pixels(np.asarray(pixels))
            writer.append(face.pixels, Row.of(face, file=file, label=label, source=source))
    return path


def stages_with(**replaced: Callable[[Run], None]) -> list[Stage]:
    """The stages of a run, some of them by name with another function to run."""
    return [replace(stage, run=replaced.get(stage.name, stage.run)) for stage in STAGES]


def run_of(settings: RunSettings, faces: Faces | None = None) -> Run:
    """A run as its stages get it, on the CPU."""
    return Run(settings, torch.device("cpu"), faces or open_faces(settings.data, settings.paths.data_dir, needs={}))


def save_autoencoder(
    path: Path,
    alike: bool = False,  # whether all reconstructions are
    **options: Any,
) -> Path:
    """The file of a small autoencoder that has learnt nothing: what changes training changes nothing of it."""
    torch.manual_seed(0)
    options = {"depth": 1, "width": 2, "norm": "none", "code_channels": 3} | options
    weights = AutoGAN(**options).state_dict()
    if alike:
        weights = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    node = {TARGET: "fakegan.nets.autogan.AutoGAN", **options}
    save_checkpoint({"net": node, "weights": weights, "metrics": {"val/psnr": 12.5}}, path)
    return path


def steps_done(last: Path) -> int:
    """Of the fit that this checkpoint belongs to, since its first epoch."""
    return int(load_checkpoint(last)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


def same(ours: Any, theirs: Any, at: str = "") -> None:
    """Every tensor and number in two nested structures has the same bits."""
    assert type(ours) is type(theirs), at
    if isinstance(ours, list | tuple):
        ours, theirs = dict(enumerate(ours)), dict(enumerate(theirs))
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), at
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), at
        for key, value in ours.items():
            same(value, theirs[key], f"{at}.{key}")
    elif not isinstance(ours, str):
        assert ours == theirs, at


def same_run(ours: Path, theirs: Path) -> None:
    """Both runs end with the same networks, optimizers, pools and metrics."""
    names = sorted(str(p.relative_to(ours)) for p in ours.rglob("*.ckpt"))
    assert names == sorted(str(p.relative_to(theirs)) for p in theirs.rglob("*.ckpt"))
    assert names
    for name in names:
        a, b = load_checkpoint(ours / name), load_checkpoint(theirs / name)
        for part in ("state_dict", "average", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics"):
            same(a.get(part), b.get(part), f"{name}: {part}")
    kept = [json.loads((run / "metrics.json").read_text()) for run in (ours, theirs)]
    for metrics in kept:
        del metrics["command"]
    assert kept[0] == kept[1]


def asked(arguments: str) -> list[str]:
    """The overrides of trainer arguments, as in "max_steps=7 min_steps=5"; a key with a dot stands for itself."""
    return [word if "." in word.partition("=")[0] else f"trainer.{word}" for word in arguments.split()]


def adam(lr: float = 2e-4) -> Callable[..., Optimizer]:
    return partial(Adam, lr=lr, betas=(0.8, 0.9), fused=True)


def autoencoder(width: int = 4, kind: type[AdversarialAutoencoder] = AdversarialAutoencoder, **options: Any) -> Any:
    """A small adversarial autoencoder, of the class `kind`."""
    networks = {"net": AutoGAN(1, width), "discriminator": PatchDiscriminator(width), "optimizer": adam()}
    return kind(**{**networks, **options})


def fit(module: pl.LightningModule, data: Any, epochs: int = 1, **options: Any) -> pl.Trainer:
    """The Trainer that has fitted a module on a CPU: quiet, without checkpoints; `options` are Lightning's."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    fixed: dict[str, Any] = {"accelerator": "cpu", "max_epochs": epochs, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(**{**fixed, **dict.fromkeys(quiet, False), **options})
    trainer.fit(module, data)
    return trainer


def changed(before: dict[str, Tensor], net: nn.Module) -> set[str]:
    """Which kinds of a net's tensors are not what they were: weights, statistics."""
    learnt, now = dict(net.named_parameters()), net.state_dict()
    differing = [name for name, value in before.items() if not torch.equal(value, now[name])]
    return {"weights" if name in learnt else "statistics" for name in differing}


def record_phases(module: pl.LightningModule, *names: str) -> list[tuple[set[str], ...]]:
    """For the fit that follows: what each optimizer's phase of each step changes in each of these networks."""
    toggled, networks = module.toggled_optimizer, [getattr(module, name) for name in names]
    phases: list[tuple[set[str], ...]] = []

    @contextmanager
    def recorded(optimizer: Any) -> Iterator[None]:
        before = [copy.deepcopy(network.state_dict()) for network in networks]
        with toggled(optimizer):
            yield
        phases.append(tuple(map(changed, before, networks)))

    module.toggled_optimizer = recorded  # type: ignore[assignment, method-assign]
    return phases


def faces_of_five_steps(store: FaceStore) -> RealFacesDataModule:
    """40 real faces, five steps an epoch, and 10 to validate on."""
    rows = np.flatnonzero(store.labels == REAL)
    return RealFacesDataModule(store.images, store.labels, rows[:40], rows[40:50], 8, seed=1, workers=0)


def real_and_fake(store: FaceStore, batch_size: int = 20, **changes: Any) -> RealFakeDataModule:
    """200 faces of both classes as pixels, augmented as `changes` say, and the other 120 to validate on."""
    rows = np.random.default_rng(0).permutation(len(store))
    options: Any = {"seed": 0, "ratio": "balanced", "workers": 0, "batch_key": "budget.classifier.batch_size"}
    images, options["augment"] = {"image": store.images}, Augment(**changes)
    return RealFakeDataModule(images, store.labels, VIEWS["pixels"], rows[:200], rows[200:], batch_size, **options)


class PlainNet(nn.Module):
    """A user's net: its Dropout and BatchNorm1d are torch's; AlphaDropout draws noise that is not dealt."""

    def __init__(
        self,
        in_channels: int = 3,
        dropout: float = 0.4,  # share of the features that are left out in training
        alpha: bool = False,  # by torch's AlphaDropout
    ) -> None:
        super().__init__()
        kind = nn.AlphaDropout if alpha else nn.Dropout
        self.features = nn.Sequential(nn.Conv2d(in_channels, 4, 8, stride=8), nn.ReLU(), nn.Flatten(), kind(dropout))
        self.head = nn.Sequential(nn.Linear(256, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 64, 64) -> (B, 2)
        logits: Tensor = self.head(self.features(x))
        return logits
