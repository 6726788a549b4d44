"""What a constructor says of an option that is out of range: its name, its value and what it may be.

`fakegan.config.building` puts the config key before it.
"""

from __future__ import annotations

from collections.abc import Collection


def at_least(lowest: float, **values: float) -> None:
    """Raise a ValueError for the first option below `lowest`, or that is no number."""
    for name, value in values.items():
        if not value >= lowest:  # also true for NaN
            raise ValueError(f"{name}={value} must be {lowest} or more")


def one_of(choices: Collection[str], **values: str) -> None:
    """Raise a ValueError for the first option that is none of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r:.80} must be one of {', '.join(choices)}")


def a_share(**values: float) -> None:
    """Raise a ValueError for the first option that is not from 0 to below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} must be from 0 to below 1")
