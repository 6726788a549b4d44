"""train.py and its config, called by a Python program: what fakegan.train and fakegan.compose do."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fakegan.config.overrides import hydra_argv
from fakegan.config.typed import to_mapping
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.compose import HYDRAS_ERRORS, explain, of_hydra, register_resolvers, searched, settings_of
from fakegan.runs.folder import METRICS_FILE
from fakegan.runs.results import read_metrics
from fakegan.runs.settings import RunSettings
from fakegan.system import own_code, places, processes, reply
from fakegan.system.shell import CONFIG_DIR, config_dir, word

if TYPE_CHECKING:  # torch takes seconds to import
    from fakegan.detector import Detector

_IN_A_RUN = "known in a run"  # the folder of one that has not begun


@dataclass(frozen=True)
class Run:
    """A run that `fakegan.train` has finished."""

    folder: Path
    metrics: dict[str, Any] = field(repr=False)  # metrics.json

    def detector(self, device: str = "auto", trust: Sequence[str] = ()) -> Detector:
        """Its detector, as `fakegan.load` gives it.

        Raises:
            FakeganError: it trained an autoencoder only.
        """
        import fakegan

        return fakegan.load(self.folder, device, trust)


def train(*words: str) -> Run:
    """Run train.py with these words in a process of its own, to its end; its output appears as this program's.

    Raises:
        UsageError: words that train.py refuses, several runs among them.
        FakeganError: the run failed, for the reason that it says.
        KeyboardInterrupt: Ctrl-C, or a notebook's stop: the run has saved, and it was said how to go on.
    """
    for given in words:
        if not isinstance(given, str):
            raise UsageError(f"{given!r:.100} is no word: train takes texts such as 'model=autogan1'")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "reply.json"
        code = _follow([sys.executable, str(places.script("train")), *words], {reply.VARIABLE: str(answer)})
        said = reply.read(answer)
    if code == 0 and "folder" in said:
        run_dir = Path(said["folder"])
        return Run(run_dir, read_metrics(run_dir / METRICS_FILE))
    if code == 0:
        raise UsageError(f"{' '.join(words)}: no run was started; give words such as 'model=autogan1'")
    again = f"; go on with fakegan.train({word('resume', Path(said['folder']))!r})" if "folder" in said else ""
    if code in {128 + signal.SIGINT, -signal.SIGINT}:
        raise KeyboardInterrupt(f"stopped{again}")
    kind = UsageError if code == UsageError.exit_code else FakeganError
    raise kind(said.get("error") or f"training ended with exit code {code}, and what it printed says why{again}")


def _follow(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command, show its output as this program's, pass Ctrl-C on to it; returns its exit code."""
    found = os.pathsep.join(path or os.getcwd() for path in sys.path)  # code of the user's own, as this program has it
    with _output() as (write_end, show):
        child: subprocess.Popen[bytes] | None = None
        while True:
            try:
                if child is None:
                    with processes.block_signals():  # so that no child is left unknown
                        child = processes.start_child(
                            command, {**os.environ, "PYTHONPATH": found, **environment}, write_end
                        )
                        if write_end is not None:
                            write_end.close()
                show()
                return child.wait()
            except KeyboardInterrupt:  # it saves and ends; it does not hear the terminal's own
                if child is None:
                    raise
                processes.send_signal(child, signal.SIGINT)


def compose(*words: str) -> DictConfig:
    """The config.yaml of the run that train.py would begin with these words; its folder is missing.

    Raises:
        UsageError: words that train.py refuses, or resume: a run that is gone on with has a config.yaml.
    """
    register_resolvers()
    theirs = GlobalHydra.instance().hydra, HydraConfig.instance().cfg  # of a program that uses Hydra itself
    GlobalHydra.instance().clear()
    try:
        meant = hydra_argv(words)
        own_code.find_beside(config_dir(meant))
        plain = [word for word in meant if not word.startswith(CONFIG_DIR)]
        with initialize_config_dir(str(places.CONF), version_base="1.3"):
            cfg = hydra.compose("train", [*plain, *searched(meant)], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # which knows the words, and the choices among them
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        if cfg.get("resume"):
            raise UsageError("resume goes on with a run as its own config.yaml says: read that")
        if OmegaConf.is_interpolation(cfg.paths, "run_dir"):
            cfg.paths.run_dir = _IN_A_RUN
        values = to_mapping(settings_of(RunSettings, cfg))
    except HYDRAS_ERRORS as error:
        if not of_hydra(error):
            raise
        raise UsageError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = theirs  # another GlobalHydra by now
    if values["paths"]["run_dir"] == _IN_A_RUN:
        values["paths"]["run_dir"] = "???"
    return Composed(values)


class Composed(DictConfig):
    """A config that prints as YAML."""

    def __str__(self) -> str:
        return OmegaConf.to_yaml(self)

    __repr__ = __str__


@contextlib.contextmanager
def _output() -> Iterator[tuple[IO[bytes] | None, Any]]:
    """Where a child writes, None for where this process does, and a function that shows it until its end.

    A notebook's sys.stdout, or one that a program has redirected, is no file that a child could write to.
    """
    if sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__:
        for own in filter(None, (sys.stdout, sys.stderr)):
            own.flush()
        yield None, lambda: None
        return
    read_end, write_end = os.pipe()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def show() -> None:
        while content := os.read(read_end, 65_536):
            print(decoder.decode(content), end="", flush=True)

    try:
        with os.fdopen(write_end, "wb") as stream:
            yield stream, show
    finally:
        os.close(read_end)
