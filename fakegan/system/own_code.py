"""Where code of the user's own is found: in the working directory, and in or beside a config folder of the user's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

_VARIABLE = "FAKEGAN_CODE"  # folders of code, for the processes that this one starts


def find(folders: Iterable[Path] = ()) -> None:
    """Let packages in the working directory and in these folders be imported, here and in processes started from here.

    What is installed comes first: a user's random.py does not take the place of Python's.
    """
    inherited = filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep))
    known = dict.fromkeys([*inherited, *(str(folder.absolute()) for folder in folders)])
    sys.path += [folder for folder in dict.fromkeys([os.getcwd(), *known]) if folder not in sys.path]
    if known:
        os.environ[_VARIABLE] = os.pathsep.join(known)


def find_beside(conf: Path | None) -> None:
    """Code that a config folder of the user's own names may lie in it, or beside it."""
    find((conf, conf.parent) if conf is not None else ())
