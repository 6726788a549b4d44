"""A sweep's command, kept in its folder, so that whatever stops can say in full how to resume."""

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
from fakegan.system.shell import CONFIG_DIR, as_override, command

_MAX_CHARACTERS = 100_000
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # and those that reverse a text


def keep_command(folder: Path, argv: Sequence[str]) -> None:
    """Keep a sweep's command, script first, in its folder. Raises a UsageError: it could not be shown again."""
    script, *overrides = argv
    kept = with_absolute_paths([o for o in overrides if not o.startswith(("resume=", "hydra.sweep.dir="))])
    for override in kept:
        if CONTROL_CHARACTERS.search(override):
            raise UsageError(f"{override!r:.100} holds a tab or another control character: put a space in its place")
    with replacing(folder / COMMAND_FILE) as building:
        building.write_text(f"{shlex.join([Path(script).name, *kept])}\n", encoding="utf-8")


def is_sweep(folder: Path) -> bool:
    """Whether a sweep began in this folder."""
    return (folder / COMMAND_FILE).is_file()


def to_go_on(folder: Path) -> str:
    """The whole command that resumes the sweep in this folder, whose file may come from elsewhere.

    Raises:
        FakeganError: the file there holds no command of train.py's.
    """
    path = folder / COMMAND_FILE
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_MAX_CHARACTERS + 1).strip()
    try:
        script, *overrides = shlex.split(text) or [""]
    except ValueError:  # a quotation that does not end
        script, overrides = "", []
    if script != "train.py" or len(text) > _MAX_CHARACTERS or CONTROL_CHARACTERS.search(text):
        raise FakeganError(f"{path} is damaged or of another version: it holds no command of train.py's; do not use it")
    return command(
        script, *with_relative_paths(overrides), "resume=true", as_override("hydra.sweep.dir", folder.absolute())
    )


def standalone_command(
    hydra: Any,  # Hydra's node of the config
    overrides: Sequence[str],  # of one job
) -> str:
    """The command that runs this job without its sweep."""
    given = [o for o in overrides if not o.startswith("resume=")]
    of_hydra = map(str, OmegaConf.to_container(hydra.overrides.hydra) or ())  # as typed: nothing in them is resolved
    # Hydra makes hydra.mode of -m. Without -m an experiment swept by itself, and would do so again.
    mode = [] if any(o.startswith("hydra.mode=") for o in of_hydra) else ["hydra.mode=RUN"]
    config_dir = [argument for argument in sys.argv if argument.startswith(CONFIG_DIR)]
    return shlex.join([f"{hydra.job.name}.py", *with_absolute_paths([*config_dir, *given]), *mode])


def differing_overrides(jobs: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """By job, the overrides that not all jobs share; all of them where it is the only job."""
    shared = set.intersection(*map(set, jobs.values())) if len(jobs) > 1 else set()
    return {
        number: shlex.join(from_hydra(o) for o in overrides if o not in shared) for number, overrides in jobs.items()
    }


def short(name: str) -> str:
    """A job's differing overrides, for a narrow line: of a choice its name alone, of a key its last part."""
    shown = []
    for override in shlex.split(name):
        key, equals, value = override.partition("=")
        key, value = short_target(key, value)
        is_choice = "." not in key and re.fullmatch(r"[A-Za-z]\w*", value)
        named = is_choice and value.lower() not in {"true", "false", "null", "inf", "nan"}
        shown.append(value if named else f"{key.rpartition('.')[2]}{equals}{value}")
    return " ".join(shown)
