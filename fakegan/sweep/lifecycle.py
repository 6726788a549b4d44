"""What train.py asks of sweeps: to make them known to Hydra, and to say at their end what has become of them."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import types

from hydra.core.plugins import Plugins

from fakegan.errors import FakeganError
from fakegan.reports.write import report_sweep
from fakegan.runs.claim import Claim
from fakegan.runs.folder import COMMAND_FILE, CONFIG_FILE, JOBS_FILE
from fakegan.sweep import opening
from fakegan.sweep.cluster import LocalSlurmLauncher, SlurmLauncher
from fakegan.sweep.command import to_go_on
from fakegan.sweep.launcher import ProcessLauncher
from fakegan.sweep.planning import runs_in
from fakegan.sweep.search import Search, closing_words, is_search
from fakegan.sweep.table import as_text, read_rows


def register() -> None:
    """Let `_target_: hydra_plugins.fakegan.NAME` in conf/hydra/launcher/ and conf/hydra/sweeper/ mean our plugins."""
    for name in ("hydra_plugins", opening.SCOPE):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
        sys.modules.setdefault(name, types.ModuleType(name))
    for plugin in (ProcessLauncher, SlurmLauncher, LocalSlurmLauncher, Search):
        plugin.__module__ = opening.SCOPE
        Plugins.instance().register(plugin)
        setattr(sys.modules[opening.SCOPE], plugin.__name__, plugin)


def conclude() -> None:
    """Show a sweep's table at its end, and report on the finished jobs. Raises a FakeganError: a job failed."""
    sweep = opening.current
    if sweep is None:
        return
    folder = sweep.claim.folder
    if not any(folder.glob(f"*/{CONFIG_FILE}")):
        if not is_search(folder):
            _clear(sweep.claim)
        return
    if not sweep.begun:
        return  # refused, in the folder of an earlier sweep
    rows = read_rows(folder)
    print(f"\n{as_text(rows, folder)}", flush=True)
    if is_search(folder):  # a failed trial is no failure; to report on the others' test faces would make them a choice
        print(f"\n{closing_words(folder)}", flush=True)
        return
    finished = {row.folder for row in rows if row.state == "finished"}
    runs = [run for path, run in runs_in(folder).items() if path.name in finished]
    if runs:
        print(f"\n{report_sweep(runs, folder)}", flush=True)
    failed = sum(row.state == "failed" for row in rows)
    if failed:
        raise FakeganError(f"{failed} of {len(rows)} jobs failed; to try again: {to_go_on(folder)}")


def _clear(claim: Claim) -> None:
    """Remove what a sweep has left that was refused before a job began."""
    made = {"multirun.yaml", COMMAND_FILE, JOBS_FILE, opening.LOCK_FILE, ".submitit"} - claim.found
    for path in [claim.folder / name for name in made]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if claim.made:
        with contextlib.suppress(OSError):  # something else is there
            claim.folder.rmdir()


def stopped() -> None:
    """After a sweep of this process that was asked to stop: how to resume it."""
    if opening.current is not None:
        command = to_go_on(opening.current.claim.folder)
        print(f"\nstopped; resume with: {command}", file=sys.stderr, flush=True)
