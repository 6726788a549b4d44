"""What happens when a sweep begins, whoever launches its jobs, and when it ends: train.py's way into sweeps."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import filelock
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from fakegan.config.overrides import to_hydra
from fakegan.errors import FakeganError, UsageError
from fakegan.reports.write import report_sweep
from fakegan.runs.claim import Claim, has_clock
from fakegan.runs.compose import errors_as_sentences
from fakegan.runs.folder import COMMAND_FILE, CONFIG_FILE, JOBS_FILE
from fakegan.sweep import cluster, search, table
from fakegan.sweep import command as words
from fakegan.sweep.launcher import ProcessLauncher, runs_in
from fakegan.sweep.plugins import SCOPE, register_plugin
from fakegan.system import ranks, reply
from fakegan.system.shell import command, here

_LOCK_FILE = ".sweep.lock"
# What lies in the folder of a sweep that was refused before a job began.
_OF_THE_SWEEP = {"multirun.yaml", COMMAND_FILE, JOBS_FILE, _LOCK_FILE, ".submitit"}


def register() -> None:
    """Make known to Hydra what conf/hydra/launcher/ and conf/hydra/sweeper/ choose."""
    register_plugin(ProcessLauncher)
    cluster.register()
    search.register()


def conclude() -> None:
    """After a sweep of this process: the table of its jobs, and the report of those that have finished.

    Raises:
        FakeganError: a job failed.
    """
    folder = Opening.folder
    if folder is None:
        return
    runs = [path.parent for path in sorted(folder.glob(f"*/{CONFIG_FILE}"))]
    if not runs:
        _clear(folder)
        return
    if not (Opening.others_launch or ProcessLauncher.launched or search.Search.ended):
        return  # refused, in the folder of an earlier sweep
    if Opening.others_launch:
        table.write_rows(folder, table.rows_of_folders(runs))
    rows = table.read_rows(folder)
    print(f"\n{table.as_text(rows, folder)}", flush=True)
    if search.is_search(folder):  # a failed trial is no failure, and what test faces say of the others is no choice
        print(f"\n{search.closing_words(folder)}", flush=True)
        return
    _report({row.folder for row in rows if row.state == "finished"}, folder)
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        raise FakeganError(f"{len(failed)} of {len(rows)} jobs failed; to try again: {words.to_go_on(folder)}")


def stopped() -> None:
    """After a sweep of this process that was asked to stop: how to go on."""
    if Opening.folder is not None:
        print(f"\nstopped; go on with: {words.to_go_on(Opening.folder)}", file=sys.stderr, flush=True)


def _clear(folder: Path) -> None:
    """Remove what a sweep has left that was refused before a job began."""
    if search.is_search(folder):
        return
    for path in [folder / name for name in _OF_THE_SWEEP - Opening.found]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if Opening.made_folder:
        with contextlib.suppress(OSError):  # something else is there
            folder.rmdir()


def _report(finished: Collection[str], folder: Path) -> None:
    """Report on those runs in a sweep's folder."""
    runs = [run for path, run in runs_in(folder).items() if path.name in finished]
    if runs:
        print(f"\n{report_sweep(runs, folder)}", flush=True)


class Opening(Callback):
    """What Hydra calls first in a sweep, whoever launches its jobs: may it begin? Then its command is written down."""

    folder: ClassVar[Path | None] = None  # of this process's sweep
    made_folder: ClassVar[bool] = False  # rather than found it
    found: ClassVar[frozenset[str]] = frozenset()  # what lay there before
    others_launch: ClassVar[bool] = False  # its jobs, so that only their folders tell of them
    lock: ClassVar[filelock.BaseFileLock | None] = None  # held until this process ends

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Ends the process with a sentence where the sweep may not begin."""
        with errors_as_sentences():  # Hydra would make a warning of an error
            _open_params(config.hydra.sweeper)
            folder = Path(config.hydra.sweep.dir).absolute()
            resume = config.get("resume")
            automatic = has_clock(config.hydra.sweep) and not resume
            if reply.wanted():
                raise UsageError(f"this is a sweep, not one run: it is a command, {command('train.py', *sys.argv[1:])}")
            _check_opening(resume, config.hydra.overrides.task)
            if not automatic:
                _check_folder(folder, resume)
            claim = Claim.on(folder, automatic)
            folder = claim.folder
            with read_write(config.hydra.sweep):
                config.hydra.sweep.dir = str(folder)
            Opening.lock = _locked(folder)
            _check_folder(folder, resume)  # again: another may have held it in between
            Opening.made_folder, Opening.found = claim.made, claim.found
            Opening.others_launch = not str(config.hydra.launcher._target_).startswith(f"{SCOPE}.")
            if Opening.others_launch or not words.is_sweep(folder):
                words.keep_command(folder, sys.argv)
            Opening.folder = folder


def _open_params(sweeper: DictConfig) -> None:
    """What is swept may be any option, as the words of the command may.

    Raises:
        UsageError: it is no table of keys and values.
    """
    params = sweeper.get("params")
    if params is not None and not isinstance(params, DictConfig):
        raise UsageError(f"hydra.sweeper.params={params!r} must be keys and values: leave it out, or params.KEY=1,2")
    if params:
        swept = {to_hydra(f"{key!s}=")[:-1]: values for key, values in params.items()}
        with read_write(sweeper), open_dict(sweeper):
            sweeper.params = swept


def _check_opening(
    resume: object,
    typed: Sequence[str],  # the words, those with several values among them
) -> None:
    if ranks.started() > 1:
        raise UsageError("a sweep starts the processes of its jobs by itself: start it without torchrun or srun")
    several = [word for word in typed if word.startswith("resume=") and not isinstance(resume, bool)]
    if several:
        raise UsageError(f"{several[-1]} goes on with one run, without -m; resume=true goes on with a sweep")


def _check_folder(folder: Path, resume: object) -> None:
    there = words.is_sweep(folder) or any(folder.glob(f"*/{CONFIG_FILE}"))
    if resume and not there:
        raise UsageError(f"{here(folder)} holds no sweep to go on with: name its folder with hydra.sweep.dir=DIR")
    if there and not resume:
        raise UsageError(f"{here(folder)} holds a sweep already: add resume=true to go on with it, or name another")


def _locked(folder: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(folder / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FakeganError(f"{here(folder)}: another process runs this sweep; stop it, or let it finish") from None
    return lock
