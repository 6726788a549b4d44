"""SLURM's word that the time of a job is over: SIGUSR1 or SIGUSR2, at whatever moment of a command; its second start.

The job is put into the queue again by submitit, where that started it, else by `scontrol requeue`, asked by the
first of its processes. Nothing here takes long to import: a signal may come while the libraries are loading.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fakegan import signals
from fakegan.files import replacing
from fakegan.processes import REQUEUED, STOPPING, is_child

JOB_FILE = "slurm_job.txt"  # in a run directory
ANNOUNCING = tuple(number for number in STOPPING if number not in {signal.SIGINT, signal.SIGTERM})


def requeue_when_told() -> None:
    """From now on these signals put the job into the queue again; elsewhere than under SLURM nothing changes."""
    for number in ANNOUNCING:
        if "SLURM_JOB_ID" in os.environ and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, requeue)


def requeue(number: int, _frame: FrameType | None = None) -> NoReturn:
    """A signal's handler: the first process asks SLURM, then all end.

    A process that another one started leaves the asking to that.

    Raises:
        SystemExit: with 75, or, where SLURM refused, with 128 and the signal's number.
    """
    if not is_child() and os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        if not _asked(_job()):
            print(f"SLURM did not put job {_job()} into the queue again: submit it anew", file=sys.stderr, flush=True)
            signals.leave(128 + number)
        print(f"job {_job()} is in the queue again", file=sys.stderr, flush=True)
    signals.leave(REQUEUED)


def note_job(run_dir: Path) -> None:
    """Under SLURM: write down in a run which job began it, so that this job finds it when it is started again."""
    if "SLURM_JOB_ID" in os.environ and not is_child():
        with suppress(OSError), replacing(run_dir / JOB_FILE) as building:
            building.write_text(f"{_job()}\n")


def begun_earlier(run_dir: Path) -> list[Path]:
    """Where SLURM has started this job again: the runs that it may have begun in place of `run_dir`; else none.

    The one there, then those beside it that are this job's: the name of a run's folder has a clock in it.
    """
    if "SLURM_RESTART_COUNT" not in os.environ:
        return []
    beside = sorted(run_dir.parent.glob(f"*/{JOB_FILE}"))
    return [run_dir, *(path.parent for path in beside if path.parent != run_dir and _text(path) == _job())]


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        return path.read_text().strip()
    return ""


def _job() -> str:
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", ""))
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return job if task is None else f"{job}_{task}"


def _asked(job: str) -> bool:
    try:
        return subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
    except OSError:
        return False
