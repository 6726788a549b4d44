"""Where a run stands, in a small file that others may read while it runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fakegan.runs.folder import STATUS_FILE
from fakegan.system.files import replacing


@dataclass(frozen=True)
class Status:
    """What a run is doing."""

    stage: str
    epoch: int = 0  # of a network in training, from 1; 0: none is
    epochs: int = 0
    value: str = ""  # what validation said last

    def __str__(self) -> str:
        words = f"{self.stage} epoch {self.epoch}/{self.epochs}" if self.epoch else self.stage
        return f"{words}, {self.value}" if self.value else words


def write_status(run_dir: Path, status: Status) -> None:
    """Replace the run's status file."""
    with replacing(run_dir / STATUS_FILE) as building:
        building.write_text(json.dumps(asdict(status)))


def read_status(run_dir: Path) -> Status | None:
    """The run's status; None where it has not begun, or the file is not ours."""
    try:
        content = json.loads((run_dir / STATUS_FILE).read_text())
        return Status(
            str(content["stage"]), int(content["epoch"]), int(content["epochs"]), _plain(content.get("value"))
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _plain(value: object) -> str:
    """Text of a file that may come from elsewhere, for a terminal."""
    return value[:40] if isinstance(value, str) and value.isprintable() else ""
