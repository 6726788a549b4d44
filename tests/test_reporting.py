"""Reports of finished runs, made here without training: metrics from simulated scores of the generated faces."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.data.faces import open_faces
from fakegan.data.sheets import png
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation import plots
from fakegan.evaluation.metrics import auroc, measures
from fakegan.reports.answers import answers
from fakegan.reports.groups import grouped, of_seeds
from fakegan.reports.numbers import in_lines, over
from fakegan.reports.reconstruction import autoencoders
from fakegan.reports.render import Answer
from fakegan.reports.write import report_sweep, write_report
from fakegan.runs import ledger
from fakegan.runs.finished import FinishedRun, same_faces
from fakegan.runs.folder import FACES_FILE
from fakegan.runs.results import FaceScores, write_metrics, write_scores
from fakegan.runs.settings import RunSettings
from tests.conftest import Compose

from .test_report import parse

Finish = Callable[..., FinishedRun]
HELPS, DEPTH, DIFFERS, GENERALISES = range(4)


def simulated(settings: RunSettings, strength: float, resamples: int = 40) -> FinishedRun:
    """A run folder as the stages leave it, with scores as good as `strength`: 0 is guessing.

    All runs find the same faces hard, and each has noise of its own.
    """
    faces = open_faces(settings.data, settings.paths.data_dir, needs={})
    store, rows = faces.store, faces.splits.test
    labels = store.labels[rows]
    hard = np.random.default_rng(0).normal(size=len(rows))
    own = np.random.default_rng([settings.seed, len(settings.label())]).normal(size=len(rows))
    scores = 1 / (1 + np.exp(-(strength * (labels - 0.5) + 0.8 * hard + 0.6 * own)))
    columns = (store.files[rows], store.sources[rows], labels, store.groups[rows])
    run_dir = settings.paths.run_dir
    run_dir.mkdir(parents=True)
    learnt_from = sorted({*columns[1].tolist()} - {*settings.data.split.unseen})
    test = measures(scores, labels, columns[1], columns[3], 0.5, learnt_from=learnt_from, resamples=resamples)
    content: dict[str, Any] = {"val": test, "test": test, "objective": test["auroc"]["value"]}
    content |= {"threshold": 0.5, "temperature": 1.25, "band": [0.4, 0.6], "data_fingerprint": store.fingerprint}
    content["learnt_from"] = learnt_from
    content |= {"command": "train.py seed=<1>", "versions": {"fakegan": "0.2", "torch": "2.6"}}
    if settings.pipeline.fakes == "reconstructed":
        content["test_reconstructed"] = test
    if settings.pipeline.needs_autoencoder:
        content["autoencoder"] = {"l1": 0.1, "psnr": 24.5, "ssim": 0.7}
        _analysis(run_dir / "analysis", store.sources[rows], labels, effect=-0.6)
    write_scores(run_dir / "scores.csv", FaceScores(*columns, scores, scores >= 0.5))
    (run_dir / FACES_FILE).write_text(f"{store.fingerprint}\n")
    ledger.record(run_dir, len(rows), store.fingerprint)
    write_metrics(run_dir / "metrics.json", content)
    return FinishedRun(settings, run_dir)


def _analysis(folder: Path, sources: Any, labels: Any, effect: float, probed: float = 0.7) -> None:
    """analysis.json with a Cohen's d of `effect` and probes of AUROC `probed`, and a picture."""

    def measure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    p = 0.0001 if abs(effect) > 0.1 else 0.6
    error = {
        "by_source": {
            str(s): {
                "label": "fake" if labels[sources == s][0] else "real",
                "n": int((sources == s).sum()),
                "mean": measure(0.3),
                "median": 0.3,
            }
            for s in np.unique(sources)
        },
        "real_vs_fake": {
            "cohens_d": measure(effect),
            "mann_whitney": {"auc": measure(0.4), "p": p},
            "kolmogorov_smirnov": {"d": measure(0.2), "p": p},
        },
    }
    probe = {"auroc": measure(probed), "accuracy": measure(0.6), "features": 8, "n_train": 10}
    content = {
        "autoencoder": {"depth": 4, "width": 4, "code_channels": 16, "code_numbers": 4096, "psnr": 24.5},
        "errors": dict.fromkeys(("l1", "psnr", "ssim", "high_frequency"), error),
        "probes": {"code": probe, "residual_spectrum": probe},
        "complexity": {
            "name": "total variation",
            "spearman": {"l1": measure(0.8)},
            "real_vs_fake": {"cohens_d": measure(0.1)},
            "l1_given_complexity": {"cohens_d": measure(0.05)},
        },
    }
    folder.mkdir()
    (folder / "spectra.png").write_bytes(png(np.zeros((6, 6, 3), dtype=np.uint8)))
    (folder / "analysis.json").write_text(json.dumps(content, allow_nan=False))


@pytest.fixture
def finish(compose_settings: Compose, tmp_path: Path) -> Finish:
    """Makes a finished run: overrides of the shipped config, how good it is, its seed."""
    made = 0

    def make(*overrides: str, strength: float = 1.0, seed: int = 1) -> FinishedRun:
        nonlocal made
        made += 1
        settings = compose_settings("data.split.test=0.5", f"seed={seed}", *overrides)
        settings = replace(settings, paths=replace(settings.paths, run_dir=tmp_path / "runs" / f"run{made}"))
        return simulated(settings, strength)

    return make


def answered(*runs: FinishedRun) -> list[Answer]:
    return answers(grouped(runs), autoencoders(runs))


def test_a_strong_effect_is_said_in_the_right_direction(finish: Finish) -> None:
    images = finish("pipeline=classify", strength=0.0)
    recon = finish("pipeline=recon_classify", "model=autogan4", strength=8.0)
    answer = answered(images, recon)[HELPS]
    assert (answer.verdict, answer.tone) == ("Yes", "yes")
    aurocs = [run.metrics["test"]["auroc"]["value"] for run in (recon, images)]
    assert aurocs[0] > 0.95
    assert aurocs[1] < 0.65
    assert f"AUROC {aurocs[0]:.3f} against {aurocs[1]:.3f}, +{aurocs[0] - aurocs[1]:.3f} [+" in answer.sentence
    assert "McNemar p < 0.001" in answer.sentence
    assert "for 1 pair)" in answer.sentence


def test_the_other_direction_hurts(finish: Finish) -> None:
    images = finish("pipeline=classify", strength=8.0)
    recon = finish("pipeline=recon_classify", strength=0.0)
    answer = answered(recon, images)[HELPS]  # the order of the runs does not matter
    assert (answer.verdict, answer.tone) == ("No, it hurts", "no")
    assert "Passing through the AutoGAN hurts" in answer.sentence
    assert re.search(r"against \d\.\d+, -0\.\d+ \[-", answer.sentence)


def test_what_is_not_significant_is_not_shown_and_never_denied(finish: Finish) -> None:
    runs = [finish("pipeline=classify"), finish("pipeline=recon_classify")]
    answer = answered(*runs)[HELPS]
    assert (answer.verdict, answer.tone) == ("Not shown", "open")
    assert "not shown to differ" in answer.sentence
    assert re.search(r"\[-0\.\d+, \+0\.\d+\]", answer.sentence)  # the interval holds 0
    assert "no difference" not in answer.sentence.lower()


def test_several_classifiers_are_answered_one_by_one_and_together(finish: Finish) -> None:
    runs = [
        finish("pipeline=classify", "classifier=simple_cnn", strength=0.0),
        finish("pipeline=recon_classify", "classifier=simple_cnn", "model=autogan1", strength=8.0),
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
    runs = [finish("pipeline=recon_fakes", f"classifier={name}") for name in ("dcgan", "simple_cnn", "alexnet")]
    answer = answered(*runs)[GENERALISES]
    pairs, own_tasks = answer.details[:2], answer.details[2:]
    assert [detail.split(":")[0].split(" against ")[1] for detail in pairs] == ["simple_cnn", "alexnet"]
    assert all(name in detail for name, detail in zip(("dcgan", "simple_cnn", "alexnet"), own_tasks, strict=True))
    assert all("on its own task" in detail for detail in own_tasks)


def test_what_was_not_asked_says_which_runs_are_missing(finish: Finish) -> None:
    run = finish("pipeline=classify")
    said = answered(run)
    assert [answer.verdict for answer in said] == ["Not asked by these runs"] * 4
    assert all(answer.sentence.startswith("Add ") for answer in said)
    assert all("=" in answer.sentence for answer in said)


def test_runs_of_the_right_kinds_that_are_no_pair_say_in_which_keys_they_differ(finish: Finish) -> None:
    changed = ("budget.name=other", "classifier.optimizer.lr=0.5", "data.split.seed=7")
    said = answered(finish("pipeline=classify"), finish("pipeline=recon_classify", *changed))
    assert said[HELPS].verdict == "Not answered: these runs cannot be compared"
    assert "run2 and" in said[HELPS].sentence
    for words in ("budget=other against ", "classifier.optimizer.lr=0.5 against ", "data.split.seed=7 against 0"):
        assert words in said[HELPS].sentence
    assert said[DEPTH].verdict == "Not asked by these runs"


def test_runs_on_different_faces_say_which_key_is_to_blame(finish: Finish) -> None:
    runs = [finish("pipeline=classify"), finish("pipeline=classify", "data.split.seed=7")]
    with pytest.raises(FakeganError, match=r"because of data\.split\.seed=0 against 7"):
        same_faces(runs)


def test_seen_and_unseen_generators_are_answered_and_shown_apart(finish: Finish, tmp_path: Path) -> None:
    runs = [
        finish("pipeline=classify", "data.split.unseen=[gan_b]", strength=0.0),
        finish("pipeline=recon_classify", "data.split.unseen=[gan_b]", strength=8.0),
    ]
    seen, unseen = grouped(runs)
    assert (seen.where, unseen.where) == (" (seen generators)", " (unseen generators)")
    assert {*seen.faces.sources} == {"camera", "gan_a"}
    assert {*unseen.faces.sources} == {"camera", "gan_b"}
    scores = runs[1].scores
    own = scores.sources != "gan_a"
    expected = auroc(scores.scores[own], scores.labels[own])
    assert of_seeds(unseen.configurations[1], "auroc")[0]["value"] == expected
    said = answered(*runs)[HELPS]
    assert [detail.split("(")[1].split(")")[0] for detail in said.details] == ["seen generators", "unseen generators"]
    text = write_report(runs, tmp_path / "report", "evaluate.py")
    assert f"{len(unseen.faces)} faces (unseen generators): test split" in text
    page = parse((tmp_path / "report" / "report.html").read_text()).text
    assert "2 configurations; 2 runs; " in page
    assert "Side by side (seen generators)" in page
    assert "ROC (unseen generators): " in page
    assert "gan_b (fake, unseen)" in page


def test_below_guessing_is_called_worse_than_guessing(finish: Finish) -> None:
    runs = [finish("pipeline=classify", strength=-4.0), finish("pipeline=recon_classify", strength=-8.0)]
    answer = answered(*runs)[HELPS]
    assert answer.verdict == "Moot: worse than guessing (AUROC below 0.5)"
    assert "In 1 of 1 both are worse than guessing (AUROC below 0.5)." in answer.sentence


def _scored_again(run: FinishedRun, sources: tuple[str, ...], fingerprint: str | None = None) -> FinishedRun:
    """As evaluate.py sources=[...] leaves it."""
    folder = run.path / "evaluations" / "faces"
    folder.mkdir(parents=True)
    kept = run.scores.kept(np.isin(run.scores.sources, sources))
    faces = (kept.scores, kept.labels, kept.sources, kept.groups, 0.5)
    changed = {"scored": f"test split; only {', '.join(sources)}", "test": measures(*faces, resamples=40)}
    changed["data_fingerprint"] = fingerprint or run.metrics["data_fingerprint"]
    write_scores(folder / "scores.csv", kept)
    write_metrics(folder / "metrics.json", {**run.metrics, **changed})
    return FinishedRun(run.settings, folder)


def _errors_csv(run: FinishedRun, shift: dict[str, float]) -> dict[str, float]:
    """Numbers of each test face, around a mean of its source's; returns the L1 by file."""
    rng = np.random.default_rng(3)
    names = ("l1", "psnr", "ssim", "high_frequency", "complexity")
    files, sources = run.scores.files.tolist(), run.scores.sources.tolist()
    values = {file: rng.normal(shift[source], 1.0, 5) for file, source in zip(files, sources, strict=True)}
    with (run.path / "analysis" / "errors.csv").open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(("file", "source", "label", *names))
        lines.writerows((file, "", "", *numbers) for file, numbers in values.items())
    return {file: float(numbers[0]) for file, numbers in values.items()}


def test_reconstruction_errors_are_those_of_the_faces_that_were_scored(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=recon_classify")
    l1 = _errors_csv(run, {"camera": 0.0, "gan_a": 3.0, "gan_b": -3.0})
    part = _scored_again(run, ("camera", "gan_b"))
    files, labels = part.scores.files.tolist(), part.scores.labels.tolist()
    real, fake = ([l1[f] for f, y in zip(files, labels, strict=True) if y == label] for label in (0, 1))
    n, m = len(real), len(fake)
    pooled = ((n - 1) * np.var(real, ddof=1) + (m - 1) * np.var(fake, ddof=1)) / (n + m - 2)
    d = (np.mean(fake) - np.mean(real)) / np.sqrt(pooled)
    answer = answered(part)[DIFFERS]
    assert f"Cohen's d of L1 {d:+.3f} [" in answer.sentence
    assert "smaller error" in answer.sentence
    assert f"about the {n + m} faces scored here, of {len(run.scores)} test faces" in answer.sentence
    write_report([part], tmp_path / "report", "evaluate.py")
    text = parse((tmp_path / "report" / "report.html").read_text()).text
    assert "test split; only camera, gan_b" in text
    assert "its pictures show all test faces of the runs" in text


def test_errors_of_other_faces_than_those_scored_are_said_to_be(finish: Finish) -> None:
    run = finish("pipeline=recon_classify")
    elsewhere = _scored_again(run, ("camera", "gan_b"), fingerprint="another store")
    sentence = answered(elsewhere)[DIFFERS].sentence
    assert "Cohen's d of L1 -0.600 [" in sentence
    assert f"all {len(run.scores)} test faces of the runs themselves, not the faces scored here" in sentence


def test_a_report_fits_80_columns_with_long_names(finish: Finish, tmp_path: Path) -> None:
    name = "classifier.name=a_classifier_with_quite_a_long_name_for_a_terminal"
    rates = ("classifier.optimizer.lr=0.0012345", "classifier.optimizer.lr=0.0054321")
    runs = [finish("pipeline=classify", name, rate, seed=seed) for rate in rates for seed in (1, 2, 3)]
    text = write_report(runs, tmp_path / "report", "evaluate.py")
    *lines, _ = text.splitlines()  # the last one is a path
    assert max(map(len, lines)) < 80


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
    scores = run.scores
    shutil.rmtree(run.path / "analysis")
    _analysis(run.path / "analysis", scores.sources, scores.labels, effect, probed)
    answer = answered(run)[DIFFERS]
    assert answer.verdict == verdict
    assert words in answer.sentence
    assert f"Cohen's d of L1 {effect:+.3f} [" in answer.sentence
    assert "Spearman 0.800" in answer.sentence  # the caveat comes with it


def test_seeds_of_an_error_keep_their_intervals(finish: Finish) -> None:
    runs = [finish("pipeline=recon_error", seed=seed) for seed in (1, 2)]
    (found,) = autoencoders(runs)
    each = "-0.600 [-0.700, -0.500]"
    assert f"Cohen's d of L1 -0.600 ± 0.000 ({each}, {each})" in answered(*runs)[DIFFERS].sentence
    said = over(found.measures("errors", "l1", "real_vs_fake", "cohens_d"), signed=True, intervals=True)
    assert in_lines(said) == f"-0.600 ± 0.000\n({each},\n{each})"


def test_seeds_are_one_configuration(finish: Finish, tmp_path: Path) -> None:
    runs = [finish("pipeline=classify", seed=seed, strength=s) for seed, s in ((2, 1.0), (1, 2.0), (3, 3.0))]
    text = write_report(runs, tmp_path / "report", "evaluate.py")
    aurocs = [run.metrics["test"]["auroc"]["value"] for run in (runs[1], runs[0], runs[2])]
    each = ", ".join(f"{value:.3f}" for value in aurocs)
    assert f"classify · simple_cnn\n  AUROC     {np.mean(aurocs):.3f} ± {np.std(aurocs, ddof=1):.3f} ({each})" in text
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    (only,) = comparison["groups"][0]["configurations"]
    assert only["seeds"] == [1, 2, 3]
    assert only["auroc"]["values"] == aurocs
    with (tmp_path / "report" / "seeds.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_the_report_is_whole(finish: Finish, tmp_path: Path) -> None:
    runs = [
        finish("pipeline=classify"),
        finish("pipeline=recon_classify", "model=autogan1"),
        finish("pipeline=recon_classify", "model=autogan4"),
    ]
    folder = tmp_path / "report"
    text = write_report(runs, folder, "evaluate.py 'runs=[<a>]'")
    assert text.endswith(f"report: {folder / 'report.html'}")
    assert {p.name for p in folder.iterdir()} == {
        *("report.html", "report.md", "report_pictures", "comparison.json", "seeds.csv"),
    }
    page = parse((folder / "report.html").read_text())
    for words in (
        "98.9%",
        "64.24%",
        "64.80%",
        "evaluate.py 'runs=[<a>]'",
        "train.py seed=<1>",
        "torch 2.6",
        "gan_a (fake)",
        "worst generator",
        "scored 3 times",
        "Wrong: real faces called fake",
        "total variation",
    ):
        assert words in page.text, words
    faces = [image for image in page.all("img") if (image["alt"] or "").startswith(("real face", "fake face"))]
    assert len(faces) >= 3 * 4
    assert all((image["width"], image["height"]) == ("64", "64") for image in faces)
    markdown = (folder / "report.md").read_text()
    linked = set(re.findall(r"\]\(report_pictures/(\w+\.png)\)", markdown))
    assert linked == {p.name for p in (folder / "report_pictures").iterdir()}
    assert len(json.loads((folder / "comparison.json").read_text())["groups"][0]["pairs"]) == 3


def test_a_second_report_replaces_the_first(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=recon_classify")
    write_report([run], tmp_path, "first")
    write_report([run], tmp_path, "second")
    assert "This report: second" in (tmp_path / "report.html").read_text()
    assert not list(tmp_path.glob(".*"))


def test_mistakes_are_those_of_the_mean_score(finish: Finish, tmp_path: Path) -> None:
    runs = [finish("pipeline=classify", seed=seed) for seed in (1, 2)]
    write_report(runs, tmp_path / "report", "evaluate.py")
    scores = np.mean([run.scores.scores for run in runs], axis=0)
    wrong = np.all([run.scores.called_fake for run in runs], axis=0) & (runs[0].scores.labels == 0)
    surest = np.flatnonzero(wrong)[np.argmax(scores[wrong])]
    text = parse((tmp_path / "report" / "report.html").read_text()).text
    first = text.split("real faces called fake, the surest first")[1].strip()
    file = str(runs[0].scores.files[surest]).removeprefix("camera/")
    assert first.startswith(f"{scores[surest]:.3f} camera{file}")


def test_runs_on_different_faces_are_not_compared(finish: Finish, tmp_path: Path) -> None:
    runs = [finish("pipeline=classify"), finish("pipeline=recon_classify", "data.split.seed=1")]
    write_report(runs, tmp_path / "report", "evaluate.py")
    text = parse((tmp_path / "report" / "report.html").read_text()).text
    assert "runs on different faces are not compared" in text
    assert "Side by side (faces A)" in text
    assert "Side by side (faces B)" in text
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert [group["pairs"] for group in comparison["groups"]] == [[], []]


def test_the_same_run_twice_is_refused(finish: Finish, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="same configuration and seed"):
        write_report([finish("pipeline=classify"), finish("pipeline=classify")], tmp_path / "report", "evaluate.py")
    assert not (tmp_path / "report").exists()


def test_without_the_store_the_rest_stands(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=classify")
    moved = replace(run.settings, data=replace(run.settings.data, root=tmp_path / "gone"))
    write_report([FinishedRun(moved, run.folder)], tmp_path / "report", "evaluate.py")
    page = parse((tmp_path / "report" / "report.html").read_text())
    assert re.search(r"Pictures are left out: the store \S+gone is gone", page.text)
    assert re.search(r"0\.\d{3} camera, \d{4}", page.text)  # the faces are named all the same


def test_a_store_that_changed_shows_no_pictures(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=classify")
    content = {**run.metrics, "data_fingerprint": "0" * 64}
    write_metrics(run.path / "metrics.json", content)
    write_report([FinishedRun(run.settings, run.folder)], tmp_path / "report", "evaluate.py")
    assert "has changed since these runs" in (tmp_path / "report" / "report.html").read_text()


def test_autoencoders_alone_have_their_chapter(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=autoencoder")
    write_metrics(run.path / "metrics.json", {"autoencoder": run.metrics["autoencoder"], "objective": 24.5})
    text = write_report([FinishedRun(run.settings, run.folder)], tmp_path / "report", "train.py")
    page = parse((tmp_path / "report" / "report.html").read_text())
    assert "24.50" in page.text
    assert "Side by side" not in page.text
    assert "Not asked by these runs" in text
    assert not (tmp_path / "report" / "seeds.csv").exists()


def test_without_matplotlib_a_sentence_stands_for_plots(
    finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    write_report([finish("pipeline=classify")], tmp_path / "report", "evaluate.py")
    text = parse((tmp_path / "report" / "report.html").read_text()).text
    assert "Plots are left out: they need matplotlib" in text
    assert not list((tmp_path / "report" / "report_pictures").glob("roc*"))


def test_faces_scored_twice_are_said_so(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=classify")
    ledger.record(run.path, 10, "abc")
    write_report([run], tmp_path / "report", "evaluate.py")
    assert "no longer unseen" in (tmp_path / "report" / "report.html").read_text()


def test_a_sweep_reports_on_what_has_finished(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=classify")
    unfinished = replace(run.settings, paths=replace(run.settings.paths, run_dir=tmp_path / "stopped"))
    text = report_sweep([run.settings, unfinished], tmp_path / "sweep")
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert "classify · simple_cnn" in text
    with pytest.raises(FakeganError, match="no finished run"):
        report_sweep([unfinished], tmp_path / "sweep")


BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
# Appended to a copy of the page: writes what the browser made of it into the page itself.
PROBE = """<script>
addEventListener("load", () => {
  const broken = [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length;
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  document.title = `images ${document.images.length} broken ${broken} wide ${wide}`;
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
@pytest.mark.parametrize("width", [500, 1280])  # headless Chromium opens no window narrower than 500
def test_in_a_browser_nothing_is_missing_and_nothing_complains(finish: Finish, tmp_path: Path, width: int) -> None:
    runs = [finish("pipeline=classify"), finish("pipeline=recon_classify"), finish("pipeline=recon_error")]
    write_report(runs, tmp_path / "report", "evaluate.py")
    content = (tmp_path / "report" / "report.html").read_text()
    images = len(parse(content).all("img"))
    watched = tmp_path / "watched.html"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)
    watched.write_text(without_policy.replace("</body>", f"{PROBE}</body>"))
    for page in (watched, tmp_path / "report" / "report.html"):
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--enable-logging=stderr", "--v=0", f"--window-size={width},900", "--virtual-time-budget=5000"]
        done = subprocess.run(
            [*command, "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert "CONSOLE" not in done.stderr, done.stderr
        if page == watched:
            assert f"<title>images {images} broken 0 wide false</title>" in done.stdout
