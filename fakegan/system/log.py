"""Progress, notes and warnings, through Python's logging: `logging.getLogger(__name__).info(...)` in any module.

Only rank 0 of a run speaks. Notes go to stdout, warnings to stderr. Errors do not come here: a command raises them, and
its entry point prints them.
"""

from __future__ import annotations

import logging
import sys

from fakegan.system import ranks


class _Handler(logging.Handler):
    """Writes to the streams as they are at that moment, which rank 0 and a notebook may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        if ranks.is_rank_zero():
            warns = record.levelno > logging.INFO
            text = f"{'warning: ' if warns else ''}{self.format(record)}"
            print(text, file=sys.stderr if warns else sys.stdout, flush=True)


def begin(quiet: bool = False) -> None:
    """Show what FakeGAN logs: notes and warnings, or warnings alone. A second call sets the level anew."""
    log = logging.getLogger("fakegan")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if not log.handlers:
        log.addHandler(_Handler())
        log.propagate = False  # the root logger's handlers belong to other libraries


def quiet() -> bool:
    """Whether only warnings are shown."""
    return not logging.getLogger("fakegan").isEnabledFor(logging.INFO)
