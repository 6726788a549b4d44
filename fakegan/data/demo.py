"""Built-in procedural faces, real and fake: the data path's offline source (`data=demo`).

A real face is a painted portrait (portrait.py), developed and photographed. A fake comes from the same
painter (other random draws, so never a real one's face), then loses and regains resolution the way generators
do (Zhang, Karaman, Chang 2019, "Detecting and Simulating Artifacts in GAN Fake Images", arXiv:1907.06515)
before the same camera takes it. A classifier that separates these proves nothing about real fakes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from fakegan.checks import SIZES
from fakegan.data.canvas import Colour
from fakegan.data.images import Pixels
from fakegan.data.portrait import portrait
from fakegan.system.pool import in_order
from fakegan.system.processes import cores

SOURCES = ("demo_camera", "demo_transposed", "demo_nearest", "demo_bilinear")  # the first is real
RECIPE = 1  # of drawing: raise it when face i of a seed gets other pixels
_CHUNK = 25  # faces a worker draws at a time

# The generators' faults, tuned so that a small CNN learns them and channel totals do not show them.
_CODE = 16  # resolution from which they start
_KEPT = (0.1, 0.8)  # share of a level's detail that a generator draws
_UNEVEN = (0.04, 0.15)  # spread of a learnt kernel's taps about their ideal values
_TAPS = {  # the upsampling kernels after zero insertion, along one axis
    "demo_transposed": (1, 3, 3, 1, 0),
    "demo_nearest": (0, 4, 4, 0, 0),
    "demo_bilinear": (1, 3, 3, 1, 0),
}


@dataclass(frozen=True)
class DemoFace:
    """A built-in picture and its source."""

    image: Pixels  # uint8 (size, size, 3)
    source: str  # one of SOURCES
    is_fake: bool
    file: str  # a stable made-up name, source/index: demo_camera/00012


def _convolve(picture: Colour, kernel: NDArray[np.floating[Any]]) -> Colour:
    """Convolve each channel of (3, H, W) with a kernel of odd sides, edges repeated."""
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(picture, ((0, 0), (down, down), (across, across)), "edge")
    _, height, width = picture.shape
    total = np.zeros_like(picture)
    for i, j in np.argwhere(kernel):
        total += np.float32(kernel[i, j]) * padded[:, i : i + height, j : j + width]
    return total


def _develop(scene: Colour, rng: Generator) -> Colour:
    """Lens and film: linear light of twice the size to (3, size, size) in 0 to 1; exposure, vignette, gamma, blur."""
    size = scene.shape[1] // 2
    picture = scene.reshape(3, size, 2, size, 2).mean((2, 4))
    middle = picture[:, size // 4 : size * 7 // 8, size // 4 : size * 3 // 4]
    exposure = rng.uniform(0.8, 1.15) * 0.27 / (0.5 * float(middle.mean()) + 0.13)
    edge = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    vignette = 1 - rng.uniform(0, 0.15) * (edge[:, None] + edge)
    balance = rng.normal(exposure, 0.02 * exposure, (3, 1, 1)).astype(np.float32)
    picture = 1 - np.exp(-1.6 * balance * vignette * np.clip(picture, 0, None))  # a film's shoulder
    picture = picture ** (1 / rng.uniform(1.8, 2.2))
    picture += rng.uniform(0.5, 1.3) * picture * (1 - picture) * (2 * picture - 0.9)  # contrast
    grey = picture.mean(0)
    picture = np.clip(grey + rng.uniform(0.85, 1.15) * (picture - grey), 0, 1)
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * rng.uniform(0.2, 0.55) ** 2))  # blur by a Gaussian, sigma in pixels
    taps /= taps.sum()
    return _convolve(_convolve(picture, taps[None]), taps[:, None])


def _photograph(picture: Colour, rng: Generator) -> Pixels:
    """(3, H, W) in 0 to 1 to uint8 (H, W, 3): sensor noise, then most often a JPEG; the same for both classes."""
    noise = rng.standard_normal(picture.shape, np.float32)
    noise = 0.7 * noise + 0.5 * noise.mean(0)
    picture = picture + rng.uniform(0.003, 0.013) * noise * (0.5 + np.sqrt(np.clip(picture, 0, 1)))
    pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if rng.uniform() < 0.7:
        jpeg, quality = io.BytesIO(), int(rng.integers(86, 98))
        Image.fromarray(np.ascontiguousarray(pixels)).save(jpeg, "JPEG", quality=quality, subsampling=0)
        pixels = np.asarray(Image.open(jpeg))
    return pixels


def _upsample(code: Colour, source: str, uneven: float, rng: Generator) -> Colour:
    """(3, H, W) to (3, 2H, 2W) as a layer of that generator does it.

    Every upsampling is zero insertion, which repeats the spectrum, and a kernel that should remove the copies
    (Zhang et al. 2019). A transposed convolution learns that kernel: taps that do not balance leave a
    checkerboard. The others fix it (box, tent) and learn a 3x3 convolution after it; after the box it smooths.
    `uneven` says how far learnt taps are from balance; 0 gives the ideal kernel.
    """
    _, height, width = code.shape
    padded = np.pad(code, ((0, 0), (2, 2), (2, 2)), "edge")
    spread = np.zeros((3, 2 * height + 8, 2 * width + 8), np.float32)
    spread[:, ::2, ::2] = padded
    taps = np.asarray(_TAPS[source], np.float32)
    kernel = np.outer(taps, taps)
    if source == "demo_transposed":
        kernel *= rng.normal(1, uneven, (5, 5))
    picture = _convolve(spread, kernel * (4 / kernel.sum()))[:, 4:-4, 4:-4]
    if source == "demo_transposed":
        return picture
    smooth = (1, 6, 1) if source == "demo_nearest" else (0, 8, 0)
    mix = np.outer(smooth, smooth) / 64 + rng.normal(0, uneven / 2, (3, 3))
    return _convolve(picture, mix / mix.sum())


def _redraw(picture: Colour, source: str, kept: float, uneven: float, rng: Generator, of_face: int) -> Colour:
    """A picture (3, N, N) as the generator draws it: from 16x16, doubling, adding detail at each size.

    `kept` is the share of the finest detail that is drawn, at the size `of_face`; coarser levels lose less of theirs.
    """
    size = picture.shape[1]
    if size == _CODE:
        return picture
    code = picture.reshape(3, size // 2, 2, size // 2, 2).mean((2, 4))
    detail = picture - _upsample(code, "demo_bilinear", 0.0, rng)
    drawn = _upsample(_redraw(code, source, kept, uneven, rng, of_face), source, uneven, rng)
    drawn += (1 - (1 - kept) * (size / of_face) ** 0.5) * detail
    return drawn


def draw_face(rng: Generator, source: str = SOURCES[0], size: int = SIZES[0]) -> Pixels:
    """A face, uint8 (size, size, 3): real by default, or flawed by generator `source`, more or less from face to face.

    The generator adds detail size by size, as LAPGAN (arXiv:1506.05751) and StyleGAN2 (arXiv:1912.04958) do. Each
    channel's mean and contrast are set back to the picture's own: only structure separates the classes.
    """
    picture = _develop(portrait(rng, 2 * size), rng)
    if source != SOURCES[0]:
        drawn = _redraw(picture, source, rng.uniform(*_KEPT), rng.uniform(*_UNEVEN), rng, size)
        drawn -= drawn.mean((1, 2), keepdims=True)
        drawn *= picture.std((1, 2), keepdims=True) / (drawn.std((1, 2), keepdims=True) + 1e-6)
        picture = drawn + picture.mean((1, 2), keepdims=True)
    return _photograph(picture, rng)


def _draw_chunk(seed: int, size: int, indices: range) -> list[DemoFace]:
    """Even faces are real; odd faces come from the three generators in turn."""
    faces = []
    for index in indices:
        source = SOURCES[0] if index % 2 == 0 else SOURCES[1 + index // 2 % 3]
        image = draw_face(np.random.default_rng((seed, index)), source, size)
        faces.append(DemoFace(image, source, source != SOURCES[0], f"{source}/{index:05d}"))
    return faces


def demo_faces(
    count: int = 2400,
    seed: int = 0,
    size: int = SIZES[0],  # pixels a side
    workers: int | None = None,  # processes; None: as many as cores, 1: this process
) -> Iterator[DemoFace]:
    """Faces in order of their index: half real, the fakes a third from each generator, interleaved.

    Face i of a size is a function of (seed, i) alone: neither count nor workers changes it. Every face has random draws
    of its own, so no fake shows a real one's face.
    """
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    for _, faces in in_order(partial(_draw_chunk, seed, size), chunks, min(workers or cores(), len(chunks))):
        yield from faces
