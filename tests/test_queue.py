"""What SLURM's states mean to a sweep; squeue and scancel are played."""

from __future__ import annotations

import subprocess

import pytest

from fakegan.sweep import queue
from fakegan.sweep.queue import Queue

# squeue's manual, "JOB STATE CODES": what ends a job, and what does not. A state that is named nowhere ends none.
_OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
_LIVES = {
    *("COMPLETING", "CONFIGURING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "RESV_DEL_HOLD"),
    *("RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED"),
}


class Played:
    """A SLURM that answers so, look by look; it keeps what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.code, self.complaint = 0, ""
        self.told: list[str] = []
        monkeypatch.setattr(queue, "_ask", self.ask)

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.told.append(" ".join(command))
        return subprocess.CompletedProcess(command, self.code, "\n".join(self.lines), self.complaint)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


@pytest.mark.parametrize(("state", "over"), [(s, s in _OVER) for s in sorted({*_OVER, *_LIVES, "OF_A_LATER_SLURM"})])
def test_which_states_end_a_job(played: Played, state: str, over: bool) -> None:
    """At the second look in a row: SLURM may put a job whose node has failed into the queue again."""
    jobs = Queue(["7_0"])
    assert set(queue.STATES) == _OVER | _LIVES
    for state_now, expected in ((state, False), ("PENDING", False), (state, False), (state, over)):
        played.lines = [f"7_0 {state_now} 0:03 0"]
        jobs.look(every=0)
        assert jobs.is_over("7_0") == expected


def test_a_job_that_slurm_has_forgotten_is_over_but_silence_ends_none(played: Played) -> None:
    jobs = Queue(["7_0", "7_1"])
    played.lines = ["7_1 RUNNING 1:00 0"]
    jobs.look(every=0)
    jobs.look(every=0)
    assert (jobs.is_over("7_0"), jobs.is_over("7_1")) == (True, False)
    played.lines, played.code, played.complaint = [], 1, "slurm_load_jobs error: Unable to contact slurm controller"
    for _ in range(3):
        jobs.look(every=0)
    assert not jobs.is_over("7_1")
    played.complaint = "slurm_load_jobs error: Invalid job id specified"
    for _ in range(2):
        jobs.look(every=0)
    assert jobs.is_over("7_1")


def test_the_time_is_that_of_all_starts_and_none_in_the_queue(played: Played) -> None:
    jobs = Queue(["8"])
    looks = ("PENDING 0:00 0", "RUNNING 10:05 0", "PENDING 0:00 1", "COMPLETING 1-02:00:01 1")
    for line, seconds in zip(looks, (0, 605, 605, 605 + 26 * 3600 + 1), strict=True):
        played.lines = [f"8 {line}"]
        jobs.look(every=0)
        assert jobs.seconds("8") == pytest.approx(seconds, abs=1)


def test_people_read_where_a_job_is(played: Played) -> None:
    jobs = Queue(["7_0"])
    assert jobs.doing("7_0") == "in the queue"
    for state, word in (("RUNNING", ""), ("REQUEUE_HOLD", "held in the queue"), ("SUSPENDED", "suspended")):
        played.lines = [f"7_0 {state} 0:03 0"]
        jobs.look(every=0)
        assert jobs.doing("7_0") == word


def test_many_jobs_are_one_question_and_two_commands(played: Played) -> None:
    """Those that wait first: to signal one of them, scancel tries for 95 seconds."""
    jobs = Queue(["7_0", "7_1", "9"])
    jobs.look(every=0)
    jobs.look()  # the last answer is young
    assert [command.split()[0] for command in played.told] == ["squeue"]
    assert "--jobs=7,9" in played.told.pop()
    jobs.let_save(["7_0", "9"])
    jobs.cancel([])
    assert played.told == [
        "scancel --quiet --state=PENDING 7_0 9",
        "scancel --quiet --state=RUNNING --signal=INT 7_0 9",
    ]


def test_a_slurm_that_does_not_answer_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("squeue", 30)

    monkeypatch.setattr(subprocess, "run", run)
    jobs = Queue(["7"])
    jobs.look(every=0)
    jobs.look(every=0)
    jobs.let_save(["7"])
    assert not jobs.is_over("7")
