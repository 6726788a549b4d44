"""Plain values as a frozen dataclass: unknown keys and values of another type are refused, named in full."""

from __future__ import annotations

import contextlib
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from fakegan.errors import UsageError

T = TypeVar("T")
REST: dict[str, Any] = {"rest": True}  # metadata of the one field that takes the keys which no other field has
_NAMES = {"Literal": typing.Literal, "Path": Path, "Any": Any, "None": None} | {
    kind.__name__: kind for kind in (bool, int, float, str, tuple, list, dict)
}  # of the annotations that are checked where only their text is known


def from_mapping(kind: type[T], values: Mapping[str, Any], at: str = "") -> T:
    """A frozen dataclass from plain values; keys and types are checked, nested dataclasses are built."""
    hints = typing.get_type_hints(kind)
    rest = next((f.name for f in fields(kind) if f.metadata.get("rest")), None)  # type: ignore[arg-type]
    known = [f.name for f in fields(kind) if f.name != rest]  # type: ignore[arg-type]
    if rest is not None:
        others = {key: value for key, value in values.items() if key not in known}
        values = {key: value for key, value in values.items() if key in known} | {rest: others}
    for key in values:
        if key not in known and key != rest:
            raise UsageError(f"{at}{key} is not a config key: {nearest(str(key), known)}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    for key in needed:
        if key not in values:
            raise UsageError(f"{at}{key} is missing from the config")
    typed = {
        key: _typed(hints[key], value, at.rstrip(".") if key == rest else f"{at}{key}") for key, value in values.items()
    }
    try:
        return kind(**typed)
    except UsageError as error:  # a value out of range; settings that stand in two places do not know where
        place = at.rstrip(".")
        raise error if not place or place.split(".")[0] in str(error) else UsageError(f"{place}: {error}") from None


def to_mapping(settings: Any) -> dict[str, Any]:
    """The plain values that `from_mapping` makes such settings from: texts, numbers, lists and groups of keys."""
    values: dict[str, Any] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.metadata.get("rest"):
            values |= _plain(value)
        else:
            values[f.name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def checked(annotation: str, value: Any, at: str) -> None:
    """Raise a UsageError where a value is not what an annotation says, as far as that is of plain types."""
    try:
        hint = eval(annotation, {"__builtins__": {}}, _NAMES)  # of a signature in source code
    except (NameError, SyntaxError, TypeError, AttributeError):
        return  # a class of its own
    if hint is not None and hint is not Any and annotation:
        with contextlib.suppress(TypeError):  # of a generic type within a union
            _typed(hint, value, at)


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
        return _group(arguments[1], value, at)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    quoted = f"in quotes where it looks like something else, {at}='...'"
    wanted = {int: "a whole number", float: "a number", str: f"text, {quoted}", Path: f"a path, {quoted}"}
    return _wrong(at, value, wanted.get(hint, hint))


def _group(hint: Any, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        _wrong(at, value, "a group of keys")
    return {key: _typed(hint, v, f"{at}.{key}") if is_dataclass(hint) else v for key, v in value.items()}


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
    meant += [key for key, end in ends.items() if "".join(word[:1] for word in leaf.split("_")) == end and "_" in leaf]
    meant += [key for key, end in ends.items() if len(leaf) > 2 and leaf in end and key not in meant]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    best = list(dict.fromkeys([*meant[:2], *close[:2]] if "." in name else meant[:3] or close))
    return f"did you mean {' or '.join(best)}?" if best else f"choose one of {', '.join(sorted(known)[:20])}"
