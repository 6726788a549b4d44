"""How a sweep begins: may it? Then its folder is made and locked, and its command written down."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fakegan.config.overrides import to_hydra
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.claim import Claim, has_clock
from fakegan.runs.compose import errors_as_sentences
from fakegan.runs.folder import CONFIG_FILE
from fakegan.sweep.command import is_sweep, keep_command, to_go_on
from fakegan.sweep.each import with_each_source
from fakegan.system import ranks, reply
from fakegan.system.shell import CONFIG_DIR, command, expanded, local_path

LOCK_FILE = ".sweep.lock"
SCOPE = "hydra_plugins.fakegan"  # Hydra takes plugins from no other namespace


@dataclass
class Sweep:
    """The sweep that this process runs."""

    claim: Claim  # its folder
    lock: filelock.BaseFileLock  # held until this process ends
    each_fake: bool = False  # its jobs differ in the generators that they learn from
    begun: bool = False  # jobs were launched, or none was left to launch: there is something to show at the end


# Hydra makes the callback, the sweeper and the launcher itself, and hands them nothing of ours: here they meet.
current: Sweep | None = None


def mark_begun() -> None:
    """Note that this process's sweep was not refused."""
    if current is not None:
        current.begun = True


class Opening(Callback):
    """Hydra's first call in a sweep."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Open the sweep. Where it may not begin, the process ends with a sentence."""
        global current  # noqa: PLW0603
        with errors_as_sentences():  # Hydra would make a warning of an error
            if reply.wanted():
                raise UsageError(f"this is a sweep, not one run: it is a command, {command('train.py', *sys.argv[1:])}")
            _check_plugins(config.hydra)
            each_fake = "each(fake)" in OmegaConf.to_yaml(config.hydra)
            _take_sources(config)
            resume, folder = config.get("resume"), Path(config.hydra.sweep.dir).absolute()
            _check_command(resume, config.hydra.overrides.task)
            automatic = has_clock(config.hydra.sweep) and not resume
            if not automatic:
                _check_folder(folder, resume)
            claim = Claim.on(folder, automatic)
            with read_write(config.hydra.sweep):  # another name, where one of an automatic folder was taken
                config.hydra.sweep.dir = str(claim.folder)
            lock = _locked(claim.folder)
            _check_folder(claim.folder, resume)  # again: another command may have held it in between
            if not is_sweep(claim.folder):
                keep_command(claim.folder, sys.argv)
            current = Sweep(claim, lock, each_fake)


def _check_plugins(hydra: DictConfig) -> None:
    """Check who launches the jobs, and let what is swept be any option, as the words of the command may.

    Raises:
        UsageError: another launcher than FakeGAN's, or hydra.sweeper.params is no table.
    """
    if not str(hydra.launcher._target_).startswith(f"{SCOPE}."):
        chosen = hydra.runtime.choices["hydra/launcher"]
        raise UsageError(
            f"hydra/launcher={chosen} cannot run FakeGAN's jobs: choose processes (the default), slurm or slurm_local"
        )
    params = hydra.sweeper.get("params")
    if params is not None and not isinstance(params, DictConfig):
        raise UsageError(f"hydra.sweeper.params={params!r} must be keys and values: leave it out, or params.KEY=1,2")
    if params:
        swept = {to_hydra(f"{key!s}=")[:-1]: values for key, values in params.items()}
        with read_write(hydra.sweeper), open_dict(hydra.sweeper):  # a sweeper reads them from there
            hydra.sweeper.params = swept


def _take_sources(config: DictConfig) -> None:
    """Put the sources of the store in place of each(fake) and each(real) in what is swept; raises a FakeganError."""
    hydra, root = config.hydra, None if OmegaConf.is_missing(config.data, "root") else config.data.root
    data = (str(config.data.name), None if root is None else Path(expanded(str(root))).absolute())
    split = OmegaConf.select(config, "data.split") or {}

    def expand(key: str, values: str) -> str:
        """The values of a key, or a whole override."""
        roles = ("autoencoder_sources", "unseen") if "learn_from" in key else ("autoencoder_sources",)
        return with_each_source(values, *data, taken=[name for role in roles for name in split.get(role) or ()])

    with read_write(hydra), open_dict(hydra):
        for key, values in (hydra.sweeper.get("params") or {}).items():
            hydra.sweeper.params[key] = expand(key, values) if isinstance(values, str) else values
        hydra.overrides.task = [expand(override.partition("=")[0], override) for override in hydra.overrides.task]


def _check_command(
    resume: object,
    overrides: Sequence[str],  # as typed, those with several values among them
) -> None:
    if ranks.launched() > 1:
        raise UsageError("a sweep starts the processes of its jobs by itself: start it without torchrun or srun")
    several = [o for o in overrides if o.startswith("resume=") and not isinstance(resume, bool)]
    if several:
        raise UsageError(f"{several[-1]} resumes one run, without -m; resume=true resumes a sweep")


def _check_folder(folder: Path, resume: object) -> None:
    there = is_sweep(folder) or any(folder.glob(f"*/{CONFIG_FILE}"))
    if resume and not there:
        raise UsageError(f"{local_path(folder)} holds no sweep to resume: name its folder with hydra.sweep.dir=DIR")
    if resume and is_sweep(folder) and not _chosen(sys.argv[1:]) and _chosen(shlex.split(to_go_on(folder))[2:]):
        raise UsageError(f"resume=true needs the sweep's own overrides beside it: {to_go_on(folder)}")
    if there and not resume:
        raise UsageError(
            f"{local_path(folder)} holds a sweep already: add resume=true to resume it, or name another folder"
        )


def _chosen(argv: Sequence[str]) -> list[str]:
    """A command's overrides that say what is run, rather than where and how."""
    where = ("resume=", "hydra.sweep.", "hydra.launcher.", "hydra/launcher=", CONFIG_DIR)
    return [argument for argument in argv if "=" in argument and not argument.startswith(where)]


def _locked(folder: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FakeganError(
            f"{local_path(folder)}: another process runs this sweep; stop it, or let it finish"
        ) from None
    return lock
