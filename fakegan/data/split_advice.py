"""A split as overrides; and those to add where a split came out empty, each tried before it is advised."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from fakegan.system.shell import quoted

if TYPE_CHECKING:
    from fakegan.data.splits import SplitConfig

_PLENTY = 0.3  # of the groups of a small store, so that val and test get some
_SEEDS = 5  # others to try: in a small store chance alone may leave a split empty
_NAMES = 8  # sources that are tried one by one

# Whether a config gives all that is needed: with the store's kept splits or without, had it more faces of its kinds.
Works = Callable[["SplitConfig", bool, bool], bool]


def advice(
    config: SplitConfig,
    names: Collection[str],  # the sources of the class that a split lacks
    has_kept: bool,  # splits, in the store
    works: Works,
) -> str:
    """The overrides that fill all splits with the fewest changes, or another way; `works` has tried them."""
    again = "prepare the store again without --keep-splits"
    few = "there are too few faces, or too few groups of them (a group stays together): prepare more"
    ways = [("", True, False), (again, False, False), (f"{few}, without --keep-splits", False, True)]
    for first, kept, more in ways if has_kept else [("", True, False), (few, True, True)]:
        for changes in _changes(config, names):
            if works(replace(config, **changes), kept, more):
                words = " ".join(_word(key, value) for key, value in changes.items())
                return " and ".join([part for part in (first, f"give {words}" if words else "") if part])
    return few


def overrides(config: SplitConfig) -> list[str]:
    """What differs from the defaults, as words for a shell."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return [_word(field.name, values[field.name]) for field in fields(config) if values[field.name] != field.default]


def _changes(config: SplitConfig, names: Collection[str]) -> Iterator[dict[str, Any]]:
    """No change, one key changed, then two keys, then the changes that leave the most to every split."""
    alternatives = _alternatives(config, names)
    for count in (0, 1, 2):
        for keys in combinations(alternatives, count):
            for values in product(*(alternatives[key] for key in keys)):
                yield dict(zip(keys, values, strict=True))
    most = {key: values[-1] for key, values in alternatives.items() if key != "seed"}
    yield most
    yield from ({**most, "seed": seed} for seed in alternatives["seed"])


def _alternatives(config: SplitConfig, names: Collection[str]) -> dict[str, list[Any]]:
    """For each key its other values, the smallest change first."""
    found: dict[str, list[Any]] = {}
    for key in ("unseen", "autoencoder_sources", "learn_from"):
        given = getattr(config, key)
        fewer = [tuple(n for n in given if n != name) for name in given if name in names][:_NAMES]
        found[key] = list(dict.fromkeys([*fewer, ()])) if given else []
    found["autoencoder_share"] = [share for share in (0.5, 0.0) if share != config.share]
    for key in ("val", "test"):
        found[key] = [share for share in (0.15, _PLENTY) if share != getattr(config, key)]
    found["seed"] = [config.seed + i if config.seed + i < 2**64 else i for i in range(1, _SEEDS + 1)]
    return {key: values for key, values in found.items() if values}


def _word(key: str, value: Any) -> str:
    """As it is typed in a shell, for Hydra."""
    if isinstance(value, tuple):
        value = f"[{','.join(map(quoted, value))}]"
    elif isinstance(value, float):
        value = f"{value:g}"
    return shlex.quote(f"data.split.{key}={value}")
