"""What is shown of a sweep's jobs while they run, and their table."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakegan.errors import FakeganError
from fakegan.runs.folder import JOBS_FILE, LOG_FILE, METRICS_FILE
from fakegan.runs.status import Status, write_status
from fakegan.sweep.command import short
from fakegan.sweep.jobs import Ending, Job, Running
from fakegan.sweep.progress import Progress
from fakegan.sweep.table import Row, as_text, clock, objective_of, read_rows, write_rows
from fakegan.system import log
from fakegan.system.shell import local_path

Make = Callable[..., Progress]


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(Running, "seconds", 0.0)
    return Running(job=Job(7, "seed=7", tmp_path, (), {}), log_from=0)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Progress of so many waiting jobs, the first of which is job 7; on a terminal where that has a size."""

    def make(jobs: int, columns: int = 0, lines: int = 24) -> Progress:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        progress = Progress(tmp_path)
        progress.terminal = columns > 0
        progress.rows = {number: Row(number, f"seed={number}", "waiting") for number in range(7, 7 + jobs)}
        return progress

    return make


def test_a_job_says_where_it_stands_and_when_it_waits(running: Running) -> None:
    log = running.job.folder / LOG_FILE
    assert running.doing() == "starting"
    write_status(running.job.folder, Status("autoencoder"))
    log.write_text("another run is making autogan1-w4-0; waiting for it\n")
    assert running.doing() == "waiting for another run"
    log.write_text("another run is making autogan1-w4-0; waiting for it\nautoencoder: found trained, autogan1-w4-0\n")
    write_status(running.job.folder, Status("classifier", 2, 9))
    assert running.doing() == "classifier epoch 2/9"


def test_quiet_leaves_out_what_goes_well_and_shows_failures(
    running: Running, made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = made(2)
    log.begin(quiet=True)
    progress.started(running)
    write_status(running.job.folder, Status("classifier"))
    progress.going([running])
    progress.ended(running.job, Ending("stopped", 2.0))
    progress.ended(dataclasses.replace(running.job, number=8), Ending("failed", 2.0, "no space"))
    assert capsys.readouterr().out.splitlines() == [
        "job 7 (seed=7) stopped after 0:02; 0 of 2 done",
        "job 8 (seed=7) failed after 0:02: no space; 0 of 2 done, 1 failed",
    ]


def test_a_log_gets_a_line_for_each_stage_and_not_for_each_epoch(
    running: Running, made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = made(2)
    progress.started(running)
    for status in (Status("classifier", 1, 2), Status("classifier", 2, 2), Status("test")):
        write_status(running.job.folder, status)
        progress.drawn = 0.0
        progress.going([running])
    progress.ended(running.job, Ending("failed", 61, "the loss is no number", ("last words",)))
    assert capsys.readouterr().out.splitlines() == [
        "job 7 starts: seed=7",
        "job 7: classifier (0:00)",
        "job 7: test (0:00)",
        "job 7 (seed=7) failed after 1:01: the loss is no number; 0 of 2 done, 1 failed",
        f"  the end of {local_path(running.job.folder / LOG_FILE)}:",
        "  | last words",
    ]


def test_on_a_terminal_the_block_fits_and_is_erased_before_a_line_that_stays(
    running: Running, made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = made(9, columns=40, lines=6)
    for number in list(progress.rows)[1:]:
        progress.update(number, state="running")
    progress.going([running] * 9)
    block = capsys.readouterr().out.splitlines()
    assert len(block) == 5  # three jobs, how many more, the sum
    assert block[-2:] == ["  and 6 more", "0 of 9 done, 9 running, 1 to come"]
    assert all(len(line) < 40 for line in block)
    progress.say("a line")
    assert capsys.readouterr().out == "\x1b[5F\x1b[Ja line\n"
    progress.close()
    assert capsys.readouterr().out == ""


def test_at_eighty_columns_a_job_shows_what_is_swept_and_what_it_does(
    running: Running, made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(running.job.folder, Status("classifier", 12, 30, "AUROC 0.833"))
    swept = ["seed=1 model=autogan4 classifier=alexnet pipeline=classify classifier.dropout=0.5", "seed=2 +a=null"]
    jobs = [dataclasses.replace(running, job=dataclasses.replace(running.job, name=name)) for name in swept]
    made(1, columns=80).going(jobs)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "  job 7    0:00  seed=1 autogan4 alexnet classify dropout=0.5  classifier 12/30",
        "  job 7    0:00  seed=2 +a=null                                classifier 12/30",
    ]
    assert short("classifier.optimizer._target_=torch.optim.SGD classifier.net.dropout=0.1") == (
        "optimizer=SGD dropout=0.1"  # a class by its name
    )


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_jobs_go_on_where_their_lines_cannot_be_written(
    running: Running, made: Make, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise error

        def fileno(self) -> int:
            return spare

    with (running.job.folder / "spare").open("w") as file:
        spare = file.fileno()
        progress = made(1)
        monkeypatch.setattr(sys, "stdout", Closed())
        progress.say("a line")
        progress.ended(running.job, Ending("stopped", 1.0))
        progress.close()
    assert progress.rows[7].state == "stopped"


def test_the_table_is_read_back_and_tells_the_jobs_apart(tmp_path: Path) -> None:
    words = "seed=2 +debug=fast 'data.split.unseen=[a, b]'"
    rows = [
        Row(0, "seed=1 +debug=fast", "finished", 0.75, 61.04, "0_a"),
        Row(1, words, "failed", None, 3.0, "1_b", "the disk, it seems, is full"),
        Row(2, "seed=1 +debug=fast", "repeats 0", None, None, "0_a"),
    ]
    (tmp_path / "1_b").mkdir()
    (tmp_path / "1_b" / LOG_FILE).touch()
    write_rows(tmp_path, rows)
    assert read_rows(tmp_path) == [Row(0, "seed=1 +debug=fast", "finished", 0.75, 61.0, "0_a"), *rows[1:]]
    lines = as_text(rows, tmp_path).splitlines()
    assert lines[1].split() == ["0", "seed=1", "finished", "0.7500", "1:01", "0_a"]
    assert "+debug=fast" not in "\n".join(lines)
    assert "seed=2 'data.split.unseen=[a, b]'" in lines[2]
    assert lines[3].split() == ["2", "seed=1", "repeats", "0", "0_a"]
    assert lines[4].startswith("job 1 failed: the disk, it seems, is full (")
    assert [clock(seconds) for seconds in (7.4, 61, 3723)] == ["0:07", "1:01", "1:02:03"]
    (tmp_path / JOBS_FILE).write_text("nonsense")
    assert read_rows(tmp_path) == []


def test_a_wide_table_fits_80_columns_and_its_jobs_stay_apart(tmp_path: Path) -> None:
    words = [f"model=autogan{n} pipeline=recon_classify classifier.net.dropout=0.{n} {'x' * 40}={n}" for n in (1, 4)]
    rows = [Row(n, word, "finished", 0.5, 3723.0, f"{n}_recon_classify_simple_cnn") for n, word in enumerate(words)]
    head, *lines = as_text(rows, tmp_path).splitlines()
    assert "folder" not in head
    assert all(line.split()[1].startswith("autogan") for line in lines[:2])
    assert lines[0].split()[1:-3] != lines[1].split()[1:-3]
    assert max(map(len, [head, *lines[:2], lines[-1]])) < 80
    assert "folder" in as_text([Row(0, "seed=1", "finished", 0.5, 3.0, "0_a")], tmp_path).splitlines()[0]


def test_a_damaged_result_is_a_failed_job(tmp_path: Path, made: Make, running: Running) -> None:
    assert objective_of(tmp_path) is None
    (tmp_path / METRICS_FILE).write_text("{}")
    with pytest.raises(FakeganError, match=r"metrics\.json is damaged"):
        objective_of(tmp_path)
    progress = made(1)
    progress.ended(running.job, Ending("finished", 1.0))
    (row,) = read_rows(tmp_path)
    assert row.state == "failed"
    assert "delete it" in row.reason
