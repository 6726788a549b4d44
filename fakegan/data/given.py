"""Pictures as a Python program has them, to faces: paths, PIL images and arrays, through the same geometry as files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakegan.data.build import Outcome
from fakegan.data.images import Geometry, ImageError, read_face_file, read_face_in_memory
from fakegan.errors import UsageError
from fakegan.system.shell import expanded

# A file's path, a PIL image, or uint8 (H, W, 3) RGB, or (H, W) grey, of any size.
Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]"

EXPECTED = "paths of picture files, PIL images, or uint8 arrays (0 to 255) of shape (H, W, 3) or (H, W)"


def read_given(pictures: Iterable[Picture], geometry: Geometry) -> Iterator[tuple[str, Outcome]]:
    """Each picture's name, and its face, or the reason why there is none; a path's name is that path, others' [INDEX].

    Raises:
        UsageError: no list of pictures, an empty one, or something in it that is no picture; before any is read.
    """
    single = isinstance(pictures, (str, bytes, os.PathLike, Image.Image))
    if isinstance(pictures, np.ndarray):  # of several pictures, or of several paths, it is a list
        single = pictures.ndim != 4 and not (pictures.ndim == 1 and pictures.dtype.kind in "UO")
    if single or not isinstance(pictures, Iterable):
        raise UsageError(f"{_described(pictures)} is no list of pictures: give a list, as in predict([picture])")
    listed = [_checked(number, picture) for number, picture in enumerate(pictures)]
    if not listed:
        raise UsageError(f"there are no pictures in the list: give {EXPECTED}")
    if all(isinstance(picture, Path) and not os.path.exists(picture) for picture in listed):
        raise UsageError(f"{listed[0]} does not exist: give {EXPECTED}")
    return _read(listed, geometry)


def _checked(number: int, picture: Any) -> Path | Image.Image:
    """A path, or an image."""
    if isinstance(picture, (str, os.PathLike)) and not isinstance(picture, Image.Image):
        path = Path(expanded(picture) if isinstance(picture, str) else picture)
        if os.path.isdir(path) or (path.suffix.lower() == ".zip" and os.path.isfile(path)):
            raise UsageError(
                f"{path} holds pictures, and each needs a row of its own: list its files, as in "
                "predict(sorted(Path(folder).glob('*.jpg'))), or name it to fakegan.predict, the command"
            )
        return path
    if isinstance(picture, Image.Image) and all(picture.size):
        return picture
    is_array = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.size and picture.ndim >= 2
    if is_array and picture.shape[2:] in {(), (3,)}:
        return Image.fromarray(picture)
    raise UsageError(f"picture {number} is {_described(picture)}: give {EXPECTED}")


def _described(thing: Any) -> str:
    """Such as "a float64 array of shape (3, 64, 64)"."""
    if isinstance(thing, np.ndarray):
        return f"an array of {thing.dtype}, {thing.shape}"
    if isinstance(thing, Image.Image):
        return f"a PIL image of {thing.width}x{thing.height}"
    return f"{thing!r:.100}" if isinstance(thing, (str, bytes, Path)) else f"of type {type(thing).__name__}"


def _read(pictures: Sequence[Path | Image.Image], geometry: Geometry) -> Iterator[tuple[str, Outcome]]:
    for number, picture in enumerate(pictures):
        name = str(picture) if isinstance(picture, Path) else f"[{number}]"
        try:
            if isinstance(picture, Path):
                yield name, read_face_file(picture, geometry)
            else:
                yield name, read_face_in_memory(picture, geometry)
        except ImageError as error:
            yield name, str(error)
