"""Any picture's colours to sRGB: grey, palettes, transparency, CMYK, and ICC profiles."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from fakegan.data.formats import MAX_PROFILE, ImageError

UNUSABLE = "unusable"  # a colour profile that is broken, far too large, or of another kind than the picture
_READ_AS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space -> Pillow's mode
_SAME = 2  # levels; a profile that changes no colour by more is sRGB under one of its many names
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Profile:
    """How a picture's colours become sRGB; by default they are sRGB already."""

    name: str = ""  # as the profile calls itself, or UNUSABLE; "" where it is sRGB or there is none
    mode: str = "RGB"  # that `transform` takes
    transform: ImageCms.ImageCmsTransform | None = None


@lru_cache(maxsize=8)  # most pictures of a source have the same; it takes up to 100 ms to make one
def read_profile(content: bytes | None, mode: str) -> Profile:
    """The profile of a picture of this mode; a profile that cannot be used changes nothing, and is named UNUSABLE."""
    if content is None:
        return Profile()
    if not 0 < len(content) <= MAX_PROFILE:
        return Profile(UNUSABLE)
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        reads = _READ_AS[profile.profile.xcolor_space.strip()]
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), reads, "RGB", intent, flags)
        name = ImageCms.getProfileDescription(profile)
    except Exception:  # a broken profile raises nearly anything
        return Profile(UNUSABLE)
    is_grey = mode.startswith(("L", "I", "1")) and mode != "LAB"
    if reads not in (("CMYK",) if mode == "CMYK" else ("L", "RGB") if is_grey else ("RGB",)):
        return Profile(UNUSABLE)
    if reads != "CMYK" and _changes_nothing(transform, reads):
        return Profile()
    name = "".join(c for c in name if c.isprintable()).strip()[:_LONGEST_NAME]
    return Profile(name or "without a name", reads, transform)


def to_rgb(picture: Image.Image, profile: Profile) -> Image.Image:
    """The same size in mode RGB: transparent parts white, as on a page; 16-bit values by their high byte.

    Raises:
        ImageError: values that are no colours, or of more than 16 bits.
    """
    if picture.mode in ("F", "LAB", "HSV"):
        raise ImageError("values of an unusual kind: save it as RGB with 8 or 16 bits a colour")
    if picture.mode.startswith("I"):  # 16-bit grey: I;16, or I in older Pillow
        values = np.asarray(picture) >> 8
        if values.min() < 0 or values.max() > 255:
            raise ImageError("values of more than 16 bits: save it with 8 or 16 bits a colour")
        picture = Image.fromarray(values.astype(np.uint8))
    elif picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.new("RGB", over.size, "white")
        picture.paste(over, mask=over.getchannel("A"))
    if profile.transform is not None:
        return profile.transform.apply(picture if picture.mode == profile.mode else picture.convert(profile.mode))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 18 if mode == "L" else 6).round().astype(np.uint8)
    colours = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    before = Image.fromarray(colours)
    after = np.asarray(transform.apply(before)).astype(int)
    return bool(np.abs(after - np.asarray(before.convert("RGB"))).max() <= _SAME)
