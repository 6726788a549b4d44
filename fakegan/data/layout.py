"""prepare's --root: sources and splits by the names of folders, in a folder or a zip archive alike."""

from __future__ import annotations

import re
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

    def add(self, root: Path, folder: Folder | ZipArchive, place: str, split: str) -> None:
        """Take the folders of the classes in a folder, at `place` below the root."""
        classes = {name: found for name in folder.top()[0] if (found := _class_of(name))}
        for name, (label, source) in classes.items():
            self.sources.append(Source(source, label, root, split, prefix=f"{place}{name}", inside=f"{place}{name}/"))
        self.leave(folder, place, set(classes))

    def leave(self, folder: Folder | ZipArchive, place: str, taken: set[str]) -> None:
        """Note all other pictures in a folder."""
        folders, loose = folder.top()
        for name in folders:
            if name not in taken and (count := _pictures(folder.below(name))):
                self.not_taken.append(f"{place}{name}/ ({count:,})")
        if loose:
            self.not_taken.append(f"{loose:,} beside the folders of {place or 'it'}")


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
    container = open_container(root)
    assert isinstance(container, Folder | ZipArchive)
    top, inside = _unwrapped(container)
    folders, _ = top.top()
    order = list(_SPLITS)
    parts = [name for name in folders if name.lower() in _SPLIT_OF]
    parts.sort(key=lambda part: (order.index(_SPLIT_OF[part.lower()]), part))
    classes = ", ".join(name for name in folders if _class_of(name))
    if parts and classes:
        raise UsageError(f"--root {root} holds {classes} beside {', '.join(parts)}: move it into one of these, or away")
    if keep_splits and not parts:
        raise UsageError(f"--keep-splits: {root} has no folders train, val, test")
    layout = Layout()
    if parts:
        layout.leave(top, inside, set(parts))
    else:
        layout.add(root, top, inside, "")
    for part in parts:
        layout.add(root, top.below(part), f"{inside}{part}/", _SPLIT_OF[part.lower()] if keep_splits else "")
    _refuse(root, layout, folders, skip_unknown)
    return layout


def _refuse(root: Path, layout: Layout, folders: list[str], skip_unknown: bool) -> None:
    if not layout.sources:
        found = f"; found {', '.join(folders[:5])}" if folders else ""
        usual = "its folders real and fake, or train, val, test with these"
        raise UsageError(f"--root {root}: expected {usual}{found}")
    if layout.not_taken and not skip_unknown:
        raise FakeganError(
            f"--root {root}: pictures here are of no class: {', '.join(layout.not_taken)}. Call their folders real, "
            "fake or fake_NAME, move them away, or leave them out with --skip-unknown"
        )


def _unwrapped(container: Folder | ZipArchive) -> tuple[Folder | ZipArchive, str]:
    """The first folder that holds more than a single unknown folder, and its path below the root."""
    inside = ""
    while True:
        folders, loose = container.top()
        with_pictures = [name for name in folders if _pictures(container.below(name))]
        known = [name for name in folders if name.lower() in _SPLIT_OF or _class_of(name)]
        if known or loose or len(with_pictures) != 1:
            return container, inside
        container, inside = container.below(with_pictures[0]), f"{inside}{with_pictures[0]}/"


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
