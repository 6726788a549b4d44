"""What decoding does not tell: damage inside a picture's file that still gives a picture.

Pillow hears libjpeg's warnings about corrupt data and does not pass them on, and it leaves the checksum of a PNG's
last rows unread. WebP, lossy or lossless, has no checksum of its pixels: what libwebp decodes cannot be judged here.
"""

from __future__ import annotations

import re
import zlib

try:
    import simplejpeg
except ImportError:
    simplejpeg = None  # `unchecked` says so

_CORRUPT = "Corrupt JPEG data: "  # so begin libjpeg's warnings about the pixels; its others are about metadata
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_HARMLESS_BYTES = 16  # that cameras leave before a marker, in pictures that are whole
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHECKED = (b"IHDR", b"PLTE", b"IDAT")  # what decides the pixels


def damage(source: bytes) -> str | None:
    """Why the content of a file that decodes is damaged all the same; None if nothing was found.

    JPEG: decoded again, at an eighth of its size, for libjpeg's warnings: codes that no table has, data that end
    early, and more than padding left over. Its first warning counts; one about a header's spare bytes is no damage.
    PNG: the checksum of each chunk that decides the pixels. Other formats: None.
    """
    if source.startswith(b"\xff\xd8"):
        return _jpeg_damage(source)
    if source.startswith(_PNG_SIGNATURE):
        return _png_damage(source)
    return None


def unchecked() -> str | None:
    """What this installation cannot look for, as a sentence for the user; None if it can all."""
    if simplejpeg is None:
        return "JPEGs were not checked for damaged data: simplejpeg is missing (pip install simplejpeg)"
    return None


def _jpeg_damage(source: bytes) -> str | None:
    if simplejpeg is None:
        return None
    try:
        simplejpeg.decode_jpeg(source, "GRAY", min_height=8, min_width=8, strict=True)
    except Exception as error:  # a kind of JPEG that only Pillow decodes is no damage
        warning = str(error)
        if warning.startswith(_CORRUPT) and not _harmless(warning, source):
            return f"damaged inside: {warning.removeprefix(_CORRUPT)}"
    return None


def _harmless(warning: str, source: bytes) -> bool:
    """Spare bytes: few of them, in the header, or padding before a marker."""
    found = _LEFT_OVER.search(warning)
    if not found:
        return False
    count, marker = int(found[1]), bytes.fromhex("ff" + found[2])
    if count <= _HARMLESS_BYTES or not _header_is_clean(source):
        return True
    markers = (match.start() for match in re.finditer(re.escape(marker), source))
    return any(len(set(source[max(0, at - count) : at])) == 1 for at in markers)


def _header_is_clean(source: bytes) -> bool:
    """Whether segment follows segment up to the pixels' data, with no byte between."""
    at = 2
    while source[at : at + 1] == b"\xff":
        kind = source[at + 1]
        if kind == 0xDA:  # the pixels' data begin
            return True
        at += 1 if kind == 0xFF else 2 + int.from_bytes(source[at + 2 : at + 4], "big")
    return False


def _png_damage(source: bytes) -> str | None:
    at = len(_PNG_SIGNATURE)
    while at + 8 <= len(source):
        length = int.from_bytes(source[at : at + 4], "big")
        kind, end = source[at + 4 : at + 8], at + 8 + length
        if kind in _PNG_CHECKED:
            checksum = source[end : end + 4]
            if len(checksum) < 4 or zlib.crc32(memoryview(source)[at + 4 : end]) != int.from_bytes(checksum, "big"):
                return f"damaged inside: the checksum of {kind.decode()} is wrong"
        elif kind == b"IEND":
            break
        at = end + 4
    return None
