"""SLURM's signals that a job must end, at whatever moment of a command; and the job's second start.

SIGUSR1 and SIGUSR2 mean that its time is over. SIGTERM means that it makes room for another job, has been requeued, or
is cancelled, which only SLURM can tell. Rank 0 requeues the job by `scontrol requeue`; where its time is over and
submitit has started it, submitit does. Nothing here takes long to import: a signal may come while libraries load.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

from fakegan.system import signals
from fakegan.system.processes import REQUEUED, is_child

_ANSWER = 20.0  # seconds that a busy SLURM has to answer: a job that it ends is killed after 30
REQUEUE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


def requeue_when_told() -> None:
    """From now on these signals requeue the job; elsewhere than under SLURM nothing changes."""
    for number in (signal.SIGTERM, *REQUEUE_SIGNALS):
        if "SLURM_JOB_ID" in os.environ and signal.getsignal(number) in {signal.SIG_DFL, signals.stop}:
            signal.signal(number, requeue)


def requeue(number: int, _frame: FrameType | None = None) -> NoReturn:
    """A signal's handler: rank 0 asks SLURM, then all processes end.

    A process that another one started leaves the asking to its parent.

    Raises:
        SystemExit: with 75, or, where SLURM refused or a SIGTERM cancels the job, with 128 and the signal's number.
    """
    if is_child() or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        signals.exit_or_raise(REQUEUED)
    job = job_id()
    requeued = False
    if number == signal.SIGTERM:
        # A preempted job may have a time of grace, in which it runs. A job that ends within has ended for SLURM.
        fields = dict(re.findall(r"(\w+)=(\S*)", _scontrol("--oneliner", "show", "job", job)))
        requeued = int(fields.get("Restarts", "0")) > int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        preempted = fields.get("PreemptTime", "None") not in {"None", "N/A", "Unknown"}
        if not requeued and not (preempted and fields.get("JobState") == "RUNNING"):
            signals.stop(number)  # it is cancelled
    # Printed: logging may not be set up when the signal comes.
    if not requeued and not _scontrol("requeue", job):
        print(f"SLURM did not put job {job} into the queue again: submit it anew", file=sys.stderr, flush=True)
        signals.exit_or_raise(128 + number)
    print(f"job {job} is in the queue again", file=sys.stderr, flush=True)
    signals.exit_or_raise(REQUEUED)


def job_id() -> str:
    """The job that this process belongs to, an array's task with both numbers; empty elsewhere than under SLURM."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", ""))
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return job if task is None else f"{job}_{task}"


def _scontrol(*words: str) -> str:
    """Its answer, at least a blank; empty where it refuses, or does not answer."""
    try:
        done = subprocess.run(["scontrol", *words], stdout=subprocess.PIPE, text=True, timeout=_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or " " if done.returncode == 0 else ""
