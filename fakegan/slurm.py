"""SLURM's word that the time of a job is over: SIGUSR1 or SIGUSR2, at whatever moment of a run.

The job is put into the queue again by submitit, where that started it, else by `scontrol requeue`, asked by the
first of its processes. Nothing here takes long to import: a signal may come while the libraries are loading.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

from fakegan.processes import REQUEUED, is_child

ANNOUNCING = (signal.SIGUSR1, signal.SIGUSR2)


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
        job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
        task = os.environ.get("SLURM_ARRAY_TASK_ID")
        name = job if task is None else f"{job}_{task}"
        if not _asked(name):
            print(f"SLURM did not put job {name} into the queue again: submit it anew", file=sys.stderr, flush=True)
            raise SystemExit(128 + number)
        print(f"job {name} is in the queue again", file=sys.stderr, flush=True)
    raise SystemExit(REQUEUED)


def _asked(job: str) -> bool:
    try:
        return subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
    except OSError:
        return False
