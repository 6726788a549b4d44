"""SLURM's word that a job must end, at whatever moment of a command.

SIGUSR1 or SIGUSR2: its time is over. SIGTERM: it makes room for another, has been put into the queue again, or is
cancelled, which only SLURM can tell. The job is put into the queue again by `scontrol requeue`, asked by the first of
its processes; where its time is over and submitit has started it, by that. Nothing here takes long to import: a signal
may come while the libraries are loading.
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
from fakegan.system.processes import REQUEUED, STOP_SIGNALS, is_child

_ANSWER = 20.0  # seconds that a busy SLURM has to answer: a job that it ends is killed after 30
REQUEUE_SIGNALS = tuple(number for number in STOP_SIGNALS if number not in {signal.SIGINT, signal.SIGTERM})


def requeue_when_told() -> None:
    """From now on these signals put the job into the queue again; elsewhere than under SLURM nothing changes."""
    for number in (signal.SIGTERM, *REQUEUE_SIGNALS):
        if "SLURM_JOB_ID" in os.environ and signal.getsignal(number) in {signal.SIG_DFL, signals.stop}:
            signal.signal(number, requeue)


def requeue(number: int, _frame: FrameType | None = None) -> NoReturn:
    """A signal's handler: the first process asks SLURM, then all end.

    A process that another one started leaves the asking to that.

    Raises:
        SystemExit: with 75, or, where SLURM refused or a SIGTERM was meant for good, with 128 and the signal's number.
    """
    if is_child() or os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        signals.end_process(REQUEUED)
    meant = _meant_by_sigterm() if number == signal.SIGTERM else "requeue"
    if meant == "end":
        signals.stop(number)
    if meant == "requeue" and not _scontrol("requeue", job_id()):
        print(f"SLURM did not put job {job_id()} into the queue again: submit it anew", file=sys.stderr, flush=True)
        signals.end_process(128 + number)
    print(f"job {job_id()} is in the queue again", file=sys.stderr, flush=True)
    signals.end_process(REQUEUED)


def _meant_by_sigterm() -> str:
    """What SLURM wants of this job: "requeue", "nothing" where it has done that already, or its "end".

    A job that must make room may have a time of grace, in which it runs. What ends in it has ended for SLURM.
    """
    fields = dict(re.findall(r"(\w+)=(\S*)", _scontrol("--oneliner", "show", "job", job_id())))
    if int(fields.get("Restarts", "0")) > int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return "nothing"
    preempted = fields.get("PreemptTime", "None") not in {"None", "N/A", "Unknown"}
    return "requeue" if preempted and fields.get("JobState") == "RUNNING" else "end"


def job_id() -> str:
    """The job that this process belongs to, an array's task with both numbers; empty elsewhere than under SLURM."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID", ""))
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return job if task is None else f"{job}_{task}"


def _scontrol(*words: str) -> str:
    """What it answers, at least a blank; empty where it refuses, or does not answer."""
    try:
        done = subprocess.run(["scontrol", *words], stdout=subprocess.PIPE, text=True, timeout=_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or " " if done.returncode == 0 else ""
