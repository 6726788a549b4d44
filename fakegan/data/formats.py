"""Which files are pictures, and how each kind is opened within bounds: by its content, never by its suffix.

Prepare and predict both ask here, so that they take, leave out and refuse the same files for the same reasons.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from typing import IO

from PIL import Image

from fakegan.errors import FakeganError
from fakegan.system.places import install

MAX_FILE_BYTES = 512 * 2**20
NO_PICTURE = "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"

_HEAD = 64  # bytes that tell the kind
_MAGIC = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_PLAIN_KINDS = ("JPEG", "PNG", "WEBP")  # their rarer forms are all read, so a file that cannot be read is damaged

# Files that are left out unread: of other kinds, and files that systems put into folders of pictures.
_OTHER = """
    .7z .avi .bin .bz2 .c .cfg .ckpt .conf .cpp .css .csv .dat .db .doc .docx .gz .h5 .hdf5 .htm .html .ini .ipynb
    .jl .js .json .jsonl .log .lst .lua .m .mat .md .md5 .mkv .mov .mp3 .mp4 .npy .npz .onnx .parquet .pkl .pt
    .pth .pts .py .pyc .r .rar .rst .safetensors .sh .sha1 .sha256 .sqlite .tar .tex .tgz .toml .ts .tsv .txt .wav
    .xls .xlsx .xml .xmp .xz .yaml .yml .zip .zst
"""
_OTHER_NAMES = frozenset(("thumbs.db", "desktop.ini", "readme", "license", "licence", "copying", "makefile"))
OTHER_FILES = _OTHER_NAMES | frozenset(_OTHER.split())  # names, and suffixes with their dot

# `open_picture` alone refuses large pictures; Pillow's own limit warns at a size and refuses at another.
Image.MAX_IMAGE_PIXELS = None


class ImageError(FakeganError):
    """A picture that cannot be used; the message is a short reason, without the file's name."""


def left_out(name: str) -> str:
    """The suffix or name by which a file that is clearly no picture is counted; "" for all other files."""
    base = name.rpartition("/")[2].lower()
    if name.startswith("__MACOSX/"):
        return "__MACOSX"
    if base.startswith("."):
        return ".ds_store" if base == ".ds_store" else "hidden"
    suffix = f".{base.rpartition('.')[2]}" if "." in base else ""
    return base if base in _OTHER_NAMES else suffix if suffix in OTHER_FILES else ""


def describe_left_out(counts: Counter[str]) -> str:
    """Such as "left out, clearly no pictures: 3 .txt, 1 thumbs.db"; "" where nothing was."""
    in_order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = ", ".join(f"{times:,} {kind}" for kind, times in in_order)
    return parts and f"left out, clearly no pictures: {parts}"


def read_bounded(file: IO[bytes], size: int) -> bytes:
    """All of a picture's file of `size` bytes; of anything else the first bytes only.

    Raises:
        ImageError: no picture, or too large a file.
        OSError, and what archives raise: it cannot be read.
    """
    _kind(file.peek(_HEAD)[:_HEAD])  # type: ignore[attr-defined]  # buffered files and members of archives have it
    if size > MAX_FILE_BYTES:
        raise ImageError(f"file of more than {MAX_FILE_BYTES // 2**20} MiB")
    return file.read()


def open_picture(source: bytes, max_megapixels: int) -> tuple[Image.Image, str, bytes | None]:
    """The picture, of which only the header was read, its kind (JPEG, PNG, ...) and its ICC profile.

    Raises:
        ImageError: no picture, a damaged header, a kind that needs something more, above the size limit.
    """
    kind = _kind(source[:_HEAD])
    profile = None
    if kind == "PNG":
        source, profile = _without_texts(source)
    elif kind == "GIF":
        source, size = _first_frame(source)
        refuse_huge(size, max_megapixels)
    elif kind == "WEBP" and source[12:16] == b"VP8X":  # Pillow makes room for the canvas as it opens the file
        refuse_huge(tuple(1 + int.from_bytes(source[at : at + 3], "little") for at in (24, 27)), max_megapixels)
    try:
        picture = _open(source, kind)
        refuse_huge(picture.size, max_megapixels)
        if kind == "TIFF":
            _refuse_odd_tiff(picture, source, max_megapixels)
    except ImageError:
        raise
    except Exception as error:  # a broken header raises nearly anything: struct, Syntax, Value, Index, Type, ...
        raise ImageError(damaged(kind)) from error
    return picture, kind, profile if profile is not None else picture.info.get("icc_profile")


def damaged(kind: str) -> str:
    """The reason for a file that begins like a picture of that kind and cannot be read."""
    return "truncated or damaged" if kind in _PLAIN_KINDS else f"truncated, damaged or an unusual kind of {kind}"


def refuse_huge(size: tuple[int, ...], max_megapixels: int) -> None:
    """Raise an ImageError for a picture above the limit."""
    width, height = size
    if width * height > max_megapixels * 1_000_000:
        raise ImageError(f"{width}x{height} is above the limit of {max_megapixels} megapixels (--max-megapixels)")


def _kind(head: bytes) -> str:
    if not head:
        raise ImageError("empty file")
    for kind, beginnings in _MAGIC.items():
        if head.startswith(beginnings):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), _HEAD)
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, length, 4)}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    raise ImageError(NO_PICTURE)


def _open(source: bytes, kind: str) -> Image.Image:
    if kind == "HEIC":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise ImageError(f"HEIC: it needs {install('heic')}, or the picture as JPEG") from None
        picture: Image.Image = HeifImageFile(io.BytesIO(source))
        return picture
    if kind == "AVIF":
        Image.init()
        if "AVIF" not in Image.SAVE:
            raise ImageError("AVIF: this Pillow cannot read it; take Pillow 11.3 or newer")
    return Image.open(io.BytesIO(source), formats=(kind,))


def _refuse_odd_tiff(picture: Image.Image, source: bytes, max_megapixels: int) -> None:
    """Pictures that would come out as a thumbnail, nearly black or inverted, and tiles far larger than the picture."""
    tags = picture.tag_v2  # type: ignore[attr-defined]
    if source[8:10] == b"CR" or 50706 in tags or tags.get(254, 0) & 1:  # DNGVersion; NewSubfileType: reduced
        raise ImageError("a camera's raw file: what lies open in it is a thumbnail; export it as JPEG")
    depths = set(tags.get(258, (1,)))  # BitsPerSample
    if not depths <= {1, 2, 4, 8, 16} or (depths == {16} and tags.get(262) == 0):  # white is zero
        raise ImageError("TIFF values of an unusual kind: save it with 8 or 16 bits a colour")
    if 322 in tags and 323 in tags:  # TileWidth, TileLength: libtiff makes room for a whole tile
        refuse_huge((int(tags[322]), int(tags[323])), max_megapixels)


_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNED_BY = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that may say how the camera was held
_MAX_TEXT = 2**20  # bytes, unpacked
MAX_PROFILE = 8 * 2**20  # bytes, unpacked; profiles for print take up to some three million


def _without_texts(source: bytes) -> tuple[bytes, bytes | None]:
    """A PNG without the texts that Pillow would unpack, and its colour profile; b"" for a profile that is no use.

    Pillow takes a sound file whose texts or profile are large for a broken file.
    """
    content, profile = memoryview(source), None
    parts: list[memoryview] = []
    kept_from, at = 0, 8
    turned_by = set(_TURNED_BY)
    while at + 12 <= len(source):
        length, kind = struct.unpack_from(">I4s", source, at)
        end = at + 12 + length
        if end > len(source) or kind == b"IEND":
            break
        if kind == b"iCCP" or kind in _TEXTS:
            keyword, _, body = source[at + 8 : end - 4].partition(b"\0")
            if kind == b"iCCP":
                profile = _unpacked(body[1:], MAX_PROFILE) if profile is None else profile
            if keyword in turned_by and _is_short(kind, body):
                turned_by.remove(keyword)
            else:
                parts.append(content[kept_from:at])
                kept_from = end
        at = end
    return (b"".join([*parts, content[kept_from:]]) if parts else source), profile


def _is_short(kind: bytes, body: bytes) -> bool:
    if kind == b"zTXt":
        return bool(_unpacked(body[1:], _MAX_TEXT))
    return len(body) <= _MAX_TEXT and not (kind == b"iTXt" and body[:1] == b"\1")


def _unpacked(content: bytes, limit: int) -> bytes:
    """b"" where it is damaged or larger."""
    try:
        unpacked = zlib.decompressobj().decompress(content, limit + 1)
    except zlib.error:
        return b""
    return unpacked if len(unpacked) <= limit else b""


def _first_frame(source: bytes) -> tuple[bytes, tuple[int, int]]:
    """A GIF up to the end of its first frame, without its comments, and the size that Pillow makes room for.

    Pillow makes room for a frame as it opens the file, and reads on to see whether there are more.
    """

    def after_palette(flags: int, at: int) -> int:
        return at + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)

    def after_blocks(at: int) -> int:
        while source[at]:
            at += source[at] + 1
        return at + 1

    try:
        width, height, flags = struct.unpack_from("<HHB", source, 6)
        at = after_palette(flags, 13)
        parts = [source[:at]]
        while source[at] == 0x21:  # extensions; the graphic control, 0xF9, names the transparent colour
            end = after_blocks(at + 2)
            if source[at + 1] == 0xF9:
                parts[1:] = [source[at:end]]
            at = end
        left, top, across, down, flags = struct.unpack_from("<HHHHB", source, at + 1)
        end = after_blocks(after_palette(flags, at + 10) + 1)
    except (struct.error, IndexError):
        raise ImageError(damaged("GIF")) from None
    if source[at] != 0x2C:
        raise ImageError(damaged("GIF"))
    return b"".join([*parts, source[at:end], b";"]), (max(width, left + across), max(height, top + down))
