"""Every option of a composed config, those too that only a signature names: for --help, and for what a key is near to.

Nothing of what the config names is imported.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from fakegan.config.building import HYDRA_KEYS, TARGET
from fakegan.config.signatures import COMPUTED, REQUIRED, library, signature

# By group: options that follow from the rest of the config, or from the stage; fakegan/training/parts.py gives them.
FOLLOWING = {
    "model": ("in_channels", "out_channels"),
    "classifier": ("in_channels", "out_channels"),
    "callbacks": ("folder", "stage", "monitor", "mode"),
    "logger": ("save_dir", "name", "version"),
    "trainer": ("callbacks", "logger", "plugins", "num_nodes", "use_distributed_sampler", "default_root_dir"),
}


@dataclass(frozen=True)
class Option:
    """One option; or, with the key NODE.NAME, those of a library's class that the config does not name."""

    key: str  # in full
    value: Any  # as composed, else its default
    said: str  # the comment beside it in the signature; of a class else the first line of its docstring
    others: tuple[str, ...] = ()  # what NAME may be


def options(kind: type, values: Mapping[str, Any], at: str = "") -> Iterator[Option]:
    """Those of a dataclass of settings, with the values that a config gives them; groups of keys after the others."""
    stated = signature(f"{kind.__module__}.{kind.__qualname__}")
    hints = typing.get_type_hints(kind)
    own = [f for f in fields(kind) if not f.metadata.get("rest")]
    for f in own:
        if f.name in values or f.default is not MISSING or f.default_factory is not MISSING:
            value = values.get(f.name, f.default if f.default_factory is MISSING else f.default_factory())
            said = stated.options[f.name].said if stated else ""
            yield from _of_value(hints[f.name], value, f"{at}{f.name}", said)
    rest = next((f for f in fields(kind) if f.metadata.get("rest")), None)
    if rest is not None:
        names = [f.name for f in own]
        others = {name: value for name, value in values.items() if name not in names}
        if TARGET in others:
            yield from _of_node(others, at.rstrip("."), beside=names)
        else:
            yield from _of_value(hints[rest.name], others, at.rstrip("."), "")


def _of_value(hint: Any, value: Any, key: str, said: str) -> Iterator[Option]:
    kinds = [kind for kind in (hint, *typing.get_args(hint)) if is_dataclass(kind)]
    if typing.get_origin(hint) is dict and kinds:  # settings by name
        for name, inner in value.items():
            yield from _of_value(kinds[0], inner, f"{key}.{name}", "")
    elif kinds and (isinstance(value, Mapping) or is_dataclass(value)):
        inner = value if isinstance(value, Mapping) else vars(value)
        yield from options(typing.cast("type", kinds[0]), inner, f"{key}.")
    elif isinstance(value, Mapping) and any(typing.get_origin(h) is dict for h in (hint, *typing.get_args(hint))):
        for name, node in value.items():  # each builds something, under a name
            if node is None or (isinstance(node, Mapping) and TARGET in node):
                yield from _of_node(node, f"{key}.{name}", "")
    elif not kinds:
        yield from _of_node(value, key, said)


def _of_node(node: Any, at: str, said: str = "", beside: Collection[str] = ()) -> Iterator[Option]:
    """The options of what a config node names, at any depth; of a library's class those that the config names."""
    if not isinstance(node, Mapping) or (not node and said):
        yield Option(at, node, said)
        return
    target = node.get(TARGET)
    known = signature(target) if isinstance(target, str) else None
    stated = {} if known is None else known.options
    following = FOLLOWING.get(at.partition(".")[0], ())
    plain = [name for name, option in stated.items() if option.default is not REQUIRED and name not in following]
    given = [
        name for name in node if name not in HYDRA_KEYS and (known is None or known.takes_others or name in stated)
    ]
    of_library = isinstance(target, str) and library(target)
    if target is not None:
        yield Option(f"{at}.{TARGET}", target, said or (known.said if known and not of_library else ""))
    for name in given if of_library else dict.fromkeys([n for n in stated if n in plain or n in given] + given):
        option = stated.get(name)
        value = node.get(name, option.default if option else None)
        yield from _of_node("" if value is COMPUTED else value, f"{at}.{name}", option.said if option else "")
    others = [name for name in plain if name not in (*given, *beside)] if of_library else []
    if others:
        yield Option(f"{at}.NAME", None, "", tuple(others))


def keys(kind: type, values: Mapping[str, Any]) -> list[str]:
    """All keys that a config of such settings could have, in full; nodes themselves, too."""
    found: list[str] = []
    for option in options(kind, values):
        node, _, name = option.key.rpartition(".")
        found += [node, option.key] if name == TARGET else [f"{node}.{n}" for n in option.others] or [option.key]
    return found
