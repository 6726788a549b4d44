"""The picture files that a store was made of, where they still are, by store row, larger than the store's faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fakegan.data.arrays import Rows
from fakegan.data.formats import ImageError
from fakegan.data.images import Geometry, Pixels
from fakegan.data.sources import ArrayFile, Container, open_container
from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError, UsageError

PLACES = "originals"  # in a store's manifest: by the beginning of names in the store, the path and a folder inside
MOST = 512  # pixels a side: a larger original is reduced to it first, as on its way through the web


@dataclass(frozen=True)
class _File:
    """One picture, and where it was when the store was made."""

    container: Container
    name: str  # in the container
    sha256: str  # of its bytes then
    side: int  # pixels of its square, at most `MOST`


class Originals:
    """Originals by store row as squares of their own size, uint8 (side, side, 3) each, cropped as the store's faces.

    Raises:
        UsageError: the store does not know where its originals are, or one of them is no longer there.
    """

    def __init__(self, store: FaceStore, rows: Rows) -> None:
        found = _places_of(store)
        listed: dict[str, tuple[Container, frozenset[str]]] = {}
        self.geometry = store.geometry
        self.files: dict[int, _File] = {}
        for row in rows.tolist():
            file = str(store.files[row])
            prefix = max((p for p in found if file.startswith(f"{p}/")), key=len, default=None)
            if prefix is None:
                raise UsageError(f"{store.path} does not know where the original of {file} is: prepare the store again")
            if prefix not in listed:
                listed[prefix] = _opened(store, found[prefix])
            container, names = listed[prefix]
            name = file.removeprefix(f"{prefix}/")
            if name not in names:
                raise _gone(store, f"{name} is no longer in {found[prefix]['path']}")
            side = min(int(store.widths[row]), int(store.heights[row]), MOST)
            self.files[row] = _File(container, name, str(store.sha256[row]), side)

    def __getitem__(self, rows: Rows) -> list[Pixels]:
        return [self._read(self.files[row]) for row in rows.tolist()]

    def _read(self, file: _File) -> Pixels:
        of_store = self.geometry
        geometry = Geometry(file.side, of_store.crop, of_store.max_megapixels, of_store.to_srgb)
        try:
            face = file.container.read(file.name, geometry)
        except ImageError as error:
            raise FakeganError(f"the original {file.name} in {file.container.path}: {error}") from error
        if face.sha256 != file.sha256:
            raise FakeganError(
                f"the original {file.name} in {file.container.path} has changed since the store was made: leave out "
                "originals=true"
            )
        return face.pixels


def _places_of(store: FaceStore) -> dict[str, dict[str, str]]:
    """What the manifest says, which may come from elsewhere."""
    found = store.manifest.get(PLACES)
    if not isinstance(found, Mapping) or not found:
        raise UsageError(
            f"{store.path} does not know where its original pictures are: prepare it again, or leave out originals=true"
        )
    for place in found.values():
        if not isinstance(place, Mapping) or not all(isinstance(place.get(key), str) for key in ("path", "inside")):
            raise FakeganError(f"{store.path}: the places of its originals are damaged: prepare the store again")
    return dict(found)


def _opened(store: FaceStore, place: Mapping[str, str]) -> tuple[Container, frozenset[str]]:
    """A container, and the names of the pictures in it."""
    path = Path(place["path"])
    if not path.exists():
        raise _gone(store, f"{path} is no longer there")
    container = open_container(path, (0.0, 1.0), place["inside"], store.geometry.size)
    if isinstance(container, ArrayFile):
        raise UsageError(f"{path} is an array, which has no original pictures: leave out originals=true")
    return container, frozenset(name for name, other in container.entries() if not other)


def _gone(store: FaceStore, what: str) -> UsageError:
    return UsageError(f"{store.path}: {what}; put the original pictures back, or leave out originals=true")
