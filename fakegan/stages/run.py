"""The order of a run's stages: train_autoencoder, reconstruct, train_classifier, analyse, test.

Stages hand files to each other, never live objects: a run that was stopped goes on from what is there. What a
stage may see is decided by its rows: test faces enter when the detector is finished and nowhere earlier.

A run of several processes has all of them here. Networks train and faces are reconstructed by all together; the
rest is the first one's, so that no face is tested twice.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import nn

from fakegan.config.building import TARGET
from fakegan.data.faces import Faces
from fakegan.data.splits import Needs
from fakegan.errors import FakeganError, UsageError
from fakegan.nets.layers import forms
from fakegan.runs.folder import DETECTOR_FILE, FACES_FILE, LOCK_FILE, METRICS_FILE, SCORES_FILE
from fakegan.runs.ledger import COMMAND_VARIABLE, command
from fakegan.runs.results import read_metrics, table, write_metrics
from fakegan.runs.settings import RunSettings, began_with
from fakegan.runs.status import Status, write_status
from fakegan.stages.analyse import analyse
from fakegan.stages.examples import RECONSTRUCTED, Examples, examples, own_faces
from fakegan.stages.summary import log_autoencoder
from fakegan.stages.test import provenance, test
from fakegan.stages.train_autoencoder import autoencoder_metrics, named_autoencoder, own_autoencoder, train_autoencoder
from fakegan.stages.train_classifier import train_classifier
from fakegan.system import log, ranks, signals
from fakegan.system.devices import describe, use_device
from fakegan.system.files import replacing
from fakegan.system.processes import is_child, resume_command, run_ranks
from fakegan.system.shell import command as command_line
from fakegan.system.shell import here, program, trusting, word
from fakegan.training import parts, trials
from fakegan.training.batchnorm import said_of_several
from fakegan.training.fitting import trainer_for
from fakegan.training.loggers import check as check_loggers
from fakegan.training.loggers import writing
from fakegan.views import View

PATIENCE = 120.0  # seconds that a process which is asked to end may take


@dataclass(frozen=True)
class Outcome:
    """What a run ends with."""

    objective: float  # the selection score, higher is better: validation AUROC, or an autoencoder's PSNR
    text: str  # a short table, and where to look next; empty where the process that started this one says it


@dataclass(frozen=True)
class Stages:
    """What a run does, in this order; what its pipeline does not need is left out."""

    faces: Callable[[RunSettings, Needs], Faces] = own_faces
    autoencoder: Callable[[RunSettings, Faces], Path] = train_autoencoder
    examples: Callable[[RunSettings, Faces, Path | None], Examples] = examples
    classifier: Callable[[RunSettings, Faces, View, Examples, Path | None], None] = train_classifier
    analysis: Callable[[RunSettings, Faces, Path], None] = analyse
    test: Callable[[RunSettings, Faces, Examples, Path | None], None] = test


EVERY = Stages()


def run(
    settings: RunSettings,
    stages: Stages | None = None,  # None: EVERY
) -> Outcome:
    """Every stage that the pipeline needs and that has not finished before.

    Raises:
        FakeganError: what a stage raises; another process works on this run and goes on doing so.
        KeyboardInterrupt, SystemExit: it was asked to stop.
    """
    signals.raise_from_now_on()
    metrics_file = settings.paths.run_dir / METRICS_FILE
    wanted = _processes(settings)
    if ranks.on_rank_zero(metrics_file.is_file):
        print(f"{settings.paths.run_dir} had finished already: nothing was done", flush=True)
    elif ranks.count() == 1 and wanted > 1:
        _start_processes(settings, wanted)
    else:
        with ranks.peer_failure_as_error(), ranks.rank_zero_context(lambda: _alone_in(settings.paths.run_dir)):
            if not ranks.on_rank_zero(metrics_file.is_file):  # while this one waited for another
                _run_stages(settings, stages or EVERY)
    metrics = read_metrics(metrics_file)
    told_by_another = ranks.count() > 1 and is_child()
    ranks.disconnect()
    return Outcome(float(metrics["objective"]), "" if told_by_another else _closing_words(settings, metrics))


def _processes(settings: RunSettings) -> int:
    """How many the run is to have: as many as torchrun or SLURM has started, or as the trainer asks for."""
    started = ranks.count()
    if started > 1 and settings.trainer.devices == 1:
        raise UsageError(f"{started} processes were started, but trainer.devices=1: add trainer=ddp, or start one")
    gpus = torch.cuda.device_count() if settings.trainer.uses_gpus else started
    if ranks.local_count() > gpus > 0:
        raise UsageError(
            f"{ranks.local_count()} processes were started here, and this one sees {gpus} GPUs: give each process of a "
            "machine all of its GPUs, one for each"
        )
    wanted = started if started > 1 else settings.trainer.processes
    for key, batch_size in settings.batch_sizes():
        ranks.divisible(batch_size, key, wanted)
    return wanted


def _start_processes(settings: RunSettings, wanted: int) -> None:
    """The run's processes, from the config that was written for it; this one waits for them."""
    run_dir = settings.paths.run_dir
    use_device(settings.trainer.accelerator)
    _learners(settings)  # what cannot be is said once
    with _alone_in(run_dir):  # then the first of them holds it
        write_status(run_dir, Status("starting"))
    os.environ.setdefault(COMMAND_VARIABLE, command())
    quiet = ["-q"] if log.quiet() else []  # they print where this process does
    run_ranks([*resume_command(run_dir, settings.trusted), *quiet], wanted, run_dir)


@contextmanager
def _alone_in(run_dir: Path) -> Iterator[None]:
    """One run is worked on by one command at a time; one that is killed lets go of it."""
    lock = filelock.FileLock(run_dir / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"another process works on {run_dir}; waiting for it to end", flush=True)
        try:
            lock.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            raise FakeganError(f"another process works on {run_dir}: stop it, or let it finish") from None
        if not (run_dir / "config.yaml").is_file():
            lock.release()
            raise FakeganError(f"{run_dir}: the command that began this run has given it up; start a new one") from None
    try:
        yield
    finally:
        lock.release()


def _run_stages(settings: RunSettings, stages: Stages) -> None:
    device = use_device(settings.trainer.accelerator)  # what cannot be is said before anything starts
    ranks.on_rank_zero(lambda: check_loggers(settings))
    learners = _learners(settings)  # so that a wrong option costs no training
    precision = settings.trainer.precision_on(device.type)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        print(f"device: {describe(device, forms(learners, device), precision)}", flush=True)
    for line in (*settings.trainer.said(device.type), *said_of_several(learners)):
        print(line, flush=True)
    named = settings.model.checkpoint if settings.pipeline.needs_autoencoder else None
    if named is not None and not ranks.on_rank_zero(own_autoencoder(settings).is_file):
        named_autoencoder(named, settings)
    _says(settings, "faces")
    faces = stages.faces(settings, settings.pipeline.needs)
    ranks.on_rank_zero(lambda: _same_faces_as_before(settings.paths.run_dir, faces))
    print(faces_by_stage(settings, faces), flush=True)
    for reason, count in faces.splits.left_out.items():
        print(f"{count} faces are in no split: {reason}", flush=True)
    with writing(settings):
        _train_and_test(settings, faces, stages)


def _train_and_test(settings: RunSettings, faces: Faces, stages: Stages) -> None:
    autoencoder = None
    if settings.pipeline.needs_autoencoder:
        _says(settings, "autoencoder")
        autoencoder = stages.autoencoder(settings, faces)
    view = settings.pipeline.seen
    if view is not None:
        _says(settings, "reconstruct")
        shown = stages.examples(settings, faces, autoencoder)
        if not ranks.on_rank_zero((settings.paths.run_dir / DETECTOR_FILE).is_file):
            _says(settings, "classifier")
            stages.classifier(settings, faces, view, shown, autoencoder)
        ranks.on_rank_zero(lambda: _examine(settings, faces, shown, autoencoder, stages))
    elif autoencoder is not None:
        values = autoencoder_metrics(autoencoder)
        metrics = {"autoencoder": values, "objective": values["psnr"], **provenance()}
        ranks.on_rank_zero(lambda: log_autoencoder(settings, values))
        ranks.on_rank_zero(lambda: write_metrics(settings.paths.run_dir / METRICS_FILE, metrics))


def faces_by_stage(settings: RunSettings, faces: Faces) -> str:
    """How many faces of which source each stage has, and what else is to be known of them before it trains."""
    pipeline, splits = settings.pipeline, faces.splits
    lines = [faces.by_stage(pipeline.needs)]
    if pipeline.needs_autoencoder and settings.model.checkpoint is not None:
        lines.append("the autoencoder is that of model.checkpoint: no faces here train it")
    elif pipeline.needs_autoencoder and np.isin(splits.autoencoder_train, splits.train).any():
        lines.append("the autoencoder learns from the real faces of train and val, too")
    elif not pipeline.needs_autoencoder and len(splits.autoencoder_train):
        kept = len(splits.autoencoder_train) + len(splits.autoencoder_val)
        lines.append(f"{kept:,} real faces are kept for the autoencoder of other pipelines")
    if pipeline.fakes == RECONSTRUCTED:
        lines.append("the fakes to learn from are reconstructions of the real faces of train and val")
    return "\n".join([*lines, *splits.notes])


def _learners(settings: RunSettings) -> list[nn.Module]:
    """Networks such as the run trains, or takes as `model.checkpoint` has them: then they are frozen.

    What trains them is made once, too, and thrown away.

    Raises:
        UsageError: an option of a network, a callback, a logger or the trainer that cannot be.
    """
    nets: list[nn.Module] = []
    run_dir = settings.paths.run_dir
    if settings.pipeline.needs_autoencoder and settings.model.checkpoint is None:
        made = parts.autoencoder(settings)
        trials.try_autoencoder(made.get_submodule("autoencoder"), settings)
        trainer_for(made, None, run_dir / "autoencoder", settings, settings.autoencoder_budget, False)
        nets.append(made)
    elif settings.pipeline.needs_autoencoder:
        nets.append(parts.autoencoder(settings).get_submodule("autoencoder").requires_grad_(False))
    if settings.pipeline.trains_classifier:
        made, stops_early = parts.classifier(settings), not settings.classifier.adversarial
        trials.try_classifier(made, settings)
        trainer_for(made, None, run_dir / "classifier", settings, settings.classifier_budget, stops_early)
        nets.append(made)
    return nets


def _examine(settings: RunSettings, faces: Faces, shown: Examples, autoencoder: Path | None, stages: Stages) -> None:
    if autoencoder is not None:
        _says(settings, "analyse")
        stages.analysis(settings, faces, autoencoder)
    _says(settings, "test")
    stages.test(settings, faces, shown, autoencoder)


def _says(settings: RunSettings, stage: str) -> None:
    signals.raise_if_stopped()
    if ranks.is_rank_zero():
        write_status(settings.paths.run_dir, Status(stage))


def _same_faces_as_before(run_dir: Path, faces: Faces) -> None:
    """A run that goes on must go on with the faces it began with: others may have been tested on, or learnt from."""
    before = began_with(run_dir)
    if not before:
        run_dir.mkdir(parents=True, exist_ok=True)
        with replacing(run_dir / FACES_FILE) as building:
            building.write_text(f"{faces.store.fingerprint}\n")
    elif before != faces.store.fingerprint:
        raise FakeganError(f"{faces.store.path} has changed since this run began: start a new run")


def _closing_words(settings: RunSettings, metrics: dict[str, Any]) -> str:
    run_dir = settings.paths.run_dir.absolute()
    tensorboard = f", or all runs: {program('tensorboard')} --logdir {shlex.quote(here(run_dir.parent))}"
    shown = any(str(node[TARGET]).endswith("TensorBoardLogger") for node in (settings.logger or {}).values() if node)
    lines = [""]
    if "autoencoder" in metrics:
        a = metrics["autoencoder"]
        values = f"PSNR {a['psnr']:.2f} dB, L1 {a['l1']:.4f}, SSIM {a['ssim']:.3f}"
        lines.append(f"{settings.model.name}, validation faces: {values}")
    if "test" in metrics:
        again = command_line("evaluate.py", word("run", run_dir), *trusting(settings.needed_to_score))
        lines += [
            f"{settings.label()} · seed {settings.seed}: test split, 95% intervals",
            f"threshold {metrics['threshold']:.3f} and temperature {metrics['temperature']:.2f} from validation",
            table(metrics["test"]),
        ]
        if "test_reconstructed" in metrics:
            lines += ["test faces against their own reconstructions:", table(metrics["test_reconstructed"])]
        lines += [
            f"validation AUROC {metrics['objective']:.3f}",
            "",
            f"numbers:  {here(run_dir / METRICS_FILE)} and {SCORES_FILE}",
            f"pictures: {here(run_dir / 'test')}{tensorboard if shown else ''}",
            f"again:    {again}",
        ]
    else:
        again = command_line("train.py", word("model.checkpoint", run_dir))
        lines.append(f"use it:   {again}\n          and the model and budget words of this run")
    return "\n".join(lines)
