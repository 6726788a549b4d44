"""Tables for a terminal: cells in columns, padded by the width that a terminal gives them."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence


def width(text: str) -> int:
    """How many columns of a terminal a text takes: two for a Chinese sign, none for a separate accent."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def in_columns(
    rows: Sequence[Sequence[str]],  # of one length each
    right: Collection[int] = (),  # columns that are aligned right
) -> list[str]:
    """A line for each row, its cells two spaces apart."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padding = [" " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        cells = [space + c if i in right else c + space for i, (c, space) in enumerate(zip(row, padding, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
