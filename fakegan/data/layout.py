"""prepare's --root: sources and splits by the names of folders, in a folder or a zip archive alike.

A place is a folder below the root, "train/real/"; the root itself is "".
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from fakegan.data.build import Source
from fakegan.data.sources import open_container
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import CLASS_NAMES, FAKE, REAL

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in names}
_LABEL_OF = {"real": REAL, "original": REAL, "fake": FAKE, "generated": FAKE}
# real, 0_real, Originals, fake_stylegan3, fake-stylegan3: a word for the class, and perhaps a source's own name
_CLASS = re.compile(rf"(?:[01][_-])?({'|'.join(_LABEL_OF)})s?(?:[ _.-]+(\w[\w .+-]*))?")


@dataclass
class Layout:
    """The sources under a --root, and the pictures that belong to none."""

    sources: list[Source] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)  # places of other pictures, each with their number

    def notes(self) -> list[str]:
        """Sentences on splits that are missing."""
        notes = []
        for label, name in CLASS_NAMES.items():
            there = {source.split for source in self.sources if source.label == label}
            missing = [split for split in _SPLITS if split not in there]
            if "train" in there and missing:
                notes.append(f"no {' or '.join(missing)} folder of {name} faces: train.py takes that from train")
        return notes


def rooted(
    root: Path,  # a folder or a .zip
    keep_splits: bool,  # sources know the split that they came in
    skip_unknown: bool,  # go on without the pictures that lie elsewhere
) -> Layout:
    """The sources under a root: ROOT/{real,fake} or ROOT/{train,val,test}/{real,fake}, under their usual names.

    A name may be in any case. The folder of a single source has its class first, as in fake_stylegan3, which is the
    source's name, too. Where all lies in one more folder, that is looked into.

    Raises:
        UsageError: no such folders, or both layouts at once.
        FakeganError: pictures in other places, without `skip_unknown`.
    """
    if not root.is_dir() and not (root.is_file() and root.suffix.lower() == ".zip"):
        raise UsageError(f"--root {root} is not a folder or a .zip")
    tree = _Tree(root)
    top = tree.top()
    folders, order = tree.folders(top), list(_SPLITS)
    parts = [name for name in folders if name.lower() in _SPLIT_OF]
    parts.sort(key=lambda part: (order.index(_SPLIT_OF[part.lower()]), part))
    classes = ", ".join(name for name in folders if _class_of(name))
    if parts and classes:
        raise UsageError(f"--root {root} holds {classes} beside {', '.join(parts)}: move it into one of these, or away")
    if keep_splits and not parts:
        raise UsageError(f"--keep-splits: {root} has no folders train, val, test")
    layout = Layout(not_taken=tree.others(top, parts) if parts else [])
    for place, split in [(f"{top}{part}/", _SPLIT_OF[part.lower()]) for part in parts] or [(top, "")]:
        found = {name: known for name in tree.folders(place) if (known := _class_of(name))}
        for name, (label, source) in found.items():
            kept, inside = split if keep_splits else "", f"{place}{name}"
            layout.sources.append(Source(source, label, root, kept, prefix=inside, inside=f"{inside}/"))
        layout.not_taken += tree.others(place, found)
    if not layout.sources:
        there = f"; found {', '.join(folders[:5])}" if folders else ""
        raise UsageError(f"--root {root}: expected its folders real and fake, or train, val, test with these{there}")
    if layout.not_taken and not skip_unknown:
        raise FakeganError(
            f"--root {root}: pictures here are of no class: {', '.join(layout.not_taken)}. Call their folders real, "
            "fake or fake_NAME, move them away, or leave them out with --skip-unknown"
        )
    return layout


class _Tree:
    """All files under a root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = list(open_container(root).entries())  # each with its name from the root on

    def folders(self, place: str) -> list[str]:
        """The names of the folders in a place, empty ones too."""
        below = (name.removeprefix(place) for name, _ in self.files if name.startswith(place))
        found = {name.partition("/")[0] for name in below if "/" in name}
        if self.root.is_dir():
            found |= {name for name in os.listdir(self.root / place) if os.path.isdir(self.root / place / name)}
        return sorted(found)

    def pictures(self, place: str) -> list[str]:
        """The names of all pictures below a place, from there on."""
        return [name.removeprefix(place) for name, other in self.files if name.startswith(place) and not other]

    def others(self, place: str, taken: Collection[str]) -> list[str]:
        """Where there are pictures in a place, in folders that are not taken or beside them, and how many."""
        counts = Counter(name.partition("/")[0] if "/" in name else "" for name in self.pictures(place))
        loose = counts.pop("", 0)
        found = [f"{place}{folder}/ ({counts[folder]:,})" for folder in sorted(counts) if folder not in taken]
        return [*found, f"{loose:,} beside the folders of {place or 'it'}"] if loose else found

    def top(self) -> str:
        """The first place with pictures, known folders or more than a single folder with pictures."""
        place = ""
        while True:
            known = [name for name in self.folders(place) if name.lower() in _SPLIT_OF or _class_of(name)]
            ways = {name.partition("/")[0] if "/" in name else "" for name in self.pictures(place)}
            if known or len(ways) != 1 or "" in ways:
                return place
            place += f"{ways.pop()}/"


def _class_of(folder: str) -> tuple[int, str] | None:
    """Label and source of a class's folder; None for others, and for names that speak of both classes."""
    found = _CLASS.fullmatch(folder.lower())
    if found is None:
        return None
    label, own = _LABEL_OF[found[1]], (found[2] or "").strip()
    if any(word in own for word, other in _LABEL_OF.items() if other != label):
        return None
    return label, "_".join([CLASS_NAMES[label], own] if own else [CLASS_NAMES[label]])
