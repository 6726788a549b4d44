"""A function of a composed config as a command: signals, exit codes, --help, sweeps, and folders left tidy."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import fakegan
from fakegan.cli import usage
from fakegan.cli.commands import QUIET, begin, discard_stdout
from fakegan.cli.start import run_folder, to_resume
from fakegan.config.options import options
from fakegan.config.overrides import hydra_argv
from fakegan.config.typed import flat
from fakegan.errors import AlreadyReportedError, FakeganError, UsageError
from fakegan.runs.claim import Claiming, give_up
from fakegan.runs.compose import SETTINGS, check_keys, composed, errors_as_sentences, folders, known, register_resolvers
from fakegan.runs.folder import CONFIG_FILE
from fakegan.sweep import lifecycle
from fakegan.system import log, own_code, processes, signals
from fakegan.system.places import CONF
from fakegan.system.shell import config_dir

_BY_SIGNAL = {128 + number for number in processes.STOP_SIGNALS}  # exit codes; a job that SLURM resumes has another


def entry_point(
    name: str,
    sweeps: bool = False,  # it has -m, for many runs
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a function of conf/NAME.yaml a command: errors become one sentence and an exit code, never a stack trace.

    Exit codes: 2 for a wrong command, 1 for a failure, 130 for Ctrl-C, 143 for SIGTERM, 75 where SLURM has
    requeued the job. FAKEGAN_DEBUG=1 shows the trace.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def command() -> Any:
            begin()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra lets errors through instead of printing them
            register_resolvers()
            processes.end_with_parent()
            if sweeps:
                lifecycle.register()
            with errors_as_sentences():
                processes.unblock_signals()
                _rewrite_argv()
                shown = _shown(name, sys.modules[task.__module__].__doc__ or "", sweeps)
            if shown is not None:
                return _print(shown)
            run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(
                functools.wraps(task)(functools.partial(_run, task))
            )
            before_exit = signals.before_exit(_stopped if sweeps else lambda _: None)
            with errors_as_sentences(), processes.ignore_signals_after(), before_exit:
                return _concluded(run) if sweeps else run()

        return command

    return decorate


def _rewrite_argv() -> None:
    """Hydra's parser reads sys.argv itself, so the arguments that it would misread are rewritten there.

    -q is not Hydra's; -m is known to it only before the overrides.
    """
    if set(QUIET) & set(sys.argv[1:]):
        log.begin(quiet=True)
    sweep = ["-m"] if "-m" in sys.argv[1:] else []
    sys.argv[1:] = hydra_argv([*sweep, *(argument for argument in sys.argv[1:] if argument not in {"-m", *QUIET})])
    _options, rest = get_args_parser().parse_known_args([a for a in sys.argv[1:] if a != "--version"])  # it would exit
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown:  # argparse would print all of Hydra's options
        raise UsageError(f"{unknown[0]} is no option: config keys are written KEY=VALUE, without dashes; see --help")
    own_code.find_beside(config_dir(sys.argv[1:]))


def _shown(name: str, about: str, sweeps: bool) -> str | None:
    """The text that --version or --help asks for; None where neither is given."""
    if "--version" in sys.argv[1:]:
        return f"FakeGAN {fakegan.__version__}"
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return None
    typed = [word for word in sys.argv[1:] if ("=" in word.lstrip("-") and not word.startswith("-")) or word[:1] == "~"]
    overrides = [o for o in OverridesParser.create().parse_overrides(typed) if not o.is_sweep_override()]
    given = [override.input_line or "" for override in overrides]
    cfg = composed(name, given)
    plain = known(cfg)
    hydras = dict(flat({"hydra": plain.pop("hydra")}))
    check_keys(SETTINGS[name], plain, [override.partition("=")[0].lstrip("+") for override in given])
    stated, choices = list(options(SETTINGS[name], plain)), dict(cfg.hydra.runtime.choices)
    return usage.usage(about, name, folders(), stated, choices, hydras, sweeps)


def _print(text: str) -> None:
    """Print a text that a reader such as head may not read to its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def _run(task: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    """Run the task; a run that comes to nothing leaves no folder, a run that is stopped says how to resume it."""
    with errors_as_sentences():
        try:
            with signals.before_exit(_leave_run), signals.stop_over_error():
                return task(cfg)
        except FakeganError as error:
            give_up(refused=error.exit_code == UsageError.exit_code)
            raise
        except (KeyboardInterrupt, SystemExit) as stop:
            _leave_run(getattr(stop, "code", 130))  # a KeyboardInterrupt has none
            raise


def _leave_run(code: object) -> None:
    run_dir = run_folder() or Path(HydraConfig.get().runtime.output_dir)
    # A child's parent prints the command; evaluate.py has no run to resume, and ranks other than 0 are silent.
    silent = processes.is_child() or Claiming.claim is None
    if not (run_dir / CONFIG_FILE).is_file():
        give_up()
    elif code in _BY_SIGNAL and not silent:
        print(f"\nstopped; resume with: {to_resume(run_dir)}", file=sys.stderr, flush=True)


def _concluded(run: Callable[[], Any]) -> Any:
    """The result of a run or a sweep; a sweep ends with its table and report, even where a job has failed."""
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
        _stopped(getattr(stop, "code", 130))  # a KeyboardInterrupt has none
        raise
    lifecycle.conclude()
    return result


def _stopped(code: object) -> None:
    if code in _BY_SIGNAL:
        lifecycle.stopped()  # says how to resume the sweep
