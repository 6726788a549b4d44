"""Picture files of many kinds, made by hand, and a detector that has learnt nothing."""

import struct
import zlib
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image

from fakegan.data.formats import NO_PICTURE
from fakegan.data.images import Geometry
from fakegan.detector import Detector, NetSpec
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.views import VIEWS
from tests.helpers import encode

CNN = {"_target_": "fakegan.nets.simple_cnn.SimpleCNN", "in_channels": 3, "dropout": 0.5}
AUTOGAN = {"_target_": "fakegan.nets.autogan.AutoGAN", "depth": 1, "width": 4, "norm": "none"}


def detector(view: str = "reconstruction", weight: float = 0.02, **options: object) -> Detector:
    """A detector whose classifier has random weights of this size in its last layer."""
    channels = VIEWS[view].channels
    net = SimpleCNN(channels, 0.5)
    torch.nn.init.normal_(net.head[-1].weight, std=weight)  # untrained, it is zero
    autoencoder = NetSpec(AUTOGAN, AutoGAN(1, 4, norm="none").state_dict()) if view != "pixels" else None
    classifier = NetSpec({**CNN, "in_channels": channels}, net.state_dict())
    return Detector(Geometry(), view, classifier, autoencoder, **options)  # type: ignore[arg-type]


def scene(width: int = 96, height: int = 80) -> Image.Image:
    """Smooth, and different in every corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


def p3_profile() -> bytes:
    """The smallest colour profile of Display P3: its primaries (D50) and sRGB's curve."""

    def s15(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white = s15(0.9642, 1.0, 0.8249)
    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    text = "P3 by hand".encode("utf-16-be")
    tags = {
        b"desc": b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text,
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"rXYZ": b"XYZ " + bytes(4) + s15(0.51512, 0.24120, -0.00105),
        b"gXYZ": b"XYZ " + bytes(4) + s15(0.29198, 0.69225, 0.04189),
        b"bXYZ": b"XYZ " + bytes(4) + s15(0.15710, 0.06657, 0.78407),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    at, table, bodies = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    header = bytes(4) + b"\4\x20\0\0".rjust(8, b"\0") + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + white
    whole = header.ljust(128, b"\0") + table + bodies
    return struct.pack(">I", len(whole)) + whole[4:]


def _with_chunks(*chunks: bytes) -> bytes:
    """A sound PNG with these after its header."""
    source = encode(scene())
    return source[:33] + b"".join(chunks) + source[33:]


_LARGE = zlib.compress(bytes(2 * 2**20))
LARGE_TEXTS = {
    "large_ztxt.png": _with_chunks(png_chunk(b"zTXt", b"parameters\0\0" + _LARGE)),
    "large_itxt.png": _with_chunks(png_chunk(b"iTXt", b"parameters\0\1\0\0\0" + _LARGE)),
    "large_iccp.png": _with_chunks(png_chunk(b"iCCP", b"scanner\0\0" + _LARGE)),
    "large_text.png": _with_chunks(*[png_chunk(b"tEXt", b"k\0" + b"x" * 2**20)] * 70),
}


def _gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """A GIF that claims these sizes; its frame is disposed, so Pillow makes room for it as it opens the file."""
    control = b"\x21\xf9\4\x08\0\0\0\0"
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0) + control
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\1\0\0;"


def odd_files() -> dict[str, tuple[bytes, str]]:
    """Name -> content and the reason why it is refused; "" where it is a face."""
    picture = scene()
    jpeg, tiff = encode(picture, "JPEG"), encode(picture, "TIFF", compression="tiff_lzw")
    kinds = ["tiff", "bmp", "gif", "webp", "png", *(["avif"] if "AVIF" in Image.SAVE else [])]
    faces = {f"jpeg{suffix}": jpeg for suffix in (".jfif", ".jpe", ".JPG", ".png", ".photo", "")}
    faces |= {f"a.{kind}": encode(picture, kind) for kind in kinds} | LARGE_TEXTS
    faces["p3.jpg"] = encode(picture, "JPEG", icc_profile=p3_profile())
    faces["cmyk.jpg"] = encode(picture.convert("CMYK"), "JPEG")
    faces["broken_profile.jpg"] = encode(picture, "JPEG", icc_profile=b"no profile")
    tagged = encode(picture, "TIFF", tiffinfo={254: 0})
    assert tagged[10:14] == struct.pack("<HH", 254, 4)  # NewSubfileType, a number
    unusual = "truncated, damaged or an unusual kind of {}".format
    heic = (
        unusual("HEIC")
        if find_spec("pillow_heif")
        else "HEIC: it needs pip install -e '.[heic]', or the picture as JPEG"
    )
    above = "is above the limit of 256 megapixels (--max-megapixels)"
    return {name: (content, "") for name, content in faces.items()} | {
        "telephone": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", heic),
        "page.pdf": (b"%PDF-1.7", NO_PICTURE),
        "old.psd": (b"8BPS\0\1", NO_PICTURE),
        "plain.ppm": (encode(picture, "PPM"), NO_PICTURE),
        "diary.jpg": (b"once upon a time there was a face", NO_PICTURE),
        "begun.jpg": (b"\xff\xd8\xff\xe0 and no more", "truncated or damaged"),
        "nothing.jpg": (b"", "empty file"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated or damaged"),
        "half.tif": (tiff[: len(tiff) // 2], unusual("TIFF")),
        "float.tif": (
            encode(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
            "TIFF values of an unusual kind: save it with 8 or 16 bits a colour",
        ),
        "tag.tif": (tagged[:12] + b"\7" + tagged[13:], unusual("TIFF")),  # the tag is now bytes
        "raw.dng": (
            encode(picture, "TIFF", tiffinfo={254: 1}),
            "a camera's raw file: what lies open in it is a thumbnail; export it as JPEG",
        ),
        "screen.gif": (_gif((65535, 65535), (1, 1)), f"65535x65535 {above}"),
        "frame.gif": (_gif((1, 1), (65535, 65535)), f"65535x65535 {above}"),
        "canvas.webp": (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\0" * 2, f"65536x65536 {above}"),
        "huge.png": (png_header(20_000, 20_000), f"20000x20000 {above}"),
    }
