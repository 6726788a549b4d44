"""Damaged files are found at the rates that docs/ state, and sound files of many encoders pass."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image

from fakegan.data import damage as damage_module
from fakegan.data.images import Geometry, ImageError, read_face
from tests.helpers import encode

COUNT = 150
SAVED = {
    "JPEG": {"format": "JPEG", "quality": 90},
    "progressive": {"format": "JPEG", "quality": 90, "progressive": True},
    "PNG": {"format": "PNG"},
    "WebP": {"format": "WEBP", "quality": 80},
}


def noise(seed: int, side: int = 128) -> Image.Image:
    """Noise whose spectrum falls as a photograph's does: its JPEG has about 10 kB."""
    waves = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 1 / side
    pixels = np.fft.irfft2(waves / frequency[..., None] ** 1.3, s=(side, side), axes=(0, 1))
    return Image.fromarray((128 + 50 * (pixels - pixels.mean()) / pixels.std()).clip(0, 255).astype(np.uint8))


@cache
def files(kind: str) -> list[bytes]:
    return [encode(noise(seed), **SAVED[kind]) for seed in range(COUNT)]


def reason(source: bytes) -> str:
    try:
        read_face(source, Geometry())
    except ImageError as error:
        return str(error)
    return ""


def place(source: bytes, chance: np.random.Generator, length: int) -> int:
    """Where so many bytes of the pixels' data begin."""
    begin, end = 50, len(source)  # WebP
    if source.startswith(b"\xff\xd8"):
        begin, end = source.index(b"\xff\xda") + 14, len(source) - 2
    elif source.startswith(b"\x89PNG"):
        begin, end = 45, len(source) - 16
    return int(chance.integers(begin, end - length))


def zeroed(source: bytes, chance: np.random.Generator) -> bytes:
    at = place(source, chance, 512)
    return source[:at] + bytes(512) + source[at + 512 :]


def lost(source: bytes, chance: np.random.Generator) -> bytes:
    at = place(source, chance, 300)
    return source[:at] + source[at + 300 :]


def halved(source: bytes, chance: np.random.Generator) -> bytes:
    return source[: len(source) // 2] + (b"\xff\xd9" if source.startswith(b"\xff\xd8") else b"")


# The docs state the lowest of the bounds. Measured for JPEG: 150, 128, 150; progressive: 128 zeroed, over 141 lost.
@pytest.mark.parametrize(
    ("kind", "harm", "least", "most"),
    [
        ("JPEG", zeroed, 140, 150),
        ("JPEG", lost, 120, 150),
        ("progressive", zeroed, 120, 150),
        ("progressive", lost, 120, 150),
        ("PNG", zeroed, 150, 150),
        ("PNG", lost, 150, 150),
        ("WebP", zeroed, 0, 15),  # no format that could tell
        ("WebP", lost, 150, 150),
        *((kind, halved, 150, 150) for kind in SAVED),
    ],
)
def test_damage_is_found(kind: str, harm: Callable[..., bytes], least: int, most: int) -> None:
    chance = np.random.default_rng(0)
    found = sum(bool(reason(harm(source, chance))) for source in files(kind))
    assert least <= found <= most


@pytest.mark.parametrize("kind", SAVED)
def test_no_sound_file_is_refused(kind: str) -> None:
    assert {reason(source) for source in files(kind)} == {""}


OPTIONS = [
    {},
    {"progressive": True},
    {"optimize": True, "quality": 30},
    {"restart_marker_blocks": 3},
    {"restart_marker_rows": 1, "progressive": True},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"keep_rgb": True},
    {"quality": 100, "comment": b"\xff\xd9\xff\xda" * 50},  # markers inside, as of a thumbnail
]
TAILS = [b"", b"\xff\xd8\xff\xe1 a second picture" * 90, bytes(700), b"MotionPhoto_Data" * 40]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(160, 120), (17, 5), (1, 1)])
def test_sound_jpegs_of_other_encoders_pass(mode: str, size: tuple[int, int]) -> None:
    picture = noise(0).resize(size).convert(mode)
    for options in OPTIONS:
        source = encode(picture, format="JPEG", **options)
        changed = [source + tail for tail in TAILS]
        changed += [source[:-2] + padding + source[-2:] for padding in (b"\0", bytes(40), b"\xff" * 31, b"junk" * 3)]
        table = source.index(b"\xff\xdb")
        changed += [source[:table] + b"spare bytes of a header" + source[table:]]
        assert [reason(each) for each in changed] == [""] * len(changed), options


def test_left_over_data_and_the_last_rows_of_a_png_are_checked() -> None:
    """Pillow alone takes such a PNG: it has all rows before it reaches their checksum."""
    jpeg, png = files("JPEG")[0], files("PNG")[0]
    found = reason(jpeg[:-2] + jpeg[700:1200].replace(b"\xff", b"") + jpeg[-2:])
    assert found.startswith("damaged inside: ")
    assert found.endswith("extraneous bytes before marker 0xd9")
    assert reason(png[:-28] + bytes(8) + png[-20:]) == "damaged inside: the checksum of IDAT is wrong"
    assert reason(png[:-12]) == ""  # without its closing chunk, which holds nothing


def test_prepare_says_what_it_cannot_check(monkeypatch, tmp_path, run_prepare) -> None:
    (tmp_path / "half.jpg").write_bytes(halved(files("JPEG")[0], np.random.default_rng(0)))
    (tmp_path / "whole.jpg").write_bytes(files("JPEG")[1])
    code, out, _ = run_prepare("--real", f"a={tmp_path}", "--dry-run")
    assert code == 0
    assert "1 face" in out
    assert "simplejpeg" not in out
    monkeypatch.setattr(damage_module, "simplejpeg", None)
    assert "JPEGs were not checked for damaged data" in run_prepare("--real", f"a={tmp_path}", "--dry-run")[1]
