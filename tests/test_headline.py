"""The report's first words, from numbers made up by hand; and its first picture, from simulated runs."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.reports.answers import answers
from fakegan.reports.faces import data
from fakegan.reports.groups import grouped
from fakegan.reports.headline import Standing, headline
from fakegan.reports.held_out import designs
from fakegan.reports.write import write_report
from fakegan.runs.finished import Configuration, FinishedRun
from tests.conftest import Compose, Finish
from tests.pages import parse_html
from tests.test_held_out import made

PAPER = ("budget.name=paper", "budget.classifier.max_epochs=7")
LOST = {"simple_cnn": -1.0, "alexnet": -8.0}
ABOVE, AT, BELOW = (0.9, 0.85, 0.95), (0.52, 0.45, 0.6), (0.3, 0.2, 0.4)  # an AUROC and its interval


def source(label: str, right: float, auroc: tuple[float, float, float] = ABOVE, n: int = 100) -> dict[str, Any]:
    measures = {
        "accuracy": dict(zip(("value", "low", "high"), (right, right - 0.1, right + 0.1), strict=True)),
        "auroc": dict(zip(("value", "low", "high"), auroc, strict=True)),
    }
    return {"label": label, "n": n, **measures}


@pytest.fixture
def said(compose_settings: Compose) -> Any:
    """The sentences on a run that gives each source such numbers; it has learnt from gan_a and the camera."""

    def words(**by_source: dict[str, Any]) -> str:
        settings = compose_settings("pipeline=classify")
        run = FinishedRun(settings, settings.paths.run_dir)
        vars(run)["metrics"] = {"test": {"by_source": by_source}, "learnt_from": ["camera", "gan_a"]}
        return Standing(Configuration("a net", (run,))).sentences("A net")

    return words


def test_what_is_found_and_where_it_fails_is_said_in_plain_words(said: Any) -> None:
    known = {"camera": source("real", 0.74), "gan_a": source("fake", 0.75)}
    assert said(**known) == "A net finds 75% of gan_a fakes and calls 26% of real faces fake."
    text = said(**known, x=source("fake", 0.1, AT), y=source("fake", 0.2, AT), z=source("fake", 0.0, BELOW))
    assert text.endswith(
        "It fails on the three generators that it never saw (x, y, z): no better than guessing, on z even worse."
    )
    assert said(**known, x=source("fake", 0.0, BELOW)).endswith(
        "It fails on the generator that it never saw (x): worse than guessing."
    )
    text = said(**known, x=source("fake", 0.6), y=source("fake", 0.4, (0.6, 0.55, 0.65)))
    assert text.endswith(
        "Of generators that it never saw, it finds 60% of x fakes and 40% of y fakes, little better than guessing on y."
    )
    text = said(**known, x=source("fake", 0.2), y=source("fake", 0.1, AT))
    assert text.endswith("Of the others it finds 20% of x fakes; it ranks x well, but its threshold misses most.")


def test_a_generator_is_held_against_real_sources_that_were_seen(compose_settings: Compose) -> None:
    """Faces of a real source never seen may all be called fake, which says nothing of the generator."""
    settings = compose_settings("pipeline=classify")
    whole, part = (FinishedRun(settings, settings.paths.run_dir) for _ in range(2))
    for run, auroc in ((whole, BELOW), (part, ABOVE)):
        by_source = {"camera": source("real", 0.7), "phone": source("real", 0.1), "gan_a": source("fake", 0.8, auroc)}
        vars(run)["metrics"] = {"test": {"by_source": by_source}, "learnt_from": ["camera", "gan_a"]}
    standing = Standing(Configuration("a net", (whole,)), [Configuration("a net", (part,))])
    assert standing.sentences("A net") == (
        "A net finds 80% of gan_a fakes and calls 30% of real faces fake. Of real faces from elsewhere it calls 90% of "
        "phone fake."
    )


def test_small_counts_are_said_as_counts_and_real_faces_never_seen_apart(said: Any) -> None:
    text = said(camera=source("real", 0.75, n=12), gan_a=source("fake", 0.5, AT, n=8), phone=source("real", 0.4, n=500))
    assert text == (
        "A net finds 4 of 8 gan_a fakes and calls 3 of 12 real faces fake. It cannot tell gan_a fakes from real "
        "faces, though it has learnt from such fakes. Of real faces from elsewhere it calls 60% of phone fake. "
        "There are few test faces: of another 12 of camera it could well call 2 to 4 fake."
    )


def test_too_few_faces_are_no_failure_and_equal_shares_leave_no_generator_out(said: Any) -> None:
    """An AUROC of .75 with an interval from .45 to .98 shows neither that a generator is found nor that it is not."""
    known = {"camera": source("real", 0.74), "gan_a": source("fake", 0.75)}
    wide = (0.75, 0.45, 0.98)
    assert said(**known, x=source("fake", 0.5, wide)).endswith(
        "Of generators that it never saw, it finds 50% of x fakes. The test faces are too few to show whether it tells "
        "x fakes from real faces."
    )
    text = said(
        **{**known, "gan_a": source("fake", 0.75, wide)}, x=source("fake", 0.1, AT), y=source("fake", 0.5, wide)
    )
    assert "cannot tell" not in text
    assert "It fails on one generator that it never saw (x): no better than guessing. Of the others it finds" in text
    assert text.endswith("to show whether it tells gan_a and y fakes from real faces.")
    text = said(**known, **{f"x{i}": source("fake", 1.0) for i in range(4)})
    assert text.endswith("it finds 100% of x0 fakes and the same share of 3 other sources.")


def test_each_set_of_faces_is_named_whole_and_as_it_is_written(finish: Finish) -> None:
    """`learnt from gan_a, gan_b` is neither gan_a alone nor in small letters."""
    runs = [finish("pipeline=classify", f"classifier={name}") for name in ("simple_cnn", "alexnet")]
    (group,) = grouped(runs)
    parts = [replace(group, called=f"learnt from GAN_A, gan_b, {kind} generators") for kind in ("seen", "unseen")]
    (words,) = headline(parts, [], [], [])
    assert words.startswith("Learnt from GAN_A, gan_b: classify · ")
    assert "comes first of 2 configurations on seen generators, but is not" in words
    (words,) = headline([replace(group, called="learnt from all generators")], [], [], [])
    assert words.startswith("Learnt from all generators: ")
    assert "comes first of 2 configurations, but is not" in words


def test_held_out_generators_without_a_seen_one_or_a_common_seed_have_numbers_still(
    compose_settings: Compose,
) -> None:
    scores = {"camera": 0.4, "gan_a": 0.6, "gan_b": 0.7, "gan_x": 0.5}
    runs = [
        made(compose_settings("pipeline=classify", f"data.split.unseen={held}"), scores)
        for held in ("[gan_x]", "[gan_a,gan_x]")
    ]
    for run in runs:  # as evaluate.py scores them on faces of another generator
        vars(run)["scores"] = run.scores.kept(np.isin(run.scores.sources, ("camera", "gan_x")))
    (words,) = headline([], designs(runs), [], [])
    assert "above a real face in 100% of cases; guessing gives 50%. The hardest" in words
    asked = [("[gan_b]", 1), ("[gan_a]", 2)]  # of each of two jobs another seed failed
    runs = [
        made(compose_settings("pipeline=classify", f"data.split.unseen={held}", f"seed={seed}"), scores)
        for held, seed in asked
    ]
    (words,) = headline([], designs(runs), [], [])
    assert "in 100% of cases, of a generator that was seen in 100%; guessing" in words


def test_the_headline_and_its_bars_come_first_and_questions_not_asked_are_left_out(
    finish: Finish, tmp_path: Path
) -> None:
    words = ("pipeline=classify", "data.split.unseen=[gan_b]")
    runs = [finish(*words, f"classifier={name}", strength=s) for name, s in (("simple_cnn", 0.0), ("alexnet", 8.0))]
    write_report(runs, tmp_path / "report")
    page = parse_html((tmp_path / "report" / "report.html").read_text())
    said = "classify · alexnet is the best of 2 configurations on seen generators. It finds "
    assert page.text.index(said) < page.text.index("AUROC by generator") < page.text.index("Answers")
    assert "Not asked" not in page.text
    alts = [image["alt"] or "" for image in page.all("img")]
    assert alts[0].startswith("AUROC by generator. gan_a (seen in training): ")
    assert "; gan_b (never seen): " in alts[0]
    text = (tmp_path / "report" / "report.md").read_text()
    assert f"**{said}" in text
    assert "| gan_b | fake, never seen |" in text
    assert len(page.all("h2")) == 9  # answers, and a chapter for each subject, however many groups of faces there are


def test_a_sweep_over_classifiers_asks_which_is_better(finish: Finish) -> None:
    strengths = {"simple_cnn": 0.0, "alexnet": 8.0}
    runs = [finish("pipeline=classify", f"classifier={name}", strength=s) for name, s in strengths.items()]
    answer = answers(grouped(runs), [])[-1]
    assert (answer.question, answer.verdict) == ("Which classifier is better?", "classify · alexnet")
    assert answer.plain == "classify · alexnet has the highest AUROC, shown to be better than classify · simple_cnn."
    assert "p <" in answer.details[0]
    equal = [finish("pipeline=classify", f"classifier.optimizer.lr={lr}") for lr in (0.1, 0.2)]
    answer = answers(grouped(equal), [])[-1]
    assert (answer.question, answer.verdict, answer.tone) == ("Which lr is better?", "Not shown", "open")
    lost = [finish("pipeline=classify", f"classifier={name}", strength=s) for name, s in LOST.items()]
    answer = answers(grouped(lost), [])[-1]
    assert (answer.verdict, answer.tone) == ("Moot: worse than guessing (AUROC below 0.5)", "open")
    assert answer.plain.count("guessing") == 0  # the verdict has said it
    words = ("classifier.optimizer.lr=0.1", "classifier.optimizer.weight_decay=0.1")
    answer = answers(grouped([equal[0], finish("pipeline=classify", words[0], words[1])]), [])[-1]
    assert answer.question == "Which weight_decay is better?"
    answer = answers(grouped([runs[1], equal[0], equal[1]]), [])[-1]
    assert answer.question == "Which configuration is better?"


def test_another_budget_is_in_the_name_and_what_was_never_audited_is_said(finish: Finish, tmp_path: Path) -> None:
    runs = [finish("pipeline=classify", *words) for words in ((), PAPER, ("budget.name=debug",))]
    assert [c.name.partition(" budget=")[2] for group in grouped(runs[:2]) for c in group.configurations] == [
        "",
        "paper",
    ]
    write_report(runs[2:], tmp_path / "report")
    text = parse_html((tmp_path / "report" / "report.html").read_text()).text
    assert "Warning: Runs of +debug=fast are among these" in text
    assert "Not audited: whether files or cheap traces alone tell" in text
    moved = Path(shutil.copytree(str(runs[0].settings.data.root), tmp_path / "moved"))
    vars(runs[0])["metrics"] = {**runs[0].metrics, "store": str(moved)}
    *_, (note,) = data(runs[:1])
    assert f"--data {moved}" in note  # the store that was opened: the run's own may have gone from its place
