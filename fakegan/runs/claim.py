"""The folder of a run, as this process made or found it; given up without harm where the run comes to nothing.

Several commands may want one folder at the same moment. The one that writes config.yaml there has it, and no command
removes anything but what it has made itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
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


@dataclass
class Claim:
    """A run's folder as this process met it."""

    folder: Path
    made: bool  # by this process
    found: frozenset[str] = frozenset()  # what lay there before
    began: bool = False  # this process has written config.yaml there, so that no other has begun a run

    @classmethod
    def on(cls, wanted: Path, automatic: bool) -> Claim:
        """Make a run's folder, or find it; an automatic one that is there is another's, and gets a number behind it."""
        if automatic:
            return cls(new_folder(wanted), made=True)
        try:
            wanted.mkdir(parents=True)
        except FileExistsError:
            return cls(wanted, made=False, found=frozenset(path.name for path in wanted.iterdir()))
        return cls(wanted, made=True)

    def give_up(
        self,
        refused: bool,  # for what it asks; else it failed
    ) -> None:
        """Remove what this process made, where the run has come to nothing and no other process works on it."""
        with contextlib.suppress(OSError), self._held() as is_ours:
            new = [path for path in self.folder.iterdir() if path.name not in self.found]
            if is_ours and _hold_nothing(new, refused):
                for path in filter(_is_of_a_run, new):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.made:
            with contextlib.suppress(OSError):  # not empty: it has become another's, or has something to show
                self.folder.rmdir()

    @contextlib.contextmanager
    def _held(self) -> Iterator[bool]:
        """Whether the run is this process's alone, and stays so within."""
        if not self.began:
            yield False
            return
        lock = filelock.FileLock(self.folder / LOCK_FILE)
        with contextlib.suppress(filelock.Timeout):  # another goes on with it
            lock.acquire(timeout=0)
        try:
            yield lock.is_locked
        finally:
            lock.release()


def _is_of_a_run(path: Path) -> bool:
    """Whether a run may have made this before it has saved a network."""
    names = {CONFIG_FILE, STATUS_FILE, FACES_FILE, JOB_FILE, LOCK_FILE, AUTOENCODER_FOLDER, CLASSIFIER_FOLDER}
    return path.name in names or path.match("process_*.log")


def _hold_nothing(paths: list[Path], refused: bool) -> bool:
    """Whether a run has come to nothing: no network was saved, or not even a stage begun."""
    if refused:
        inside = [below for path in paths for below in (path, *path.rglob("*"))]
        return not any(path.suffix in {".ckpt", ".pt"} for path in inside)
    return all(path.name in {CONFIG_FILE, STATUS_FILE} or path.suffix in {".lock", ".log"} for path in paths)


def has_clock(node: DictConfig) -> bool:
    """Whether the name of hydra.run.dir or hydra.sweep.dir has a clock in it: another name means the same then."""
    return "${now:" in OmegaConf.to_yaml(OmegaConf.masked_copy(node, ["dir"]))


class Claiming(Callback):
    """What Hydra calls before it makes the folder of a run."""

    claim: ClassVar[Claim | None] = None  # of this process's run; None: it is another process's to look after

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder; only the first process of a run does, whose folder is that of all."""
        wanted = Path(config.hydra.run.dir).absolute()
        if ranks.started() > 1 and os.environ["RANK"] != "0":
            wanted = Path()
        else:
            with contextlib.suppress(OSError):  # Hydra meets the same error, and says it
                Claiming.claim = Claim.on(wanted, has_clock(config.hydra.run) and not config.get("resume"))
                wanted = Claiming.claim.folder
        with read_write(config.hydra.run):
            config.hydra.run.dir = str(wanted)
