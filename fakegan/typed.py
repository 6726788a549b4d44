"""Plain values as a frozen dataclass: unknown keys and values of another type are refused, named in full."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from fakegan.errors import UsageError

T = TypeVar("T")


def from_mapping(kind: type[T], values: Mapping[str, Any], at: str = "") -> T:
    """A frozen dataclass from plain values; keys and types are checked, nested dataclasses are built."""
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(f"{at}{key} is not a config key: {nearest(str(key), known)}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    for key in needed:
        if key not in values:
            raise UsageError(f"{at}{key} is missing from the config")
    typed = {key: _typed(hints[key], value, f"{at}{key}") for key, value in values.items()}
    try:
        return kind(**typed)
    except UsageError as error:  # a value out of range; settings that stand in two places do not know where
        place = at.rstrip(".")
        raise error if not place or place.split(".")[0] in str(error) else UsageError(f"{place}: {error}") from None


def _typed(hint: Any, value: Any, at: str) -> Any:
    """`value` as the type `hint` asks for; a UsageError names the key where it is not."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        options = tuple(a for a in arguments if a is not types.NoneType)
        if value is None and len(options) < len(arguments):
            return None
        if len(options) == 1:
            return _typed(options[0], value, at)
        return value if isinstance(value, options) else _wrong(at, value, " or ".join(o.__name__ for o in options))
    if origin is typing.Literal:
        return value if value in arguments else _wrong(at, value, " or ".join(map(str, arguments)))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _wrong(at, value, f"a list: '{at}=[...]'")
        return tuple(_typed(arguments[0], item, f"{at}[{i}]") for i, item in enumerate(value))
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            return _wrong(at, value, "a group of keys")
        return from_mapping(typing.cast("type[Any]", hint), value, f"{at}.")
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else _wrong(at, value, "a group of keys")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    quoted = f"in quotes where it looks like something else, {at}='...'"
    wanted = {int: "a whole number", float: "a number", str: f"text, {quoted}", Path: f"a path, {quoted}"}
    return _wrong(at, value, wanted.get(hint, hint))


def _wrong(at: str, value: Any, wanted: Any) -> typing.NoReturn:
    raise UsageError(f"{at}={value!r} must be {wanted}")


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not among those that are known: the nearest ones.

    Of a word without a dot, those that it is the end, the initials (lr: learning_rate) or a part of come first.
    """
    leaf = name.rsplit(".", 1)[-1]
    ends = {key: key.rsplit(".", 1)[-1] for key in known}
    meant = [key for key, end in ends.items() if end == leaf]
    meant += [key for key, end in ends.items() if "".join(word[:1] for word in end.split("_")) == leaf and "_" in end]
    meant += [key for key, end in ends.items() if len(leaf) > 2 and leaf in end and key not in meant]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    best = list(dict.fromkeys([*close, *meant[:2]] if "." in name else meant[:3] or close))
    return f"did you mean {' or '.join(best)}?" if best else f"choose one of {', '.join(sorted(known)[:20])}"
