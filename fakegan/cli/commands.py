"""What the commands `python -m fakegan.NAME` share: types of arguments, exit codes, one sentence for an error."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import signal
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import fakegan
from fakegan.data.images import Geometry
from fakegan.errors import FakeganError, UntrustedError, UsageError
from fakegan.system import log, own_code, signals
from fakegan.system.places import shown
from fakegan.system.shell import called, expanded

QUIET = ("-q", "--quiet")


def begin() -> None:
    """The first call of every command: it makes the command independent of where it is started.

    A notebook's `!python` inherits the notebook's way of drawing, with which matplotlib, and so Lightning, would fail.
    Letters that the terminal does not have are escaped. Code of the user's own in the working directory is found.
    """
    os.environ["MPLBACKEND"] = "agg"
    log.begin()
    own_code.find()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Quiet(argparse.Action):
    def __call__(self, *_: object) -> None:
        log.begin(quiet=True)


class Parser(argparse.ArgumentParser):
    """A parser with --version and -q, whose error is one sentence with exit code 2; options are written in full."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"FakeGAN {fakegan.__version__}")
        self.add_argument(*QUIET, action=_Quiet, nargs=0, help="show only warnings, errors and the result")

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{message} (--help explains every argument)")


def at_least(
    lowest: int,
    most: int = 2**63 - 1,  # torch takes no larger seed
) -> Callable[[str], int]:
    """The type of an argument: a whole number from `lowest` to `most`."""

    def number(text: str) -> int:
        with contextlib.suppress(ValueError):
            if lowest <= (value := int(text)) <= most:
                return value
        bounds = f"from {lowest} to {'below 2^63' if most == 2**63 - 1 else most}"
        raise argparse.ArgumentTypeError(f"{text} is not a whole number {bounds}")

    return number


def share(text: str) -> float:
    """The type of an argument: a number from 0 to 1."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")


def add_max_megapixels(parser: argparse.ArgumentParser, most: int = Geometry().max_megapixels) -> None:
    """Add the option for the largest picture that is read."""
    parser.add_argument(
        "--max-megapixels",
        type=at_least(1),
        default=most,
        metavar="N",
        help=f"refuse larger pictures ({most}); one takes some 4 MB a megapixel while it is read, as WebP 16",
    )


def path(text: str) -> Path:
    """The type of an argument: a path; its ~ is the home folder, which the shell does not expand in `--out=~/faces`."""
    try:
        return Path(expanded(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def new_path(text: str) -> Path:
    """The type of an argument: a path to write to, which a run can name later."""
    if "${" in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise argparse.ArgumentTypeError(f"{text!r:.100} holds a control character or ${{, which no run can name")
    return path(text)


def run(
    name: str,  # of the command: predict
    task: Callable[[list[str]], int],  # takes the command's arguments, returns the exit code
    arguments: Sequence[str] | None,  # None: this process's, which a SIGTERM may then stop
    stopped: str,  # a sentence about the files that a stop leaves
) -> int:
    """The exit code: the task's, 1 failure, 2 usage, 130 and 143 stopped. FAKEGAN_DEBUG=1 shows the trace."""
    begin()
    argv = sys.argv[1:] if arguments is None else list(arguments)

    def say_stopped(_code: object) -> None:
        print(f"\nStopped: {stopped} Start again with: {called(name)} {shlex.join(argv)}", file=sys.stderr)

    try:
        with signals.before_exit(say_stopped), signals.stop_over_error():
            signals.raise_from_now_on()  # unfinished files are removed
            code = task(argv)
        sys.stdout.flush()  # a full disk shows here, not at exit
        return code
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        discard_stdout()
        return 1
    except (FakeganError, OSError) as error:
        if os.environ.get("FAKEGAN_DEBUG"):
            raise
        if isinstance(error, OSError):  # a full disk, a folder that cannot be written
            discard_stdout()
            error = FakeganError(f"{error.filename or 'the output'}: {error.strerror or error}")
        sentence = error.with_options() if isinstance(error, UntrustedError) else error
        print(f"{shown(name)}: {sentence}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not signals.requested_stop():  # of --help, for one
            raise
        say_stopped(stop)
        return 128 + (signals.requested_stop() or signal.SIGINT)


def discard_stdout() -> None:
    """Discard unwritten output, so that flushing at exit does not fail again."""
    with contextlib.suppress(OSError, ValueError):  # a test's stdout has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
