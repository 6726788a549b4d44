"""One picture file to one 64x64 face: the only code that opens a picture.

Real and fake faces, training and prediction, all pass through `read_face`, so that no class and no
stage can be told apart by how its pictures were opened.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakegan.data.colour import Profile, read_profile, to_rgb
from fakegan.data.damage import damage
from fakegan.data.formats import ImageError as ImageError  # noqa: PLC0414 - for those who read faces
from fakegan.data.formats import damaged, open_picture, read_bounded, refuse_huge

Pixels = npt.NDArray[np.uint8]  # (64, 64, 3), RGB

_ORIENTATION_TAG = 0x0112  # EXIF: how the camera was held
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}  # width and height change places

_LARGE = 64_000_000  # pixels; pictures above are read one at a time, whatever the number of workers
_BAND = 4_000_000  # pixels of a large picture that are converted at a time
_turn: AbstractContextManager[Any] = threading.Lock()  # of reading a large picture


def take_turns(lock: AbstractContextManager[Any]) -> None:
    """Called in each process that reads: large pictures are then read by one of them at a time."""
    global _turn  # noqa: PLW0603 - a lock between processes has to be handed to each as it starts
    _turn = lock


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes a square: one policy for all classes, kept in every store's manifest."""

    size: int = 64  # pixels a side
    crop: bool = True  # centre square; False squashes the whole picture into the square
    max_megapixels: int = 256  # refused above, by what the header says; telephones reach 201 (16384x12288)
    to_srgb: bool = True  # by the colour profile; False: profiles are ignored, as in stores before there was a choice

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Geometry:
        """What a store or a detector kept of it; older ones ignored profiles."""
        return cls(**{"to_srgb": False, **values})

    def shape(self) -> tuple[int, bool]:
        """What gives a face its shape; colours by profile aside, geometries of equal shape give the same face."""
        return self.size, self.crop


@dataclass(frozen=True)
class Face:
    """A picture brought to the geometry, and what its file was like."""

    pixels: Pixels  # may be read-only
    width: int  # of the file's picture, upright
    height: int
    format: str  # JPEG, PNG, WEBP, TIFF, BMP, GIF, AVIF, HEIC; NPY for rows of an array
    jpeg_quantiser_mean: float  # mean of the luma quantisation table, higher is coarser; NaN if not JPEG
    sha256: str  # of the file's bytes
    pixel_key: int  # 64 bits, equal for equal pixels
    phash: int  # 64 bits, see `looks`
    thumbnail: bytes  # 8x8 grey levels, see `looks`
    profile: str = ""  # the colour profile's name, see `Profile`; also where the geometry ignores it


def read_face(source: bytes, geometry: Geometry) -> Face:
    """The content of a picture file as a face; `formats` says which.

    EXIF orientation is applied. Grey and palette become RGB; transparent parts become white, as on a
    page; 16-bit values keep their high byte. An ICC profile's colours become sRGB (relative colorimetric, black
    point compensated) unless the geometry ignores profiles; CMYK without one is converted by Pillow's plain
    formula. Texts and other metadata count for nothing. Of an animation or several pages the first counts.
    The square is then resized by Pillow's bicubic filter, antialiased, with reducing_gap 2 (its thumbnails'
    setting: an exact 2x2, 3x3, ... mean first where the picture is more than four times too large). JPEG's built-in
    downscaling is not used: it moves the result by up to 4 levels, and would treat JPEG differently from PNG.

    Memory: the file's content, the picture's pixels once, 4 bytes each, and some 35 MB. While it decodes there comes on
    top, in bytes a pixel: for WebP 12 (Pillow reads it as an animation), a progressive JPEG or AVIF 3 to 6, a TIFF that
    is turned by EXIF 4, and one strip of any TIFF.

    Raises:
        ImageError: not such a picture, truncated, damaged as far as `damage` finds it, or above the size limit.
    """
    with _quietly():
        picture, kind, icc_profile = open_picture(source, geometry.max_megapixels)
        quantiser_mean = _quantiser_mean(picture)
        with _turn if picture.width * picture.height > _LARGE else nullcontext():
            turn = _decode(picture, kind)
            if found := damage(source):
                raise ImageError(found)
            square = _square(picture, turn, icc_profile, geometry)
            del picture  # before the next process takes its turn
    return square.face(kind, quantiser_mean, hashlib.sha256(source).hexdigest())


def read_face_in_memory(picture: Image.Image, geometry: Geometry) -> Face:
    """A picture that a program has opened or made, as `read_face` reads its file: EXIF, profile, transparency.

    Its sha256 is that of its pixels, as of an array's row: what its file was like is no longer known.

    Raises:
        ImageError: values that are no colours, a file behind it that is damaged, above the size limit.
    """
    refuse_huge(picture.size, geometry.max_megapixels)
    with _quietly():
        kind = picture.format or "picture"
        turn = _decode(picture, kind)
        square = _square(picture, turn, picture.info.get("icc_profile"), geometry)
        return square.face(kind, math.nan, hashlib.sha256(picture.tobytes()).hexdigest())


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns about odd metadata; what matters is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Square(NamedTuple):
    """A picture brought to the geometry."""

    content: bytes
    size: int
    width: int  # of the picture, upright
    height: int
    profile: str

    def face(self, kind: str, quantiser_mean: float, sha256: str) -> Face:
        pixels = np.frombuffer(self.content, dtype=np.uint8).reshape(self.size, self.size, 3)
        key = _key(hashlib.sha256(self.content).hexdigest())
        return Face(
            pixels, self.width, self.height, kind, quantiser_mean, sha256, key, *looks(pixels), profile=self.profile
        )


def _square(
    picture: Image.Image, turn: Image.Transpose | None, icc_profile: bytes | None, geometry: Geometry
) -> _Square:
    profile = read_profile(icc_profile, picture.mode)
    width, height = picture.size if turn not in _LYING else picture.size[::-1]
    content = _to_square(_Upright(picture, turn, width, height), profile if geometry.to_srgb else Profile(), geometry)
    return _Square(content, geometry.size, width, height, profile.name)


def read_face_file(path: str | Path, geometry: Geometry) -> Face:
    """`read_face` of a file; one that cannot be read is an ImageError too."""
    try:
        with open(path, "rb") as file:
            content = read_bounded(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    return read_face(content, geometry)


def face_from_pixels(pixels: Pixels, format: str = "NPY") -> Face:
    """A face that is already 64x64: a row of an array, or one drawn by program.

    Raises:
        TypeError: not uint8.
        ValueError: not (size, size, 3).
    """
    if pixels.dtype != np.uint8:
        raise TypeError(f"a face is uint8, got {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3:
        raise ValueError(f"a face has shape (size, size, 3), got {pixels.shape}")
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Face(pixels, width, height, format, math.nan, sha256, _key(sha256), *looks(pixels))


def _key(sha256: str) -> int:
    return int(sha256[:16], 16)


def _quantiser_mean(picture: Image.Image) -> float:
    tables: dict[int, list[int]] = getattr(picture, "quantization", {})
    return sum(tables[0]) / len(tables[0]) if tables.get(0) else math.nan


def _decode(picture: Image.Image, kind: str) -> Image.Transpose | None:
    """All pixels, and the turn that makes them upright; Pillow raises on a file that ends early: no half passes."""
    try:
        picture.load()
    except MemoryError:
        raise ImageError("too large for the memory left") from None
    except Exception as error:  # a damaged file raises nearly anything
        raise ImageError(damaged(kind)) from error
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF: the pixels are whole, and most viewers show them as they lie
        return None


class _Upright(NamedTuple):
    """A picture as it is shown, turned part by part: turning all of it would take its memory once more."""

    stored: Image.Image
    turn: Image.Transpose | None
    width: int  # upright
    height: int

    def part(self, left: int, top: int, right: int, bottom: int) -> Image.Image:
        if self.turn is None:
            return self.stored.crop((left, top, right, bottom))
        corners = [_stored_at(self, x, y) for x, y in ((left, top), (right, bottom))]
        (x0, x1), (y0, y1) = (sorted(ends) for ends in zip(*corners, strict=True))
        return self.stored.crop((x0, y0, x1, y1)).transpose(self.turn)


def _stored_at(upright: _Upright, x: int, y: int) -> tuple[int, int]:
    """Where a corner between the pixels of the upright picture lies in the stored one."""
    flip = Image.Transpose
    across, down = upright.width - x, upright.height - y
    places = {
        flip.FLIP_LEFT_RIGHT: (across, y),
        flip.ROTATE_180: (across, down),
        flip.FLIP_TOP_BOTTOM: (x, down),
        flip.TRANSPOSE: (y, x),
        flip.ROTATE_90: (down, x),
        flip.ROTATE_270: (y, across),
        flip.TRANSVERSE: (down, across),
    }
    return places[upright.turn] if upright.turn is not None else (x, y)


def _to_square(upright: _Upright, profile: Profile, geometry: Geometry) -> bytes:
    """As `resize(..., reducing_gap=2)` of the whole crop gives it, but converted and reduced band by band."""
    left, top, width, height = 0, 0, upright.width, upright.height
    if geometry.crop:
        side = min(width, height)
        left, top, width, height = (width - side) // 2, (height - side) // 2, side, side
    across, down = (int(side / geometry.size / 2.0) or 1 for side in (width, height))
    reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
    for first, last in _bands(width, height, down):
        band = to_rgb(upright.part(left, top + first, left + width, top + last), profile)
        reduced.paste(band.reduce((across, down)), (0, first // down))
    square, box = (geometry.size, geometry.size), (0, 0, width / across, height / down)
    return reduced.resize(square, Image.Resampling.BICUBIC, box).tobytes()


def _bands(width: int, height: int, down: int) -> Iterator[tuple[int, int]]:
    """First and last row of each, in whole blocks of `down` rows but for the picture's end."""
    rows = max(_BAND // width // down, 1) * down
    for first in range(0, height, rows):
        yield first, min(first + rows, height)


_BRIGHTNESS = np.array([299.0, 587.0, 114.0])  # of red, green and blue, in thousandths


def grey(pixels: Pixels) -> npt.NDArray[np.float64]:
    """(..., H, W, 3) to brightness (..., H, W): whole numbers from 0 to 255,000."""
    return np.asarray(pixels @ _BRIGHTNESS)


class _Sums(NamedTuple):
    """Two sums in one: 8 cosine waves, then 8 blocks."""

    of_rows: npt.NDArray[np.floating]  # (16, size), whole numbers to 1024
    of_columns: npt.NDArray[np.float64]  # (size * 3, 16), the same for each colour, times its brightness
    area: npt.NDArray[np.float64]  # (8, 8), what to divide the sums of blocks by


@lru_cache(maxsize=2)
def _sums(size: int) -> _Sums:
    index, position = np.arange(8)[:, None], np.arange(size)[None]
    waves = np.rint(1024 * np.cos(np.pi * (2 * position + 1) * index / (2 * size)))
    blocks = (position * 8 // size == index).astype(np.float64)
    both = np.concatenate([waves, blocks])
    of_columns = (both.T[:, None, :] * _BRIGHTNESS[:, None]).reshape(3 * size, 16)
    sides = blocks.sum(axis=1)
    single = 255 * 1024 * size < 2**24  # below which float32 holds every whole number
    return _Sums(both.astype(np.float32 if single else np.float64), of_columns, 1000 * np.outer(sides, sides))


def looks(pixels: Pixels) -> tuple[int, bytes]:
    """(size, size, 3) to a perceptual hash and a thumbnail, by which near copies are found.

    The hash: 64 bits that hardly change when a picture is recompressed, scaled or brightened a little. The
    8x8 lowest frequencies of the grey picture's cosine transform; a bit says whether the frequency lies above
    the median of them all. The thumbnail: the mean grey levels of 8x8 blocks, row by row. Both are sums of whole
    numbers below 2^53: exact, the same on every machine.
    """
    size = len(pixels)
    sums = _sums(size)
    columns = pixels.reshape(size, 3 * size).astype(sums.of_rows.dtype)
    both = (sums.of_rows @ columns).astype(np.float64) @ sums.of_columns  # (16, 16)
    waves = both[:8, :8].ravel()  # the first is the mean brightness
    bits = waves > np.sort(waves[1:])[31]
    levels = (both[8:, 8:] / sums.area).round().astype(np.uint8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), levels.tobytes()
