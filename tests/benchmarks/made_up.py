"""Made-up pictures, quick to draw: all that a benchmark needs where it does not matter what they show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fakegan.data.images import face_from_pixels

Pixels = npt.NDArray[np.uint8]
_CHUNK = 2000
_COMMON = 0.4  # of a made-up face is the same in all
_PLACES = 8  # across and down, whose colours are drawn


def smooth_faces(count: int, seed: int = 0) -> Iterator[Pixels]:
    """Smooth colour fields, uint8 (up to 2000, 64, 64, 3) at a time: one field and, in each, variation of its own.

    They resemble each other a little more than aligned photographs do, and no two are alike: of 3,000, the hashes of
    two differ in 26 bits on average (29 of 3,000 CelebA faces), and two octets of them are equal as often.
    """
    rng = np.random.default_rng(seed)
    at = np.linspace(0, _PLACES - 1, 64)[:, None]
    tents = np.maximum(0, 1 - np.abs(at - np.arange(_PLACES))).astype(np.float32)  # (64, 8), linear upsampling
    common = rng.uniform(0, 255, (_PLACES, _PLACES, 3))
    for start in range(0, count, _CHUNK):
        n = min(_CHUNK, count - start)
        own = rng.uniform(0, 255, (n, _PLACES, _PLACES, 3))
        coarse = (_COMMON * common + (1 - _COMMON) * own).astype(np.float32)
        wide = np.tensordot(tents, coarse, (1, 2))  # (64, n, 8, 3)
        yield np.tensordot(tents, wide, (1, 2)).transpose(2, 0, 1, 3).astype(np.uint8)


def write_faces(folder: Path, count: int) -> None:
    """FOLDER/images.npy (count, 64, 64, 3) with hashes.npy and thumbs.npy, what duplicates are found by."""
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, 64, 64, 3))
    hashes, thumbs, start = np.empty(count, dtype=np.uint64), np.empty((count, 64), dtype=np.uint8), 0
    for faces in smooth_faces(count):
        here = slice(start, start + len(faces))
        images[here], thumbs[here] = faces, _thumbnails(faces)
        hashes[here] = [face_from_pixels(face).phash for face in faces]
        start += len(faces)
    images.flush()
    np.save(folder / "hashes.npy", hashes)
    np.save(folder / "thumbs.npy", thumbs)


def write_larger(folder: Path, count: int, size: int) -> None:
    """FOLDER/images-SIZE.npy (count, size, size, 3): the faces of images.npy, each pixel repeated."""
    small = np.load(folder / "images.npy", mmap_mode="r")
    times = size // small.shape[1]
    images = np.lib.format.open_memmap(folder / f"images-{size}.npy", "w+", np.uint8, (count, size, size, 3))
    for i in range(count):
        images[i] = small[i].repeat(times, axis=0).repeat(times, axis=1)
    images.flush()


def _thumbnails(faces: Pixels) -> Pixels:
    """(B, 64, 64, 3) to (B, 64): the mean brightness of 8x8 blocks."""
    blocks = faces.reshape(-1, 8, 8, 8, 8, 3).mean(axis=(2, 4))  # (B, 8, 8, 3)
    return np.asarray((blocks @ [0.299, 0.587, 0.114]).round().reshape(-1, 64), dtype=np.uint8)


def write_jpegs(folder: Path, pictures: Iterable[Pixels]) -> None:
    """FOLDER/{real,fake}/*.jpg of these pictures, by turns."""
    for name in ("real", "fake"):
        (folder / name).mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / ("real", "fake")[i % 2] / f"{i:06d}.jpg", quality=90)


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """FOLDER/{real,fake}/*.jpg of that (width, height), with about as much detail as a photograph of a face.

    Octaves of noise whose strength falls with their frequency; each file shows another part of a few dozen pictures.
    """
    rng = np.random.default_rng(0)
    bases = [_octaves(size, rng) for _ in range(min(count, 48))]
    shifts = ((int(rng.integers(size[1])), int(rng.integers(size[0]))) for _ in range(count))
    write_jpegs(folder, (np.roll(bases[i % len(bases)], shift, axis=(0, 1)) for i, shift in enumerate(shifts)))


def _octaves(size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    total = np.full((size[1], size[0], 3), 128.0)
    for side, strength in ((4, 45), (8, 30), (16, 18), (32, 10), (64, 6), (128, 3.5), (256, 2)):
        coarse = np.clip(128 + strength * rng.standard_normal((side, side, 3)), 0, 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.float64) - 128
    return np.clip(total, 0, 255).astype(np.uint8)
