"""Tables, numbers and pictures of a run or a sweep from elsewhere, and the command of a sweep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.data.sheets import png
from fakegan.evaluation.verdicts import calls
from fakegan.reports import reconstruction as report_reconstruction
from fakegan.runs import ledger, results
from fakegan.runs.folder import STATUS_FILE
from fakegan.runs.results import FaceScores, read_metrics, read_scores, write_scores
from fakegan.runs.status import Status, read_status, write_status
from fakegan.sweep import command, table
from tests.hostile.conftest import put_pipe, refused


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", '"text"', "5", "null", "{", "9" * 5000, "\udcff"])
def test_metrics_that_are_no_table_are_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"objective": 1}')
    assert read_metrics(path) == {"objective": 1}
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(lambda: read_metrics(path), path.name)


def test_metrics_far_larger_than_any_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"n": 1}')
    monkeypatch.setattr(results, "_MAX_JSON_BYTES", 8)
    assert read_metrics(path) == {"n": 1}
    path.write_text('{"n": 12}')
    refused(lambda: read_metrics(path), path.name)


def scores(path: Path, *names: str) -> Path:
    """A table of scores of two faces."""
    files, labels = np.array(names), np.array([0, 1])
    write_scores(path, FaceScores(files, files, labels, files, labels / 2, labels == 1, calls(labels == 1)))
    assert len(read_scores(path)) == 2
    return path


@pytest.mark.parametrize("value", [str(10**30), '"' + "9" * 200_000 + '"', "9" * 5000])
@pytest.mark.parametrize("column", [0, 2, 3])
def test_scores_with_a_cell_that_is_too_large_are_one_sentence(tmp_path: Path, column: int, value: str) -> None:
    path = scores(tmp_path / "scores.csv", "a", "b")
    cells = ["a", "a", "0", "0.5", "real"]
    cells[column] = value
    path.write_text("\n".join(["file,source,label,score,verdict", ",".join(cells), "b,b,1,0.5,fake"]) + "\n")
    refused(lambda: read_scores(path), path.name)


def test_one_long_name_in_scores_does_not_take_memory_for_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_MAX_COLUMN_CHARACTERS", 100)
    path = scores(tmp_path / "scores.csv", "a" * 50, "b")
    monkeypatch.setattr(results, "_MAX_COLUMN_CHARACTERS", 99)
    refused(lambda: read_scores(path), path.name)


def test_a_ledger_with_a_cell_that_is_too_large_is_one_sentence(tmp_path: Path) -> None:
    ledger.record(tmp_path, 5, "abc")
    assert len(ledger.read_ledger(tmp_path)) == 1
    with (tmp_path / ledger.LEDGER_FILE).open("a") as file:
        file.write(f"{'9' * 200_000},command,5,abc\n")
    refused(lambda: ledger.read_ledger(tmp_path), ledger.LEDGER_FILE)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"stage": "x", "epoch": Infinity, "epochs": 1}'])
def test_a_status_that_is_not_ours_is_none(tmp_path: Path, text: str) -> None:
    write_status(tmp_path, Status("x", 1, 2))
    assert read_status(tmp_path) == Status("x", 1, 2)
    (tmp_path / STATUS_FILE).write_text(text)
    assert read_status(tmp_path) is None


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of an analysis, which a report takes as it is."""
    path = tmp_path / "analysis" / "spectra.png"
    path.parent.mkdir()
    path.write_bytes(png(np.zeros((6, 6, 3), dtype=np.uint8)))
    assert report_reconstruction._picture(path) == path.read_bytes()
    return path


@pytest.mark.parametrize("name", ["analysis/spectra.png", "analysis"])
def test_a_report_follows_no_link_to_a_picture(picture: Path, tmp_path: Path, name: str) -> None:
    """A link to another picture of the user's, or to another folder."""
    (tmp_path / name).symlink_to((tmp_path / name).rename(tmp_path / "private"))
    assert picture.is_file()
    refused(lambda: report_reconstruction._picture(picture), picture.name, "is a link")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"<svg onload='alert(1)'>"),
        lambda path: path.write_bytes(b""),
        put_pipe,
        lambda path: path.rename(path.with_name("a](x).png")),
    ],
)
def test_a_report_shows_pictures_of_an_analysis_only(picture: Path, change: Callable[[Path], Any]) -> None:
    change(picture)
    (found,) = picture.parent.glob("*.png")
    refused(lambda: report_reconstruction._picture(found), found.name)


def test_a_report_shows_no_picture_that_is_far_too_large(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_reconstruction, "_MAX_PICTURE_BYTES", 10)
    refused(lambda: report_reconstruction._picture(picture), picture.name)


@pytest.mark.parametrize(
    "text",
    [
        "rm -rf ~",
        "train.py; rm -rf ~",
        "/tmp/train.py seed=1",
        "train.py 'seed=1",
        "train.py seed=1\nrm -rf ~",
        "train.py seed=\x1b]0;owned\x07",
        "train.py \u202eseed=1",
        "train.py " + "x" * 200_000,
        "",
    ],
)
def test_a_sweeps_command_from_elsewhere_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / command.COMMAND_FILE).write_text(text)
    refused(lambda: command.to_go_on(tmp_path), command.COMMAND_FILE)


def test_a_shell_would_run_nothing_of_a_sweeps_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / command.COMMAND_FILE).write_text("train.py -m seed=1,2 name=$(touch owned) `id` ; rm x\n")
    typed = "train.py -m seed=1,2 'name=$(touch' 'owned)' '`id`' ';' rm x resume=true hydra.sweep.dir=."
    assert command.to_go_on(tmp_path).endswith(typed)


@pytest.mark.parametrize(
    ("overrides", "seconds"), [("'", "1.0"), ("seed=1", "inf"), ("x" * 200_000, "1.0")], ids=["quote", "inf", "long"]
)
def test_a_sweeps_table_from_elsewhere_is_none(tmp_path: Path, overrides: str, seconds: str) -> None:
    table.write_rows(tmp_path, [table.Row(0, overrides, "finished", 0.5, 1.0, "0_run")])
    path = tmp_path / table.JOBS_FILE
    path.write_text(path.read_text().replace(",1.0,", f",{seconds},"))
    assert table.read_rows(tmp_path) == []


def test_a_sweeps_table_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    table.write_rows(tmp_path, [table.Row(0, "seed=1", "failed", reason="\x1b]0;owned\x07the loss is no number")])
    (row,) = table.read_rows(tmp_path)
    assert row.reason == " ]0;owned the loss is no number"
