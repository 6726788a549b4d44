"""What is found in damaged files, at the rates that README states, and sound files of many encoders that pass."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image

from fakegan.data import damage as damage_module
from fakegan.data.images import Geometry, ImageError, read_face
from fakegan.prepare import main
from tests.helpers import encode

GEOMETRY = Geometry()
COUNT = 150
SAVED = {
    "JPEG": {"format": "JPEG", "quality": 90},
    "progressive": {"format": "JPEG", "quality": 90, "progressive": True},
    "PNG": {"format": "PNG"},
    "WebP": {"format": "WEBP", "quality": 80},
}


def scene(seed: int, side: int = 128) -> Image.Image:
    """Noise whose spectrum falls as a photograph's does: its JPEG has about 10 kB."""
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) + 1 / side
    pixels = np.fft.irfft2(noise / frequency[..., None] ** 1.3, s=(side, side), axes=(0, 1))
    return Image.fromarray((128 + 50 * (pixels - pixels.mean()) / pixels.std()).clip(0, 255).astype(np.uint8))


@cache
def files(kind: str) -> list[bytes]:
    return [encode(scene(seed), **SAVED[kind]) for seed in range(COUNT)]


def reason(source: bytes) -> str:
    try:
        read_face(source, GEOMETRY)
    except ImageError as error:
        return str(error)
    return ""


def pixels_at(source: bytes) -> tuple[int, int]:
    """Where the pixels' data begin and end."""
    if source.startswith(b"\xff\xd8"):
        return source.index(b"\xff\xda") + 14, len(source) - 2
    return (45, len(source) - 16) if source.startswith(b"\x89PNG") else (50, len(source))


def zeroed(source: bytes, chance: np.random.Generator) -> bytes:
    begin, end = pixels_at(source)
    at = int(chance.integers(begin, end - 512))
    return source[:at] + bytes(512) + source[at + 512 :]


def lost(source: bytes, chance: np.random.Generator) -> bytes:
    begin, end = pixels_at(source)
    at = int(chance.integers(begin, end - 300))
    return source[:at] + source[at + 300 :]


def halved(source: bytes, chance: np.random.Generator) -> bytes:
    return source[: len(source) // 2] + (b"\xff\xd9" if source.startswith(b"\xff\xd8") else b"")


# README states the lowest of the bounds. Measured for JPEG: 150, 128, 150; progressive: 128 zeroed, over 141 lost.
@pytest.mark.parametrize(
    ("kind", "harm", "least", "most"),
    [
        ("JPEG", zeroed, 140, 150),
        ("JPEG", lost, 120, 150),
        ("JPEG", halved, 150, 150),
        ("progressive", zeroed, 120, 150),
        ("progressive", lost, 120, 150),
        ("progressive", halved, 150, 150),
        ("PNG", zeroed, 150, 150),
        ("PNG", lost, 150, 150),
        ("PNG", halved, 150, 150),
        ("WebP", zeroed, 0, 15),  # no format that could tell
        ("WebP", lost, 150, 150),
        ("WebP", halved, 150, 150),
    ],
)
def test_damage_is_found(kind: str, harm: Callable[..., bytes], least: int, most: int):
    chance = np.random.default_rng(0)
    found = sum(bool(reason(harm(source, chance))) for source in files(kind))
    assert least <= found <= most


@pytest.mark.parametrize("kind", SAVED)
def test_no_sound_file_is_refused(kind: str):
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
def test_sound_jpegs_of_other_encoders_pass(mode: str, size: tuple[int, int]):
    picture = scene(0).resize(size).convert(mode)
    for options in OPTIONS:
        source = encode(picture, format="JPEG", **options)
        changed = [source + tail for tail in TAILS]
        changed += [source[:-2] + padding + source[-2:] for padding in (b"\0", bytes(40), b"\xff" * 31, b"junk" * 3)]
        table = source.index(b"\xff\xdb")
        changed += [source[:table] + b"spare bytes of a header" + source[table:]]
        assert [reason(each) for each in changed] == [""] * len(changed), options


def test_left_over_data_is_damage():
    source = files("JPEG")[0]
    told = reason(source[:-2] + source[700:1200].replace(b"\xff", b"") + source[-2:])
    assert told.startswith("damaged inside: ")
    assert told.endswith("extraneous bytes before marker 0xd9")


def test_the_last_rows_of_a_png_are_checked():
    """Pillow alone takes such a file: it has all rows before it reaches their checksum."""
    source = files("PNG")[0]
    assert reason(source[:-28] + bytes(8) + source[-20:]) == "damaged inside: the checksum of IDAT is wrong"
    assert reason(source[:-12]) == ""  # without its closing chunk, which holds nothing


def test_prepare_says_what_it_cannot_check(monkeypatch, tmp_path, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "half.jpg").write_bytes(halved(files("JPEG")[0], np.random.default_rng(0)))
    (tmp_path / "real" / "whole.jpg").write_bytes(files("JPEG")[1])
    command = ["--real", f"a={tmp_path / 'real'}", "--out", str(tmp_path / "store"), "--dry-run", "--workers=1"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "1 face" in told
    assert "simplejpeg" not in told
    monkeypatch.setattr(damage_module, "simplejpeg", None)
    assert main(command) == 0
    assert "JPEGs were not checked for damaged data" in capsys.readouterr().out
