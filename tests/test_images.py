"""read_face: every kind of picture by the rule its docstring gives, and refusals in plain words."""

import hashlib
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakegan.data.colour import UNUSABLE
from fakegan.data.images import (
    Face,
    Geometry,
    ImageError,
    face_from_pixels,
    grey,
    hash_and_thumbnail,
    read_face,
)
from tests.helpers import encode
from tests.pictures import LARGE_TEXTS, p3_profile, png_header, scene

GEOMETRY = Geometry()
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (333, 701, 3), dtype=np.uint8)


def read(picture: Image.Image, format: str = "PNG", geometry: Geometry = GEOMETRY, **options: object) -> Face:
    """The face of a picture, as the file that Pillow makes of it."""
    return read_face(encode(picture, format, **options), geometry)


def reason(source: bytes, geometry: Geometry = GEOMETRY) -> str:
    with pytest.raises(ImageError) as refusal:
        read_face(source, geometry)
    return str(refusal.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_plain_colour_stays_that_colour(format: str) -> None:
    source = encode(Image.new("RGB", (90, 70), (40, 120, 200)), format)
    face = read_face(source, GEOMETRY)
    assert (face.pixels.shape, face.pixels.dtype) == ((64, 64, 3), np.uint8)
    assert np.abs(face.pixels.astype(int) - (40, 120, 200)).max() <= 5  # lossy codecs
    assert (face.facts.width, face.facts.height, face.facts.format) == (90, 70, format)
    assert face.sha256 == hashlib.sha256(source).hexdigest()


def test_crop_takes_the_centre_square_and_squash_the_whole() -> None:
    wide = Image.new("RGB", (192, 64), RED)
    wide.paste(GREEN, (64, 0, 128, 64))  # the middle third
    assert (read(wide).pixels == GREEN).all()
    squashed = read(wide, geometry=Geometry(crop=False)).pixels
    assert [tuple(squashed[32, x]) for x in (2, 32, 61)] == [RED, GREEN, RED]


def test_resizing_is_antialiased_and_leaves_a_64_square_alone() -> None:
    """A fine checkerboard has no pattern left at a quarter of its size."""
    board = np.indices((256, 256)).sum(axis=0) % 2 * np.uint8(255)
    assert np.abs(read(Image.fromarray(board.astype(np.uint8))).pixels.astype(int) - 127).max() <= 1
    assert (read(scene(64, 64)).pixels == np.asarray(scene(64, 64))).all()


@pytest.mark.parametrize("band", [4_000_000, 5000])  # pixels that are turned, converted and reduced at a time
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", [True, False])
def test_exif_shows_a_picture_upright_and_bands_change_nothing(
    orientation: int, crop: bool, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As turned, cropped and resized whole by Pillow."""
    monkeypatch.setattr("fakegan.data.images._BAND", band)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = (None, None, 0, 3, 1, 5, 4, 6, 2)  # by orientation: Pillow's transpositions
    turn, stored = turns[orientation], Image.fromarray(NOISE)
    upright = stored if turn is None else stored.transpose(Image.Transpose(turn))
    whole = upright
    if crop:
        left, top = (whole.width - 333) // 2, (whole.height - 333) // 2
        whole = whole.crop((left, top, left + 333, top + 333))
    face = read(stored, geometry=Geometry(crop=crop), exif=exif)
    assert (face.pixels == np.asarray(whole.resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=2.0))).all()
    assert (face.facts.width, face.facts.height) == upright.size


def test_broken_exif_does_not_cost_the_picture() -> None:
    assert read(scene(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff").facts.width == 96


PALETTE = Image.new("P", (64, 64), 0)
PALETTE.putpalette([255, 0, 0] * 256)


@pytest.mark.parametrize(
    ("picture", "format", "options", "colour"),
    [
        (Image.new("L", (64, 64), 77), "PNG", {}, (77, 77, 77)),
        (Image.fromarray(np.full((64, 64), 0x12FF, dtype=np.uint16)), "PNG", {}, (0x12, 0x12, 0x12)),  # the high byte
        (PALETTE, "PNG", {}, RED),
        (Image.new("RGBA", (64, 64), (255, 0, 0, 0)), "PNG", {}, WHITE),
        (Image.new("RGBA", (64, 64), (255, 0, 0, 51)), "PNG", {}, (255, 204, 204)),  # a fifth red, the rest white
        (PALETTE, "PNG", {"transparency": 0}, WHITE),
        (Image.new("LA", (64, 64), (9, 0)), "PNG", {}, WHITE),
        (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", {}, RED),
        *(
            (Image.new("RGB", (64, 64), RED), format, frames, RED)  # the first frame of an animation
            for frames in [{"save_all": True, "append_images": [Image.new("RGB", (64, 64), GREEN)], "lossless": True}]
            for format in ("WEBP", "PNG")
        ),
    ],
)
def test_modes_become_rgb_on_a_white_page(picture: Image.Image, format: str, options: dict, colour: tuple) -> None:
    difference = read(picture, format, **options).pixels - np.array(colour)
    assert np.abs(difference).max() <= (3 if format == "JPEG" else 0)


def test_jpeg_quantiser_mean() -> None:
    """libjpeg's luma table sums to 3688 at quality 50; only JPEG has one."""
    assert read(scene(), "JPEG", quality=50).facts.jpeg_quantiser_mean == pytest.approx(3688 / 64, abs=0.1)
    assert math.isnan(read(scene()).facts.jpeg_quantiser_mean)


@pytest.mark.parametrize("name", sorted(LARGE_TEXTS))
def test_texts_change_nothing(name: str) -> None:
    assert (read_face(LARGE_TEXTS[name], GEOMETRY).pixels == read(scene()).pixels).all()


def test_a_profile_becomes_srgb() -> None:
    """sRGB's red is (0.9175, 0.2003, 0.1386) in Display P3: (234, 51, 35)."""
    source = encode(Image.new("RGB", (64, 64), (234, 51, 35)), "PNG", icc_profile=p3_profile())
    face = read_face(source, GEOMETRY)
    assert face.facts.profile == "P3 by hand"
    assert np.abs(face.pixels.astype(int) - RED).max() <= 2
    ignored = read_face(source, Geometry.of({"size": 64, "crop": True, "max_megapixels": 64}))  # an older store's
    assert (ignored.facts.profile, tuple(ignored.pixels[0, 0])) == ("P3 by hand", (234, 51, 35))
    assert read(scene(), icc_profile=b"broken").facts.profile == UNUSABLE


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_is_refused(format: str, part: float) -> None:
    source = encode(Image.fromarray(NOISE[:96, :96]), format)
    assert reason(source[: int(part * len(source))]) == "truncated or damaged"


def test_huge_is_refused_by_its_header_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(png_header(20_000, 20_000)).startswith("20000x20000 is above the limit of 256 megapixels")
    assert reason(png_header(1001, 1000), Geometry(max_megapixels=1)).startswith("1001x1000 is above")
    for size, geometry in (((1000, 1000), Geometry(max_megapixels=1)), ((16384, 12288), GEOMETRY)):  # a telephone's
        assert reason(png_header(*size), geometry) == "truncated or damaged"  # by its size it passes; it has no pixels


def test_perceptual_hash_survives_recompression_not_another_picture() -> None:
    blobs = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    picture, other = (Image.fromarray(blob).resize((256, 256), Image.Resampling.BICUBIC) for blob in blobs)
    plain = read(picture).phash
    assert (plain ^ read(picture.resize((128, 128)), "JPEG", quality=60).phash).bit_count() <= 6
    assert (plain ^ read(other).phash).bit_count() > 16


def test_hash_and_thumbnail_by_hand() -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, 32:] = 255  # no frequency but the mean and the odd horizontal ones
    first_row = hash_and_thumbnail(pixels)[0] >> 56  # vertical frequency 0, horizontal 0 to 7
    assert first_row == 0b10010001  # signs of 1, 3, 5, 7: -, +, -, +
    pixels[:] = 0
    pixels[:8, 8:12] = 100  # half of the second block of the first row
    assert hash_and_thumbnail(pixels)[1] == bytes([0, 50]) + bytes(62)


@pytest.mark.parametrize("size", [8, 64, 72])
def test_hash_and_thumbnail_are_exact(size: int) -> None:
    """Against whole numbers of Python's own: the brightest picture, noise."""
    rng = np.random.default_rng(0)
    cosines = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(size) + 1) / (2 * size))
    cosines = np.rint(1024 * cosines).astype(int).astype(object)
    for pixels in (*rng.integers(0, 256, (5, size, size, 3), dtype=np.uint8), np.full((size, size, 3), 255, np.uint8)):
        waves = (cosines @ grey(pixels).astype(int).astype(object) @ cosines.T).ravel().tolist()
        median = sorted(waves[1:])[31]
        phash, thumbnail = hash_and_thumbnail(pixels)
        assert f"{phash:064b}" == "".join("01"[wave > median] for wave in waves)
        blocks = grey(pixels).reshape(8, size // 8, 8, size // 8).mean(axis=(1, 3)) / 1000
        assert np.abs(np.frombuffer(thumbnail, np.uint8) - blocks.ravel()).max() <= 0.5 + 1e-9


def test_faces_from_pixels() -> None:
    square, other = NOISE[:64, :64], NOISE[64:128, :64]
    of_file, of_pixels = read(Image.fromarray(square)), face_from_pixels(square)
    assert of_file.pixel_key == of_pixels.pixel_key != face_from_pixels(other).pixel_key
    assert of_file.sha256 != of_pixels.sha256
    with pytest.raises(TypeError, match="float64"):
        face_from_pixels(np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="shape"):
        face_from_pixels(np.zeros((3, 64, 64), dtype=np.uint8))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(("kind", "each"), [("JPEG", 4), ("PNG", 4), ("WEBP", 16)])
def test_a_large_picture_takes_the_memory_that_is_promised(kind: str, each: int, tmp_path: Path) -> None:
    """Its file, `each` bytes a pixel and 35 MB, with 10 MB to spare; one more copy of it would be 72 MB or more."""
    width, height = 6000, 4000
    file = tmp_path / "large"
    scene().resize((width, height)).save(file, kind, quality=90)
    script = (
        "import re, sys; from fakegan.data.images import Geometry, read_face_file; import fakegan.data.damage; "
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) * 1024; "
        "before = peak(); read_face_file(sys.argv[1], Geometry()); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)
    assert int(done.stdout) < file.stat().st_size + each * width * height + 45e6
