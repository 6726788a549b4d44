"""One picture file to one 64x64 face: the only code that opens a picture.

Real and fake faces, training and prediction, all pass through `read_face`, so that no class and no
stage can be told apart by how its pictures were opened.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fakegan.data.damage import damage
from fakegan.errors import FakeganError

Pixels = npt.NDArray[np.uint8]  # (64, 64, 3), RGB

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_FILE_BYTES = 512 * 2**20  # no honest picture below the megapixel limit is larger

_FORMATS = ("JPEG", "PNG", "WEBP")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
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

# Pillow's own limit warns at one size and refuses at another; `_refuse_huge` below decides alone.
Image.MAX_IMAGE_PIXELS = None


class ImageError(FakeganError):
    """A picture that cannot be used; the message is a short reason, without the file's name."""


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes a square: one policy for all classes, kept in every store's manifest."""

    size: int = 64  # pixels a side
    crop: bool = True  # centre square; False squashes the whole picture into the square
    max_megapixels: int = 64  # refused above, by what the header says

    def shape(self) -> tuple[int, bool]:
        """What decides the pixels: two geometries of equal shape give the same face."""
        return self.size, self.crop


@dataclass(frozen=True)
class Face:
    """A picture brought to the geometry, and what its file was like."""

    pixels: Pixels  # may be read-only
    width: int  # of the file's picture, upright
    height: int
    format: str  # JPEG, PNG, WEBP; NPY for rows of an array
    jpeg_quantiser_mean: float  # mean of the luma quantisation table, higher is coarser; NaN if not JPEG
    sha256: str  # of the file's bytes
    pixel_key: int  # 64 bits, equal for equal pixels
    phash: int  # 64 bits, see `looks`
    thumbnail: bytes  # 8x8 grey levels, see `looks`


def read_face(source: bytes, geometry: Geometry) -> Face:
    """The content of a JPEG, PNG or WebP file as a face.

    EXIF orientation is applied. Grey and palette become RGB; transparent parts become white, as on a
    page; 16-bit values keep their high byte; CMYK is converted by Pillow's plain formula; colour
    profiles are ignored. Of an animation the first frame counts. The square is then resized by Pillow's
    bicubic filter, antialiased, with reducing_gap 2 (its thumbnails' setting: an exact 2x2, 3x3, ...
    mean first where the picture is more than four times too large). JPEG's built-in downscaling is
    not used: it would treat JPEG differently from PNG.

    Raises:
        ImageError: not such a picture, truncated, damaged as far as `damage` finds it, or above the size limit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata; what matters is refused below
        picture = _open(source)
        _refuse_huge(picture, geometry)
        quantiser_mean = _quantiser_mean(picture)
        picture_format = "PNG" if picture.format == "PNG" else "WEBP" if picture.format == "WEBP" else "JPEG"
        upright = _decode(picture)
        if found := damage(source):
            raise ImageError(found)
        content = _to_square(upright, geometry)
    pixels = np.frombuffer(content, dtype=np.uint8).reshape(geometry.size, geometry.size, 3)
    sha256 = hashlib.sha256(source).hexdigest()
    key = _key(hashlib.sha256(content).hexdigest())
    return Face(pixels, upright.width, upright.height, picture_format, quantiser_mean, sha256, key, *looks(pixels))


def read_face_file(path: str | Path, geometry: Geometry) -> Face:
    """`read_face` of a file; one that cannot be read is an ImageError too."""
    try:
        if os.stat(path).st_size > MAX_FILE_BYTES:
            raise ImageError(f"file of more than {MAX_FILE_BYTES // 2**20} MiB")
        with open(path, "rb", buffering=0) as file:
            content = file.readall()
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


def _open(source: bytes) -> Image.Image:
    """Reads the header only."""
    if not source:
        raise ImageError("empty file")
    try:
        return Image.open(io.BytesIO(source), formats=_FORMATS)
    except UnidentifiedImageError:
        damaged = source.startswith(_MAGIC)
        raise ImageError("truncated or damaged" if damaged else "not a JPEG, PNG or WebP picture") from None
    except Exception as error:  # a broken header raises nearly anything: struct, Syntax, Value, Index, ...
        raise ImageError("truncated or damaged") from error


def _refuse_huge(picture: Image.Image, geometry: Geometry) -> None:
    width, height = picture.size
    if width * height > geometry.max_megapixels * 1_000_000:
        limit = f"{geometry.max_megapixels} megapixels (--max-megapixels)"
        raise ImageError(f"{width}x{height} is above the limit of {limit}")


def _quantiser_mean(picture: Image.Image) -> float:
    tables: dict[int, list[int]] = getattr(picture, "quantization", {})
    return sum(tables[0]) / len(tables[0]) if tables.get(0) else math.nan


def _decode(picture: Image.Image) -> Image.Image:
    """All pixels, upright; Pillow raises on a file that ends early, and half a picture never passes."""
    try:
        picture.load()
    except MemoryError:
        raise ImageError("too large for the memory left") from None
    except Exception as error:  # see _open
        raise ImageError("truncated or damaged") from error
    try:
        orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF: the pixels are whole, and most viewers show them as they lie
        return picture
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _to_square(picture: Image.Image, geometry: Geometry) -> bytes:
    if geometry.crop and picture.width != picture.height:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    square = (geometry.size, geometry.size)
    return _to_rgb(picture).resize(square, Image.Resampling.BICUBIC, reducing_gap=2.0).tobytes()


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey: I;16, or I in older Pillow
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        page = Image.new("RGB", over.size, "white")
        page.paste(over, mask=over.getchannel("A"))
        return page
    return picture if picture.mode == "RGB" else picture.convert("RGB")


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
