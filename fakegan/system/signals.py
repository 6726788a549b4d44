"""Signals that ask to stop, from a command's first moment on: none is lost in a library, none ends in a trace.

Python turns a signal into an exception wherever it happens to be, and some places do not let it out: callbacks from C,
such as the release of an import's lock, and OmegaConf, whose half-changed nodes make another error of it. So a signal
ends the process at once while there is nothing to be undone. Later it raises, and is noted: `raise_if_stopped` stops
a process in which a library has swallowed it.
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
    before_exit: Callable[[int], None] | None = None  # called before that


_state = _State()


def begin() -> None:
    """A command's first call, before it loads libraries for seconds: it says so on a terminal, and can be stopped."""
    _state.at_once = True
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background of a script it is ignored
        signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = _unraisable
    if sys.stderr.isatty() and not {"--help", "-h", "--version"} & set(sys.argv[1:]):
        # Printed: logging is set up once the libraries are loaded.
        print("fakegan: starting, and loading PyTorch: some seconds ...", file=sys.stderr, flush=True)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Python shows an exception that it cannot raise; a stop is noted already."""
    if not (_state.asked and issubclass(what.exc_type, (KeyboardInterrupt, SystemExit))):
        sys.__unraisablehook__(what)


def stop(number: int, _frame: FrameType | None = None) -> NoReturn:
    """The handler of SIGINT and SIGTERM where nothing has to be saved: notes the signal and calls `exit_or_raise`."""
    _state.asked = _state.asked or number
    exit_or_raise(128 + number)


def exit_or_raise(code: int) -> NoReturn:
    """End the process from a signal's handler.

    Raises:
        KeyboardInterrupt: the code is 130; SystemExit: it is another. Neither within `exit_at_once`, nor before
            `raise_from_now_on`: there the process exits at once.
    """
    if _state.at_once:
        with contextlib.suppress(Exception):  # the signal may have come within the writing of a stream
            callback, _state.before_exit = _state.before_exit, None  # another signal may come within
            if callback is not None:
                callback(code)
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
    """Within, where libraries are loaded, a signal that `stop` handles ends the process at once."""
    before, _state.at_once = _state.at_once, True
    try:
        yield
    finally:
        _state.at_once = before


@contextlib.contextmanager
def before_exit(callback: Callable[[int], None]) -> Iterator[None]:
    """Within, call this with the exit code before the process exits at once."""
    before, _state.before_exit = _state.before_exit, callback
    try:
        yield
    finally:
        _state.before_exit = before


def requested_stop() -> int:
    """The signal that asked this process to stop, 0 if none did."""
    return _state.asked


def raise_if_stopped() -> None:
    """Stop, where a signal has asked for it and a library has swallowed the exception."""
    if _state.asked:
        exit_or_raise(128 + _state.asked)


@contextlib.contextmanager
def stop_over_error() -> Iterator[None]:
    """Within, an error that a library makes of a stop is that stop."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        raise_if_stopped()
        raise
