"""Checks for constructors: a ValueError names the option, its value and what is allowed.

`fakegan.config.building` adds the config key in front.
"""

from __future__ import annotations

from collections.abc import Collection

SIZES = (64, 128, 256)  # pixels a side that faces may have; the first is meant where a file or a signature states none


def at_least(lowest: float, **values: float) -> None:
    """Raise a ValueError for the first option that is below `lowest` or not a number."""
    for name, value in values.items():
        if not value >= lowest:  # also true for NaN
            raise ValueError(f"{name}={value} must be {lowest} or more")


def one_of(choices: Collection[object], **values: object) -> None:
    """Raise a ValueError for the first option that is not among the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r:.80} must be one of {', '.join(map(str, choices))}")


def a_probability(**values: float) -> None:
    """Raise a ValueError for the first option that is not from 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must be from 0 to 1")


def a_share(**values: float) -> None:
    """Raise a ValueError for the first option that is not from 0 to below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} must be from 0 to below 1")
