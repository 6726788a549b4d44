"""Sheets of faces for people to look at: arrays to PNG, with names beside the rows and text under faces."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Picture = npt.NDArray[np.uint8]  # (H, W, 3), RGB
Faces = npt.NDArray[np.uint8]  # (F, size, size, 3)

GAP = 2  # pixels of white around every face
CAPTION = 12  # pixels of height of a line of text
NAMES = 96  # pixels of width of the names of rows
COPIED = ("face", "reconstruction", "residual x4")  # rows of a sheet that shows what an autoencoder makes of faces
# Of a map: what speaks for fake, and for real. Orange and blue are told apart by colour-blind people.
MAP_COLOURS = ((213, 94, 0), (0, 114, 178))


def sheet(rows: Sequence[Faces], captions: Sequence[str] = (), zoom: int = 1, names: Sequence[str] = ()) -> Picture:
    """Rows of faces under each other, the i-th faces of all rows in one column, `captions[i]` below it.

    `names` stand on the left of the rows. A caption may hold several lines; a line that is wider than a face at this
    zoom is cut off.

    Raises:
        ValueError: rows of different lengths, or another number of captions or names.
    """
    if len({len(row) for row in rows}) != 1 or len(captions) not in (0, len(rows[0])):
        raise ValueError("a sheet takes rows of one length, and as many captions or none")
    stacked = np.stack(rows).repeat(zoom, axis=2).repeat(zoom, axis=3)  # (R, F, size * zoom, size * zoom, 3)
    framed = np.pad(stacked, ((0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=255)
    height, width = framed.shape[0] * framed.shape[2], framed.shape[1] * framed.shape[3]
    faces = framed.transpose(0, 2, 1, 3, 4).reshape(height, width, 3)
    below = CAPTION * max((text.count("\n") + 1 for text in captions), default=0)
    left, row, column = NAMES if names else 0, *framed.shape[2:4]
    picture = Image.fromarray(np.pad(faces, ((0, GAP + below), (left, GAP), (0, 0)), constant_values=255))
    write_names(picture, names, [i * row + GAP + row // 2 for i in range(len(rows))] if names else [])
    for i, text in enumerate(captions):
        cell = Image.new("RGB", (column - GAP, below), "white")
        ImageDraw.Draw(cell).multiline_text((1, 0), text, fill="black", font=font(10), spacing=1)
        picture.paste(cell, (left + i * column + GAP, height + GAP))
    return np.asarray(picture)


def write_names(
    page: Image.Image,
    names: Sequence[str],  # of rows, none wider than NAMES
    middles: Sequence[int],  # pixels from the top: of each row
    left: int = GAP,
) -> None:
    """Draw the name of each row of pictures."""
    pen = ImageDraw.Draw(page)
    for name, middle in zip(names, middles, strict=True):
        pen.text((left, middle), name, "black", font(), anchor="lm")


def font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """What sheets are written in: it knows the letters of ASCII."""
    return ImageFont.load_default(size)


def stack(sheets: Sequence[Picture]) -> Picture:
    """Sheets under each other, the narrower ones filled up with white on the right."""
    width = max(picture.shape[1] for picture in sheets)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in sheets])


def over(face: Picture, found: npt.NDArray[np.floating]) -> Picture:  # a map (size, size)
    """A map over the face in grey: orange above zero, blue below, the map's largest absolute value in full colour."""
    grey = face.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6 + 60  # paler, so that no grey passes for a colour
    strength = 0.85 * abs(found) / max(float(abs(found).max()), 1e-9)
    colour = np.where((found > 0)[..., None], *np.array(MAP_COLOURS, dtype=float))
    mixed: npt.NDArray[np.floating] = grey + strength[..., None] * (colour - grey)
    return mixed.round().astype(np.uint8)


def residual_picture(face: Picture, recon: Picture) -> Picture:
    """Four times the difference in levels, as `views.residual` and without torch; of any number of faces."""
    found: Picture = (4 * abs(face.astype(np.int64) - recon)).clip(max=255).astype(np.uint8)
    return found


def shrunk(faces: npt.NDArray[np.uint8], most: int) -> npt.NDArray[np.uint8]:  # (..., size, size, 3)
    """Faces of at most so many pixels a side, which divide the size: larger ones as means of blocks."""
    size = faces.shape[-2]
    if size <= most:
        return np.ascontiguousarray(faces)
    blocks = faces.reshape(*faces.shape[:-3], most, size // most, most, size // most, 3)
    means: npt.NDArray[np.float32] = blocks.mean(axis=(-2, -4), dtype=np.float32)
    return means.round().astype(np.uint8)


def png(picture: Picture) -> bytes:
    """The picture as a PNG file's content."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def write_png(path: Path, picture: Picture) -> None:
    """The picture as a PNG file."""
    path.write_bytes(png(picture))


def read_png(path: Path) -> Picture:
    """The picture in a PNG file that `write_png` wrote."""
    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))
