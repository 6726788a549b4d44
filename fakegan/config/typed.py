"""Plain values as a frozen dataclass: unknown keys and values of another type are refused, named in full."""

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
_MOST_LISTED = 20  # names that are all listed where none is near
_TYPING_ERROR, _RELATED, _AS_NEAR = 0.75, 0.5, 0.06  # how much alike, from 0 to 1; how little less is no worse
REST: dict[str, Any] = {"rest": True}  # metadata of the one field that takes the keys which no other field has
_NAMES = {"Literal": typing.Literal, "Optional": typing.Optional, "Union": typing.Union, "Any": Any, "None": None} | {
    kind.__name__: kind for kind in (bool, int, float, str, tuple, list, dict, Path, timedelta)
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
            raise unknown(f"{at}{key}", values[key], [f"{at}{name}" for name in known])
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
    except ValueError as error:  # of fakegan.checks
        raise UsageError(f"{at}{error}") from None


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
        kinds = tuple(typing.get_origin(option) or option for option in options)
        taken = (*kinds, int) if float in kinds else kinds  # 1 is a number, too
        fits = isinstance(value, taken) and not (isinstance(value, bool) and bool not in kinds)
        return value if fits else _wrong(at, value, _named(kinds))
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
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    quoted = f"in quotes where it looks like something else, {at}='...'"
    wanted = {int: "a whole number", float: "a number", str: f"text, {quoted}", Path: f"a path, {quoted}"}
    return _wrong(at, value, wanted.get(hint, hint))


def _named(kinds: Sequence[type]) -> str:
    """Types in the words of a config, which holds no object of another kind."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a group of keys"}
    return " or ".join(words.get(kind, kind.__name__) for kind in kinds if kind is not timedelta)


def _group(hint: Any, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        _wrong(at, value, "a group of keys")
    return {key: _typed(hint, v, f"{at}.{key}") if is_dataclass(hint) else v for key, v in value.items()}


def _wrong(at: str, value: Any, wanted: Any) -> typing.NoReturn:
    raise UsageError(f"{at}={value!r} must be {wanted}")


def flat(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The values of nested groups of keys, by full key; an empty group is a value."""
    if not isinstance(node, Mapping) or not node:
        yield prefix, node
        return
    for key, inner in node.items():
        yield from flat(inner, f"{prefix}.{key}".lstrip("."))


def unknown(key: str, value: Any, known: Sequence[str]) -> UnknownKeyError:
    """The error for a key that is none of those that are known; of a group of keys, for the first in it."""
    while isinstance(value, Mapping) and value:
        inner, value = next(iter(value.items()))
        key = f"{key}.{inner}"
    return UnknownKeyError(key, nearest(key, known))


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not among those that are known: the nearest ones."""
    best = _near(name, known)
    if best:
        return f"did you mean {' or '.join(best)}?"
    return f"choose one of {', '.join(sorted(known))}" if len(known) <= _MOST_LISTED else "--help lists them all"


def _near(name: str, known: Sequence[str]) -> list[str]:
    """The nearest by their last part, of the same group if one can be; of equals those whose path is most alike."""
    *path, end = name.split(".")
    for among in ([key for key in known if path and key.partition(".")[0] == path[0]], known):
        ranks = {key: rank for key in among if (rank := _unlike(end, key.rpartition(".")[2])) < 1}
        best = [key for key in ranks if ranks[key] <= min(ranks.values()) + _AS_NEAR]
        paths = {key: sum(_within(part, key) for part in path) for key in best}
        best = [key for key in best if paths[key] >= max(paths.values()) - _AS_NEAR]
        if best:
            return best[:3]
    return []


def _within(part: str, key: str) -> float:
    """How much of a path's part is in a key: nothing where only single letters are."""
    alike = max(_alike(part, other) for other in key.split("."))
    return alike if alike >= _RELATED else 0


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _unlike(typed: str, end: str) -> float:
    """How far the last part of a key is from what was typed for it, from 0, the same, to 1, nothing in common.

    Initials are near (lr: learning_rate), then typing errors, then what contains the other (every: grid_every).
    """
    if typed == end:
        return 0
    if any(_initials(long) == short for long, short in ((typed, end), (end, typed))):
        return 0.1
    if _alike(typed, end) >= _TYPING_ERROR:
        return 1.2 - _alike(typed, end)
    if len(typed) > 2 and typed in end:
        return 0.5
    return 0.6 if end in typed.split("_") else 1


def _initials(name: str) -> str | None:
    return "".join(word[:1] for word in name.split("_")) if "_" in name.strip("_") else None
