"""Where code of the user's own is found: the working directory, a config folder of one's own, the one it lies in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

_VARIABLE = "FAKEGAN_CODE"  # folders of code, for the processes that this one starts


def find(folders: Iterable[Path] = ()) -> None:
    """Let packages in the working directory and in these folders be imported, where nothing else has their names.

    So it is in the processes that this one starts, too.
    """
    inherited = filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep))
    known = dict.fromkeys([*inherited, *(str(folder.absolute()) for folder in folders)])
    for folder in [os.getcwd(), *known]:
        if folder not in sys.path:
            sys.path.append(folder)  # the end: a user's random.py must not stand in for Python's
    if known:
        os.environ[_VARIABLE] = os.pathsep.join(known)


def find_beside(conf: Path | None) -> None:
    """Code that a config folder of the user's own names may lie in it, or beside it."""
    if conf is not None:
        find((conf, conf.parent))
