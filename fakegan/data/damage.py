"""Damage inside a picture's file that decoding does not report: the file still gives a picture.

Pillow hears libjpeg's warnings about corrupt data and does not pass them on, and it leaves the checksum of a PNG's
last rows unread. WebP, lossy or lossless, has no checksum of its pixels: a file that libwebp decodes passes.
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
_PNG_CHECKED = (b"IHDR", b"PLTE", b"IDAT")  # the chunks that decide the pixels


def damage(source: bytes) -> str | None:
    """Why the content of a file that decodes is damaged all the same; None if nothing was found.

    JPEG: decoded again, at an eighth of its size, for libjpeg's warnings: codes that no table has, data that end
    early, and more than padding left over. Its first warning counts; a warning about a header's spare bytes does not.
    PNG: the checksum of each chunk that decides the pixels. Other formats: None.
    """
    if source.startswith(b"\xff\xd8") and simplejpeg is not None:
        try:
            simplejpeg.decode_jpeg(source, "GRAY", min_height=8, min_width=8, strict=True)
        except Exception as error:  # a kind of JPEG that only Pillow decodes is no damage
            warning = str(error)
            if warning.startswith(_CORRUPT) and not _harmless(warning, source):
                return f"damaged inside: {warning.removeprefix(_CORRUPT)}"
    return _png_damage(source) if source.startswith(_PNG_SIGNATURE) else None


def unchecked() -> str | None:
    """A sentence for the user about damage that this installation cannot look for; None if there is none."""
    if simplejpeg is None:
        return "JPEGs were not checked for damaged data: simplejpeg is missing (pip install simplejpeg)"
    return None


def _harmless(warning: str, source: bytes) -> bool:
    """Whether a warning is about spare bytes: few bytes, bytes in the header, or padding before a marker."""
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
    while at + 8 <= len(source) and (kind := source[at + 4 : at + 8]) != b"IEND":
        end = at + 8 + int.from_bytes(source[at : at + 4], "big")
        if kind in _PNG_CHECKED:
            checksum = source[end : end + 4]
            if len(checksum) < 4 or zlib.crc32(memoryview(source)[at + 4 : end]) != int.from_bytes(checksum, "big"):
                return f"damaged inside: the checksum of {kind.decode()} is wrong"
        at = end + 4
    return None
