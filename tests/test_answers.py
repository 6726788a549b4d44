"""Answers to the project's questions, from finished runs whose scores are simulated."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.errors import FakeganError
from fakegan.evaluation.metrics import measures
from fakegan.reports.answers import answers
from fakegan.reports.groups import grouped
from fakegan.reports.numbers import cell
from fakegan.reports.reconstruction import autoencoders
from fakegan.reports.render import Answer
from fakegan.reports.write import write_report
from fakegan.runs.finished import FinishedRun
from fakegan.runs.results import write_metrics, write_scores
from tests.conftest import Finish
from tests.helpers import csv_rows
from tests.pages import parse_html
from tests.simulated import write_analysis

HELPS, DEPTH, DIFFERS, GENERALISES = range(4)


def answered(*runs: FinishedRun) -> list[Answer]:
    return answers(grouped(runs), autoencoders(runs))


@pytest.mark.parametrize(
    ("strengths", "verdict", "tone", "words"),
    [  # of images and of reconstructions
        ((0, 8), "Yes", "yes", r"AutoGAN helps .*: AUROC 1\.000 against 0\.\d+, \+0\.\d+ \[\+.*for 1 pair\)"),
        ((8, 0), "No, it hurts", "no", r"hurts .*: AUROC 0\.\d+ against 1\.000, -0\.\d+ \[-.*McNemar p < 0\.001"),
        ((1, 1), "Not shown", "open", r"is not shown to differ .*\[-0\.\d+, \+0\.\d+\]"),
        ((-4, -8), "Moot: worse than guessing (AUROC below 0.5)", "open", "In 1 of 1 both are worse than guessing"),
    ],
)
def test_an_effect_is_said_in_its_direction(
    finish: Finish, strengths: tuple[float, float], verdict: str, tone: str, words: str
) -> None:
    runs = [finish(f"pipeline={p}", strength=s) for p, s in zip(("classify", "recon_classify"), strengths, strict=True)]
    for given in (runs, runs[::-1]):  # the order of the runs does not matter
        answer = answered(*given)[HELPS]
        assert (answer.verdict, answer.tone) == (verdict, tone)
        assert re.search(words, answer.sentence)
        assert "no difference" not in answer.sentence


def test_several_classifiers_are_answered_one_by_one_and_together(finish: Finish) -> None:
    runs = [
        finish("pipeline=classify", strength=0.0),
        finish("pipeline=recon_classify", "model=autogan1", strength=8.0),
        finish("pipeline=classify", "classifier=alexnet"),
        finish("pipeline=recon_classify", "classifier=alexnet", "model=autogan1"),
    ]
    answer = answered(*runs)[HELPS]
    assert answer.verdict == "In part: helps"
    assert [detail.split(":")[0] for detail in answer.details] == ["autogan1 · simple_cnn", "autogan1 · alexnet"]
    assert "helps in 1 and is not shown to differ from classifying the images in 1 of 2" in answer.sentence
    assert "for 6 pairs" in answer.sentence


def test_depth_is_asked_of_runs_that_differ_in_it_alone(finish: Finish) -> None:
    shallow = finish("pipeline=recon_classify", "model=autogan1", strength=8.0)
    deep = finish("pipeline=recon_classify", "model=autogan4", strength=0.0)
    answer = answered(shallow, deep)[DEPTH]
    assert answer.verdict == "Yes, deeper is worse"
    assert "recon_classify · autogan4 · simple_cnn against depth 1" in answer.sentence
    wider = finish("pipeline=recon_classify", "model=autogan4", "model.net.code_channels=4", strength=0.0)
    answer = answered(shallow, wider)[DEPTH]
    assert answer.verdict == "Not answered: these runs cannot be compared"
    assert "model.net.code_channels=4 against null" in answer.sentence


def test_the_dcgan_is_held_against_each_other_classifier(finish: Finish) -> None:
    names = ("dcgan", "simple_cnn", "alexnet")
    answer = answered(*(finish("pipeline=recon_fakes", f"classifier={name}") for name in names))[GENERALISES]
    pairs, own_tasks = answer.details[:2], answer.details[2:]
    assert [detail.split(":")[0].split(" against ")[1] for detail in pairs] == ["simple_cnn", "alexnet"]
    assert all(f"{name} on its own task" in detail for name, detail in zip(names, own_tasks, strict=True))


def test_a_question_without_a_pair_says_which_runs_are_missing_or_in_which_keys_they_differ(finish: Finish) -> None:
    run = finish("pipeline=classify")
    for answer in answered(run):
        assert answer.verdict == "Not asked by these runs"
        assert re.match("Add .*=", answer.sentence)
    changed = ("budget.name=other", "classifier.optimizer.lr=0.5", "data.split.seed=7")
    answers = answered(run, finish("pipeline=recon_classify", *changed))
    assert answers[HELPS].verdict == "Not answered: these runs cannot be compared"
    for words in ("run2 and", "budget=other against ", "optimizer.lr=0.5 against ", "data.split.seed=7 against 0"):
        assert words in answers[HELPS].sentence
    assert answers[DEPTH].verdict == "Not asked by these runs"


def _scored_again(run: FinishedRun, sources: tuple[str, ...], fingerprint: str | None = None) -> FinishedRun:
    """As evaluate.py sources=[...] leaves it."""
    folder = run.path / "evaluations" / "faces"
    folder.mkdir(parents=True)
    kept = run.scores.kept(np.isin(run.scores.sources, sources))
    test = measures(kept.scores, kept.labels, kept.sources, kept.groups, 0.5, resamples=40)
    changed = {"scored": f"test split; only {', '.join(sources)}", "test": test}
    changed["data_fingerprint"] = fingerprint or run.metrics["data_fingerprint"]
    write_scores(folder / "scores.csv", kept)
    write_metrics(folder / "metrics.json", {**run.metrics, **changed})
    return FinishedRun(run.settings, folder)


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content.clear(),
        lambda content: content.update(autoencoder=3),
        lambda content: content["complexity"].update(name=None),
        lambda content: content["errors"]["l1"].update(by_source=[]),
        lambda content: content["errors"]["l1"]["real_vs_fake"].update(cohens_d={"value": "much"}),
    ],
)
def test_an_analysis_that_lacks_what_a_report_reads_is_refused(finish: Finish, harm: Callable[[Any], None]) -> None:
    run = finish("pipeline=recon_classify")
    path = run.path / "analysis" / "analysis.json"
    content = json.loads(path.read_text())
    assert answered(run)
    harm(content)
    path.write_text(json.dumps(content))
    with pytest.raises(FakeganError, match=r"analysis\.json is damaged or of another version: delete its folder"):
        answered(run)


def test_reconstruction_errors_are_those_of_the_faces_that_were_scored(finish: Finish, tmp_path: Path) -> None:
    run, rng = finish("pipeline=recon_classify"), np.random.default_rng(3)
    shift = {"camera": 0.0, "gan_a": 3, "gan_b": -3}
    with (run.path / "analysis" / "errors.csv").open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(("file", "source", "label", "l1", "psnr", "ssim", "high_frequency", "complexity"))
        for file, source in zip(run.scores.files.tolist(), run.scores.sources.tolist(), strict=True):
            lines.writerow((file, "", "", *rng.normal(shift[source], 1.0, 5)))
    l1 = {row["file"]: float(row["l1"]) for row in csv_rows(run.path / "analysis" / "errors.csv")}
    part = _scored_again(run, ("camera", "gan_b"))
    real, fake = ([l1[f] for f in part.scores.files[part.scores.labels == label].tolist()] for label in (0, 1))
    n, m = len(real), len(fake)
    pooled = ((n - 1) * np.var(real, ddof=1) + (m - 1) * np.var(fake, ddof=1)) / (n + m - 2)
    answer = answered(part)[DIFFERS]
    assert f"Cohen's d of L1 {(np.mean(fake) - np.mean(real)) / np.sqrt(pooled):+.3f} [" in answer.sentence
    assert "smaller error" in answer.sentence
    assert f"about the {n + m} faces scored here, of {len(run.scores)} test faces" in answer.sentence
    write_report([part], tmp_path / "report")
    text = parse_html((tmp_path / "report" / "report.html").read_text()).text
    assert "test split; only camera, gan_b" in text
    assert "its pictures show all test faces of the runs" in text


def test_errors_of_other_faces_than_those_scored_are_said_to_be(finish: Finish) -> None:
    run = finish("pipeline=recon_classify")
    sentence = answered(_scored_again(run, ("camera", "gan_b"), fingerprint="another store"))[DIFFERS].sentence
    assert "Cohen's d of L1 -0.600 [" in sentence
    assert f"all {len(run.scores)} test faces of the runs themselves, not the faces scored here" in sentence


@pytest.mark.parametrize(
    ("effect", "probed", "verdict", "words"),
    [
        (-0.6, 0.7, "Yes", "have the smaller error"),
        (0.6, 0.7, "Yes", "have the larger error"),
        (0.0, 0.55, "Not shown", "are not shown to differ"),  # 0.45 to 0.65
        (0.0, 0.7, "In part: yes", "but a linear probe tells"),  # 0.6 to 0.8
    ],
)
def test_errors_of_reconstruction(finish: Finish, effect: float, probed: float, verdict: str, words: str) -> None:
    run = finish("pipeline=recon_error")
    write_analysis(run.path / "analysis", run.scores.sources, run.scores.labels, effect, probed)
    answer = answered(run)[DIFFERS]
    assert answer.verdict == verdict
    for said in (words, f"Cohen's d of L1 {effect:+.3f} [", "Spearman 0.800"):  # complexity comes with it
        assert said in answer.sentence


def test_seeds_of_an_error_keep_their_intervals(finish: Finish) -> None:
    runs = [finish("pipeline=recon_error", seed=seed) for seed in (1, 2)]
    each = "-0.600 [-0.700, -0.500]"
    assert f"Cohen's d of L1 -0.600 ± 0.000 ({each}, {each})" in answered(*runs)[DIFFERS].sentence
    found = autoencoders(runs)[0].measures("errors", "l1", "real_vs_fake", "cohens_d")
    assert cell(found, signed=True, intervals=True) == f"-0.600 ± 0.000\n({each},\n{each})"


def test_an_autoencoder_of_runs_that_hold_other_generators_out_counts_once(finish: Finish) -> None:
    """Its weights tell that it is the same: it knows real faces only. Other weights are another autoencoder."""
    runs = [finish("pipeline=recon_classify", f"data.split.unseen={held}") for held in ("[]", "[gan_a]", "[gan_b]")]
    assert len(autoencoders(runs)) == 3  # without a file nobody knows
    for run, weights in zip(runs, (b"one", b"one", b"other"), strict=True):
        (run.path / "autoencoder").mkdir(exist_ok=True)
        (run.path / "autoencoder" / "autoencoder.pt").write_bytes(weights)
    assert [a.runs for a in autoencoders(runs)] == [(runs[0],), (runs[2],)]
    write_analysis(runs[2].path / "analysis", runs[2].scores.sources, runs[2].scores.labels, 0.0, 0.55)
    assert answered(*runs)[DIFFERS].plain == (
        "With 1 of 2 autoencoders, fake faces have the smaller error; with 1 of 2 autoencoders, fake faces are not "
        "shown to differ."
    )
