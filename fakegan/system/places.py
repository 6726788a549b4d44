"""Where FakeGAN's own files lie: the config tree and the scripts, in a checkout or in an installed wheel."""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
PROJECT = _PACKAGE.parent  # a checkout's root
# A wheel carries conf/ and the scripts inside the package; pyproject.toml says so.
INSTALLED = (_PACKAGE / "conf").is_dir()
CONF = _PACKAGE / "conf" if INSTALLED else PROJECT / "conf"
SCRIPTS = _PACKAGE / "scripts" if INSTALLED else PROJECT


def own(name: str) -> Path:
    """`data`, `artifacts`: beside a checkout's conf/; where FakeGAN is installed, in the working directory."""
    return Path.cwd() / name if INSTALLED else PROJECT / name


def script(name: str) -> Path:
    """train.py or evaluate.py."""
    return SCRIPTS / f"{name}.py"


def shown(name: str) -> str:
    """How a command of FakeGAN's is called in texts for people: `train`, `predict`."""
    if INSTALLED:
        return f"fakegan-{name}"
    return f"python {name}.py" if script(name).is_file() else f"python -m fakegan.{name}"


def install(extra: str) -> str:
    """The command that installs what an extra of FakeGAN's needs."""
    return f"pip install 'fakegan[{extra}]'" if INSTALLED else f"pip install -e '.[{extra}]'"


def worded(text: str) -> str:
    """A text that speaks of commands as in a checkout, such as a script's examples, as it is meant here."""
    if not INSTALLED:
        return text
    text = re.sub(r"python (train|evaluate)\.py|python -m fakegan\.(\w+)", lambda m: shown(m[1] or m[2]), text)
    return re.sub(r"pip install -e '\.\[(\w+)\]'", lambda m: install(m[1]), text)
