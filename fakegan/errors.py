"""The errors people see: one sentence that names the file or key and says what to do.

Entry scripts print the sentence and exit with `exit_code`; everything else lets them pass.
"""

from __future__ import annotations

from collections.abc import Collection


class FakeganError(Exception):
    """Something failed: a damaged file, a full disk, a split left empty."""

    exit_code = 1


class UsageError(FakeganError):
    """The command or the config asks for something that cannot be."""

    exit_code = 2


class UnknownKeyError(UsageError):
    """A key that no setting and no option has; whoever knows more of them gives a better hint."""

    def __init__(self, key: str, hint: str) -> None:
        super().__init__(f"{key} is not a config key: {hint}")
        self.key = key


class UntrustedError(FakeganError):
    """A file names code that nobody has said to trust, or what no such file may name."""

    def __init__(
        self,
        said: str,
        packages: Collection[str] = (),  # that would have to be trusted, where the user may do so
        trusted: Collection[str] = (),  # that he trusts by now
        advice: str = "do not trust this file",  # where he may not
    ) -> None:
        self.said, self.packages, self.trusted, self.advice = said, tuple(packages), tuple(trusted), advice
        names = ", ".join(f'"{name}"' for name in (*self.trusted, *self.packages))
        super().__init__(self._with(f"trust=[{names}]"))

    def of(self, path: object) -> UntrustedError:
        """The same of a file."""
        return UntrustedError(f"{path}: {self.said}", self.packages, self.trusted, self.advice)

    def with_overrides(self) -> str:
        """The sentence in the words of train.py and evaluate.py."""
        return self._with(f"trust=[{','.join((*self.trusted, *self.packages))}]")

    def with_options(self) -> str:
        """The sentence in the options of the other commands."""
        return self._with(" ".join(f"--trust {name}" for name in self.packages))

    def _with(self, words: str) -> str:
        advice = f"if you trust {' and '.join(self.packages)}, add {words}" if self.packages else self.advice
        return f"{self.said}: {advice}"


class LostError(FakeganError):
    """Another process of this run is gone: it was killed, or says itself why."""

    exit_code = 76


class AlreadyReportedError(FakeganError):
    """A process that was started for this one failed, and has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("see above")
        self.exit_code = exit_code
