"""SLURM's queue: the states of all of a sweep's jobs by one question, and the commands that end jobs.

Only squeue is asked: unlike sacct it needs no accounts, and knows of a job for minutes after its end.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection

_OVER = ""
_RUNS = "running"
# Every state that squeue's manual names, as it is shown. A state that is named nowhere ends no job.
STATES = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_FED"), "in the queue"),
    **dict.fromkeys(("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"), "held in the queue"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"), _RUNS),
    **{"CONFIGURING": "waiting for its nodes", "SUSPENDED": "suspended", "STOPPED": "suspended"},
    **dict.fromkeys(("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY"), _OVER),
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"), _OVER),
}
_GONE = "no longer known to SLURM"
LOOK = 5.0  # seconds between two questions, however many jobs there are
_ANSWER = 30.0  # seconds that a busy SLURM has to answer
_FIELDS = "--Format=JobArrayID:40,State:20,TimeUsed:20,RestartCnt:10"


class Queue:
    """Jobs that were submitted, by SLURM's names for them: 17, or 17_0 of an array."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = list(names)
        self.states: dict[str, str] = dict.fromkeys(names, "PENDING")
        self.ends = dict.fromkeys(names, 0)  # looks in a row at which it was over
        self.spent: dict[tuple[str, str], float] = {}  # seconds that it ran, by job and start
        self.looked = time.monotonic()

    def look(self, every: float = LOOK) -> None:
        """Ask anew, if the last answer is older; while SLURM does not answer, the last answer stands."""
        if time.monotonic() - self.looked < every:
            return
        jobs = ",".join(sorted({name.split("_")[0] for name in self.names}))
        answer = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={jobs}", _FIELDS)
        self.looked = time.monotonic()
        if answer is None or (answer.returncode and "Invalid job id" not in answer.stderr):
            return
        lines = [line.split() for line in answer.stdout.splitlines()]
        found = {line[0]: (line[1], _seconds(line[2]), line[3]) for line in lines if len(line) == 4}
        for name in self.names:
            state, seconds, start = found.get(name, (_GONE, 0.0, ""))
            self.states[name] = state
            self.ends[name] = self.ends[name] + 1 if state == _GONE or STATES.get(state) == _OVER else 0
            if start:
                self.spent[name, start] = seconds

    def is_over(self, name: str) -> bool:
        """Whether it has ended: twice in a row, for SLURM may requeue it a moment later."""
        return self.ends[name] > 1

    def doing(self, name: str) -> str:
        """Its state, as it is shown; empty where it runs."""
        shown = STATES.get(self.states[name], self.states[name])
        return "" if shown in {_OVER, _RUNS} else shown

    def seconds(self, name: str) -> float:
        """That it has run, over all its starts."""
        since = time.monotonic() - self.looked if self.states[name] == "RUNNING" else 0
        return sum(seconds for (job, _), seconds in self.spent.items() if job == name) + since

    def let_save(self, names: Collection[str]) -> None:
        """Cancel jobs that wait, and let jobs that run save and end as after Ctrl-C.

        To signal a job that waits, scancel would try for a minute and a half.
        """
        self.cancel(names, "--state=PENDING")
        self.cancel(names, "--state=RUNNING", "--signal=INT")

    def cancel(self, names: Collection[str], *options: str) -> None:
        """Call scancel for jobs, all at once; a missing answer is not waited for."""
        if names:
            _ask("scancel", "--quiet", *options, *names)


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _seconds(text: str) -> float:
    """Of days-hours:minutes:seconds, of which the first may be missing; 0 where SLURM does not know."""
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    try:
        for part in clock.split(":"):
            seconds = 60 * seconds + float(part)
        return 86400 * float(days or 0) + seconds
    except ValueError:
        return 0.0
