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


def give(**reply: str) -> bool:
    """Add to the reply; returns whether a program waits for it."""
    if _file is not None:
        Path(_file).write_text(json.dumps({**read(Path(_file)), **reply}), encoding="utf-8")
    return wanted()


def read(path: Path) -> dict[str, Any]:
    """A command's reply so far; empty where there is none, or the command was killed while it wrote."""
    try:
        reply = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return reply if isinstance(reply, dict) else {}
