"""The errors that people see: one sentence that names the file or key and says what to do.

Entry scripts print the sentence and exit with `exit_code`; all other code lets these errors pass.
"""

from __future__ import annotations

from collections.abc import Collection


class FakeganError(Exception):
    """Something failed: a damaged file, a full disk, an empty split."""

    exit_code = 1


class UsageError(FakeganError):
    """The command or the config asks for something that is not possible."""

    exit_code = 2


class UnknownKeyError(UsageError):
    """A config key that does not exist; a caller who knows more keys may replace the hint."""

    def __init__(self, key: str, hint: str) -> None:
        super().__init__(f"{key} is not a config key: {hint}")
        self.key = key


class UnknownSourceError(UsageError):
    """A source is named that the store does not hold."""


class UntrustedError(FakeganError):
    """A file names code that the user has not said to trust, or something that no file may name."""

    def __init__(
        self,
        reason: str,
        packages: Collection[str] = (),  # the user may trust these
        trusted: Collection[str] = (),  # the user trusts these already
        advice: str = "do not trust this file",  # where there are no packages
    ) -> None:
        self.reason, self.packages, self.trusted, self.advice = reason, tuple(packages), tuple(trusted), advice
        names = ", ".join(f'"{name}"' for name in (*trusted, *packages))
        super().__init__(self._sentence(f"trust=[{names}]"))

    def of(self, path: object) -> UntrustedError:
        """The same error, which also names the file."""
        return UntrustedError(f"{path}: {self.reason}", self.packages, self.trusted, self.advice)

    def with_overrides(self) -> str:
        """The sentence for train.py and evaluate.py, whose arguments are Hydra's overrides."""
        return self._sentence(f"trust=[{','.join((*self.trusted, *self.packages))}]")

    def with_options(self) -> str:
        """The sentence for the other commands, whose arguments are options."""
        return self._sentence(" ".join(f"--trust {name}" for name in self.packages))

    def _sentence(self, argument: str) -> str:
        advice = f"if you trust {' and '.join(self.packages)}, add {argument}" if self.packages else self.advice
        return f"{self.reason}: {advice}"


class PeerLostError(FakeganError):
    """Another process of this run is gone: it was killed, or it reports its own error."""

    exit_code = 76


class AlreadyReportedError(FakeganError):
    """A process that this one started has failed and has printed why: nothing more is printed."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("see above")
        self.exit_code = exit_code


def one_line(
    error: BaseException,
    length: int | None = 300,  # characters at most; None: all of them
) -> str:
    """What another library's error says, on one line; the name of its type where it says nothing."""
    return " ".join(str(error).split())[:length] or type(error).__name__
