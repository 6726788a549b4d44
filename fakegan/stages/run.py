"""A run from its settings to metrics.json: the table of its stages, carried out in order, each of them once.

Stages leave files in the run's folder, so that a run that was stopped goes on from there. Test faces enter when the
detector is finished and nowhere earlier. A run of several processes has all of them here: networks train and faces are
reconstructed by all together, and rank 0 does the rest, so that no face is tested twice.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import nn

from fakegan.config.building import TARGET
from fakegan.data.faces import Faces
from fakegan.data.originals import Originals
from fakegan.data.shortcuts import headlines, known_of
from fakegan.data.split_advice import overrides
from fakegan.data.splits import Needs, SplitConfig
from fakegan.errors import FakeganError, UsageError
from fakegan.nets.cpu import forms_in_use
from fakegan.runs.began import fingerprint_at_start, same_faces_as_before
from fakegan.runs.folder import (
    AUTOENCODER_FILE,
    AUTOENCODER_FOLDER,
    CHECKPOINTS,
    CLASSIFIER_FOLDER,
    CONFIG_FILE,
    LAST,
    LOCK_FILE,
    METRICS_FILE,
    SCORES_FILE,
    TEST_FOLDER,
)
from fakegan.runs.ledger import COMMAND_VARIABLE, command
from fakegan.runs.results import read_metrics, table
from fakegan.runs.robustness import read_robustness
from fakegan.runs.settings import RunSettings
from fakegan.runs.status import Status, write_status
from fakegan.stages.analyse import ANALYSIS
from fakegan.stages.examples import EXAMPLES, RECONSTRUCTED, own_faces
from fakegan.stages.stage import Run, Stage
from fakegan.stages.test import TEST
from fakegan.stages.train_autoencoder import AUTOENCODER, named_autoencoder
from fakegan.stages.train_classifier import CLASSIFIER
from fakegan.system import ranks, signals
from fakegan.system.devices import describe, use_device
from fakegan.system.log import quiet
from fakegan.system.processes import is_child, resume_command, run_ranks
from fakegan.system.shell import as_override, called, local_path, program, quoted, trusting
from fakegan.system.shell import command as command_line
from fakegan.training import parts, trials
from fakegan.training.batchnorm import notes_on_ranks
from fakegan.training.fitting import trainer_for
from fakegan.training.loggers import check_loggers, logger_runs

OpenFaces = Callable[[RunSettings, Needs], Faces]
STAGES = (AUTOENCODER, EXAMPLES, CLASSIFIER, ANALYSIS, TEST)
PATIENCE = 120.0  # seconds: a process that is asked to stop may take so long
log = logging.getLogger(__name__)


def run(settings: RunSettings, stages: Sequence[Stage] = STAGES, open_faces: OpenFaces = own_faces) -> float:
    """Carry out the stages that the pipeline needs and that are not done; print the results and where they are.

    Returns the selection score, higher is better: validation AUROC, or an autoencoder's PSNR.

    Raises:
        FakeganError: what a stage raises; another process works on this run and goes on doing so.
        KeyboardInterrupt, SystemExit: it was asked to stop.
    """
    signals.raise_from_now_on()
    metrics_file = settings.paths.run_dir / METRICS_FILE
    wanted = _processes(settings)
    if ranks.on_rank_zero(metrics_file.is_file):
        log.info("%s had finished already: nothing was done", settings.paths.run_dir)
    elif ranks.count() == 1 and wanted > 1:
        _start_processes(settings, wanted)
    else:
        with ranks.peer_failure_as_error(), ranks.rank_zero_context(lambda: _alone_in(settings.paths.run_dir)):
            if not ranks.on_rank_zero(metrics_file.is_file):  # another process had the run, and has finished it
                _carry_out(settings, stages, open_faces)
    metrics = read_metrics(metrics_file)
    if ranks.count() == 1 or not is_child():  # else the process that started this one prints them
        print(_closing_words(settings, metrics), flush=True)
    ranks.disconnect()
    return float(metrics["objective"])


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
        ranks.check_divisible(batch_size, key, wanted)
    return wanted


def _start_processes(settings: RunSettings, wanted: int) -> None:
    """Start the run's processes from the config that was written for it, and wait for them."""
    run_dir = settings.paths.run_dir
    use_device(settings.trainer.accelerator)
    try_networks(settings)  # an error is said once, not by each process
    with _alone_in(run_dir):  # then rank 0 holds the lock
        write_status(run_dir, Status("starting"))
    os.environ.setdefault(COMMAND_VARIABLE, command())
    argv = resume_command(run_dir, settings.trusted)
    run_ranks([*argv, "-q"] if quiet() else argv, wanted, run_dir)  # they print where this process does


@contextmanager
def _alone_in(run_dir: Path) -> Iterator[None]:
    """Hold the run's lock: one command at a time works on a run. A killed process releases the lock."""
    lock = filelock.FileLock(run_dir / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("another process works on %s; waiting for it to end", run_dir)
        try:
            lock.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            raise FakeganError(f"another process works on {run_dir}: stop it, or let it finish") from None
        if not (run_dir / CONFIG_FILE).is_file():
            lock.release()
            raise FakeganError(f"{run_dir}: the command that began this run has given it up; start a new one") from None
    try:
        yield
    finally:
        lock.release()


def _carry_out(settings: RunSettings, stages: Sequence[Stage], open_faces: OpenFaces) -> None:
    """Refuse what cannot be before anything starts, open the faces, and carry out the stages."""
    device = use_device(settings.trainer.accelerator)
    ranks.on_rank_zero(lambda: check_loggers(settings))
    networks = try_networks(settings)
    precision = settings.trainer.precision_on(device.type)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        log.info("device: %s", describe(device, forms_in_use(networks, device), precision))
    for line in (*settings.trainer.said(device.type), *notes_on_ranks(networks)):
        log.info(line)
    named, own = settings.model.checkpoint, settings.paths.run_dir / AUTOENCODER_FOLDER / AUTOENCODER_FILE
    if settings.pipeline.needs_autoencoder and named is not None and not ranks.on_rank_zero(own.is_file):
        named_autoencoder(named, settings)
    _begin_stage(settings, "faces")
    faces = open_faces(settings, settings.pipeline.needs)
    ranks.on_rank_zero(lambda: _find_originals(settings, faces))
    ranks.on_rank_zero(lambda: same_faces_as_before(settings.paths.run_dir, faces.store))
    log.info(faces_by_stage(settings, faces))
    if settings.pipeline.learns_generated and settings.data.root is not None:
        _say_shortcuts(faces, settings.data.split)
    run = Run(settings, device, faces)
    with logger_runs(settings):
        for stage in stages:
            if not stage.needed(settings.pipeline) or ranks.on_rank_zero(partial(stage.done, run)):
                continue
            _begin_stage(settings, stage.name)
            if stage.on_rank_0:
                ranks.on_rank_zero(partial(stage.run, run))
            else:
                stage.run(run)


def _find_originals(settings: RunSettings, faces: Faces) -> None:
    """Refuse originals that are not there before anything is trained; a run that has begun may end without them."""
    if settings.test.originals and not fingerprint_at_start(settings.paths.run_dir):
        Originals(faces.store, faces.splits.test)


def _say_shortcuts(faces: Faces, split: SplitConfig) -> None:
    """A line on what tells real from fake without looking at faces, as far as the store has been audited."""
    found = known_of(faces.store, faces.splits)
    again = " ".join([called("audit"), "--data", shlex.quote(local_path(faces.store.path)), *overrides(split)])
    if found is None:
        log.info("whether real and fake can be told apart without looking at faces is not known: %s", again)
    elif warnings := headlines(found):
        for words in warnings:
            log.warning(words)
        log.info("by what, and for each source: %s", again)


def try_networks(settings: RunSettings) -> list[nn.Module]:
    """Build and try the networks, their callbacks and trainers, so that a wrong option costs no training.

    Returns them as the run trains them; an autoencoder that `model.checkpoint` names is frozen.

    Raises:
        UsageError: an option of a network, a callback, a logger or the trainer that cannot be.
    """
    networks: list[nn.Module] = []
    run_dir, pipeline = settings.paths.run_dir, settings.pipeline
    if pipeline.needs_autoencoder:
        made = parts.autoencoder(settings)
        net = made.get_submodule("autoencoder")
        if settings.model.checkpoint is None:
            trials.try_autoencoder(net, settings)
            trainer_for(made, None, run_dir / AUTOENCODER_FOLDER, settings, settings.autoencoder_budget, False)
            networks.append(made)
        else:
            networks.append(net.requires_grad_(False))
    if pipeline.trains_classifier:
        made, stops_early = parts.classifier(settings), not settings.classifier.adversarial
        trials.try_classifier(made, settings)
        trials.try_augment(parts.augment(settings), made, settings)
        if not (run_dir / CLASSIFIER_FOLDER / CHECKPOINTS / LAST).is_file():
            parts.begin_pretrained(settings, made.get_submodule("net"))
        trainer_for(made, None, run_dir / CLASSIFIER_FOLDER, settings, settings.classifier_budget, stops_early)
        networks.append(made)
    return networks


def _begin_stage(settings: RunSettings, name: str) -> None:
    signals.raise_if_stopped()
    if ranks.is_rank_zero():
        write_status(settings.paths.run_dir, Status(name))


def faces_by_stage(settings: RunSettings, faces: Faces) -> str:
    """How many faces of which source each stage has, and what else to know of them before anything trains."""
    pipeline, splits = settings.pipeline, faces.splits
    lines = [faces.by_stage(pipeline.needs)]
    if pipeline.needs_autoencoder and settings.model.checkpoint is not None:
        lines.append("the autoencoder is that of model.checkpoint: no faces here train it")
    elif pipeline.needs_autoencoder and np.isin(splits.autoencoder_train, splits.train).any():
        lines.append("the autoencoder learns from the real faces of train and val, too")
    elif not pipeline.needs_autoencoder and (kept := len(np.setdiff1d(splits.autoencoder_train, splits.train))):
        kept += len(splits.autoencoder_val)
        lines.append(f"{kept:,} real faces are kept for the autoencoder of other pipelines")
    if pipeline.fakes == RECONSTRUCTED:
        lines.append("the fakes to learn from are reconstructions of the real faces of train and val")
    left_out = [f"{count} faces are in no split: {reason}" for reason, count in splits.left_out.items()]
    return "\n".join([*lines, *splits.notes, *left_out])


def _closing_words(settings: RunSettings, metrics: dict[str, Any]) -> str:
    run_dir = settings.paths.run_dir.absolute()
    lines = [""]
    if "autoencoder" in metrics:
        a = metrics["autoencoder"]
        values = f"PSNR {a['psnr']:.2f} dB, L1 {a['l1']:.4f}, SSIM {a['ssim']:.3f}"
        lines.append(f"{settings.model.name}, validation faces: {values}")
    if "test" not in metrics:
        again = command_line("train.py", as_override("model.checkpoint", run_dir))
        return "\n".join([*lines, f"use it:   {again}", "          and the model and budget words of this run"])
    lines += [
        f"{settings.label()} · seed {settings.seed}: test split, 95% intervals",
        f"threshold {metrics['threshold']:.3f} and temperature {metrics['temperature']:.2f} from validation",
        *(["each score is of a face and its mirror image"] if metrics.get("flip_average") else []),
        table(metrics["test"]),
    ]
    if "test_reconstructed" in metrics:
        lines += ["test faces against their own reconstructions:", table(metrics["test_reconstructed"])]
    robustness = read_robustness(run_dir)
    lines += [] if robustness is None else robustness.lines()
    boards = [node for node in (settings.logger or {}).values() if node and node[TARGET].endswith("TensorBoardLogger")]
    tensorboard = f", or all runs: {program('tensorboard')} --logdir {shlex.quote(local_path(run_dir.parent))}"
    again = command_line("evaluate.py", as_override("run", run_dir), *trusting(settings.needed_to_score))
    report = command_line("evaluate.py", f"runs=[{quoted(local_path(run_dir))}]", *trusting(settings.needed_to_score))
    lines += [
        f"validation AUROC {metrics['objective']:.3f}",
        "",
        f"numbers:  {local_path(run_dir / METRICS_FILE)} and {SCORES_FILE}",
        f"pictures: {local_path(run_dir / TEST_FOLDER)}{tensorboard if boards else ''}",
        f"again:    {again}",
        f"report:   {report}",
    ]
    return "\n".join(lines)
