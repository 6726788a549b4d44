"""Every option of a composed config, also an option that only a signature names: for --help and for hints.

Nothing that the config names is imported.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from fakegan.config.building import HYDRA_KEYS, TARGET
from fakegan.config.signatures import COMPUTED, REQUIRED, Signature, library, signature

# By group: options that no user gives, because a run fills them in from its other settings or from the stage.
FOLLOWING = {
    "model": ("in_channels", "out_channels", "size"),
    "classifier": ("in_channels", "out_channels", "size", "pretrained"),
    "data": ("val_batch_size",),
    "callbacks": ("folder", "stage", "monitor", "mode"),
    "logger": ("save_dir", "name", "version"),
    "trainer": ("callbacks", "logger", "plugins", "num_nodes", "use_distributed_sampler", "default_root_dir"),
}


@dataclass(frozen=True)
class Option:
    """One option; with the key NODE.NAME, all options of a library's class that the config does not name."""

    key: str  # in full
    value: Any  # as composed, else its default
    comment: str = ""  # of its signature; for a class the first line of its docstring
    names: tuple[str, ...] = ()  # that NAME may be


def options(kind: type, values: Mapping[str, Any], at: str = "") -> Iterator[Option]:
    """The options of a dataclass of settings with the values of a config; options of a group come last."""
    stated = signature(f"{kind.__module__}.{kind.__qualname__}") or Signature({})
    hints = typing.get_type_hints(kind)
    own = [f for f in fields(kind) if not f.metadata.get("rest")]
    for f in own:
        if f.name in values or f.default is not MISSING or f.default_factory is not MISSING:
            value = values.get(f.name, f.default if f.default_factory is MISSING else f.default_factory())
            comment = stated.options[f.name].comment if f.name in stated.options else ""
            yield from _of_value(hints[f.name], value, f"{at}{f.name}", comment)
    others = {name: value for name, value in values.items() if name not in [f.name for f in own]}
    for f in fields(kind):
        if f.metadata.get("rest") and TARGET in others:
            yield from _of_node(others, at.rstrip("."), beside=[f.name for f in own])
        elif f.metadata.get("rest"):
            yield from _of_value(hints[f.name], others, at.rstrip("."), "")


def _of_value(hint: Any, value: Any, key: str, comment: str) -> Iterator[Option]:
    hints = (hint, *typing.get_args(hint))
    kind = next((typing.cast("type", inner) for inner in hints if is_dataclass(inner)), None)
    if kind is not None and typing.get_origin(hint) is dict:  # settings by name
        for name, inner in value.items():
            yield from _of_value(kind, inner, f"{key}.{name}", "")
    elif kind is not None and (isinstance(value, Mapping) or is_dataclass(value)):
        yield from options(kind, value if isinstance(value, Mapping) else vars(value), f"{key}.")
    elif isinstance(value, Mapping) and any(typing.get_origin(inner) is dict for inner in hints):  # nodes by name
        for name, node in value.items():
            if node is None or (isinstance(node, Mapping) and TARGET in node):
                yield from _of_node(node, f"{key}.{name}", "")
    elif kind is None:
        yield from _of_node(value, key, comment)


def _of_node(node: Any, at: str, comment: str = "", beside: Collection[str] = ()) -> Iterator[Option]:
    """The options of a config node at any depth; of a library's class only the named ones have a row each."""
    if not isinstance(node, Mapping) or (not node and comment):
        yield Option(at, node, comment)
        return
    target = node.get(TARGET)
    known = (signature(target) if isinstance(target, str) else None) or Signature({}, takes_others=True)
    of_library = isinstance(target, str) and library(target)
    following = FOLLOWING.get(at.partition(".")[0], ())
    plain = [n for n, option in known.options.items() if option.default is not REQUIRED and n not in following]
    given = [n for n in node if n not in HYDRA_KEYS and (known.takes_others or n in known.options)]
    if target is not None:
        yield Option(f"{at}.{TARGET}", target, comment or ("" if of_library else known.headline))
    stated = [n for n in known.options if n in plain or n in given]
    for name in given if of_library else dict.fromkeys([*stated, *given]):
        option = known.options.get(name)
        value = node.get(name, option.default if option else None)
        yield from _of_node("" if value is COMPUTED else value, f"{at}.{name}", option.comment if option else "")
    unnamed = tuple(n for n in plain if n not in (*given, *beside)) if of_library else ()
    if unnamed:
        yield Option(f"{at}.NAME", None, names=unnamed)


def keys(kind: type, values: Mapping[str, Any]) -> list[str]:
    """All keys, in full, that a config of such settings could have, including the keys of nodes."""
    found: list[str] = []
    for option in options(kind, values):
        node, _, name = option.key.rpartition(".")
        found += [node, option.key] if name == TARGET else [f"{node}.{n}" for n in option.names] or [option.key]
    return found
