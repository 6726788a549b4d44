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

GroupBy = Literal["folder", "name"]
GROUP_BY: tuple[GroupBy, ...] = ("folder", "name")

_NUMBERED = re.compile(r"(.*?)[ _.(-]*(\d{1,15})\)?")  # video3_000123: video3, 000123
_FILM = re.compile(r"(?<![a-z])(frame|video|vid|clip|movie|scene|shot|seq|sequence|track)s?(?![a-z])", re.IGNORECASE)
_FEWEST = 3  # groups, and pictures in each: fewer tell nothing
_MOST = 0.8  # of a source's pictures must fit
_ALIKE = 0.6  # neighbours in a group differ by less than this share of what pictures of two groups do
_LOOKS = 2_000  # pairs of pictures looked at

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


def group_of(
    name: str,  # within its source, video3/frame_0001.png
    by: GroupBy,
) -> str:
    """What a picture shares with others of its group; "" for one that is alone.

    "folder": the folder that it is in, if that is not the source's own. "name": what its name, with the folder, has
    before the last number.
    """
    folder, stem, _ = _parts(name)
    if by == "folder":
        return folder
    return f"{folder}/{stem}".lstrip("/") if stem else ""


def _parts(name: str) -> tuple[str, str, int]:
    """Folder, what the name has before its last number, and this number; -1 where it does not end in one."""
    folder, _, file = name.rpartition("/")
    numbered = _NUMBERED.fullmatch(file.rpartition(".")[0] or file)
    return (folder, numbered[1], int(numbered[2])) if numbered else (folder, "", -1)


@dataclass
class Names:
    """What the names of the pictures say, row by row: 25 bytes each."""

    folders: array[int] = field(default_factory=lambda: array("Q"))  # hashes of them; 0: in no group by this
    stems: array[int] = field(default_factory=lambda: array("Q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    films: array[int] = field(default_factory=lambda: array("b"))  # whether a name speaks of frames or films

    def add(self, name: str) -> None:
        """The next picture, named as within its source."""
        self.folders.append(_key(group_of(name, "folder")))
        self.stems.append(_key(group_of(name, "name")))
        self.numbers.append(_parts(name)[2])
        self.films.append(_FILM.search(re.sub(r"[\d_]", " ", name)) is not None)

    def found(
        self,
        sources: npt.NDArray[np.uintc],  # (N,), numbers
        thumbs: npt.NDArray[np.uint8],  # (N, 64), grey levels
    ) -> Iterator[tuple[int, GroupBy, int]]:
        """Sources whose pictures look like frames of some things: number, how to group them, how many groups.

        Names alone prove nothing: 70,000 faces of as many people are numbered as well, and in numbered folders. So
        neighbours must look alike; or the names speak of frames, and their numbers begin anew in each group.
        """
        numbers = np.frombuffer(self.numbers, dtype=np.int64)
        films = np.frombuffer(self.films, dtype=np.int8) > 0
        keys: dict[GroupBy, npt.NDArray[np.uint64]] = {
            "folder": np.frombuffer(self.folders, dtype=np.uint64),
            "name": np.frombuffer(self.stems, dtype=np.uint64),
        }
        for source in np.unique(sources).tolist():
            rows = np.flatnonzero(sources == source)
            fitting = {by: _fitting(rows, keys[by], numbers) for by in GROUP_BY}
            count = {by: len(np.unique(keys[by][fitting[by]])) for by in GROUP_BY}
            for by in GROUP_BY:
                if not len(fitting[by]):
                    continue
                one_stem = by == "name" or count["name"] <= 1.5 * count["folder"]
                named = one_stem and _says_so(films[fitting[by]], numbers[fitting[by]])
                if named or _alike(fitting[by], keys[by], numbers, thumbs):
                    yield source, by, count[by]
                    break


def _fitting(rows: Rows, keys: npt.NDArray[np.uint64], numbers: Rows) -> Rows:
    """The numbered rows in groups of some, if most rows are that and the groups are some, too; else none."""
    own = rows[(keys[rows] != 0) & (numbers[rows] >= 0)]
    _, group, sizes = np.unique(keys[own], return_inverse=True, return_counts=True)
    fitting: Rows = own[sizes[group] >= _FEWEST]
    enough = len(fitting) >= _MOST * len(rows) and (sizes >= _FEWEST).sum() >= _FEWEST
    return fitting if enough else own[:0]


def _says_so(films: Mask, numbers: Rows) -> bool:
    """Whether the names speak of films, and their numbers begin anew."""
    return bool(films.mean() >= _MOST and len(np.unique(numbers)) <= len(numbers) / 2)


def _alike(rows: Rows, keys: npt.NDArray[np.uint64], numbers: Rows, thumbs: npt.NDArray[np.uint8]) -> bool:
    """Whether neighbours in a group look more alike than pictures of two groups."""
    order = rows[np.lexsort((numbers[rows], keys[rows]))]
    within = order[:-1][keys[order[:-1]] == keys[order[1:]]], order[1:][keys[order[:-1]] == keys[order[1:]]]
    shifted = np.roll(order, len(order) // 2)
    apart = keys[order] != keys[shifted]
    near, far = (_difference(*pair, thumbs) for pair in (within, (order[apart], shifted[apart])))
    return near < _ALIKE * far


def _difference(a: Rows, b: Rows, thumbs: npt.NDArray[np.uint8]) -> float:
    """The median over some pairs of rows of the mean difference in grey levels."""
    some = slice(None, None, max(len(a) // _LOOKS, 1))
    differences = np.abs(thumbs[a[some]].astype(np.float32) - thumbs[b[some]]).mean(axis=1)
    return float(np.median(differences)) if len(differences) else float("nan")


def _key(group: str) -> int:
    if not group:
        return 0
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")
