"""Groups by name: frames of one film or pictures of one person, in a folder each or numbered under one name.

`group_of` is prepare's --group-by; `Names` finds sources that look as if they needed it.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fakegan.data.arrays import Rows

GroupBy = Literal["folder", "name"]
GROUP_BY: tuple[GroupBy, ...] = ("folder", "name")

_NUMBERED = re.compile(r"(.*?)[ _.(-]*(\d{1,15})\)?")  # video3_000123: video3, 000123
_FILM = re.compile(r"(?<![a-z])(frame|video|vid|clip|movie|scene|shot|seq|sequence|track)s?(?![a-z])", re.IGNORECASE)
_FEWEST = 3  # groups, and pictures in each: fewer show nothing
_MOST = 0.8  # of a source's pictures must fit
_ALIKE = 0.6  # neighbours in a group differ by less than this share of the difference between two groups' pictures
_PAIRS = 2_000  # of pictures that are compared

Keys = npt.NDArray[np.uint64]  # hashes of groups; 0: in no group
Thumbs = npt.NDArray[np.uint8]  # (N, 64), grey levels


def group_of(
    name: str,  # within its source, video3/frame_0001.png
    by: GroupBy,
) -> str:
    """The group's name; "" for a picture that is in none.

    "folder": the folder that it is in, if that is not the source's own. "name": the part of its name, with the folder,
    before the last number.
    """
    folder, stem, _ = _parts(name)
    if by == "folder":
        return folder
    return f"{folder}/{stem}".lstrip("/") if stem else ""


def _parts(name: str) -> tuple[str, str, int]:
    """Folder, the part of the name before its last number, and this number; -1 where it does not end in a number."""
    folder, _, file = name.rpartition("/")
    numbered = _NUMBERED.fullmatch(file.rpartition(".")[0] or file)
    return (folder, numbered[1], int(numbered[2])) if numbered else (folder, "", -1)


@dataclass
class Names:
    """Numbers from the names of the pictures, row by row: 25 bytes each."""

    folders: array[int] = field(default_factory=lambda: array("Q"))  # hashes of their names; 0: the picture is in none
    stems: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    films: array[int] = field(default_factory=lambda: array("b"))  # whether a name speaks of frames or films

    def add(self, name: str) -> None:
        """The next picture, named as within its source."""
        for by, keys in zip(GROUP_BY, (self.folders, self.stems), strict=True):
            group = group_of(name, by).encode("utf-8", "surrogateescape")
            keys.append(int.from_bytes(hashlib.blake2b(group, digest_size=8).digest(), "big") if group else 0)
        self.numbers.append(_parts(name)[2])
        self.films.append(_FILM.search(re.sub(r"[\d_]", " ", name)) is not None)

    def found(
        self,
        sources: npt.NDArray[np.uintc],  # (N,), numbers
        thumbs: Thumbs,
    ) -> Iterator[tuple[int, GroupBy, int]]:
        """Sources whose pictures look like frames of some things: number, how to group them, how many groups.

        Names alone prove nothing: 70,000 faces of as many people are numbered as well, and in numbered folders. So
        neighbours must look alike; or the names speak of frames, and their numbers begin anew in each group.
        """
        numbers, films = np.frombuffer(self.numbers, dtype=np.int64), np.frombuffer(self.films, dtype=np.int8) > 0
        keys = dict(zip(GROUP_BY, (np.frombuffer(k, dtype=np.uint64) for k in (self.folders, self.stems)), strict=True))
        for source in np.unique(sources).tolist():
            rows = np.flatnonzero(sources == source)
            fitting = {by: _fitting(rows, keys[by], numbers) for by in GROUP_BY}
            count = {by: len(np.unique(keys[by][fitting[by]])) for by in GROUP_BY}
            for by, own in fitting.items():
                if not len(own):
                    continue
                one_stem = by == "name" or count["name"] <= 1.5 * count["folder"]
                begin_anew = len(np.unique(numbers[own])) <= len(own) / 2
                named = one_stem and films[own].mean() >= _MOST and begin_anew
                if named or _neighbours_look_alike(own, keys[by], numbers, thumbs):
                    yield source, by, count[by]
                    break


def _fitting(rows: Rows, keys: Keys, numbers: Rows) -> Rows:
    """The numbered rows in groups of at least three, if they are most rows and at least three groups; else none."""
    own = rows[(keys[rows] != 0) & (numbers[rows] >= 0)]
    _, group, sizes = np.unique(keys[own], return_inverse=True, return_counts=True)
    fitting: Rows = own[sizes[group] >= _FEWEST]
    enough = len(fitting) >= _MOST * len(rows) and (sizes >= _FEWEST).sum() >= _FEWEST
    return fitting if enough else own[:0]


def _neighbours_look_alike(rows: Rows, keys: Keys, numbers: Rows, thumbs: Thumbs) -> bool:
    """Whether neighbours in a group look more alike than pictures of two groups."""

    def difference(a: Rows, b: Rows) -> float:
        """The median over some pairs of rows of the mean difference in grey levels."""
        some = slice(None, None, max(len(a) // _PAIRS, 1))
        differences = np.abs(thumbs[a[some]].astype(np.float32) - thumbs[b[some]]).mean(axis=1)
        return float(np.median(differences)) if len(differences) else float("nan")

    order = rows[np.lexsort((numbers[rows], keys[rows]))]
    first, second = order[:-1], order[1:]
    same = keys[first] == keys[second]
    shifted = np.roll(order, len(order) // 2)
    other = keys[order] != keys[shifted]
    return difference(first[same], second[same]) < _ALIKE * difference(order[other], shifted[other])
