"""Copies and near copies among the faces: they must share a group, or a test face was seen in training.

Two faces are near copies if their perceptual hashes differ in at most 6 of 64 bits and their 8x8 grey
thumbnails correlate at 0.98 or more. The hash finds candidates fast but is coarse for aligned faces; the
thumbnail decides. Measured on 7,400 faces (CelebA, FFHQ, StyleGAN, three small GANs): every copy that was
recompressed at quality 40, halved, made 10% brighter or 10% flatter is found; a 2% crop in half the cases.

Time: 84 sortings of the hashes, and a comparison for every two that share a key: 5 a face among 20,000 unrelated
faces, 54 among 200,000. Up to half a million faces the sortings take most of it, and it grows about as N^1.1. Frames of
a film are compared until it is known that they are near copies, not each with each; but pairs of a real and a fake
frame are counted, and each costs its comparison. Memory: some MB and about 150 bytes a face.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

MAX_HASH_DISTANCE = 6
MIN_CORRELATION = 0.98
TABLES = (*combinations(range(8), 3), *combinations(range(8), 2))  # octets of a hash: see `pairs_of_table`
_BLOCK = 65536  # candidates at a time, about
_COMPARED = 4096  # comparisons of thumbnails at a time, which become floats, four times as large
_ONES_OF_OCTET = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Duplicates:
    """The copies that were found among N rows."""

    first: Indices  # (N,): the row whose group this row is in, once the groups are merged; never a later row
    exact: Mask  # (N,), the row repeats an earlier file or its pixels
    near: Mask  # (N,), the row is a near copy of an earlier row, and no exact copy
    both_classes: int  # pairs of copies or near copies, one real and one fake


def find_duplicates(
    group_keys: npt.NDArray[np.generic],  # (N,), equal for rows of one declared group
    file_keys: npt.NDArray[np.generic],  # (N,), equal for equal files
    pixel_keys: npt.NDArray[np.generic],  # (N,), equal for equal pixels
    hashes: Hashes,  # (N,), perceptual
    thumbs: npt.NDArray[np.uint8],  # (N, 64): grey levels
    labels: npt.NDArray[np.integer],  # (N,), REAL or FAKE
) -> Duplicates:
    """Merges the groups of all rows that are copies or near copies of each other.

    Of rows that repeat one file, its pixels, or a hash and its look, the pairs with the first of them count as pairs
    of both classes; of near copies every pair.
    """
    rows = np.arange(len(labels))
    same_file, same_pixels = _first_of_equal(file_keys), _first_of_equal(pixel_keys)
    groups = _Groups(labels)
    groups.merge(_first_of_equal(group_keys), rows)
    groups.add_copies(same_file, rows)
    also = same_pixels != same_file
    groups.add_copies(same_pixels[also], rows[also])
    exact = (same_file < rows) | (same_pixels < rows)
    _find_near_copies(groups, np.flatnonzero(~exact), hashes, thumbs)
    return Duplicates(groups.first, exact, groups.near, groups.both_classes)


class _Groups:
    """The groups of N rows as far as they are merged, and the counts of copies so far."""

    def __init__(self, labels: npt.NDArray[np.integer]) -> None:
        self.labels = labels
        self.first = np.arange(len(labels))
        self.near = np.zeros(len(labels), dtype=bool)
        self.both_classes = 0

    def merge(self, a: Indices, b: Indices) -> None:
        """Rows a[i] and b[i] are in one group: union-find, a whole array at a time."""
        while True:
            a, b = self.first[a], self.first[b]
            apart = a != b
            if not apart.any():
                return
            a, b = a[apart], b[apart]
            np.minimum.at(self.first, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(further := self.first[self.first], self.first):
                self.first = further

    def add_copies(self, a: Indices, b: Indices) -> None:
        """Merges the groups of copies; in all calls together no pair may come twice."""
        self.both_classes += int(np.count_nonzero(self.labels[a] != self.labels[b]))
        self.merge(a, b)

    def add_near_copies(self, a: Indices, b: Indices) -> None:
        """The same for near copies, of which the later row is marked."""
        self.near[np.maximum(a, b)] = True
        self.add_copies(a, b)

    def settled_keys(self, rows: Indices) -> Indices:
        """A number for each row: for two of equal number, nothing would follow from their being near copies.

        They share a group and a class, and the later one is known to be near: it is marked, and the earlier is marked
        too or is the group's first row.
        """
        first = self.first[rows]
        known = self.near[rows] | (first == rows)
        return np.asarray(2 * np.where(known, first, len(self.first) + rows) + self.labels[rows], dtype=np.int64)

    def unsettled(self, a: Indices, b: Indices) -> Mask:
        """Whether anything would follow from a[i] and b[i] being near copies."""
        in_one = (self.first[a] == self.first[b]) & (self.labels[a] == self.labels[b])
        return np.asarray(~(in_one & self.near[np.maximum(a, b)]), dtype=bool)


def _find_near_copies(groups: _Groups, rows: Indices, hashes: Hashes, thumbs: npt.NDArray[np.uint8]) -> None:
    """Adds the near copies among these rows, ascending, to the groups.

    Equal hashes are compared with the first of them only, so that a thousand blank pictures cost a thousand
    comparisons, not a million.
    """
    kept = [rows[:0]]
    while len(rows):  # each turn settles the first look of every hash
        pairs = np.stack([rows[_first_of_equal(hashes[rows])], rows])
        later = pairs[0] != pairs[1]
        kept.append(rows[~later])
        pairs = pairs[:, later]
        alike = look_alike(thumbs, *pairs)
        groups.add_near_copies(*pairs[:, alike])
        rows = pairs[1, ~alike]
    rows, changed = np.sort(np.concatenate(kept)), True
    settled = rows
    for table in TABLES:
        if changed:
            settled = groups.settled_keys(rows)
            order = np.argsort(settled, kind="stable")
            rows, settled = rows[order], settled[order]
            changed = False
        for places in pairs_of_table(table, hashes[rows], settled):
            pairs = rows[places]
            pairs = pairs[:, groups.unsettled(*pairs)]
            pairs = pairs[:, look_alike(thumbs, *pairs)]
            groups.add_near_copies(*pairs)
            changed |= pairs.size > 0


def pairs_of_table(
    table: tuple[int, ...],  # one of TABLES
    hashes: Hashes,  # (N,)
    settled: Indices,  # (N,), ascending: keys of `_Groups.settled_keys`
) -> Iterator[Indices]:  # (2, M)
    """Places of hashes within reach of each other and of different settled keys, some at a time.

    All tables together give every such pair once. Hashes that differ in at most 6 bits agree in full on two or more of
    their 8 octets. If on three, sorting by these three brings them next to each other; of the tables of three, only
    that of the first three such octets gives the pair. If on just two, each of the other six octets differs in exactly
    one bit, so all six parities differ: sorting by the two octets and by the parities or their complements,
    whichever are less, brings them next to each other. Such keys have 21 to 24 bits: few unrelated faces share one.
    """
    octets = _bits_of(table)
    compared = _bits_of(range(table[-1] + 1) if len(table) == 3 else range(8))  # where no other octets may agree
    keys = np.zeros(len(hashes), dtype=np.uint64)
    for octet in table:
        keys = keys << np.uint64(8) | _octets(hashes)[:, octet]
    if len(table) == 2:
        parities = np.packbits(_bit_count(_octets(hashes)) & 1) & ~octets
        keys = keys << np.uint64(8) | np.minimum(parities, parities ^ ~octets)
    at, begins = _runs(keys)
    hashes, settled = hashes[at], settled[at]
    for a, b in _spans(_ends(begins | _differs(settled)), _ends(begins)):
        differ = hashes[a] ^ hashes[b]
        close = np.flatnonzero(_bit_count(differ) <= MAX_HASH_DISTANCE)
        agree = np.packbits(_octets(differ[close]) == 0)
        close = close[agree & compared == octets]
        yield at[np.stack([a[close], b[close]])]


def _bits_of(octets: Iterable[int]) -> np.uint8:
    """A set of octets as `np.packbits` writes it: the first is the highest bit."""
    return np.uint8(sum(0x80 >> octet for octet in octets))


def _runs(keys: Hashes) -> tuple[Indices, Mask]:
    """Places of keys that are not alone, equal ones together and in their order; and where each such run begins."""
    ordered = np.sort(keys << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))  # quicker than argsort
    begins = _differs(ordered >> np.uint64(32))
    alone = begins.copy()
    alone[:-1] &= begins[1:]
    return (ordered[~alone] & np.uint64(0xFFFFFFFF)).astype(np.int64), begins[~alone]


def _differs(values: npt.NDArray[np.generic]) -> Mask:
    """Whether each value differs from the value before it; True for the first."""
    differs = np.ones(len(values), dtype=bool)
    differs[1:] = values[1:] != values[:-1]
    return differs


def _ends(begins: Mask) -> Indices:
    """For each place the end of its run."""
    ends = np.append(np.flatnonzero(begins)[1:], len(begins))
    return np.repeat(ends, np.diff(ends, prepend=0))


def _spans(start: Indices, stop: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Each place i with start[i] to stop[i] - 1, about `_BLOCK` at a time."""
    counts = stop - start
    places = np.flatnonzero(counts)
    blocks = np.cumsum(counts[places]) // _BLOCK
    for part in np.split(places, np.flatnonzero(_differs(blocks))[1:]):
        count = counts[part]
        before = np.cumsum(count) - count
        a = np.repeat(part, count)
        yield a, np.arange(len(a)) + np.repeat(start[part] - before, count)


def look_alike(thumbs: npt.NDArray[np.uint8], a: Indices, b: Indices) -> Mask:
    """Whether thumbnails a[i] and b[i] correlate at `MIN_CORRELATION` or more.

    A flat thumbnail is like flat thumbnails only. Sums and products are whole numbers below 2^24: exact in float32.
    """
    alike = np.empty(len(a), dtype=bool)
    for start in range(0, len(a), _COMPARED):
        block = slice(start, start + _COMPARED)
        x, y = thumbs[a[block]].astype(np.float32), thumbs[b[block]].astype(np.float32)
        sum_x, sum_y = (grey.sum(axis=1).astype(np.float64) for grey in (x, y))
        xx, yy, xy = (np.einsum("ij,ij->i", p, q).astype(np.float64) for p, q in ((x, x), (y, y), (x, y)))
        var_x, var_y, cov = 64 * xx - sum_x**2, 64 * yy - sum_y**2, 64 * xy - sum_x * sum_y  # times 64 squared
        flat_x, flat_y = var_x <= 64, var_y <= 64
        alike[block] = np.where(flat_x | flat_y, flat_x & flat_y, cov >= MIN_CORRELATION * np.sqrt(var_x * var_y))
    return alike


def _octets(words: Hashes) -> npt.NDArray[np.uint8]:
    return words.view(np.uint8).reshape(-1, 8)


def _bit_count(words: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.asarray(np.bitwise_count(words), dtype=np.uint8)
    octets = words.view(np.uint8).reshape(*words.shape, -1)
    return np.asarray(_ONES_OF_OCTET[octets].sum(axis=-1), dtype=np.uint8)


def _first_of_equal(keys: npt.NDArray[np.generic]) -> Indices:
    """For each place the first place with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)
