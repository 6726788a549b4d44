"""What the commands `python -m fakegan.NAME` share: their words, exit codes, one sentence for what goes wrong."""

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


def begin() -> None:
    """What every command does first, so that where it is started does not matter.

    A notebook's `!python` inherits the notebook's way of drawing, which only works there: matplotlib, which Lightning
    imports, would fail. A terminal that has not all letters is given others in place of an end. Code of the user's own
    beside his data is found.
    """
    os.environ["MPLBACKEND"] = "agg"
    log.begin()
    own_code.find()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Parser(argparse.ArgumentParser):
    """Whose errors are ours: one sentence, exit code 2; with --version."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_argument("--version", action="version", version=f"FakeGAN {fakegan.__version__}")

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{message} (see --help)")


def at_least(lowest: int) -> Callable[[str], int]:
    """The type of an argument: a whole number from `lowest`."""

    def number(text: str) -> int:
        value = int(text)
        if not lowest <= value < 2**63:  # torch takes no larger seed
            raise argparse.ArgumentTypeError(f"{text} is not a number from {lowest} to below 2^63")
        return value

    return number


def add_max_megapixels(parser: argparse.ArgumentParser) -> None:
    """The option that a picture above the limit is refused with; prepare and predict have the same."""
    most = Geometry().max_megapixels
    parser.add_argument(
        "--max-megapixels",
        type=at_least(1),
        default=most,
        metavar="N",
        help=f"refuse larger pictures ({most}); one takes some 4 MB a megapixel while it is read, as WebP 16",
    )


def path(text: str) -> Path:
    """The type of an argument: a path, its ~ expanded; the shell leaves that of `--out=~/faces` alone."""
    try:
        return Path(expanded(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def new_path(text: str) -> Path:
    """The type of an argument: a path to write to, such as a run can name later."""
    if "${" in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise argparse.ArgumentTypeError(f"{text!r:.100} holds a control character or ${{, which no run can name")
    return path(text)


def run(
    name: str,  # the command's: predict
    task: Callable[[list[str]], int],  # takes the words behind the command, returns the exit code
    arguments: Sequence[str] | None,  # None: those of this process, which a SIGTERM may then stop
    stopped: str,  # what is left behind then, as a sentence
) -> int:
    """The exit code: the task's, 1 failure, 2 usage, 130 and 143 stopped. FAKEGAN_DEBUG=1 shows the trace."""
    begin()
    words = sys.argv[1:] if arguments is None else list(arguments)
    again = f"{called(name)} {shlex.join(words)}"
    goodbye = f"\nStopped: {stopped} Start again with: {again}"

    def part(_code: object) -> None:
        print(goodbye, file=sys.stderr)

    try:
        with signals.before_exit(part), signals.stop_over_error():
            signals.raise_from_now_on()  # what is half made is removed
            code = task(words)
        sys.stdout.flush()  # a full disk shows here, not at exit
        return code
    except FakeganError as error:
        if os.environ.get("FAKEGAN_DEBUG"):
            raise
        said = error.in_options() if isinstance(error, UntrustedError) else error
        print(f"{shown(name)}: {said}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, such as head, has seen enough
        discard_stdout()
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written
        if os.environ.get("FAKEGAN_DEBUG"):
            raise
        print(f"{shown(name)}: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        discard_stdout()
        return FakeganError.exit_code
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not signals.requested_stop():  # --help, say
            raise
        part(stop)
        return 128 + (signals.requested_stop() or signal.SIGINT)


def discard_stdout() -> None:
    """What is still unwritten goes nowhere, so that flushing at exit does not fail again."""
    with contextlib.suppress(OSError, ValueError):  # a test's stdout has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
