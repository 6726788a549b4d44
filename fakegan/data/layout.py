"""prepare's --root: sources and splits by the names of folders, in a folder or a zip archive alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fakegan.data.build import Source
from fakegan.data.sources import Folder, ZipArchive, open_container
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
_USUAL = "its folders real and fake, or train, val, test with these"


@dataclass
class Layout:
    """What the folders under a --root hold."""

    sources: list[Source] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)  # what else holds pictures, and how many

    def notes(self) -> list[str]:
        """What is to be known of kept splits: sentences."""
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

    A name may be in any case. The folder of one source has its class first, as in fake_stylegan3: that is its name,
    too. Where all lies in one more folder, that is looked into.

    Raises:
        UsageError: no such folders, or both layouts at once.
        FakeganError: pictures in other places, without `skip_unknown`.
    """
    if not root.is_dir() and not (root.is_file() and root.suffix.lower() == ".zip"):
        raise UsageError(f"--root {root} is not a folder or a .zip")
    container = open_container(root)
    assert isinstance(container, Folder | ZipArchive)
    top, inside = _unwrapped(container)
    folders, _ = top.top()
    parts = sorted((name for name in folders if name.lower() in _SPLIT_OF), key=_order)
    classes = [name for name in folders if _class_of(name)]
    if parts and classes:
        raise UsageError(
            f"--root {root} holds {', '.join(classes)} beside {', '.join(parts)}: move it into one of these, or away"
        )
    if keep_splits and not parts:
        raise UsageError(f"--keep-splits: {root} has no folders train, val, test")
    layout = Layout()
    if parts:
        layout.not_taken += _others(top, inside, set(parts))
    for part in parts or [""]:
        split = _SPLIT_OF[part.lower()] if part and keep_splits else ""
        place = f"{inside}{part}/" if part else inside
        _add_sources(layout, root, top.below(part) if part else top, place, split)
    if not layout.sources:
        found = f"; found {', '.join(folders[:5])}" if folders else ""
        raise UsageError(f"--root {root}: expected {_USUAL}{found}")
    if layout.not_taken and not skip_unknown:
        raise FakeganError(
            f"--root {root}: pictures here are of no class: {', '.join(layout.not_taken)}. Call their folders real, "
            "fake or fake_NAME, move them away, or leave them out with --skip-unknown"
        )
    return layout


def _unwrapped(container: Folder | ZipArchive) -> tuple[Folder | ZipArchive, str]:
    """The folder that holds more than one unknown folder, and its path below the root."""
    inside = ""
    while True:
        folders, loose = container.top()
        with_pictures = [name for name in folders if _pictures(container.below(name))]
        known = [name for name in folders if name.lower() in _SPLIT_OF or _class_of(name)]
        if known or loose or len(with_pictures) != 1:
            return container, inside
        container, inside = container.below(with_pictures[0]), f"{inside}{with_pictures[0]}/"


def _add_sources(layout: Layout, root: Path, container: Folder | ZipArchive, place: str, split: str) -> None:
    """The class folders in one folder, and what lies beside them."""
    folders, _ = container.top()
    classes = {name: found for name in folders if (found := _class_of(name))}
    for folder, (label, source) in classes.items():
        below = f"{place}{folder}"
        layout.sources.append(Source(source, label, root, split=split, prefix=below, inside=f"{below}/"))
    layout.not_taken += _others(container, place, set(classes))


def _others(container: Folder | ZipArchive, place: str, taken: set[str]) -> Iterator[str]:
    """Where else in a folder there are pictures."""
    folders, loose = container.top()
    for name in folders:
        count = 0 if name in taken else _pictures(container.below(name))
        if count:
            yield f"{place}{name}/ ({count:,})"
    if loose:
        yield f"{loose:,} beside the folders of {place or 'it'}"


def _pictures(container: Folder | ZipArchive) -> int:
    return sum(not other for _, other in container.entries())


def _class_of(folder: str) -> tuple[int, str] | None:
    """Label and source of a class's folder; None for others, and for names that speak of both classes."""
    found = _CLASS.fullmatch(folder.lower())
    if found is None:
        return None
    label, own = _LABEL_OF[found[1]], (found[2] or "").strip()
    if any(word in own for word, other in _LABEL_OF.items() if other != label):
        return None
    return label, "_".join([CLASS_NAMES[label], own] if own else [CLASS_NAMES[label]])


def _order(part: str) -> tuple[int, str]:
    return list(_SPLITS).index(_SPLIT_OF[part.lower()]), part
