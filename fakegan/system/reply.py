"""What a command tells the Python program that started it, by a file: its run's folder, or why it failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "FAKEGAN_REPLY"  # in the command's environment: the file
_file = os.environ.pop(VARIABLE, None)  # taken out: what the command starts itself does not answer


def wanted() -> bool:
    """Whether a program started this command, and waits for its result."""
    return _file is not None


def give(**said: str) -> bool:
    """Write it down, beside what has been said; returns whether anybody wants to know."""
    if _file is None:
        return False
    path = Path(_file)
    path.write_text(json.dumps({**read(path), **said}), encoding="utf-8")
    return True


def read(path: Path) -> dict[str, Any]:
    """What a command has said so far; nothing where it has not, or was killed while it did."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
