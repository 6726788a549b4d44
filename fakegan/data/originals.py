"""The picture files that a store was made of, where they still are, by store row, larger than the store's faces."""

from __future__ import annotations

import os
from pathlib import Path

from fakegan.data.arrays import Rows
from fakegan.data.formats import ImageError
from fakegan.data.images import Geometry, Pixels
from fakegan.data.sources import ArrayFile, Container, open_container
from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError, UsageError

PLACES = "originals"  # in a store's manifest: by the beginning of names in the store, the path and a folder inside
# Pixels a side, or the side that the store was equalised at where that is more: a larger original is reduced to it
# first, as on its way through the web.
MOST = 512
_CURE = "put the original pictures back, or leave out originals=true"
_AGAIN = "prepare the store again, or leave out originals=true"


class Originals:
    """Originals by store row as squares of their own size, uint8 (side, side, 3) each, cropped as the store's faces.

    Raises:
        UsageError: the store does not know where its originals are, or one of them is no longer there.
    """

    def __init__(self, store: FaceStore, rows: Rows) -> None:
        self.store = store
        self.places = _places(store)
        self.containers: dict[str, Container] = {}
        names: dict[str, set[str]] = {}
        for row in rows.tolist():
            prefix, name = self._place(row)
            if prefix not in names:
                self.containers[prefix] = self._opened(prefix)
                names[prefix] = {name for name, other in self.containers[prefix].entries() if not other}
            if name not in names[prefix]:
                raise UsageError(f"{store.path}: {name} is no longer in {self.places[prefix]['path']}; {_CURE}")

    def __getitem__(self, rows: Rows) -> list[Pixels]:
        return [self._read(row) for row in rows.tolist()]

    def _place(self, row: int) -> tuple[str, str]:
        """The beginning of a picture's name in the store, which names its container, and its name there."""
        file = str(self.store.files[row])
        prefix = max((place for place in self.places if file.startswith(f"{place}/")), key=len, default=None)
        if prefix is None:
            raise UsageError(f"{self.store.path} does not know where the original of {file} is: {_AGAIN}")
        return prefix, file.removeprefix(f"{prefix}/")

    def _opened(self, prefix: str) -> Container:
        path, inside = Path(self.places[prefix]["path"]), self.places[prefix]["inside"]
        if not os.path.exists(path):  # also where its name is too long, or its folder closed
            raise UsageError(f"{self.store.path}: {path} is no longer there; {_CURE}")
        container = open_container(path, (0.0, 1.0), inside, self.store.geometry.size)
        if isinstance(container, ArrayFile):
            raise UsageError(f"{path} is an array, which has no original pictures: leave out originals=true")
        return container

    def _read(self, row: int) -> Pixels:
        store, (prefix, name) = self.store, self._place(row)
        side = min(int(store.widths[row]), int(store.heights[row]), max(MOST, store.geometry.first_side))
        own_size = Geometry(side, store.geometry.crop, store.geometry.max_megapixels, store.geometry.to_srgb)
        container, what = self.containers[prefix], f"the original {name} in {self.places[prefix]['path']}"
        try:
            face = container.read(name, own_size)
        except ImageError as error:
            raise FakeganError(f"{what}: {error}; {_CURE}") from error
        if face.sha256 != store.sha256[row]:
            raise FakeganError(f"{what} has changed since the store was made; {_CURE}")
        return face.pixels


def _places(store: FaceStore) -> dict[str, dict[str, str]]:
    """What the manifest says, which may come from elsewhere."""
    found = store.manifest.get(PLACES)
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{store.path} does not know where its original pictures are: {_AGAIN}")
    for place in found.values():
        if not isinstance(place, dict) or not all(isinstance(place.get(key), str) for key in ("path", "inside")):
            raise FakeganError(f"{store.path}: the places of its originals are damaged: {_AGAIN}")
    return found
