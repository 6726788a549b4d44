"""A sweep's command, kept in its folder, so that everything that stops can say in full how to go on."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fakegan.config.overrides import from_hydra, short_target, with_absolute_paths, with_relative_paths
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.folder import COMMAND_FILE
from fakegan.system.files import replacing
from fakegan.system.shell import CONFIG_DIR, command, word

_OF_THE_FOLDER = ("resume=", "hydra.sweep.dir=")
_VALUES = {"true", "false", "null", "inf", "nan"}  # that say nothing without their key
_MAX_CHARACTERS = 100_000
ACTS_ON_A_TERMINAL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # control, and turned around


def keep_command(folder: Path, typed: Sequence[str]) -> None:
    """Write down what was typed, script first, as the command of the sweep in this folder.

    Raises:
        UsageError: it could not be shown again.
    """
    script, *words = typed
    kept = with_absolute_paths([word for word in words if not word.startswith(_OF_THE_FOLDER)])
    for one in kept:
        if ACTS_ON_A_TERMINAL.search(one):
            raise UsageError(f"{one!r:.100} holds a tab or another control character: put a space in its place")
    with replacing(folder / COMMAND_FILE) as building:
        building.write_text(f"{shlex.join([Path(script).name, *kept])}\n", encoding="utf-8")


def is_sweep(folder: Path) -> bool:
    """Whether a sweep began in this folder."""
    return (folder / COMMAND_FILE).is_file()


def to_go_on(folder: Path) -> str:
    """The whole command that goes on with the sweep in this folder.

    Raises:
        FakeganError: the file there holds no command of train.py's.
    """
    script, *words = _kept(folder / COMMAND_FILE)
    return command(script, *with_relative_paths(words), "resume=true", word("hydra.sweep.dir", folder.absolute()))


def _kept(path: Path) -> list[str]:
    """What was typed, as the file says: it may come from elsewhere, and what is shown is there to be typed again."""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_MAX_CHARACTERS + 1).strip()
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation that does not end
        words = []
    if words[:1] != ["train.py"] or len(text) > _MAX_CHARACTERS or ACTS_ON_A_TERMINAL.search(text):
        raise FakeganError(f"{path} is damaged or of another version: it holds no command of train.py's; do not use it")
    return words


def alone(
    sweep: Any,  # Hydra's node of the config
    overrides: Sequence[str],  # of one job, in Hydra's words
) -> str:
    """What would be typed to run this job without its sweep."""
    words = [word for word in overrides if not word.startswith("resume=")]
    of_hydra = map(str, OmegaConf.to_container(sweep.overrides.hydra) or ())  # as typed: nothing in them is resolved
    asked = any(word.startswith("hydra.mode=") for word in of_hydra)  # which -m does
    mode = [] if asked else ["hydra.mode=RUN"]  # an experiment among them makes any command a sweep
    beside = [word for word in sys.argv if word.startswith(CONFIG_DIR)]
    return shlex.join([f"{sweep.job.name}.py", *with_absolute_paths([*beside, *words]), *mode])


def telling(jobs: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """By job, the words that it does not share with all others; all of them where it is the only one."""
    shared = set.intersection(*(set(words) for words in jobs.values())) if len(jobs) > 1 else set()
    return {
        number: shlex.join(from_hydra(word) for word in words if word not in shared) for number, words in jobs.items()
    }


def short(name: str) -> str:
    """What tells a job from others, for a narrow line: of a choice its name alone, of a key its last part."""
    return " ".join(_short(word) for word in shlex.split(name))


def _short(word: str) -> str:
    key, equals, value = word.partition("=")
    key, value = short_target(key, value)
    named = "." not in key and re.fullmatch(r"[A-Za-z]\w*", value) and value.lower() not in _VALUES
    return value if named else f"{key.rpartition('.')[2]}{equals}{value}"
