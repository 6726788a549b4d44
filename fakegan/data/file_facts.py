"""What a picture's file tells of it before anyone looks at the face: by file, and as columns of many files."""

from __future__ import annotations

import math
from array import array
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakegan.data.colour import read_profile
from fakegan.data.formats import open_picture

_STANDARD_QUANTISER_MEAN = 57.625  # libjpeg's luma table at quality 50
_EXIF_OF_TIFF = 0x8769  # the tag that points to it; every TIFF has tags
_LISTED = 3  # values that are listed with their shares; of more, quantiles are given
_TENTHS = (10, 50, 90)  # percent

Files = dict[str, npt.NDArray[Any]]  # (N,) of each field of FileFacts: texts, or float64 with NaN for unknown


class FileFacts(NamedTuple):
    """The facts of one file; a row of an array, or a drawn face, has a format of its own and no file."""

    format: str  # JPEG, PNG, WEBP, TIFF, BMP, GIF, AVIF, HEIC; NPY for rows of an array
    width: int  # of the picture, upright
    height: int
    jpeg_quantiser_mean: float = math.nan  # of the luma quantisation table, higher is coarser; NaN if not JPEG
    chroma: str = ""  # subsampling of a JPEG's colours as 4:2:0 and so on; "": no JPEG, or unknown
    bytes: float = math.nan  # of the file; NaN: unknown
    exif: float = math.nan  # 1 with EXIF data, 0 without, NaN: unknown
    profile: str = ""  # the colour profile's name where it is not sRGB, see `colour.Profile`


NUMBERS = ("width", "height", "jpeg_quantiser_mean", "bytes", "exif")  # the other fields are texts


def file_facts(content: bytes, max_megapixels: int = 256) -> FileFacts:
    """The facts of a picture file's bytes, of which only the header is read; ImageError as `open_picture`."""
    picture, kind, profile = open_picture(content, max_megapixels)
    return facts_of(picture, kind, len(content), read_profile(profile, picture.mode).name)


def facts_of(picture: Image.Image, kind: str, length: int, profile: str) -> FileFacts:
    """The same of a picture that `open_picture` has opened: width and height as they lie in the file."""
    table = getattr(picture, "quantization", {}).get(0)
    exif = _EXIF_OF_TIFF in picture.tag_v2 if kind == "TIFF" else picture.info.get("exif")  # type: ignore[attr-defined]
    mean = sum(table) / len(table) if table else math.nan
    return FileFacts(kind, *picture.size, mean, _chroma(picture), length, float(bool(exif)), profile)


def _chroma(picture: Image.Image) -> str:
    """Subsampling by the factors of a JPEG's three components (ITU-T T.81): brightness 2x2, colours 1x1 is 4:2:0."""
    layers = getattr(picture, "layer", [])
    if len(layers) != 3:
        return ""
    across, down = (layers[0][i] / max(layers[1][i], 1) for i in (1, 2))
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    return names.get((across, down), "other")


class FactTable:
    """The facts of many files in memory: 52 bytes each."""

    def __init__(self) -> None:
        self._columns = {name: array("d" if name in NUMBERS else "I") for name in FileFacts._fields}
        self._texts: dict[str, dict[str, int]] = {name: {} for name in FileFacts._fields if name not in NUMBERS}

    def add(self, facts: FileFacts) -> None:
        """The next file."""
        for name, value in zip(FileFacts._fields, facts, strict=True):
            number = self._number(name, value) if isinstance(value, str) else value
            self._columns[name].append(number)  # type: ignore[arg-type]

    def _number(self, name: str, text: str) -> int:
        texts = self._texts[name]
        return texts.setdefault(text, len(texts))

    def columns(self) -> Files:
        """All files, in the order in which they were added."""
        columns: Files = {name: np.frombuffer(column, column.typecode) for name, column in self._columns.items()}
        return columns | {name: np.array([*texts, ""])[columns[name]] for name, texts in self._texts.items()}


def described(files: Files) -> dict[str, str]:
    """How each fact is distributed among some files; never a size that no file has."""
    sides = " ".join(f"{name} {_quantiles(files[name])}" for name in ("width", "height"))
    quantisers, exif = (files[name][~np.isnan(files[name])] for name in ("jpeg_quantiser_mean", "exif"))
    qualities = np.array([_quality(mean) for mean in quantisers])
    density = files["bytes"] / (files["width"] * files["height"])
    return {
        "format": _shares(files["format"]),
        "size": _shares(sizes(files)) if len(np.unique(sizes(files))) <= _LISTED else sides,
        "JPEG": _shares(qualities.astype(np.str_)) if len(np.unique(qualities)) <= _LISTED else _quantiles(qualities),
        "chroma": _shares(files["chroma"][files["chroma"] != ""]),
        "bytes a pixel": _quantiles(density, 2),
        "EXIF": f"{exif.mean():.0%}" if len(exif) else "-",
        "profile": _shares(files["profile"][files["profile"] != ""]),
    }


def sizes(files: Files) -> npt.NDArray[np.str_]:
    """Each file's size as 178x218."""
    width, height = (files[name].astype(np.int64).astype(np.str_) for name in ("width", "height"))
    return np.char.add(np.char.add(width, "x"), height)


def _shares(values: npt.NDArray[np.str_]) -> str:
    """JPEG, or JPEG 75% PNG 25%: the most frequent first, the rarest together."""
    names, counts = np.unique(values, return_counts=True)
    if len(names) < 2:
        return "".join(names) or "-"
    order = np.argsort(-counts, kind="stable")
    shares = {names[i]: counts[i] / len(values) for i in order[:_LISTED]}
    shares |= {"others": counts[order[_LISTED:]].sum() / len(values)} if len(names) > _LISTED else {}
    return " ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _quantiles(values: npt.NDArray[np.float64], digits: int = 0) -> str:
    """The values below which a tenth, half and nine tenths of the known ones lie: 64/150/300; each is one of them."""
    known = values[~np.isnan(values)]
    if not len(known):
        return "-"
    ends = [f"{end:.{digits}f}" for end in np.percentile(known, _TENTHS, method="nearest")]
    return ends[0] if ends[0] == ends[-1] else "/".join(ends)


def _quality(quantiser_mean: float) -> int:
    """The libjpeg quality whose standard table has this mean, roughly."""
    ratio = quantiser_mean / _STANDARD_QUANTISER_MEAN
    return round(100 - 50 * ratio if ratio <= 1 else 50 / ratio)
