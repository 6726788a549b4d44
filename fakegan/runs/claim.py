"""The folder of a run, as this process made or found it, and how it is given up when the run comes to nothing.

Several commands may want one folder at the same moment. The command that writes config.yaml there has it, and no
command removes a file that it has not made itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import filelock
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from fakegan.runs.folder import (
    AUTOENCODER_FOLDER,
    CLASSIFIER_FOLDER,
    CONFIG_FILE,
    FACES_FILE,
    JOB_FILE,
    LOCK_FILE,
    STATUS_FILE,
)
from fakegan.system import ranks
from fakegan.system.files import new_folder

# A run may have made these before it has saved a network.
_OF_A_RUN = {CONFIG_FILE, STATUS_FILE, FACES_FILE, JOB_FILE, LOCK_FILE, AUTOENCODER_FOLDER, CLASSIFIER_FOLDER}
log = logging.getLogger(__name__)


@dataclass
class Claim:
    """A run's folder as this process met it."""

    folder: Path
    made: bool  # by this process
    found: frozenset[str] = frozenset()  # names in it before this process
    began: bool = False  # this process has written config.yaml there, so no other process has begun a run

    @classmethod
    def on(cls, wanted: Path, automatic: bool) -> Claim:
        """Make a run's folder, or find it; an automatic name that another run has taken gets a number behind it."""
        if automatic:
            return cls(new_folder(wanted), made=True)
        try:
            wanted.mkdir(parents=True)
        except FileExistsError:
            return cls(wanted, made=False, found=frozenset(path.name for path in wanted.iterdir()))
        return cls(wanted, made=True)

    def give_up(
        self,
        refused: bool,  # the run asks for something impossible; else it failed
    ) -> None:
        """Remove the files that this process made, if the run has come to nothing and no other process works on it."""
        lock = filelock.FileLock(self.folder / LOCK_FILE)
        with contextlib.suppress(OSError, filelock.Timeout):  # a timeout: another process resumes the run
            if self.began:
                with lock.acquire(timeout=0):
                    new = [path for path in self.folder.iterdir() if path.name not in self.found]
                    for path in new if _hold_nothing(new, refused) else ():
                        if path.name in _OF_A_RUN or path.match("process_*.log"):
                            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.made:
            with contextlib.suppress(OSError):  # not empty: another process uses it, or a result lies in it
                self.folder.rmdir()


def _hold_nothing(paths: list[Path], refused: bool) -> bool:
    """Whether a run has come to nothing: a refused one has saved no network, a failed one has begun no stage."""
    if refused:
        inside = [below for path in paths for below in (path, *path.rglob("*"))]
        return not any(path.suffix in {".ckpt", ".pt"} for path in inside)
    return all(path.name in {CONFIG_FILE, STATUS_FILE} or path.suffix in {".lock", ".log"} for path in paths)


def has_clock(node: DictConfig) -> bool:
    """Whether hydra.run.dir or hydra.sweep.dir has a clock in its name, so that any other name would do as well."""
    return "${now:" in OmegaConf.to_yaml(OmegaConf.masked_copy(node, ["dir"]))


class Claiming(Callback):
    """Hydra calls this before it makes the folder of a run."""

    claim: ClassVar[Claim | None] = None  # of this process's run; None: another process looks after the folder

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder in rank 0, for all processes of the run."""
        wanted = Path(config.hydra.run.dir).absolute()
        if ranks.launched() > 1 and os.environ["RANK"] != "0":
            wanted = Path()
        else:
            _note_protocol(config)
            with contextlib.suppress(OSError):  # Hydra meets the same error and reports it
                Claiming.claim = Claim.on(wanted, has_clock(config.hydra.run) and not config.get("resume"))
                wanted = Claiming.claim.folder
        with read_write(config.hydra.run):  # Hydra makes the folder of that name next
            config.hydra.run.dir = str(wanted)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep's jobs claim their folders by themselves."""
        _note_protocol(config)


def _note_protocol(config: DictConfig) -> None:
    choices = config.hydra.runtime.choices
    if choices.get("protocol") == "study" and choices.budget != "paper":
        log.info(f"protocol=study changes nothing with budget={choices.budget}: budget=paper has the study's settings")


def give_up(refused: bool = True) -> None:
    """Give up the folder that this process has claimed for a run, if it has claimed one."""
    if Claiming.claim is not None:
        Claiming.claim.give_up(refused)
