"""Frozen dataclasses from plain values: an unknown key or a value of another type is refused by its full name."""

from __future__ import annotations

import contextlib
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from fakegan.errors import UnknownKeyError, UsageError

T = TypeVar("T")
REST: dict[str, Any] = {"rest": True}  # metadata of the field that takes the keys which no other field has
_MOST_LISTED = 20  # names that are all listed where none is near
_SIMILAR_WORD, _SIMILAR_GROUP = 0.75, 0.5  # similarity, from 0 to 1, of a typing error; of a group's name in a key
_TIE = 0.06  # a smaller difference of two distances is none
_IN_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}
_IN_WORDS |= {bool: "true or false", dict: "a group of keys"}
_NAMES = {"Literal": typing.Literal, "Optional": typing.Optional, "Union": typing.Union, "Any": Any, "None": None} | {
    kind.__name__: kind for kind in (bool, int, float, str, tuple, list, dict, Path, timedelta)
}  # in annotations of which only the text is known


def from_mapping(kind: type[T], values: Mapping[str, Any], at: str = "") -> T:
    """A frozen dataclass from plain values, nested ones too; a UsageError for a wrong key, type or range."""
    hints = typing.get_type_hints(kind)
    own = {f.name: f for f in fields(kind) if not f.metadata.get("rest")}  # type: ignore[arg-type]
    rest = next((f.name for f in fields(kind) if f.metadata.get("rest")), None)  # type: ignore[arg-type]
    others = {key: value for key, value in values.items() if key not in own}
    if others and rest is None:
        raise unknown(f"{at}{next(iter(others))}", next(iter(others.values())), [f"{at}{name}" for name in own])
    for name, f in own.items():
        if f.default is MISSING and f.default_factory is MISSING and name not in values:
            raise UsageError(f"{at}{name} is missing from the config")
    place = at.rstrip(".")
    typed = {key: _typed(hints[key], value, f"{at}{key}") for key, value in values.items() if key in own}
    if rest is not None:
        typed[rest] = _typed(hints[rest], others, place)
    try:
        return kind(**typed)
    except UsageError as error:  # a value out of range; a dataclass that stands in two places does not know its own
        raise error if not place or place.split(".")[0] in str(error) else UsageError(f"{place}: {error}") from None
    except ValueError as error:  # of fakegan.checks
        raise UsageError(f"{at}{error}") from None


def to_mapping(settings: Any) -> dict[str, Any]:
    """The plain values that `from_mapping` makes such settings from: texts, numbers, lists and groups of keys."""
    values: dict[str, Any] = {}
    for f in fields(settings):
        value = _plain(getattr(settings, f.name))
        values |= value if f.metadata.get("rest") else {f.name: value}
    return values


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def checked(annotation: str, value: Any, at: str) -> None:
    """Raise a UsageError where a value is not of the type that an annotation's text says, if that is a plain type."""
    try:
        hint = eval(annotation, {"__builtins__": {}}, _NAMES)  # of a signature in source code
    except (NameError, SyntaxError, TypeError, AttributeError):
        return  # a class that is not plain
    if hint is not None and annotation:
        with contextlib.suppress(TypeError):  # of a generic type within a union
            _typed(hint, value, at)


def _typed(hint: Any, value: Any, at: str) -> Any:
    """`value` as the type `hint` asks for; a UsageError names the key where it is of another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        return _of_union(arguments, value, at)
    if origin is typing.Literal:
        return value if value in arguments else _refuse(at, value, " or ".join(map(str, arguments)))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            _refuse(at, value, f"a list: '{at}=[...]'")
        return tuple(_typed(arguments[0], item, f"{at}[{i}]") for i, item in enumerate(value))
    if origin is dict or is_dataclass(hint):
        if not isinstance(value, Mapping):
            _refuse(at, value, "a group of keys")
        if is_dataclass(hint):
            return from_mapping(typing.cast("type[Any]", hint), value, f"{at}.")
        inner = arguments[1]
        return {key: _typed(inner, v, f"{at}.{key}") if is_dataclass(inner) else v for key, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    quotes = f", in quotes where it looks like something else, {at}='...'"
    wanted = {**_IN_WORDS, str: f"text{quotes}", Path: f"a path{quotes}"}
    return _refuse(at, value, wanted.get(hint, str(hint)))


def _of_union(arguments: Sequence[Any], value: Any, at: str) -> Any:
    options = tuple(a for a in arguments if a is not types.NoneType)
    if value is None and len(options) < len(arguments):
        return None
    if len(options) == 1:
        return _typed(options[0], value, at)
    kinds = tuple(typing.get_origin(option) or option for option in options)
    accepted = (*kinds, int) if float in kinds else kinds
    if isinstance(value, accepted) and (bool in kinds or not isinstance(value, bool)):
        return value
    return _refuse(at, value, " or ".join(_IN_WORDS.get(k, k.__name__) for k in kinds if k is not timedelta))


def _refuse(at: str, value: Any, wanted: str) -> typing.NoReturn:
    raise UsageError(f"{at}={value!r} must be {wanted}")


def flat(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The values of nested groups of keys, by full key; an empty group is a value."""
    if not isinstance(node, Mapping) or not node:
        yield prefix, node
        return
    for key, inner in node.items():
        yield from flat(inner, f"{prefix}.{key}".lstrip("."))


def unknown(key: str, value: Any, known: Sequence[str]) -> UnknownKeyError:
    """The error for a key that is not known; for a group of keys it names the first key in it."""
    while isinstance(value, Mapping) and value:
        inner, value = next(iter(value.items()))
        key = f"{key}.{inner}"
    return UnknownKeyError(key, nearest(key, known))


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not known: the nearest known names, by their last parts.

    Names of the same group come first; of equally near names, the names with the most similar groups.
    """
    *path, end = name.split(".")
    for candidates in ([key for key in known if path and key.partition(".")[0] == path[0]], known):
        distances = {key: _distance(end, key.rpartition(".")[2]) for key in candidates}
        least = min(distances.values(), default=1)
        near = [key for key, distance in distances.items() if distance < 1 and distance <= least + _TIE]
        alike = {key: _likeness_of_path(path, key) for key in near}
        best = [key for key in near if alike[key] >= max(alike.values()) - _TIE]
        if best:
            return f"did you mean {' or '.join(best[:3])}?"
    return f"choose one of {', '.join(sorted(known))}" if len(known) <= _MOST_LISTED else "--help lists them all"


def _likeness_of_path(path: Sequence[str], key: str) -> float:
    """The sum over a path's parts of how similar each is to the nearest part of a key, if it is similar at all."""
    likeness = [max(_similarity(part, other) for other in key.split(".")) for part in path]
    return sum(part for part in likeness if part >= _SIMILAR_GROUP)


def _similarity(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _distance(typed: str, end: str) -> float:
    """From 0, the same, to 1, nothing in common, between what was typed and the last part of a key.

    Initials are near (lr: learning_rate), then typing errors, then a text that contains the other (every: grid_every).
    """
    if typed == end:
        return 0
    for long, short in ((typed, end), (end, typed)):
        if "_" in long.strip("_") and "".join(word[:1] for word in long.split("_")) == short:
            return 0.1
    if _similarity(typed, end) >= _SIMILAR_WORD:
        return 1.2 - _similarity(typed, end)
    if len(typed) > 2 and typed in end:
        return 0.5
    return 0.6 if end in typed.split("_") else 1
