"""The stage and epoch that a run has reached, and the SLURM job that began it: small files for other processes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fakegan.runs.folder import JOB_FILE, STATUS_FILE
from fakegan.system.files import replacing
from fakegan.system.processes import is_child
from fakegan.system.slurm import job_id


@dataclass(frozen=True)
class Status:
    """What a run is doing."""

    stage: str
    epoch: int = 0  # of a network in training, from 1; 0: no network trains
    epochs: int = 0
    value: str = ""  # the last validation metric, in words

    def __str__(self) -> str:
        words = f"{self.stage} epoch {self.epoch}/{self.epochs}" if self.epoch else self.stage
        return f"{words}, {self.value}" if self.value else words


def write_status(run_dir: Path, status: Status) -> None:
    """Replace the run's status file."""
    with replacing(run_dir / STATUS_FILE) as building:
        building.write_text(json.dumps(asdict(status)))


def read_status(run_dir: Path) -> Status | None:
    """The run's status, safe to print; None where it has not begun, or the file is not FakeGAN's."""
    try:
        content = json.loads((run_dir / STATUS_FILE).read_text())
        value = content.get("value")
        plain = value[:40] if isinstance(value, str) and value.isprintable() else ""
        return Status(str(content["stage"]), int(content["epoch"]), int(content["epochs"]), plain)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def record_job(run_dir: Path) -> None:
    """Under SLURM, write into a run's folder which job began it: the same job finds it when SLURM starts it again."""
    if "SLURM_JOB_ID" in os.environ and not is_child():
        with suppress(OSError), replacing(run_dir / JOB_FILE) as building:
            building.write_text(f"{job_id()}\n")


def earlier_runs(run_dir: Path) -> list[Path]:
    """Runs that this job may have begun before SLURM requeued it: `run_dir`, then the job's runs beside it.

    Empty where SLURM has not started the job again. The others matter because a run's folder has a clock in its name.
    """
    if "SLURM_RESTART_COUNT" not in os.environ:
        return []
    found = [run_dir]
    for note in sorted(run_dir.parent.glob(f"*/{JOB_FILE}")):
        with suppress(OSError, ValueError):
            if note.parent != run_dir and note.read_text().strip() == job_id():
                found.append(note.parent)
    return found
