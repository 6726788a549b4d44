"""Which face serves which purpose: autoencoder, train, val or test, decided by group and by hash.

A group's place depends on nothing but its name and the seed, so adding pictures moves none. No group is
ever on two sides; that holds across the autoencoder and the classifier too.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fakegan.data.store import CLASS_NAMES, FAKE, REAL, StringArray
from fakegan.errors import FakeganError, UsageError

Rows = npt.NDArray[np.int64]
ClassRatio = Literal["balanced", "natural"]  # of real and fake in a training epoch
Number = TypeVar("Number", np.int64, np.bool_)

# Of the places a group's rows ask for the largest wins; the others of the group are left out.
_NOWHERE, _AUTOENCODER_TRAIN, _AUTOENCODER_VAL, _TRAIN, _VAL, _TEST = range(-1, 5)
_PLACES = ("autoencoder_train", "autoencoder_val", "train", "val", "test")

# What a use of the splits cannot do without: the classes that each split must hold. Combine with |.
Needs = Mapping[str, tuple[int, ...]]
AUTOENCODER: dict[str, tuple[int, ...]] = {"autoencoder_train": (REAL,), "autoencoder_val": (REAL,)}
CLASSIFIER: dict[str, tuple[int, ...]] = dict.fromkeys(("train", "val", "test"), (REAL, FAKE))

_KEYS_TO_CHANGE = {
    "autoencoder_train": "raise data.split.autoencoder_share, or set it to 0 to share the train faces",
    "autoencoder_val": "raise data.split.val or data.split.autoencoder_share",
    "train": "lower data.split.val, data.split.test or data.split.autoencoder_share, or name fewer "
    "sources in data.split.unseen",
    "val": "raise data.split.val, or name fewer sources in data.split.unseen",
    "test": "raise data.split.test",
}


def seeds(**values: int) -> None:
    """Raise a UsageError for a seed that torch or NumPy would not take; keys are written with __ for the dot."""
    for key, value in values.items():
        if not 0 <= value < 2**64:
            shown = str(value) if value.bit_length() <= 128 else f"{hex(value)[:20]}..."  # long ones have no str
            raise UsageError(f"{key.replace('__', '.')}={shown} must be 0 or more, and below 2**64")


@dataclass(frozen=True)
class SplitConfig:
    """conf/data: `split`."""

    seed: int = 0
    val: float = 0.15  # of all groups
    test: float = 0.15  # of all groups
    autoencoder_share: float = 0.5  # of the real train groups; 0: autoencoder and classifier share them
    unseen: tuple[str, ...] = ()  # sources that appear in test only
    autoencoder_sources: tuple[str, ...] = ()  # real sources that train the autoencoder only

    def __post_init__(self) -> None:
        seeds(data__split__seed=self.seed)


@dataclass(frozen=True)
class Splits:
    """Sorted rows of the store for each purpose, disjoint by group.

    With autoencoder_share 0 and no autoencoder_sources, autoencoder_train and autoencoder_val are the real
    rows of train and val.
    """

    autoencoder_train: Rows
    autoencoder_val: Rows
    train: Rows
    val: Rows
    test: Rows
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows in no split


def split_faces(
    labels: npt.NDArray[np.int64],  # (N,), REAL or FAKE
    sources: StringArray,  # (N,)
    groups: StringArray,  # (N,)
    kept_split: StringArray,  # (N,): "", or the train, val or test that came with the data
    config: SplitConfig,
    *,
    needs: Needs = AUTOENCODER | CLASSIFIER,  # {} accepts empty splits
) -> Splits:
    """Divides a store's rows.

    A group's hash decides between test, val and train; a kept split in the group replaces it. A second hash
    hands real train groups to the autoencoder, a third divides those into train and val. Rows of `unseen`
    sources all go to test. Rows that would put a group on two sides are left out: test wins over val, val
    over train, train over the autoencoder.

    Raises:
        UsageError: impossible fractions, or a source that the store lacks.
        FakeganError: a split that `needs` asks for is empty.
    """
    _check_config(config, labels, sources)
    places, reasons = _places(labels, sources, groups, kept_split, config)
    rows = {name: np.flatnonzero(places == place) for place, name in enumerate(_PLACES)}
    if config.autoencoder_share == 0 and not config.autoencoder_sources:
        rows["autoencoder_train"] = rows["train"][labels[rows["train"]] == REAL]
        rows["autoencoder_val"] = rows["val"][labels[rows["val"]] == REAL]
    left_out = Counter(reasons[reasons != ""].tolist())
    splits = Splits(**rows, left_out=dict(sorted(left_out.items())))
    _check_needs(splits, labels, needs)
    return splits


def _places(
    labels: npt.NDArray[np.int64],
    sources: StringArray,
    groups: StringArray,
    kept_split: StringArray,
    config: SplitConfig,
) -> tuple[Rows, StringArray]:
    """For each row its place, and the reason where it has none."""
    names, group = np.unique(groups, return_inverse=True)  # (G,), and for each row which of them
    real = labels == REAL
    unseen = np.isin(sources, np.array(config.unseen, dtype=np.str_))
    dedicated = np.isin(sources, np.array(config.autoencoder_sources, dtype=np.str_))
    kept = _kept_places(kept_split)

    kept_in_group = _largest_of_group(kept, group, len(names))
    decided = np.where(kept_in_group == _NOWHERE, _hashed_places(names, config), kept_in_group)
    own = np.where(kept == _NOWHERE, decided[group], kept)
    inner = _autoencoder_places(names, config)[group]
    has_real = _largest_of_group(real & ~unseen & ~dedicated, group, len(names))
    chosen = has_real & (_unit_hashes(names, config.seed, "autoencoder") < config.autoencoder_share)
    handed_over = chosen[group] & (own == _TRAIN)

    rules: list[tuple[npt.NDArray[np.bool_], Rows | int, str]] = [  # the first that holds decides
        (unseen, _TEST, ""),
        (dedicated & (kept == _TEST), _NOWHERE, "kept as test, but of a source for the autoencoder only"),
        (dedicated & (kept == _VAL), _AUTOENCODER_VAL, ""),
        (dedicated, inner, ""),
        (handed_over & real, inner, ""),
        (handed_over, _NOWHERE, "fake whose group's real faces train the autoencoder"),
    ]
    holds = [rule[0] for rule in rules]
    places = np.select(holds, [np.asarray(rule[1]) for rule in rules], default=own)
    reasons = np.select(holds, [np.asarray(rule[2]) for rule in rules], default=np.asarray(""))
    return _one_place_a_group(places, reasons, group, len(names))


def _one_place_a_group(
    places: Rows,
    reasons: StringArray,
    group: Rows,  # (N,)
    groups: int,
) -> tuple[Rows, StringArray]:
    """Leaves out the rows that would put their group on two sides."""
    winner = _largest_of_group(places, group, groups)[group]
    lost = (places != winner) & (places != _NOWHERE)
    because = np.array([f"its group is in {name}" for name in _PLACES])[winner]
    return np.where(lost, _NOWHERE, places), np.where(lost, because, reasons)


def _hashed_places(names: StringArray, config: SplitConfig) -> Rows:
    at = _unit_hashes(names, config.seed, "split")
    return np.where(at < config.test, _TEST, np.where(at < config.test + config.val, _VAL, _TRAIN))


def _autoencoder_places(names: StringArray, config: SplitConfig) -> Rows:
    at = _unit_hashes(names, config.seed, "autoencoder val")
    return np.where(at < config.val / (1 - config.test), _AUTOENCODER_VAL, _AUTOENCODER_TRAIN)


def _kept_places(kept_split: StringArray) -> Rows:
    places = np.full(len(kept_split), _NOWHERE)
    for name, place in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)):
        places[kept_split == name] = place
    return places


def _largest_of_group(
    values: npt.NDArray[Number],  # (N,)
    group: Rows,  # (N,)
    groups: int,
) -> npt.NDArray[Number]:  # (groups,)
    largest = np.full(groups, _NOWHERE if values.dtype != bool else False, dtype=values.dtype)
    np.maximum.at(largest, group, values)
    return largest


def _unit_hashes(names: StringArray, seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """For each name a number in [0, 1) that depends on nothing else."""
    start = hashlib.blake2b(f"{purpose}/{seed}/".encode(), digest_size=8)
    words = bytearray()
    for name in names.tolist():
        digest = start.copy()
        digest.update(name.encode("utf-8", "surrogateescape"))
        words += digest.digest()
    top = np.frombuffer(bytes(words), dtype=">u8") >> np.uint64(11)  # 53 bits: exact in a float
    return top.astype(np.float64) / 2**53


def _check_config(config: SplitConfig, labels: npt.NDArray[np.int64], sources: StringArray) -> None:
    for key in ("val", "test", "autoencoder_share"):
        value = getattr(config, key)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UsageError(f"data.split.{key} is {value!r}: give a fraction from 0 to 1")
    if config.val + config.test >= 1:
        raise UsageError(
            f"data.split.val + data.split.test is {config.val + config.test:g}: nothing is left to train on"
        )
    known = set(np.unique(sources).tolist())
    for key in ("unseen", "autoencoder_sources"):
        for source in getattr(config, key):
            if source not in known:
                raise UsageError(_unknown_source(key, source, known))
    both = sorted(set(config.unseen) & set(config.autoencoder_sources))
    if both:
        raise UsageError(f"{both[0]} is in data.split.unseen and data.split.autoencoder_sources: keep one")
    fakes = set(np.unique(sources[labels == FAKE]).tolist()) & set(config.autoencoder_sources)
    if fakes:
        raise UsageError(
            f"data.split.autoencoder_sources names {min(fakes)}, which holds fake faces: the autoencoder "
            f"learns from real ones only"
        )


def _unknown_source(key: str, source: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(source, sorted(known), n=3, cutoff=0.4) or sorted(known)[:5]
    return f"data.split.{key} names {source}, which the store does not hold: did you mean {' or '.join(near)}?"


def _check_needs(splits: Splits, labels: npt.NDArray[np.int64], needs: Needs) -> None:
    for split, classes in needs.items():
        present = labels[getattr(splits, split)]
        for label in classes:
            if label in present:
                continue
            in_store = int((labels == label).sum())
            alone = "" if label == REAL else " (real faces alone can train pipeline=autoencoder)"
            missing = f"prepare some with --{CLASS_NAMES[label]} NAME=PATH{alone}"
            cure = _KEYS_TO_CHANGE[split] if in_store else missing
            raise FakeganError(f"the {split} split has no {CLASS_NAMES[label]} faces ({in_store} in the store): {cure}")
