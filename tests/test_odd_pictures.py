"""Odd pictures: prepare and predict open, refuse and leave out the same files."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fakegan import predict, prepare
from fakegan.data.store import FaceStore
from fakegan.runs.folder import DETECTOR_FILE
from tests.helpers import csv_rows, encode, picture
from tests.pictures import detector, odd_files, p3_profile


def test_prepare_and_predict_say_the_same_of_each_odd_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, store = tmp_path / "odd", tmp_path / "store"
    folder.mkdir()
    expected = odd_files()
    for name, (content, _) in expected.items():
        (folder / name).write_bytes(content)
    for name, number in (("nowhere.png", errno.ENOENT), ("itself.png", errno.ELOOP)):
        (folder / name).symlink_to(name if name == "itself.png" else "gone.png")
        expected[name] = b"", f"cannot be read: {os.strerror(number)}"
    for name in ("notes.txt", "more.txt", "faces.csv", ".DS_Store", "Thumbs.db"):
        (folder / name).write_text("no picture")
    assert prepare.main(["--real", f"a={folder}", "--out", str(store), "--workers", "1"]) == 0
    left_out = "left out, clearly no pictures: 2 .txt, 1 .csv, 1 .ds_store, 1 thumbs.db"
    told = capfd.readouterr().out
    assert left_out in told
    assert "rejected: truncated or damaged (2)" in told
    assert "other reasons, see rejected.csv" in told
    assert "Only one class" in told.splitlines()[-1]
    reasons = {row["file"].removeprefix("a/"): row["reason"] for row in csv_rows(store / "rejected.csv")}
    reasons |= {file.removeprefix("a/"): "" for file in FaceStore.open(store).files}
    assert reasons == {name: reason for name, (_, reason) in expected.items()}

    detector().save(tmp_path / DETECTOR_FILE)
    argv = ["--run", tmp_path, "--device", "cpu", "--workers", 1, "--format", "json", folder]
    assert predict.main([str(argument) for argument in argv]) == 1
    out, err = capfd.readouterr()
    rows = json.loads(out)
    assert left_out in err
    assert {Path(row["file"]).name: row["error"] for row in rows} == reasons
    warned = {Path(row["file"]).name for row in rows if "colour profile cannot be used" in row["warning"]}
    assert warned == {"broken_profile.jpg", "large_iccp.png"}


def test_classes_that_differ_in_profile_are_warned_about(
    tmp_path: Path, run_prepare: Callable[..., tuple[int, str, str]]
) -> None:
    for name, seed, profile in (("r", 0, p3_profile()), ("f", 12, None)):
        (tmp_path / name).mkdir()
        for number in range(seed, seed + 12):
            (tmp_path / name / f"{number}.png").write_bytes(encode(picture(number), icc_profile=profile))
    words = (f"--real=a={tmp_path / 'r'}", f"--fake=b={tmp_path / 'f'}", "--dry-run")
    for options in ([], ["--ignore-profiles"]):  # ignored, a profile shifts its class all the more
        out = run_prepare(*words, *options)[1]
        assert "files alone tell real from fake: AUROC 1.000 [0.74, 1.00] by colour profile and bytes a pixel" in out
