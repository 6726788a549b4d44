"""read_face: every kind of picture by the rule its docstring gives, and refusals in plain words."""

import hashlib
import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakegan.data.images import Geometry, ImageError, face_from_pixels, grey, looks, read_face, read_face_file
from tests.helpers import encode

GEOMETRY = Geometry()
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def scene(width: int = 96, height: int = 80) -> Image.Image:
    """Smooth, and different in every corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def reason(source: bytes, geometry: Geometry = GEOMETRY) -> str:
    with pytest.raises(ImageError) as refusal:
        read_face(source, geometry)
    return str(refusal.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_plain_colour_stays_that_colour(format):
    source = encode(Image.new("RGB", (90, 70), (40, 120, 200)), format)
    face = read_face(source, GEOMETRY)
    assert face.pixels.shape == (64, 64, 3)
    assert face.pixels.dtype == np.uint8
    assert np.abs(face.pixels.astype(int) - (40, 120, 200)).max() <= 5  # lossy codecs
    assert (face.width, face.height, face.format) == (90, 70, format)
    assert face.sha256 == hashlib.sha256(source).hexdigest()


def test_crop_takes_the_centre_square_and_squash_the_whole():
    wide = Image.new("RGB", (192, 64), RED)
    wide.paste(GREEN, (64, 0, 128, 64))  # the middle third
    source = encode(wide)
    assert (read_face(source, GEOMETRY).pixels == GREEN).all()
    squashed = read_face(source, Geometry(crop=False)).pixels
    assert tuple(squashed[32, 2]) == RED
    assert tuple(squashed[32, 32]) == GREEN
    assert tuple(squashed[32, 61]) == RED


def test_resizing_is_antialiased():
    """A fine checkerboard has no pattern left at a quarter of its size."""
    board = np.indices((256, 256)).sum(axis=0) % 2 * np.uint8(255)
    pixels = read_face(encode(Image.fromarray(board.astype(np.uint8))), GEOMETRY).pixels
    assert np.abs(pixels.astype(int) - 127).max() <= 1


def test_a_64_square_passes_unchanged():
    square = scene(64, 64)
    assert (read_face(encode(square), GEOMETRY).pixels == np.asarray(square)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_shows_the_picture_upright(orientation):
    upright = scene(96, 80)
    stored = upright
    how_it_lies = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    how_it_lies |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    if orientation > 1:
        stored = upright.transpose(Image.Transpose[how_it_lies[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    face = read_face(encode(stored, exif=exif), GEOMETRY)
    assert (face.pixels == read_face(encode(upright), GEOMETRY).pixels).all()
    assert (face.width, face.height) == (96, 80)


def test_broken_exif_does_not_cost_the_picture():
    source = encode(scene(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert read_face(source, GEOMETRY).width == 96


def test_grey_palette_and_16_bit():
    grey = read_face(encode(Image.new("L", (64, 64), 77)), GEOMETRY).pixels
    assert (grey == 77).all()
    deep = np.full((64, 64), 0x12FF, dtype=np.uint16)
    assert (read_face(encode(Image.fromarray(deep)), GEOMETRY).pixels == 0x12).all()  # the high byte
    palette = Image.new("RGB", (64, 64), RED).convert("P")
    assert (read_face(encode(palette), GEOMETRY).pixels == RED).all()


def test_transparent_becomes_white():
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert (read_face(encode(clear), GEOMETRY).pixels == WHITE).all()
    half = Image.new("RGBA", (64, 64), (255, 0, 0, 51))  # a fifth red, four fifths white
    assert (read_face(encode(half), GEOMETRY).pixels == (255, 204, 204)).all()
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert (read_face(encode(palette, transparency=0), GEOMETRY).pixels == WHITE).all()
    assert (read_face(encode(Image.new("LA", (64, 64), (9, 0))), GEOMETRY).pixels == WHITE).all()


def test_cmyk_jpeg():
    red = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    face = read_face(encode(red, "JPEG"), GEOMETRY)
    assert np.abs(face.pixels.astype(int) - RED).max() <= 3
    assert face.format == "JPEG"


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, GREEN)]
    for format in ("WEBP", "PNG"):
        source = encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
        assert (read_face(source, GEOMETRY).pixels == RED).all()


def test_jpeg_quantiser_mean():
    """libjpeg's luma table sums to 3688 at quality 50; only JPEG has one."""
    face = read_face(encode(scene(), "JPEG", quality=50), GEOMETRY)
    assert face.jpeg_quantiser_mean == pytest.approx(3688 / 64, abs=0.1)
    assert math.isnan(read_face(encode(scene()), GEOMETRY).jpeg_quantiser_mean)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_is_refused(format, part):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    source = encode(Image.fromarray(noise), format)
    assert reason(source[: int(part * len(source))]) == "truncated or damaged"


def test_not_a_picture():
    assert reason(b"") == "empty file"
    assert reason(b"once upon a time there was a face") == "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"
    assert reason(encode(scene(), "PPM")) == "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"
    assert reason(b"\xff\xd8\xff\xe0 and no more") == "truncated or damaged"


def test_huge_is_refused_by_its_header_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = reason(png_header(20_000, 20_000))
    assert told == "20000x20000 is above the limit of 256 megapixels (--max-megapixels)"
    assert reason(png_header(1001, 1000), Geometry(max_megapixels=1)).startswith("1001x1000 is above")
    assert reason(png_header(1000, 1000), Geometry(max_megapixels=1)) == "truncated or damaged"


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        read_face_file(tmp_path / "none.png", GEOMETRY)


def test_perceptual_hash_survives_recompression_not_another_picture():
    blobs = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    picture, other = (Image.fromarray(blob).resize((256, 256), Image.Resampling.BICUBIC) for blob in blobs)
    plain = read_face(encode(picture), GEOMETRY).phash
    again = read_face(encode(picture.resize((128, 128)), "JPEG", quality=60), GEOMETRY).phash
    assert (plain ^ again).bit_count() <= 6
    assert (plain ^ read_face(encode(other), GEOMETRY).phash).bit_count() > 16


def test_perceptual_hash_of_half_and_half():
    """Dark left, bright right: no frequency but the mean and the odd horizontal ones, by hand."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, 32:] = 255
    first_row = looks(pixels)[0] >> 56  # vertical frequency 0, horizontal 0 to 7
    assert first_row == 0b10010001  # signs of 1, 3, 5, 7: -, +, -, +


@pytest.mark.parametrize("size", [8, 64, 72])  # 72: too large for float32 to be exact
def test_looks_are_exact(size):
    """Against whole numbers of Python's own: the brightest picture, a dark one, noise."""
    rng = np.random.default_rng(0)
    cosines = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(size) + 1) / (2 * size))
    cosines = np.rint(1024 * cosines).astype(int).astype(object)
    for pixels in (*rng.integers(0, 256, (5, size, size, 3), dtype=np.uint8), np.full((size, size, 3), 255, np.uint8)):
        waves = (cosines @ grey(pixels).astype(int).astype(object) @ cosines.T).ravel().tolist()
        median = sorted(waves[1:])[31]
        phash, thumbnail = looks(pixels)
        assert f"{phash:064b}" == "".join("01"[wave > median] for wave in waves)
        blocks = grey(pixels).reshape(8, size // 8, 8, size // 8).mean(axis=(1, 3)) / 1000
        assert np.abs(np.frombuffer(thumbnail, np.uint8) - blocks.ravel()).max() <= 0.5 + 1e-9


def test_thumbnail_is_the_mean_of_each_block():
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:8, 8:12] = 100  # half of the second block of the first row
    assert looks(pixels)[1] == bytes([0, 50]) + bytes(62)


def test_pixel_keys_are_equal_for_equal_pixels_whatever_the_file():
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    faces = [read_face(encode(Image.fromarray(noise[0])), GEOMETRY), face_from_pixels(noise[0])]
    assert faces[0].pixel_key == faces[1].pixel_key != face_from_pixels(noise[1]).pixel_key
    assert faces[0].sha256 != faces[1].sha256


def test_face_from_pixels_refuses_floats():
    with pytest.raises(TypeError, match="float64"):
        face_from_pixels(np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="shape"):
        face_from_pixels(np.zeros((3, 64, 64), dtype=np.uint8))
