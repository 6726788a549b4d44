"""Rows on training steps and on reconstructing, against the study's ways and against the machine's arithmetic."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fakegan.data.augment import Augment
from fakegan.detector import reconstruct
from fakegan.judge import BATCH
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs.artifacts import Reconstructions
from fakegan.training import parts
from fakegan.training.datamodules import RealFakeDataModule
from fakegan.views import VIEWS
from tests.benchmarks import machine, study, trainer
from tests.benchmarks.harness import Side, SideError, Turns, take_turns
from tests.benchmarks.made_up import smooth_faces
from tests.benchmarks.results import NotMeasured, Result, Row
from tests.benchmarks.trainer import SGD, fit_in_turns, labelled
from tests.helpers import compose_run

FLOAT32 = "float32 (convolutions in TF32, torch's default)"
ON_THE_GPU = "autoencoder step on the GPU, the study's settings (InstanceNorm)"
CNN = partial(trainer.simple_cnn, SGD)  # with all that the module and Lightning add
AUGMENTS = ("none", "light", "robust")
MOST = 1 / 1.15  # a step through Lightning may take 15% more than in a bare loop, and can at best equal it


class Case(NamedTuple):
    """An autoencoder, how long to measure its step, and what it should reach."""

    width: int
    depth: int
    rounds: int
    steps: int  # a round
    bar: float | None = None
    share: float | None = None  # of the matrix-product rate
    batch: int = 50
    norm: bool = True  # the study's settings, InstanceNorm among them; False: FakeGAN's default settings


FULL = (
    Case(64, 1, 5, 1, 2.0),
    Case(64, 4, 5, 1, 2.3, 0.7),
    Case(16, 1, 5, 2, 1.5),
    Case(16, 4, 5, 2, 1.5),
    Case(16, 4, 5, 2, norm=False),
)
QUICK = (Case(2, 1, 2, 2, batch=4), Case(2, 1, 2, 2, batch=4, norm=False))
ON_GPU = (Case(64, 4, 5, 10, 4.0, batch=50), Case(64, 4, 5, 4, 8.0, batch=512))


def _ours(case: Case, *trainers: str | bool) -> Side:
    """A step through Lightning's Trainer on the same batch in memory: accelerator, precision, whether CUDA graphs."""
    module = partial(trainer.autoencoder, case.depth, case.width, as_the_study=case.norm)
    return Side(fit_in_turns, (module, partial(trainer.real, case.batch), *trainers), sees_gpus="gpu" in trainers)


def autoencoder_rows(quick: bool) -> Iterator[Result]:
    """Steps on the same batch in memory, at the study's settings and at the default ones."""
    size = 64 if quick else machine.PRODUCT
    for case in QUICK if quick else FULL:
        sides = [
            _ours(case),
            Side(study.autoencoder_steps, (case.depth, case.width, case.batch, case.norm)),
            Side(machine.multiply, (size,)),
        ]
        ours, theirs, products = take_turns(sides, case.rounds, (case.steps, case.steps, 5), apart=not quick)
        settings = "the study's settings (InstanceNorm)" if case.norm else "the default settings (no norm)"
        what = f"autoencoder step, {settings}, depth {case.depth}, width {case.width}, batch {case.batch}"
        against = "the study's step" if case.norm else "the study's step on an autoencoder without norm"
        yield Row(what, against, "step", ours, theirs, case.bar)
        flops = study.autoencoder_step_flops(case.depth, case.width, case.batch)  # a norm has no convolutions
        yield machine.arithmetic_share(what, "step", ours, flops, products, size, case.share)


def gpu_rows(quick: bool) -> Iterator[Result]:
    """The same step on a GPU, in bf16-mixed and, without a bar, in the study's float32, which is trainer=gpu's too."""
    if not torch.cuda.is_available():
        yield NotMeasured(f"{ON_THE_GPU}, depth 4, width 64, batch 50 and 512", "no GPU")
        return
    for case in QUICK[:1] if quick else ON_GPU:
        sides = [
            _ours(case, "gpu", "bf16-mixed"),
            Side(study.autoencoder_steps, (case.depth, case.width, case.batch, case.norm, "cuda"), sees_gpus=True),
            _ours(case, "gpu"),
        ]
        what = f"{ON_THE_GPU}, depth {case.depth}, width {case.width}, batch {case.batch}"
        try:
            # The first steps load kernels and fill the allocator.
            times = take_turns(sides, case.rounds, (case.steps,) * 3, warm_up=5, apart=not quick)
        except SideError as error:
            if not error.out_of_memory:
                raise
            yield NotMeasured(what, f"the GPU has too little free memory ({error})")
            continue
        against = f"the study's step, {FLOAT32}"
        yield Row(f"{what}, trainer.precision=bf16-mixed", against, "step", times[0], times[1], case.bar)
        yield Row(f"{what}, {FLOAT32}", against, "step", times[2], times[1])
        yield _graphs_row(case, f"{what}, trainer.precision=bf16-mixed", quick)


def _graphs_row(case: Case, what: str, quick: bool) -> Result:
    """Our step as CUDA graphs beside the same launched kernel by kernel."""
    sides = [_ours(case, "gpu", "bf16-mixed", graphs) for graphs in (True, False)]
    try:
        times = take_turns(sides, case.rounds, (case.steps,) * 2, warm_up=5, apart=not quick)
    except SideError as error:
        return NotMeasured(f"{what}, trainer.cuda_graphs=true", str(error))
    return Row(f"{what}, trainer.cuda_graphs=true", "trainer.cuda_graphs=false", "step", *times)


def dcgan_rows(quick: bool) -> Iterator[Result]:
    """The study's step, another way to write it, and the machine's arithmetic."""
    width, batch, rounds, steps, size = (4, 4, 2, 2, 64) if quick else (64, 128, 5, 2, machine.PRODUCT)
    sides = [
        Side(fit_in_turns, (partial(trainer.dcgan, width), partial(labelled, batch))),
        Side(study.dcgan_steps, (width, batch, False)),
        Side(study.dcgan_steps, (width, batch, True)),
        Side(machine.multiply, (size,)),
    ]
    ours, tutorial, again, products = take_turns(sides, rounds, (steps, steps, steps, 5), apart=not quick)
    what = f"DCGAN step, width {width}, batch {batch}"
    against = "the study's step: the loop of PyTorch's DCGAN tutorial, samples drawn once"
    yield Row(what, against, "step", ours, tutorial, 1.2)
    yield Row(what, "a loop that draws again for the generator", "step", ours, again)
    yield machine.arithmetic_share(what, "step", ours, study.dcgan_step_flops(width, batch), products, size)


def classifier_rows(quick: bool) -> Iterator[Result]:
    """The simple CNN's step against the study's, and what Lightning costs."""
    batch, rounds, steps, size = (8, 2, 2, 64) if quick else (50, 9, 10, machine.PRODUCT)
    sides = [
        Side(fit_in_turns, (CNN, partial(labelled, batch))),
        Side(study.classifier_steps, (batch,)),
        Side(study.classifier_steps, (batch, SimpleCNN, SGD)),
        Side(machine.multiply, (size,)),
    ]
    ours, theirs, bare, products = take_turns(sides, rounds, (steps, steps, steps, 2), apart=not quick)
    what = f"simple-CNN step through Lightning, batch {batch}"
    yield Row(what, "the study's step in a bare loop", "step", ours, theirs, MOST)
    yield Row(what, "a bare loop with FakeGAN's net and optimizer", "step", ours, bare, MOST)
    yield machine.arithmetic_share(what, "step", ours, study.classifier_step_flops(batch), products, size)


def augmented(faces: int, batch: int, augment: Augment) -> RealFakeDataModule:
    """Batches of smooth faces in memory."""
    images, rows = next(smooth_faces(faces)), np.arange(faces)
    return trainer.real_and_fake({"image": images}, rows % 2, VIEWS["pixels"], rows, batch, augment)


def augment_rows(quick: bool) -> Iterator[Result]:
    """What augmentation adds to a step: the batch is mirrored only, or changed by the other choices of conf/augment."""
    faces, batch, rounds, steps = (24, 8, 2, 2) if quick else (500, 50, 5, 10)
    choices = {name: parts.augment(compose_run("paths.run_dir=run", f"augment={name}")) for name in AUGMENTS}
    sides = [Side(fit_in_turns, (CNN, partial(augmented, faces, batch, augment))) for augment in choices.values()]
    none, *others = take_turns(sides, rounds, (steps,) * len(sides), apart=not quick)
    for name, ours in zip(AUGMENTS[1:], others, strict=True):
        yield Row(f"simple-CNN step with augment={name}, batch {batch}", "augment=none", "step", ours, none)


def stored(folder: Path, batch: int) -> RealFakeDataModule:
    """Batches of reconstructions in a file."""
    recon = Reconstructions(folder, 64)
    rows = np.arange(len(recon))
    return trainer.real_and_fake({"recon": recon}, rows % 2, VIEWS["reconstruction"], rows, batch)


def on_the_fly(folder: Path, batch: int, depth: int, width: int) -> RealFakeDataModule:
    """Batches of faces that FakeGAN's autoencoder of the study's settings reconstructs as they are asked for."""
    images = np.load(folder / "images.npy")
    rows, net = np.arange(len(images)), AutoGAN(depth, width, "instance").eval().requires_grad_(False)
    return trainer.real_and_fake({"image": images}, rows % 2, lambda arrays: net(arrays["image"]), rows, batch)


def epoch_rows(quick: bool) -> Iterator[Result]:
    """An epoch of the simple CNN on reconstructions; what the pictures show does not change the time."""
    faces, batch, width, depth, rounds = (24, 8, 2, 1, 2) if quick else (200, 50, 64, 4, 5)
    images = np.random.default_rng(0).integers(0, 256, (faces, 64, 64, 3), dtype=np.uint8)
    steps = faces // batch
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        np.save(folder / "images.npy", images)
        np.save(folder / "rows.npy", np.arange(faces))
        sides = [
            Side(fit_in_turns, (CNN, partial(stored, folder, batch))),
            Side(study.classifier_epochs_on_the_fly, (faces, batch, depth, width)),
            Side(fit_in_turns, (CNN, partial(on_the_fly, folder, batch, depth, width))),
        ]
        units = (steps, 1, steps)  # a unit of ours is a step, an epoch's end counted with its last
        step, theirs, our_step = take_turns(sides, rounds, units, units, apart=not quick)
    ours, again = (tuple(steps * seconds for seconds in side) for side in (step, our_step))
    what = f"simple-CNN epoch on stored reconstructions, {faces} faces"
    against = f"reconstructing in every batch, depth {depth}, width {width}"
    yield Row(what, f"{against}, with the study's nets in a bare loop", "epoch", ours, theirs, bar=30)
    yield Row(what, f"{against}, with FakeGAN's nets through Lightning", "epoch", ours, again)


def reconstructions(turns: Turns, depth: int, width: int, faces: int) -> None:
    """A side: a unit is one face, reconstructed with the others of its batch."""
    net = AutoGAN(depth, width, "instance").eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (faces, 64, 64, 3), dtype=torch.uint8)
    turns.serve(lambda count: (reconstruct(net, pixels[:count]), None)[1])


def reconstruct_rows(quick: bool) -> Iterator[Result]:
    """Seconds a face, over a batch of the reconstruct stage: what 10,000 faces cost is 10,000 times that.

    The slower side gets fewer faces: its time for one does not depend on their number.
    """
    bars, batch, singles, rounds = ({2: None}, 8, 4, 2) if quick else ({64: 1.2, 16: 2.0}, BATCH, 32, 3)
    depth, size = (1, 64) if quick else (4, machine.PRODUCT)
    for width, bar in bars.items():
        sides = [
            Side(reconstructions, (depth, width, batch)),
            Side(study.reconstructions, (depth, width, singles)),
            Side(machine.multiply, (size,)),
        ]
        ours, theirs, products = take_turns(sides, rounds, (batch, singles, 5), (batch, 4, 1), apart=not quick)
        net = f"depth {depth}, width {width}"
        what = f"reconstruct a face, without reading and writing files, in batches of {batch}, {net}"
        yield Row(what, "the study's net, one face at a time", "face", ours, theirs, bar)
        yield machine.arithmetic_share(what, "face", ours, study.reconstruction_flops(depth, width), products, size)
