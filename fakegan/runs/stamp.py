"""What every file of trained networks says about itself: its format, and which label is real."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakegan.errors import FakeganError, UntrustedError
from fakegan.labels import LABEL_CONVENTION

FORMAT = 3
STAMP = "fakegan"  # the key that it stands under
# What torch and Python raise for keys, options and weights that are not what they should be.
_MISFIT = (ArithmeticError, AttributeError, FakeganError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def stamp() -> dict[str, Any]:
    """What every checkpoint says about itself."""
    return {"format": FORMAT, "label_convention": dict(LABEL_CONVENTION)}


def refuse_other_stamp(own: Any, path: Path) -> None:
    """Raise a FakeganError where what a file says about itself is not what `stamp` gives here."""
    if not isinstance(own, dict):
        raise FakeganError(f"{path} is not a FakeGAN checkpoint: name a .ckpt or .pt file from a run's folder")
    if own.get("format") != FORMAT:
        raise FakeganError(
            f"{path} has checkpoint format {reprlib.repr(own.get('format'))}, this version reads {FORMAT}: train again"
        )
    if own.get("label_convention") != LABEL_CONVENTION:
        raise FakeganError(
            f"{path} was trained with the labels {reprlib.repr(own.get('label_convention'))}, but here they are "
            f"{LABEL_CONVENTION}: its scores would mean the opposite; train again"
        )


@contextmanager
def misfits_as_errors(path: Path) -> Iterator[None]:
    """Errors of making networks and numbers out of a checkpoint's content become an error that names the file.

    Raises:
        FakeganError: the content does not fit.
        UntrustedError: the content names code that nobody has said to trust.
    """
    try:
        yield
    except UntrustedError as error:
        raise error.of(path) from error
    except _MISFIT as error:
        raise FakeganError(f"{path} is damaged or of another version: name another, or train again") from error
