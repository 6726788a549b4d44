"""From a picture file to a square face: there is no other way.

Real and fake faces, training and prediction, all pass through `read_face`, so that no class and no
stage can be told apart by how its pictures were opened.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakegan.checks import SIZES
from fakegan.data.colour import Profile, read_profile, to_rgb
from fakegan.data.damage import damage
from fakegan.data.file_facts import FileFacts, facts_of, file_facts
from fakegan.data.formats import ImageError as ImageError  # noqa: PLC0414 - for callers of read_face
from fakegan.data.formats import damaged, open_picture, read_bounded, refuse_huge

Pixels = npt.NDArray[np.uint8]  # (size, size, 3), RGB


class _Orientation(NamedTuple):
    """How a picture lies in its file: the turn that makes it upright, and where upright coordinates are stored."""

    turn: Image.Transpose | None = None
    mirrored_x: bool = False
    mirrored_y: bool = False
    swapped: bool = False  # x and y, after mirroring; width and height too


_ORIENTATION_TAG = 0x0112  # EXIF: how the camera was held
_ORIENTATIONS = {
    2: _Orientation(Image.Transpose.FLIP_LEFT_RIGHT, mirrored_x=True),
    3: _Orientation(Image.Transpose.ROTATE_180, mirrored_x=True, mirrored_y=True),
    4: _Orientation(Image.Transpose.FLIP_TOP_BOTTOM, mirrored_y=True),
    5: _Orientation(Image.Transpose.TRANSPOSE, swapped=True),
    6: _Orientation(Image.Transpose.ROTATE_270, mirrored_x=True, swapped=True),
    7: _Orientation(Image.Transpose.TRANSVERSE, mirrored_x=True, mirrored_y=True, swapped=True),
    8: _Orientation(Image.Transpose.ROTATE_90, mirrored_y=True, swapped=True),
}

_LARGE = 64_000_000  # pixels; pictures above are read one at a time, whatever the number of workers
_BAND = 4_000_000  # pixels of a large picture that are converted at a time
_large_picture_lock: AbstractContextManager[Any] = threading.Lock()


def one_large_picture_at_a_time(lock: AbstractContextManager[Any]) -> None:
    """Called in each process that reads: large pictures are then read by one process at a time."""
    global _large_picture_lock  # noqa: PLW0603 - a lock between processes has to be handed to each as it starts
    _large_picture_lock = lock


LEAST_QUALITY, MOST_PIXELS = 50, 4096  # of an equaliser: a coarser JPEG harms the faces, a larger one hides no traces


class Equaliser(NamedTuple):
    """One size and one encoding for the pictures of all sources, before they are brought to the faces' size.

    A classifier could tell files of two formats, sizes or qualities apart. The square of each picture is resized to
    `side`, written as a baseline JPEG with libjpeg's tables and halved chroma (4:2:0), and read again.
    """

    side: int  # pixels
    quality: int = 50  # of the JPEG; above that of a source's files it hides little of theirs (docs/faces.md)

    def wrong(self, size: int) -> str:
        """Why it is none for faces of this size; empty where it is one."""
        if not size <= self.side <= MOST_PIXELS:
            return f"a side of {self.side} pixels is not from {size}, the size of the faces, to {MOST_PIXELS}"
        if not LEAST_QUALITY <= self.quality <= 100:
            return f"a JPEG quality of {self.quality} is not from {LEAST_QUALITY} to 100"
        return ""

    def file(self, square: Image.Image) -> bytes:
        """The JPEG file of an RGB square: what is then known of the picture's file is known of this one."""
        content = io.BytesIO()
        square.save(content, "JPEG", quality=self.quality, subsampling="4:2:0")
        return content.getvalue()


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes a square: one policy for all classes, kept in every store's manifest."""

    size: int = SIZES[0]  # pixels a side
    crop: bool = True  # centre square; False squashes the whole picture into the square
    max_megapixels: int = 256  # larger pictures are refused by their header; telephones reach 201 (16384x12288)
    to_srgb: bool = True  # by the colour profile; False: profiles are ignored, as in stores before there was a choice
    equalise: Equaliser | None = None  # None: the files' own sizes and encodings, as in stores before

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Geometry:
        """The geometry of which `values` gave these; old stores and detectors ignored profiles."""
        equalise = values.get("equalise")
        return cls(**{"to_srgb": False, **values, "equalise": equalise and Equaliser(*equalise)})

    def values(self) -> dict[str, Any]:
        """What a store and a detector hold; as of old, where nothing is equalised."""
        equalise = {"equalise": list(self.equalise)} if self.equalise else {}
        return {name: value for name, value in asdict(self).items() if name != "equalise"} | equalise

    @property
    def first_side(self) -> int:
        """Pixels a side that a picture is brought to first; smaller ones are enlarged."""
        return self.equalise.side if self.equalise else self.size

    def shape(self) -> tuple[int, ...]:
        """Size, crop, equaliser: geometries that agree in these give the same face, but for colours by profile."""
        return self.size, self.crop, *(self.equalise or ())

    def options(self) -> str:
        """What `shape` holds as options of prepare."""
        equalise = " --equalise {},{}".format(*self.equalise) if self.equalise else ""
        return f"--size {self.size}{'' if self.crop else ' --no-crop'}{equalise}"


@dataclass(frozen=True)
class Face:
    """A picture brought to the geometry, and the facts of its file."""

    pixels: Pixels  # may be read-only
    facts: FileFacts  # of its file, as it came
    sha256: str  # of the file's bytes
    pixel_key: int  # 64 bits, equal for equal pixels
    phash: int  # 64 bits, see `hash_and_thumbnail`
    thumbnail: bytes  # 8x8 grey levels, see `hash_and_thumbnail`
    equalised: FileFacts | None = None  # of the file that it was made into before it was brought to the geometry

    @property
    def width(self) -> int:
        """Of the file's picture, upright."""
        return self.facts.width

    @property
    def height(self) -> int:
        """The same."""
        return self.facts.height

    @property
    def profile(self) -> str:
        """The colour profile's name, see `Profile`; also where the geometry ignores it."""
        return self.facts.profile


def read_face(source: bytes, geometry: Geometry) -> Face:
    """The content of a picture file as a face; `formats` says which.

    EXIF orientation is applied. Grey and palette become RGB; transparent parts become white, as on a
    page; 16-bit values keep their high byte. An ICC profile's colours become sRGB (relative colorimetric, black
    point compensated) unless the geometry ignores profiles; CMYK without a profile is converted by Pillow's plain
    formula. Texts and other metadata change nothing. Of an animation or several pages the first counts.
    The square is then resized by Pillow's bicubic filter, antialiased, with reducing_gap 2 (its thumbnails'
    setting: an exact 2x2, 3x3, ... mean first where the picture is more than four times too large). JPEG's built-in
    downscaling is not used: it moves the result by up to 4 levels, and would treat JPEG differently from PNG.
    Where the geometry equalises, the square becomes a JPEG of its own size first, and that is resized; the Face's
    properties are those of the file that was read.

    Memory: the file's content, the picture's pixels once, 4 bytes each, and some 35 MB. Decoding adds, in bytes a
    pixel: for WebP 12 (Pillow reads it as an animation), a progressive JPEG or AVIF 3 to 6, a TIFF that
    is turned by EXIF 4, and one strip of any TIFF.

    Raises:
        ImageError: not such a picture, truncated, damaged as far as `damage` finds it, or above the size limit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd metadata; damaged pixels are refused
        picture, kind, icc_profile = open_picture(source, geometry.max_megapixels)
        with _large_picture_lock if picture.width * picture.height > _LARGE else nullcontext():
            orientation = _decode(picture, kind)
            if found := damage(source):
                raise ImageError(found)
            profile = read_profile(icc_profile, picture.mode)
            pixels, size, equal = _to_face(picture, orientation, profile, geometry)
            facts = facts_of(picture, kind, len(source), profile.name)
            del picture  # before the next process takes its turn
    facts = facts._replace(width=size[0], height=size[1])
    return _face(pixels, facts, hashlib.sha256(source).hexdigest(), equal)


def read_face_in_memory(picture: Image.Image, geometry: Geometry) -> Face:
    """A picture that a program has opened or made, as `read_face` reads its file: EXIF, profile, transparency.

    Its sha256 is that of its pixels, as for an array's row: the bytes of its file are no longer known.

    Raises:
        ImageError: values that are no colours, a file behind it that is damaged, above the size limit.
    """
    refuse_huge(picture.size, geometry.max_megapixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = picture.format or "picture"
        orientation = _decode(picture, kind)
        profile = read_profile(picture.info.get("icc_profile"), picture.mode)
        pixels, size, equal = _to_face(picture, orientation, profile, geometry)
        facts = FileFacts(kind, *size, profile=profile.name)
        return _face(pixels, facts, hashlib.sha256(picture.tobytes()).hexdigest(), equal)


def read_face_file(path: str | Path, geometry: Geometry) -> Face:
    """`read_face` of a file; an ImageError also where the file cannot be read."""
    try:
        with open(path, "rb") as file:
            content = read_bounded(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    return read_face(content, geometry)


def face_from_pixels(pixels: Pixels, format: str = "NPY", equalise: Equaliser | None = None) -> Face:
    """A face that has its size already: a row of an array, or one drawn by program.

    Raises:
        TypeError: not uint8.
        ValueError: not (size, size, 3).
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"a face is uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3:
        raise ValueError(f"a face has shape (size, size, 3), got {pixels.shape}")
    if equalise:
        face = read_face_in_memory(Image.fromarray(pixels), Geometry(len(pixels), equalise=equalise))
        return replace(face, facts=face.facts._replace(format=format))
    return _face(np.ascontiguousarray(pixels), FileFacts(format, len(pixels), len(pixels)))


def _face(
    pixels: Pixels,
    facts: FileFacts,
    sha256: str = "",  # of its file; "": it has none, and the pixels' counts
    equal: bytes = b"",  # the file that equalising made of it
) -> Face:
    of_pixels = hashlib.sha256(pixels.tobytes()).hexdigest()
    keys = (sha256 or of_pixels, int(of_pixels[:16], 16), *hash_and_thumbnail(pixels))
    # The store keeps no such file: what its length would tell, the audit of pixels tells.
    return Face(pixels, facts, *keys, file_facts(equal)._replace(bytes=math.nan) if equal else None)


def _decode(picture: Image.Image, kind: str) -> _Orientation:
    """Reads all pixels; Pillow raises on a file that ends early, so no half picture passes."""
    try:
        picture.load()
    except MemoryError:
        raise ImageError("too large for the memory left") from None
    except Exception as error:  # a damaged file raises nearly anything
        raise ImageError(damaged(kind)) from error
    try:
        return _ORIENTATIONS.get(picture.getexif().get(_ORIENTATION_TAG, 1), _Orientation())
    except Exception:  # broken EXIF: the pixels are whole, and most viewers show them as they lie
        return _Orientation()


def _to_face(
    stored: Image.Image, orientation: _Orientation, profile: Profile, geometry: Geometry
) -> tuple[Pixels, tuple[int, int], bytes]:
    """The face, the upright picture's size, and the file that equalising made of it: empty where nothing did."""
    upright = stored.size[::-1] if orientation.swapped else stored.size
    square, equal = _to_square(stored, orientation, profile, geometry, geometry.first_side), b""
    if geometry.equalise:
        equal = geometry.equalise.file(square)
        square = _to_square(Image.open(io.BytesIO(equal)), _Orientation(), Profile(), geometry, geometry.size)
    return np.asarray(square), upright, equal


def _to_square(
    stored: Image.Image, orientation: _Orientation, profile: Profile, geometry: Geometry, size: int
) -> Image.Image:
    """The square of `size` pixels a side; as `resize(..., reducing_gap=2)` of all, but reduced band by band."""
    upright = stored.size[::-1] if orientation.swapped else stored.size
    left, top, (width, height) = 0, 0, upright
    if geometry.crop:
        side = min(upright)
        left, top, width, height = (width - side) // 2, (height - side) // 2, side, side
    across, down = (int(side / size / 2.0) or 1 for side in (width, height))
    reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
    rows = max(_BAND // width // down, 1) * down  # of a band: whole blocks of `down` rows
    for first in range(0, height, rows):
        box = (left, top + first, left + width, top + min(first + rows, height))
        band = to_rgb(_upright_part(stored, orientation, box), profile if geometry.to_srgb else Profile())
        reduced.paste(band.reduce((across, down)), (0, first // down))
    return reduced.resize((size, size), Image.Resampling.BICUBIC, (0, 0, width / across, height / down))


def _upright_part(stored: Image.Image, orientation: _Orientation, box: tuple[int, int, int, int]) -> Image.Image:
    """A box (left, top, right, bottom) of the upright picture; turning all of it would take its memory once more."""
    if orientation.turn is None:
        return stored.crop(box)
    (left, top, right, bottom), (width, height) = box, stored.size[::-1] if orientation.swapped else stored.size
    if orientation.mirrored_x:
        left, right = width - right, width - left
    if orientation.mirrored_y:
        top, bottom = height - bottom, height - top
    if orientation.swapped:
        left, top, right, bottom = top, left, bottom, right
    return stored.crop((left, top, right, bottom)).transpose(orientation.turn)


_BRIGHTNESS = np.array([299.0, 587.0, 114.0])  # of red, green and blue, in thousandths


def grey(pixels: Pixels) -> npt.NDArray[np.float64]:
    """(..., H, W, 3) to brightness (..., H, W): whole numbers from 0 to 255,000."""
    return np.asarray(pixels @ _BRIGHTNESS)


@lru_cache(maxsize=2)
def _waves_and_blocks(size: int) -> npt.NDArray[np.float64]:
    """(16, size): 8 cosine waves in whole numbers to 1024, then 8 blocks of ones."""
    index, position = np.arange(8)[:, None], np.arange(size)[None]
    waves = np.rint(1024 * np.cos(np.pi * (2 * position + 1) * index / (2 * size)))
    return np.concatenate([waves, position * 8 // size == index])


def hash_and_thumbnail(pixels: Pixels) -> tuple[int, bytes]:
    """(size, size, 3) to a perceptual hash and a thumbnail, by which near copies are found.

    The hash: 64 bits that hardly change when a picture is recompressed, scaled or brightened a little. The
    8x8 lowest frequencies of the grey picture's cosine transform; a bit says whether the frequency lies above
    the median of them all. The thumbnail: the mean grey levels of 8x8 blocks, row by row. Both are sums of whole
    numbers below 2^53: exact, the same on every machine.
    """
    lines = _waves_and_blocks(len(pixels))
    sums = lines @ grey(pixels) @ lines.T  # (16, 16)
    waves = sums[:8, :8].ravel()  # the first is the mean brightness
    bits = waves > np.sort(waves[1:])[31]
    sides = lines[8:].sum(axis=1)
    levels = (sums[8:, 8:] / (1000 * np.outer(sides, sides))).round().astype(np.uint8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), levels.tobytes()
