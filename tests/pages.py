"""What README and the pages of docs/ hold: code blocks and commands, for the tests that run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page that are in this language ("" for none), without their fences."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for own, block in found if own == language]


def commands(page: Path) -> list[str]:
    """The shell commands of a page, each on one line and without its comment."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]
