"""The errors people see: one sentence that names the file or key and says what to do.

Entry scripts print the sentence and exit with `exit_code`; everything else lets them pass.
"""

from __future__ import annotations


class FakeganError(Exception):
    """Something failed: a damaged file, a full disk, a split left empty."""

    exit_code = 1


class UsageError(FakeganError):
    """The command or the config asks for something that cannot be."""

    exit_code = 2


class UntrustedError(FakeganError):
    """A file names code that nobody has said to trust."""


class LostError(FakeganError):
    """Another process of this run is gone: it was killed, or says itself why."""

    exit_code = 76


class ToldError(FakeganError):
    """A process that was started for this one failed, and has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("see above")
        self.exit_code = exit_code
