"""Signals that ask to stop, from a command's first moment on: none is lost in a library, none ends in a trace.

Python turns a signal into an exception wherever it happens to be, and there are places that do not let it out: the
callback with which an import lets go of its module's lock, and every other callback from C; OmegaConf, whose nodes it
leaves half changed, so that another error comes of it. So a signal ends the process at once while there is nothing
to be undone. Later it raises, and is noted: `raise_if_stopped` stops what a library has let go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn


@dataclass
class _State:
    """Of this process."""

    asked: int = 0  # the signal that asked to stop
    at_once: bool = False  # it ends the process there and then: nothing has to be undone
    parting: Callable[[int], None] | None = None  # what is said, and tidied, before that


_state = _State()


def begin() -> None:
    """A command's first call, before it loads what takes long: it says so on a terminal, and can be stopped."""
    _state.at_once = True
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background of a script it is ignored
        signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = _unraisable
    if sys.stderr.isatty() and not {"--help", "-h", "--version"} & set(sys.argv[1:]):
        print("fakegan: starting, and loading PyTorch: some seconds ...", file=sys.stderr, flush=True)


def stop(number: int, _frame: FrameType | None = None) -> NoReturn:
    """The handler of SIGINT and SIGTERM where nothing has to be saved.

    Raises:
        KeyboardInterrupt: Ctrl-C; and SystemExit with 143: SIGTERM. None within `exit_at_once` and before
            `raise_from_now_on`.
    """
    _state.asked = _state.asked or number
    end_process(128 + number)


def end_process(code: int) -> NoReturn:
    """End the process from a signal's handler: at once, or by SystemExit, which is a KeyboardInterrupt for 130."""
    if _state.at_once:
        with contextlib.suppress(Exception):  # a stream within whose writing the signal came
            words, _state.parting = _state.parting, None  # another signal may come within
            if words is not None:
                words(code)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
    raise KeyboardInterrupt if code == 128 + signal.SIGINT else SystemExit(code)


def raise_from_now_on() -> None:
    """From now on there is something to be undone: signals raise."""
    raise_if_stopped()
    _state.at_once = False


@contextlib.contextmanager
def exit_at_once() -> Iterator[None]:
    """Within, where libraries are loaded, a signal ends the process at once, if it is `stop` that hears it."""
    before, _state.at_once = _state.at_once, True
    try:
        yield
    finally:
        _state.at_once = before


@contextlib.contextmanager
def before_exit(words: Callable[[int], None]) -> Iterator[None]:
    """Within, this is called before the process ends at once; it gets the exit code."""
    before, _state.parting = _state.parting, words
    try:
        yield
    finally:
        _state.parting = before


def requested_stop() -> int:
    """The signal that asked this process to stop, 0 if none did."""
    return _state.asked


def raise_if_stopped() -> None:
    """Stop, where that has been asked for and a library has swallowed it."""
    if _state.asked:
        end_process(128 + _state.asked)


@contextlib.contextmanager
def stop_over_error() -> Iterator[None]:
    """Within: an error that a library makes of a stop is that stop."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        raise_if_stopped()
        raise


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Python shows what it cannot raise; a stop is noted already."""
    if not (_state.asked and issubclass(what.exc_type, (KeyboardInterrupt, SystemExit))):
        sys.__unraisablehook__(what)
