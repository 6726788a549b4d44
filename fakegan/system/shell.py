"""Commands as a shell takes them: paths as typed in this folder, values in Hydra's quotes, programs by name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fakegan.errors import UsageError
from fakegan.system import places

CONFIG_DIR = "--config-dir="  # Hydra's word for a config folder of one's own
WINDOWS_LINE_END = (
    "ends in a carriage return: the script that says so has Windows line ends; remove them (sed -i 's/\\r$//' SCRIPT)"
)
_LITERALS = {"null", "true", "false", "nan", "inf"}


def config_dir(words: Sequence[str]) -> Path | None:
    """The config folder of the user's own that a command's words name, absolute."""
    named = [override.removeprefix(CONFIG_DIR) for override in words if override.startswith(CONFIG_DIR)]
    return Path(expanded(named[-1])).absolute() if named else None


def expanded(path: str) -> str:
    """A path whose ~ is the home folder, as a shell would have made it.

    Raises:
        UsageError: an empty one, which would be this folder, or one that a script with Windows line ends names.
    """
    if path.endswith("\r") and not os.path.lexists(path):
        raise UsageError(f"{path!r:.100} {WINDOWS_LINE_END}")
    if not path:
        raise UsageError("an empty path: name a folder or file, . for this folder")
    return os.path.expanduser(path)


def local_path(path: str | Path) -> str:
    """A path as one types it in this folder: relative where it is below, and never taken for a home or an option."""
    path, now = Path(path), Path.cwd()
    shown = str(path.relative_to(now) if path.is_relative_to(now) else path)
    return f"./{shown}" if shown[:1] in {"~", "-"} else shown


def as_override(key: str, value: str | Path) -> str:
    """KEY=VALUE as Hydra reads it, whatever the value is made of; a path as one types it in this folder."""
    return f"{key}={quoted(local_path(value) if isinstance(value, Path) else value)}"


def quoted(text: str) -> str:
    """A text in Hydra's quotes, where it needs them to be just that text."""
    if (
        re.fullmatch(r"[A-Za-z0-9_./-]+", text)
        and ("/" in text or text[0].isalpha() or text in {".", ".."})
        and text.lower() not in _LITERALS
    ):
        return text
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', '\\"'), text)
    return f'"{escaped}"'


def command(script: str, *words: str) -> str:
    """The line for a shell in this folder that calls train.py or evaluate.py with Hydra's words."""
    return f"{called(script.removesuffix('.py'))} {shlex.join(words)}"


def called(name: str) -> str:
    """How a command of FakeGAN's, `train` or `predict`, is called by a shell in this folder."""
    if places.INSTALLED:
        return program(f"fakegan-{name}")
    script = places.script(name)
    return f"{program('python')} {shlex.quote(local_path(script)) if script.is_file() else f'-m fakegan.{name}'}"


def trusting(packages: Sequence[str]) -> list[str]:
    """The words that a command needs to go on with, or score, a run which is made of these packages of the user's."""
    if not packages:
        return []
    beside = config_dir(sys.argv)
    return [*([f"{CONFIG_DIR}{local_path(beside)}"] if beside else []), f"trust=[{','.join(packages)}]"]


def program(name: str) -> str:
    """A program beside this Python, quoted for a shell: by its name alone where that finds it."""
    own = Path(sys.executable).with_name(name)
    if name == "python" and not own.is_file():
        own = Path(sys.executable)
    found = shutil.which(own.name)
    elsewhere = own.is_file() and (found is None or Path(found).absolute() != own)
    return shlex.quote(local_path(own) if elsewhere else own.name)
