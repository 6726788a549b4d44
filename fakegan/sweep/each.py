"""What a sweep takes from its store: each(fake) and each(real) among its values stand for every such source, alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fakegan.data import demo
from fakegan.data.store import FaceStore
from fakegan.errors import UsageError
from fakegan.labels import CLASS_NAMES
from fakegan.system.shell import local_path, quoted

_EACH = re.compile(r"""\[['"]each\((real|fake)\)['"]\]|each\((real|fake)\)""")  # as typed with -m, and in a YAML file


def with_each_source(
    values: str,  # to sweep, [],each(fake), or a whole override
    data: str,  # data.name
    root: Path | None,  # the store; None: the built-in faces, or not known
    taken: Collection[str] = (),  # sources that have another role in every run
) -> str:
    """The same with a list for each source in place of each(fake) and each(real): [],[stylegan],[stylegan2].

    Raises:
        FakeganError: no store, or fewer than two such sources in it that are not taken.
    """
    return _EACH.sub(lambda found: _lists(found[1] or found[2], data, root, taken), values)


def _lists(kind: str, data: str, root: Path | None, taken: Collection[str]) -> str:
    if root is None and data != "demo":
        raise UsageError(f"each({kind}) takes the sources of one store: name its folder, data.root=DIR")
    if root is None:
        place, every = "the built-in faces", [*(demo.SOURCES[1:] if kind == "fake" else demo.SOURCES[:1])]
    else:
        store = FaceStore.open(root)
        label = next(label for label, name in CLASS_NAMES.items() if name == kind)
        place, every = local_path(root), np.unique(store.sources[store.labels == label]).tolist()
    names = [name for name in every if name not in taken]
    if len(names) < 2:
        there = f"one {kind} source, {names[0]}" if names else f"no {kind} source"
        if others := [name for name in every if name in taken]:
            there += f" besides {', '.join(others)}, which data.split names already"
        advice = f"prepare the faces of two or more, each with a --{kind} NAME=PATH of its own"
        raise UsageError(f"{place}: there is {there}, so none can be held out: {advice}")
    return ",".join(f"[{quoted(name)}]" for name in names)
