"""What the C library does with memory that was freed."""

from __future__ import annotations

import contextlib
import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them, of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next arrays; returns whether the C library was told.

    By default glibc returns large blocks to the system at once. A network on the CPU allocates and frees the same
    tens of megabytes in every step, and having each page handed out and zeroed anew takes longer than what is
    computed in it. The peak stays about the same, but memory is the process's own until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
    return False
