"""What the C library does with memory that was freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them, of glibc's malloc.h
_CHOSEN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for its next arrays; returns whether it will.

    By default glibc returns large blocks to the system at once. A network on the CPU allocates and frees the same
    tens of megabytes in every step, and having each page handed out and zeroed anew takes longer than what is
    computed in it. Environment variables that choose otherwise are left their say.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _CHOSEN):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
    return False


def freed_memory_is_kept() -> bool:
    """Whether `keep_freed_memory` has been asked for in this process, and could do it."""
    return keep_freed_memory.cache_info().currsize > 0 and keep_freed_memory()


def give_back_freed_memory() -> None:
    """Return what was kept to the system, at the end of work that needed more than what follows."""
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
