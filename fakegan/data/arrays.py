"""Pictures by store row, and NumPy files, which may come from elsewhere, as memory maps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fakegan.checks import SIZES

HEADER_BYTES = 128  # of the array of pictures, whatever their number, so that the header can be written last
Rows = npt.NDArray[np.int64]  # store rows


class RowArray(Protocol):
    """Pictures by store row: a store's images, or reconstructions of some of them."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]: ...  # (B, size, size, 3)


def at_once(
    count: int,  # of faces of the smallest size
    size: int,  # pixels a side
) -> int:
    """How many faces of this size have as many pixels as `count` of the smallest; one at least."""
    return max(1, count * SIZES[0] ** 2 // size**2)


def map_array(path: Path) -> npt.NDArray[Any]:
    """The array in a .npy file, memory-mapped, read only.

    Raises:
        ValueError: no such file, an archive of arrays, Python objects, or a header that does not fit the file.
    """
    if not path.is_file():  # a pipe would wait
        raise ValueError(f"{path} is no file")
    try:
        with np.errstate(over="ignore"):  # of a shape that no file can have
            # not np.load, which would also take an archive of arrays
            return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a header is parsed as Python: TokenError, RecursionError, OverflowError, MemoryError
        raise ValueError(f"{path} is no whole array") from error


def npy_header(count: int, size: int) -> bytes:
    """What a .npy file of pictures, uint8 (count, size, size, 3), begins with: `HEADER_BYTES` bytes."""
    header = io.BytesIO()
    shape = (count, size, size, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert header.tell() == HEADER_BYTES
    return header.getvalue()
