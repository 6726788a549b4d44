"""A function that takes a composed config as a command: signals, exit codes, --help, sweeps, folders left tidy."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import fakegan
from fakegan.cli import usage
from fakegan.cli.commands import begin, discard_stdout
from fakegan.cli.start import give_up, to_go_on
from fakegan.config.options import options
from fakegan.config.overrides import hydra_argv
from fakegan.config.typed import flat
from fakegan.errors import AlreadyReportedError, FakeganError, UsageError
from fakegan.runs.claim import Claiming
from fakegan.runs.compose import SETTINGS, check_keys, folders, known, errors_as_sentences, register_resolvers, searched
from fakegan.runs.folder import CONFIG_FILE
from fakegan.sweep import lifecycle
from fakegan.system import own_code, processes, signals
from fakegan.system.places import CONF
from fakegan.system.shell import config_dir


def entry_point(
    name: str,
    sweeps: bool = False,  # it has -m, for many runs
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a function of conf/NAME.yaml a command: errors become one sentence and an exit code, never a stack trace.

    2 for what the command asks wrongly, 1 for what fails, 130 for Ctrl-C. FAKEGAN_DEBUG=1 shows the trace.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def command() -> Any:
            begin()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us instead of Hydra's own printing
            register_resolvers()
            if "-m" in sys.argv[2:]:  # Hydra's parser takes it before the words only
                sys.argv.remove("-m")
                sys.argv.insert(1, "-m")
            processes.end_with_parent()
            if sweeps:
                lifecycle.register()
            with errors_as_sentences():
                processes.unblock_signals()
                sys.argv[1:] = hydra_argv(sys.argv[1:])
                own_code.find_beside(config_dir(sys.argv[1:]))
            if "--version" in sys.argv[1:]:
                _say(f"FakeGAN {fakegan.__version__}")
                return None
            if {"--help", "-h"} & set(sys.argv[1:]):
                with errors_as_sentences():
                    _say(_help(name, sys.modules[task.__module__].__doc__ or "", sweeps))
                return None
            composed = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
            farewell = signals.before_exit(_stopped if sweeps else lambda _: None)
            with errors_as_sentences(), processes.ignore_signals_after(), farewell:
                run = composed(functools.wraps(task)(functools.partial(_tidy, task)))
                return _concluded(run) if sweeps else run()

        return command

    return decorate


def _help(name: str, about: str, sweeps: bool) -> str:
    """The text of --help, by the words beside it; one with several values is left out."""
    typed = [word for word in sys.argv[1:] if ("=" in word.lstrip("-") and not word.startswith("-")) or word[:1] == "~"]
    given = [o.input_line or "" for o in OverridesParser.create().parse_overrides(typed) if not o.is_sweep_override()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, [*given, *searched()], return_hydra_config=True)
    plain = known(cfg)
    hydras = dict(flat({"hydra": plain.pop("hydra")}))
    check_keys(SETTINGS[name], plain, [o.partition("=")[0].lstrip("+") for o in given])
    stated = list(options(SETTINGS[name], plain))
    return usage.usage(about, name, folders(), usage.Composed(stated, dict(cfg.hydra.runtime.choices), hydras), sweeps)


def _say(text: str) -> None:
    """Print it; whoever reads it may close the pipe in its middle."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def _concluded(run: Callable[[], Any]) -> Any:
    """What `run` returns; a failed job of a sweep does not cost the others their report."""
    try:
        result = run()
    except (FakeganError, HydraException, OmegaConfBaseException) as error:
        try:
            lifecycle.conclude()
        except (FakeganError, OSError):
            if isinstance(error, AlreadyReportedError):
                raise
        raise error
    except (KeyboardInterrupt, SystemExit) as stop:
        _stopped(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
        raise
    lifecycle.conclude()
    return result


def _stopped(code: object) -> None:
    """A stopped sweep says how to go on."""
    if code in {128 + number for number in processes.STOP_SIGNALS}:
        lifecycle.stopped()


@errors_as_sentences()  # within Hydra, which would print of its own about an error
def _tidy(task: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """Run the task; one that comes to nothing leaves no folder, one that is stopped says how to go on."""
    try:
        with signals.before_exit(_part), signals.stop_over_error():
            return task(cfg)
    except FakeganError as error:
        give_up(refused=error.exit_code == UsageError.exit_code)
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        _part(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
        raise


def _part(code: object) -> None:
    """A run that is stopped says how to go on; one that has not begun leaves no folder."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)  # another one, where SLURM has started its job again
    told = processes.is_child()  # by the process that started it
    told |= Claiming.claim is None  # evaluate.py, or another process of the run than the first
    for_good = code in {128 + number for number in processes.STOP_SIGNALS}  # SLURM itself goes on with what it requeued
    if not (run_dir / CONFIG_FILE).is_file():
        give_up()
    elif for_good and not told:
        print(f"\nstopped; go on with: {to_go_on(run_dir)}", file=sys.stderr, flush=True)
