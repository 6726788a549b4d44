"""The table that people see at a terminal of 80 columns."""

from pathlib import Path

import numpy as np
import pytest

from fakegan.evaluation.metrics import measures
from fakegan.reports.evaluating import told_apart
from fakegan.runs.results import FaceScores, shortened, table, write_scores
from fakegan.runs.robustness import Estimate
from fakegan.system.columns import in_columns, width

LONG = [f"stylegan2_ffhq_config_f_truncation_psi_{psi}_seeds_0_to_50000" for psi in ("0.5", "0.7")]


def _table(learnt_from: set[str] | None, names: tuple[str, ...] = ("camera", "known", "new")) -> list[str]:
    """Twelve reals at 0.4; the first generator scores above them, the second below."""
    scores = np.repeat([0.4, 0.9, 0.1], 12)
    labels, sources = np.repeat([0, 1, 1], 12), np.repeat(names, 12)
    return table(
        measures(scores, labels, sources, np.arange(36).astype(str), 0.5, learnt_from=learnt_from)
    ).splitlines()


def _cells(lines: list[str], name: str) -> list[str]:
    (line,) = [line for line in lines if line.startswith(name)]
    return line.removeprefix(name).split()


def test_one_kind_of_generators_has_one_line() -> None:
    lines = _table({"camera", "known", "new"})
    assert _cells(lines, "all")[:2] == ["36", "0.667"]
    assert _cells(lines, "  fake faces")[:2] == ["24", "0.500"]
    assert not any("seen" in line for line in lines)
    assert _cells(_table({"camera"}), "unseen generators")[:2] == ["36", "0.667"]


def test_seen_and_unseen_generators_have_a_line_each_and_none_together() -> None:
    lines = _table({"camera", "known"})
    assert _cells(lines, "seen generators")[:2] == ["24", "1.000"]
    assert _cells(lines, "unseen generators")[:2] == ["24", "0.500"]
    assert _cells(lines, "  unseen fakes")[:2] == ["12", "0.000"]
    assert _cells(lines, "new (fake, unseen)")[0] == "12"
    assert not any(line.startswith("all") for line in lines)
    assert len(_cells(lines, "camera (real)")) == 4  # no AUROC: it would be against both kinds
    assert lines[-1] == "worse than guessing (AUROC below 0.5): unseen generators, new (fake, unseen)"


def test_generators_that_are_not_shown_to_be_found_are_named() -> None:
    """Real faces at 0.4 and 0.6 by turns, and fakes too: an AUROC of 0.5."""
    labels, sources = np.repeat([0, 1], 12), np.repeat(["camera", "known"], 12)
    scores = np.tile([0.4, 0.6], 12)
    lines = table(measures(scores, labels, sources, np.arange(24).astype(str), 0.5)).splitlines()
    assert lines[-1] == "not shown to be better than guessing: all, camera (real), known (fake)"


def test_the_table_ends_with_how_often_verdicts_are_wrong_or_missing() -> None:
    scores, labels = np.repeat([0.4, 0.9], 12), np.repeat([0, 1], 12)
    said = np.array(["fake"] + ["real"] * 11 + ["fake"] * 6 + ["unsure"] * 3 + ["unknown"] * 2 + ["real"])
    faces = (scores, labels, np.repeat(["camera", "new"], 12), np.arange(24).astype(str), 0.5)
    lines = table(measures(*faces, learnt_from={"camera"}, verdicts=said)).splitlines()
    assert "verdicts on real faces: 8.3% wrong, 0.0% unsure, 0.0% unknown" in lines
    assert "verdicts on unseen fakes: 8.3% wrong, 25.0% unsure, 16.7% unknown" in lines
    assert not any("seen fakes:" in line for line in lines[:-2])
    assert not any(line.startswith("verdicts") for line in table(measures(*faces)).splitlines())


def test_a_real_source_never_seen_has_its_false_alarms() -> None:
    scores, labels = np.repeat([0.4, 0.7, 0.9], 12), np.repeat([0, 0, 1], 12)
    sources, learnt_from = np.repeat(["camera", "phone", "known"], 12), ("camera", "known")
    faces = (scores, labels, sources, np.arange(36).astype(str), 0.5)
    said = np.repeat(["real", "fake", "fake"], 12)
    lines = table(measures(*faces, learnt_from=learnt_from, verdicts=said)).splitlines()
    assert "verdicts on real faces: 0.0% wrong, 0.0% unsure, 0.0% unknown" in lines
    assert "verdicts on unseen real faces: 100.0% wrong, 0.0% unsure, 0.0% unknown" in lines
    assert _cells(lines, "seen generators")[:2] == ["24", "1.000"]
    assert _cells(lines, "  real faces")[:2] == ["12", "1.000"]
    assert _cells(lines, "false alarms on phone")[0] == "1.000"
    assert _cells(lines, "phone (real, unseen)")[:2] == ["12", "0.000"]


@pytest.mark.parametrize("learnt_from", [None, {"camera", LONG[0]}, {"camera"}])
def test_long_names_fit_80_columns_and_stay_apart(learnt_from: set[str] | None) -> None:
    lines = _table(learnt_from, ("camera", *LONG))
    assert max(map(width, lines)) < 80
    named = [line.split(" (fake")[0] for line in lines if line.startswith("styl") and " (fake" in line]
    assert len(set(named)) == len(named) == 2


def test_names_are_shortened_in_the_middle_and_never_to_the_same() -> None:
    assert shortened(["abcdefghij", "abc"], [6, 6]) == ["ab..ij", "abc"]
    assert shortened(["abXcdefgYij", "abZcdefgWij"], [8, 8]) == ["abX..Yij", "abZ..Wij"]
    assert shortened(["abcXdefg", "abcYdefg"], [7, 7]) == ["abc..fg", "a..2..g"]
    assert shortened(["\u4eba" * 9], [8]) == ["\u4eba\u4eba..\u4eba"]


def test_a_name_that_is_no_utf8_is_written_as_it_was_read(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    names, one = np.array([name]), np.array([1])
    write_scores(
        tmp_path / "scores.csv",
        FaceScores(names, np.array(["a"]), one, names, one * 0.75, one == 1, np.array(["unsure"])),
    )
    assert b"caf\xe9.jpg,a,1,0.75,fake,unsure\n" in (tmp_path / "scores.csv").read_bytes()


def test_small_numbers_have_no_sign_and_near_thresholds_the_digits_that_tell_them_apart() -> None:
    assert str(Estimate(-0.0004, -0.004, 0.05)) == "0.000 [0.00, 0.05]"
    assert str(Estimate(-0.02, -0.026, -0.01)) == "-0.020 [-0.03, -0.01]"
    assert told_apart(0.7, 0.5138) == "0.7, not from 0.514"
    assert told_apart(0.51381, 0.51378) == "0.51381, not from 0.51378"


def test_columns_are_padded_by_the_width_that_a_terminal_gives_them() -> None:
    assert width("\u4eba\u8138") == 4
    assert width("e\u0301") == 1  # an accent of its own
    assert in_columns([("", "n"), ("\u4eba", "10"), ("abc", "")], right={1}) == ["      n", "\u4eba   10", "abc"]
