"""What one client may take of a page that others use too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The command's options say what is meant. A server's uploads take up to 3 * mib * requests MiB of memory."""

    mib: int = 32
    files: int = 16
    requests: int = 32
    seconds: int = 60
