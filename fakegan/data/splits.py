"""Which face serves which purpose: autoencoder, train, val or test, decided by group and by hash.

A group's place depends on nothing but its name and the seed, so adding pictures moves none. No group is
ever on two sides; that holds across the autoencoder and the classifier too.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import Rows
from fakegan.data.split_advice import advice
from fakegan.data.store import StringArray
from fakegan.errors import UnknownSourceError, UsageError
from fakegan.labels import CLASS_NAMES, FAKE, REAL

ClassRatio = Literal["balanced", "natural"]  # of real and fake in a training epoch

# Rows of a group may ask for several places: the largest wins, and the rows with another are left out.
_NOWHERE, _AUTOENCODER_TRAIN, _AUTOENCODER_VAL, _TRAIN, _VAL, _TEST = range(-1, 5)
_PLACES = ("autoencoder_train", "autoencoder_val", "train", "val", "test")

# The classes that each split must hold for a use of the splits. Combine with |.
Needs = Mapping[str, tuple[int, ...]]
AUTOENCODER: dict[str, tuple[int, ...]] = {"autoencoder_train": (REAL,), "autoencoder_val": (REAL,)}
CLASSIFIER: dict[str, tuple[int, ...]] = dict.fromkeys(("train", "val", "test"), (REAL, FAKE))


def seeds(**values: int) -> None:
    """Raise a UsageError for a seed that torch or NumPy would not take; keys are written with __ for the dot."""
    for key, value in values.items():
        if not 0 <= value < 2**64:
            shown = str(value) if value.bit_length() <= 128 else f"{hex(value)[:20]}..."  # long ones have no str
            raise UsageError(f"{key.replace('__', '.')}={shown} must be 0 or more, and below 2**64")


@dataclass(frozen=True)
class SplitConfig:
    """conf/data: `split`."""

    seed: int = 0  # of the split alone: other seeds of a run keep the same test faces
    val: float = 0.15  # share of the groups
    test: float = 0.15  # share of the groups
    autoencoder_share: float | None = None  # of the real training faces, for the autoencoder alone; null: half,
    # or none beside autoencoder_sources
    unseen: tuple[str, ...] = ()  # sources, fake or real, that appear in the test split only
    learn_from: tuple[str, ...] = ()  # fake sources to learn from: all other fakes are unseen, too; none: from all
    autoencoder_sources: tuple[str, ...] = ()  # real sources that train the autoencoder only

    def __post_init__(self) -> None:
        seeds(data__split__seed=self.seed)

    @property
    def share(self) -> float:
        """Of the real train groups, for the autoencoder alone; 0 without own sources: the classifier shares them."""
        if self.autoencoder_share is None:
            return 0.0 if self.autoencoder_sources else 0.5
        return self.autoencoder_share

    def only_tested(self, fakes: Sequence[str]) -> tuple[str, ...]:
        """The sources that appear in the test split only, of a store with these fake sources."""
        others = [source for source in fakes if self.learn_from and source not in self.learn_from]
        return tuple(dict.fromkeys((*self.unseen, *others)))


@dataclass(frozen=True)
class Splits:
    """Sorted rows of the store for each purpose, disjoint by group.

    With a share of 0 and no autoencoder_sources, autoencoder_train and autoencoder_val are the real rows of train
    and val.
    """

    autoencoder_train: Rows
    autoencoder_val: Rows
    train: Rows
    val: Rows
    test: Rows
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> rows in no split
    notes: tuple[str, ...] = ()  # a sentence on each split that the data came without

    def counts(self, sources: StringArray) -> dict[str, tuple[int, ...]]:
        """For each of the sources, (N,), by name: its faces in each split, in the order of the fields."""
        names, source = np.unique(sources, return_inverse=True)
        columns = [np.bincount(source[getattr(self, place)], minlength=len(names)).tolist() for place in _PLACES]
        return dict(zip(names.tolist(), zip(*columns, strict=True), strict=True))


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

    A group's hash decides between test, val and train; a kept split in the group replaces it. Where a class came
    with kept splits but without val or test, the missing split is taken from its train groups, by the same hash. A
    second hash hands real train groups to the autoencoder, a third divides these into train and val. Rows of sources
    that are only tested all go to test. Rows that would put a group on two sides are left out: test wins over val, val
    over train, train over the autoencoder.

    Raises:
        UsageError: impossible fractions, a source that the store lacks, or an empty split that `needs` asks for: the
            message names overrides that fill it, which were tried.
    """
    for label in sorted({label for wanted in needs.values() for label in wanted}):
        if not (labels == label).any():
            alone = "" if label == REAL else " (real faces alone can train pipeline=autoencoder)"
            name = CLASS_NAMES[label]
            raise UsageError(f"the store holds no {name} faces: prepare it again with --{name} NAME=PATH{alone}")
    table = _Table(labels, sources, kept_split, groups)
    splits = table.divided(config)
    if (lacking := table.lacking(splits, needs)) is None:
        return splits
    split, label = lacking
    own = labels == label
    like = cache(table.like)
    cure = advice(
        config,
        np.unique(sources[own]).tolist(),
        has_kept=bool((kept_split != "").any()),
        works=lambda other, kept, more: like(kept, more).works(other, needs),
    )
    raise UsageError(f"the {split} split has no {CLASS_NAMES[label]} faces ({own.sum()} in the store): {cure}")


class _Table:
    """A store's columns, and how a config divides them."""

    def __init__(
        self,
        labels: npt.NDArray[np.int64],  # (N,)
        sources: StringArray,
        kept_split: StringArray,
        groups: StringArray,
    ) -> None:
        self.labels, self.sources, self.kept_split = labels, sources, kept_split
        self.fakes: list[str] = np.unique(sources[labels == FAKE]).tolist()
        self.names, self.group = np.unique(groups, return_inverse=True)  # (G,), and for each row which of them
        self._hashes: dict[tuple[int, str], npt.NDArray[np.float64]] = {}

    def like(self, kept: bool, more: bool) -> _Table:
        """This store without its kept splits, or with many more faces and groups of its kinds."""
        if kept and not more:
            return self
        split = self.kept_split if kept else np.full_like(self.kept_split, "")
        times = 10 + 2_000 // len(self.labels) if more else 1
        groups = [np.char.add(self.names, f" {i}" if i else "")[self.group] for i in range(times)]
        labels, sources = np.tile(self.labels, times), np.tile(self.sources, times)
        return _Table(labels, sources, np.tile(split, times), np.concatenate(groups))

    def works(self, config: SplitConfig, needs: Needs) -> bool:
        """Whether a config gives all that `needs` asks for."""
        try:
            return self.lacking(self.divided(config), needs) is None
        except UsageError:
            return False

    def lacking(self, splits: Splits, needs: Needs) -> tuple[str, int] | None:
        """The first split and class that `needs` asks for in vain."""
        for split, classes in needs.items():
            for label in classes:
                if label not in self.labels[getattr(splits, split)]:
                    return split, label
        return None

    def divided(self, config: SplitConfig) -> Splits:
        """The splits, empty ones too. Raises UsageError as `split_faces` does."""
        self._check(config)
        kept, notes = self._kept_places(config)
        places, reasons = self._places(config, kept)
        rows = {name: np.flatnonzero(places == place) for place, name in enumerate(_PLACES)}
        if config.share == 0 and not config.autoencoder_sources:
            for name in ("train", "val"):
                rows[f"autoencoder_{name}"] = rows[name][self.labels[rows[name]] == REAL]
        left_out = Counter(reasons[reasons != ""].tolist())
        return Splits(**rows, left_out=dict(sorted(left_out.items())), notes=notes)

    def _check(self, config: SplitConfig) -> None:
        for key, value in (("val", config.val), ("test", config.test), ("autoencoder_share", config.share)):
            if not 0 <= value <= 1:
                raise UsageError(f"data.split.{key} is {value!r}: give a fraction from 0 to 1")
        both = config.val + config.test
        if both >= 1:
            raise UsageError(f"data.split.val + data.split.test is {both:g}: nothing is left to train on; give less")
        known = np.unique(self.sources).tolist()
        for key in ("unseen", "autoencoder_sources", "learn_from"):
            for source in getattr(config, key):
                if source not in known and source.startswith("each("):
                    raise UsageError(f"data.split.{key}={source} makes a sweep of several runs: add -m to the command")
                if source not in known:
                    near = " or ".join(difflib.get_close_matches(source, known, n=3, cutoff=0.4) or known[:5])
                    why = "which the store does not hold"
                    raise UnknownSourceError(f"data.split.{key} names {source}, {why}: did you mean {near}?")
        if twice := set(config.unseen) & set(config.autoencoder_sources):
            raise UsageError(f"{min(twice)} is in data.split.unseen and data.split.autoencoder_sources: keep one")
        if fakes := set(self.fakes) & set(config.autoencoder_sources):
            raise UsageError(
                f"data.split.autoencoder_sources names {min(fakes)}, which holds fake faces: the autoencoder "
                f"learns from real ones only"
            )
        if reals := set(config.learn_from) - set(self.fakes):
            raise UsageError(
                f"data.split.learn_from names {min(reals)}, which holds real faces: it chooses among the fake sources"
            )
        if twice := set(config.unseen) & set(config.learn_from):
            raise UsageError(f"{min(twice)} is in data.split.unseen and data.split.learn_from: keep one")

    def _kept_places(self, config: SplitConfig) -> tuple[Rows, tuple[str, ...]]:
        """The place that each row came with, and a sentence on each split that was taken from train instead."""
        came = np.full(len(self.kept_split), _NOWHERE)
        for name, place in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)):
            came[self.kept_split == name] = place
        kept = came.copy()
        taken: dict[int, list[str]] = {}
        shares = {_TEST: config.test, _VAL: config.val}
        for label, class_name in CLASS_NAMES.items():
            train = (self.labels == label) & (came == _TRAIN)
            missing = set(shares) - set(came[self.labels == label].tolist())
            if not train.any() or not missing:
                continue
            left = 1 - sum(share for place, share in shares.items() if place not in missing)
            hashed = self._hashed(config, {place: shares[place] / left for place in shares if place in missing})
            kept[train] = hashed[self.group[train]]
            for place in missing:
                taken.setdefault(place, []).append(class_name)
        return kept, tuple(
            f"no {_PLACES[place]} split came with the {' and '.join(classes)} faces: it is taken from train"
            for place, classes in sorted(taken.items())
        )

    def _places(self, config: SplitConfig, kept: Rows) -> tuple[Rows, StringArray]:
        """For each row its place, and the reason where it has none."""
        group, real = self.group, self.labels == REAL
        unseen = np.isin(self.sources, np.array(config.only_tested(self.fakes), dtype=np.str_))
        dedicated = np.isin(self.sources, np.array(config.autoencoder_sources, dtype=np.str_))

        kept_in_group = self._largest_of_group(kept)
        hashed = self._hashed(config, {_TEST: config.test, _VAL: config.val})
        decided = np.where(kept_in_group == _NOWHERE, hashed, kept_in_group)
        own = np.where(kept == _NOWHERE, decided[group], kept)
        is_val = self._at(config, "autoencoder val") < config.val / (1 - config.test)
        inner = np.where(is_val, _AUTOENCODER_VAL, _AUTOENCODER_TRAIN)[group]
        has_real = np.bincount(group[real & ~unseen & ~dedicated], minlength=len(self.names)) > 0
        chosen = has_real & (self._at(config, "autoencoder") < config.share)
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

        winner = self._largest_of_group(places)[group]
        lost = (places != winner) & (places != _NOWHERE)
        because = np.array([f"its group is in {name}" for name in _PLACES])[winner]
        return np.where(lost, _NOWHERE, places), np.where(lost, because, reasons)

    def _largest_of_group(self, places: Rows) -> Rows:  # (N,) -> (G,)
        largest = np.full(len(self.names), _NOWHERE)
        np.maximum.at(largest, self.group, places)
        return largest

    def _hashed(self, config: SplitConfig, shares: Mapping[int, float]) -> Rows:
        """(G,): by hash a place out of `shares`, each with its share of the groups; else train."""
        at, places, below = self._at(config, "split"), np.full(len(self.names), _TRAIN), 0.0
        for place, share in shares.items():
            places[(at >= below) & (at < below + share)] = place
            below += share
        return places

    def _at(self, config: SplitConfig, purpose: str) -> npt.NDArray[np.float64]:
        """(G,): a number in [0, 1) by a hash of a group's name, the seed and the purpose; kept for other configs."""
        key = config.seed, purpose
        if key not in self._hashes:
            names = (f"{purpose}/{config.seed}/{name}" for name in self.names.tolist())
            encoded = (name.encode("utf-8", "surrogateescape") for name in names)
            words = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in encoded)
            top = np.frombuffer(words, dtype=">u8") >> np.uint64(11)  # 53 bits: exact in a float
            self._hashes[key] = top.astype(np.float64) / 2**53
        return self._hashes[key]
