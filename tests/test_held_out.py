"""Generators held out by design: what runs are set side by side, on which faces, and what is said of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.errors import UsageError
from fakegan.evaluation.metrics import measures
from fakegan.evaluation.verdicts import calls
from fakegan.reports import held_out
from fakegan.reports.groups import learnt_words
from fakegan.reports.held_out import against_seen, answer, designs
from fakegan.reports.render import Table
from fakegan.reports.tables import false_alarms
from fakegan.reports.write import write_report
from fakegan.runs.finished import FinishedRun
from fakegan.runs.results import FaceScores
from tests.conftest import Compose, Finish
from tests.helpers import csv_rows
from tests.pages import parse_html

NAME = "classify · simple_cnn budget=debug"
SCORES = {"camera": 0.4, "phone": 0.9, "gan_a": 0.6, "gan_b": 0.7}


def made(settings: Any, scores: dict[str, float], more: int = 0) -> FinishedRun:
    """A finished run that gives ten faces of each source one score; of generators never seen `more` were tested."""
    split = settings.data.split
    tested_only = split.only_tested([source for source in scores if source.startswith("gan")])
    counts = {source: 10 + (more if source in tested_only else 0) for source in scores}
    files = np.array([f"{source}/{i}" for source, count in counts.items() for i in range(count)])
    sources = np.repeat([*counts], [*counts.values()])
    values = np.array([scores[source] for source in sources])
    labels = np.char.startswith(sources, "gan").astype(np.int64)
    run = FinishedRun(settings, settings.paths.run_dir)
    learnt_from = [source for source in scores if source not in tested_only]
    vars(run)["metrics"] = {"test": {}, "threshold": 0.5, "learnt_from": learnt_from, "data_fingerprint": "a store"}
    fake = values >= 0.5
    vars(run)["scores"] = FaceScores(files, sources, labels, files, values, fake, calls(fake))
    return run


def test_generators_learnt_from_by_generators_tested_worked_out_by_hand(compose_settings: Compose) -> None:
    """Real faces at 0.4. Who learnt gan_a alone ranks all gan_b below them, who learnt gan_b ties gan_a with them."""
    alone = [compose_settings("pipeline=classify", f"data.split.learn_from=[{name}]") for name in ("gan_b", "gan_a")]
    knows_b = made(alone[0], {"camera": 0.4, "gan_a": 0.4, "gan_b": 0.9}, more=5)
    knows_a = made(alone[1], {"camera": 0.4, "gan_a": 0.9, "gan_b": 0.1}, more=7)
    found = designs([knows_b, knows_a])
    (design,) = found
    assert (design.name, design.generators, len(design.faces)) == (NAME, ("gan_a", "gan_b"), 30)
    assert design.as_text() == [
        "learnt from  gan_a   gan_b",
        "gan_a alone  1.000   0.000*",
        "gan_b alone  0.500*  1.000",
    ]
    assert [m["value"] for m in (*design.mean(seen=False), *design.mean(seen=True))] == [0.25, 1.0]
    assert (design.worst[0].words, design.worst[1]) == ("gan_a alone", "gan_b")
    against = against_seen(found)
    assert [(h.generator, h.unseen.words, h.seen.words) for h in against] == [
        ("gan_b", "gan_a alone", "gan_b alone"),
        ("gan_a", "gan_b alone", "gan_a alone"),
    ]
    assert [h.comparison.auroc_difference["value"] for h in against] == [-1.0, -0.5]
    assert [h.comparison.p_auroc_holm for h in against] == pytest.approx([2 * h.comparison.p_auroc for h in against])
    (said,) = answer(found, against)
    assert (said.verdict, said.tone) == ("Worse in 2 of 2", "no")
    assert "the worst never seen 0.000 [0.000, 0.308] (gan_b, learnt from gan_a alone)" in said.details[0]


def test_where_even_generators_that_were_seen_are_guessed_the_question_is_moot(compose_settings: Compose) -> None:
    """All at 0.4, real faces too: nothing is ranked above a real face, so that nothing can be lost."""
    guessed = {"camera": 0.4, "gan_a": 0.4, "gan_b": 0.4}
    runs = [
        made(compose_settings("pipeline=classify", f"data.split.unseen={held}"), guessed) for held in ("[]", "[gan_b]")
    ]
    found = designs(runs)
    (said,) = answer(found, against_seen(found))
    assert said.verdict == "Moot: even on generators that were seen, not shown to be better than guessing"


def test_what_was_left_out_is_held_against_the_run_that_differs_least(compose_settings: Compose) -> None:
    """With a run that learnt from all: against that. Without: against each run that left out another generator."""
    scores = {"camera": 0.4, "gan_a": 0.6, "gan_b": 0.7, "gan_c": 0.8}
    held = ("[]", "[gan_a]", "[gan_b]", "[gan_c]")
    runs = [made(compose_settings("pipeline=classify", f"data.split.unseen={names}"), scores) for names in held]
    (design,) = designs(runs)
    assert [row.words for row in design.rows] == ["all generators", *(f"all but gan_{name}" for name in "abc")]
    assert [h.seen.words for h in against_seen([design])] == ["all generators"] * 3
    pairs = [(h.unseen.words, h.seen.words) for h in against_seen(designs(runs[1:]))]
    assert len(pairs) == 6
    assert ("all but gan_a", "all but gan_b") in pairs


def test_runs_that_learnt_from_the_same_generators_are_no_design(compose_settings: Compose) -> None:
    scores = {"camera": 0.4, "gan_a": 0.6, "gan_b": 0.7}
    words = ("pipeline=classify seed=1", "pipeline=classify seed=2", "pipeline=npr_classify data.split.unseen=[gan_a]")
    runs = [made(compose_settings(*word.split()), scores) for word in words]
    assert designs(runs) == []
    seeds = [made(compose_settings(*word.split(), "data.split.unseen=[gan_b]"), scores) for word in words[:2]]
    (design,) = designs([*seeds, *runs])
    assert [len(row.runs) for row in design.rows] == [2, 2]
    assert [run.settings.seed for run in design.rows[1].runs] == [1, 2]


def test_real_faces_held_out_are_no_part_of_the_matrix(compose_settings: Compose) -> None:
    """The phone's faces, which look fake, would make each AUROC 0.5 where it is 1."""
    held = [compose_settings("pipeline=classify", f"data.split.unseen=[phone,{name}]") for name in ("gan_a", "gan_b")]
    (design,) = designs([made(settings, SCORES) for settings in held])
    assert {*design.faces.sources.tolist()} == {"camera", "gan_a", "gan_b"}
    assert [row.aurocs("gan_a")[0]["value"] for row in design.rows] == [1.0, 1.0]


def test_runs_that_hold_out_different_real_sources_are_measured_on_what_each_has_learnt(
    compose_settings: Compose,
) -> None:
    """Fakes at 0.6 or 0.7, the camera's faces at 0.4, the phone's at 0.9: AUROC 1 against the one, 0 to the other."""
    held = [f"data.split.unseen=[{real}{fake}]" for real in ("phone", "camera") for fake in ("", ",gan_a")]
    found = designs([made(compose_settings("pipeline=classify", words), SCORES) for words in held])
    assert [design.mean(seen=False)[0]["value"] for design in found] == [1.0, 0.0]
    assert [{*design.faces.sources.tolist()} - {"gan_a", "gan_b"} for design in found] == [{"camera"}, {"phone"}]


def test_faces_of_one_generator_alone_do_not_hide_what_else_runs_have_learnt(compose_settings: Compose) -> None:
    """As after evaluate.py sources=[camera,gan_a]: four runs, of which one has not seen gan_a."""
    scores, runs = {"camera": 0.4, "gan_a": 0.6, "gan_b": 0.7, "gan_c": 0.8}, []
    for names in ("[]", "[gan_a]", "[gan_b]", "[gan_c]"):
        runs.append(made(compose_settings("pipeline=classify", f"data.split.unseen={names}"), scores))
        own = runs[-1].scores
        vars(runs[-1])["scores"] = own.kept(np.isin(own.sources, ("camera", "gan_a")))
    (design,) = designs(runs)
    assert [row.words for row in design.rows] == ["all generators", *(f"all but gan_{name}" for name in "abc")]
    assert [(h.unseen.words, h.seen.words) for h in against_seen([design])] == [("all but gan_a", "all generators")]


def test_a_mean_is_no_surer_than_its_cells(compose_settings: Compose) -> None:
    """gan_b has two faces, so that some resamples have none of them, and all AUROCs are 1: its own bounds are left."""
    scores, held = {"camera": 0.4, "gan_a": 0.6, "gan_b": 0.7}, ("[]", "[gan_b]")
    runs = [made(compose_settings("pipeline=classify", f"data.split.unseen={names}"), scores) for names in held]
    for run in runs:
        vars(run)["scores"] = run.scores.kept(~np.isin(run.scores.files, [f"gan_b/{i}" for i in range(2, 10)]))
    (design,) = designs(runs)
    (unseen,), (cell,) = design.mean(seen=False), design.rows[1].aurocs("gan_b")
    assert unseen == cell
    assert unseen["low"] == pytest.approx(0.025**0.5)


def test_generators_are_not_chosen_where_none_is_learnt_from(compose_settings: Compose) -> None:
    with pytest.raises(UsageError, match=r"learn_from chooses generators, but pipeline=recon_fakes learns from none"):
        compose_settings("pipeline=recon_fakes", "data.split.learn_from=[gan_a]")


def test_false_alarms_are_told_of_real_sources_never_seen(compose_settings: Compose) -> None:
    run = made(compose_settings("pipeline=classify", "data.split.unseen=[phone,gan_b]"), SCORES)
    f = run.scores
    run.metrics["test"] = measures(f.scores, f.labels, f.sources, f.groups, 0.5, learnt_from=run.learnt_from)
    (table,) = false_alarms([run], {run.folder: "a net"})
    assert isinstance(table, Table)
    (row,) = table.rows
    assert [row[name] for name in ("configuration", "learnt from", "source", "faces")] == [
        *("a net", "gan_a alone", "phone", "10")
    ]
    assert row["false alarms"].startswith("1.000\n[0.69")  # 1 - 0.308: none of ten was called real


def test_what_was_learnt_from_is_said_in_a_few_words() -> None:
    names = ("a", "b", "c", "d")
    assert learnt_words(("d", "c", "b", "a", "camera"), names) == "all generators"
    assert learnt_words(("b", "camera"), names) == "b alone"
    assert learnt_words(("a", "b", "d"), names) == "all but c"
    assert learnt_words(("d", "b"), names) == "b, d"
    assert learnt_words(("camera",), names) == "no generator"


def test_the_report_has_the_matrix_its_map_and_a_table_for_programs(finish: Finish, tmp_path: Path) -> None:
    words = [("pipeline=classify", f"data.split.learn_from=[{name}]") for name in ("gan_a", "gan_b")]
    runs = [finish(*options) for options in words]
    folder = tmp_path / "report"
    text = write_report(runs, folder)
    page = parse_html((folder / "report.html").read_text())
    for shown in (held_out.QUESTION, "Generators held out", "gan_a alone", ", unseen", "Held out against seen"):
        assert shown in page.text, shown
    assert "Learnt from gan_a alone, unseen generators" in page.text
    again = "The same store, divided otherwise: data.split.learn_from=[gan_b] against [gan_a]"
    for folded in ("Scores: learnt from gan_a alone", "Scores: learnt from gan_b alone", again):
        assert page.text.count(folded) == 1, folded
    assert page.text.count("The store faces, by source and split") == 2
    alts = [image["alt"] or "" for image in page.all("img")]
    assert any(alt.startswith("AUROC by generators") for alt in alts)
    assert "Histograms of scores (learnt from gan_a alone): classify · simple_cnn" in alts
    assert "classify · simple_cnn: AUROC; * never seen" in text
    rows = csv_rows(folder / "held_out.csv")
    assert len(rows) == 2 * 2
    assert {(row["learnt_from"], row["generator"]) for row in rows if row["unseen"] == "yes"} == {
        ("gan_a alone", "gan_b"),
        ("gan_b alone", "gan_a"),
    }
