"""train.py and its config for a Python program: fakegan.train and fakegan.compose."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fakegan.config.overrides import hydra_argv
from fakegan.config.typed import to_mapping
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.compose import HYDRAS_ERRORS, composed, explain, of_hydra, register_resolvers, settings_of
from fakegan.runs.folder import METRICS_FILE
from fakegan.runs.results import read_metrics
from fakegan.runs.settings import RunSettings
from fakegan.system import own_code, places, processes, reply
from fakegan.system.shell import CONFIG_DIR, as_override, config_dir

if TYPE_CHECKING:  # torch takes seconds to import
    from fakegan.judge import Judge

_UNKNOWN = "known in a run"  # in place of the folder of a run that has not begun


@dataclass(frozen=True)
class Run:
    """A run that `fakegan.train` has finished."""

    folder: Path
    metrics: dict[str, Any] = field(repr=False)  # metrics.json

    def detector(self, device: str = "auto", trust: Sequence[str] = ()) -> Judge:
        """The run's detector, as `fakegan.load` gives it; a FakeganError if it trained an autoencoder only."""
        import fakegan

        return fakegan.load(self.folder, device, trust)


class _PrintedAsYaml(DictConfig):
    def __str__(self) -> str:
        return OmegaConf.to_yaml(self)

    __repr__ = __str__


def train(*arguments: str) -> Run:
    """One run, in a process of its own, to its end: its folder, metrics and detector.

    The arguments are those of `python train.py`: "model=autogan1", "pipeline=classify", "resume=outputs/RUN". Its
    output appears as this program's. Ctrl-C, or a notebook's stop, lets it save first.

    Raises:
        UsageError: arguments that train.py refuses; a sweep, which is more than one run.
        FakeganError: the run failed; the message is the run's.
        KeyboardInterrupt: it was stopped; the message says how to resume it.
    """
    for argument in arguments:
        if not isinstance(argument, str):
            raise UsageError(f"{argument!r:.100} is no text: train takes texts such as 'model=autogan1'")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "reply.json"
        code = _follow([sys.executable, str(places.script("train")), *arguments], {reply.VARIABLE: str(answer)})
        said = reply.read(answer)
    if code == 0 and "folder" in said:
        run_dir = Path(said["folder"])
        return Run(run_dir, read_metrics(run_dir / METRICS_FILE))
    if code == 0:
        raise UsageError(f"{' '.join(arguments)}: no run was started; give overrides such as 'model=autogan1'")
    again = (
        f"; resume it with fakegan.train({as_override('resume', Path(said['folder']))!r})" if "folder" in said else ""
    )
    if code in {128 + signal.SIGINT, -signal.SIGINT}:
        raise KeyboardInterrupt(f"stopped{again}")
    kind = UsageError if code == UsageError.exit_code else FakeganError
    raise kind(said.get("error") or f"training ended with exit code {code}, and its output says why{again}")


def _follow(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit code of a command, whose output appears as this program's and which gets its Ctrl-C.

    A child cannot write to the stdout of a notebook, nor to a stdout that a program has redirected: then it writes to a
    pipe, and this process prints the text that arrives.
    """
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)  # the user's own code, as this program finds it
    variables = {**os.environ, "PYTHONPATH": modules, **environment}
    redirected = sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__
    with contextlib.ExitStack() as files:
        read_end, output = 0, None
        if redirected:
            read_end, write_end = os.pipe()
            files.callback(os.close, read_end)
            output = files.enter_context(os.fdopen(write_end, "wb"))
        for own in filter(None, (sys.stdout, sys.stderr)):
            own.flush()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        child: subprocess.Popen[bytes] | None = None
        while True:
            try:
                if child is None:
                    with processes.block_signals():  # a signal must not come between the start and the assignment
                        child = processes.start_child(command, variables, output)
                        if output is not None:
                            output.close()
                while redirected and (content := os.read(read_end, 65_536)):
                    print(decoder.decode(content), end="", flush=True)
                return child.wait()
            except KeyboardInterrupt:  # the child does not get the terminal's own; it saves and ends
                if child is None:
                    raise
                child.send_signal(signal.SIGINT)


def compose(*overrides: str) -> DictConfig:
    """The config of the run that `train` would begin with these arguments; printed, it is YAML.

    It is the run's config.yaml, but for the run's folder, which is not known before: it is missing (???).

    Raises:
        UsageError: arguments that train.py refuses, or resume: a run that has begun has a config.yaml.
    """
    register_resolvers()
    theirs = GlobalHydra.instance().hydra, HydraConfig.instance().cfg  # of a program that uses Hydra itself
    try:
        argv = hydra_argv(overrides)
        own_code.find_beside(config_dir(argv))
        cfg = composed("train", [argument for argument in argv if not argument.startswith(CONFIG_DIR)], argv)
        HydraConfig.instance().set_config(cfg)  # `settings_of` asks it for the overrides, and for the choices
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        if cfg.get("resume"):
            raise UsageError("resume=DIR takes its own config.yaml: read that file")
        if OmegaConf.is_interpolation(cfg.paths, "run_dir"):
            cfg.paths.run_dir = _UNKNOWN
        values = to_mapping(settings_of(RunSettings, cfg))
    except HYDRAS_ERRORS as error:
        if not of_hydra(error):
            raise
        raise UsageError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = theirs
    if values["paths"]["run_dir"] == _UNKNOWN:
        values["paths"]["run_dir"] = "???"
    return _PrintedAsYaml(values)
