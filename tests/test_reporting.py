"""Reports of finished runs whose scores are simulated: the files, and the pages that people see."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation import plots
from fakegan.evaluation.roc import auroc
from fakegan.reports.answers import answers
from fakegan.reports.groups import grouped, of_seeds
from fakegan.reports.write import report_sweep, write_report
from fakegan.runs import ledger
from fakegan.runs.finished import FinishedRun, same_faces, told_apart
from fakegan.runs.results import write_metrics
from tests.conftest import Finish
from tests.helpers import csv_rows
from tests.pages import Page, parse_html


def reported(runs: list[FinishedRun], folder: Path) -> tuple[str, Page]:
    """The words for the terminal, and the page."""
    text = write_report(runs, folder)
    return text, parse_html((folder / "report.html").read_text())


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)


def test_seen_and_unseen_generators_are_answered_and_shown_separately(finish: Finish, tmp_path: Path) -> None:
    options = ("data.split.unseen=[gan_b]",)
    runs = [finish(f"pipeline={name}", *options, strength=s) for name, s in (("classify", 0.0), ("recon_classify", 8))]
    seen, unseen = grouped(runs)
    assert (seen.where, unseen.where) == (" (seen generators)", " (unseen generators)")
    assert ({*seen.faces.sources}, {*unseen.faces.sources}) == ({"camera", "gan_a"}, {"camera", "gan_b"})
    own = runs[1].scores.kept(runs[1].scores.sources != "gan_a")
    assert of_seeds(unseen.configurations[1], "auroc")[0]["value"] == auroc(own.scores, own.labels)
    details = answers([seen, unseen], [])[0].details
    assert [detail.split("(")[1].split(")")[0] for detail in details] == ["seen generators", "unseen generators"]
    text, page = reported(runs, tmp_path / "report")
    assert f"{len(unseen.faces)} faces (unseen generators): test split" in text
    for words in ("2 configurations; 2 runs; ", "Seen generators", "ROC (unseen generators): "):
        assert words in page.text
    assert "gan_b (fake, unseen)" in page.text


@pytest.mark.usefixtures("without_plots")
def test_seeds_are_one_configuration_and_mistakes_those_of_their_mean_score(finish: Finish, tmp_path: Path) -> None:
    runs = [finish("pipeline=classify", seed=seed, strength=s) for seed, s in ((2, 1.0), (1, 2.0), (3, 3.0))]
    text, page = reported(runs, tmp_path / "report")
    aurocs = [run.metrics["test"]["auroc"]["value"] for run in (runs[1], runs[0], runs[2])]
    assert f"classify · simple_cnn  3      {np.mean(aurocs):.3f} ± {np.std(aurocs, ddof=1):.3f}  " in text
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    (only,) = comparison["groups"][0]["configurations"]
    assert (only["seeds"], only["auroc"]["values"]) == ([1, 2, 3], aurocs)
    assert [row["seed"] for row in csv_rows(tmp_path / "report" / "seeds.csv")] == ["1", "2", "3"]
    scores = np.mean([run.scores.scores for run in runs], axis=0)
    wrong = (np.mean([run.scores.called_fake for run in runs], axis=0) > 0.5) & (runs[0].scores.labels == 0)
    surest = np.flatnonzero(wrong)[np.argmax(scores[wrong])]
    first = page.text.split("real faces called fake, the surest first")[1].strip()
    assert first.startswith(f"{scores[surest]:.3f} camera{str(runs[0].scores.files[surest]).removeprefix('camera/')}")


def test_the_report_is_whole_and_replaces_an_earlier_one(finish: Finish, tmp_path: Path) -> None:
    runs = [
        finish("pipeline=classify"),
        finish("pipeline=recon_classify", "model=autogan1"),
        finish("pipeline=recon_classify", "model=autogan4"),
    ]
    ledger.record(runs[0].path, 10, "abc")
    folder = tmp_path / "report"
    write_report(runs[:1], folder)
    text, page = reported(runs, folder)
    assert text.endswith(f"report: {folder / 'report.html'}")
    files = {"report.html", "report.md", "report_pictures", "comparison.json", "seeds.csv"}
    assert {p.name for p in folder.iterdir()} == files
    figures = ("0.989", "0.642", "0.648", "torch 2.6", "gan_a (fake)", "worst generator", "total variation")
    commands = (f"This report: {ledger.command()}", "train.py seed=<1>")
    for words in (*figures, *commands, "scored 4 times", "no longer unseen", "Wrong: real faces called fake"):
        assert words in page.text, words
    faces = [image for image in page.all("img") if (image["alt"] or "").startswith(("real face", "fake face"))]
    assert len(faces) >= 3 * 4
    assert all((image["width"], image["height"]) == ("64", "64") for image in faces)
    linked = re.findall(r"\]\(report_pictures/(\w+\.png)\)", (folder / "report.md").read_text())
    assert {*linked} == {p.name for p in (folder / "report_pictures").iterdir()}
    assert len(json.loads((folder / "comparison.json").read_text())["groups"][0]["pairs"]) == 3


@pytest.mark.usefixtures("without_plots")
def test_a_report_fits_80_columns_and_names_what_is_swept(finish: Finish, tmp_path: Path) -> None:
    name = "classifier.name=a_classifier_with_quite_a_long_name_for_a_terminal"
    rates = ("classifier.optimizer.lr=0.0012345", "classifier.optimizer.lr=0.0054321")
    runs = [finish("pipeline=classify", name, rate, seed=seed) for rate in rates for seed in (1, 2, 3)]
    *lines, _ = write_report(runs, tmp_path / "report").splitlines()  # the last one is a path
    assert max(map(len, lines)) < 80
    assert [line.split()[:2] for line in lines if line.startswith("lr=")] == [
        ["lr=0.0012345", "3"],
        ["lr=0.0054321", "3"],
    ]


@pytest.mark.parametrize(
    ("names", "common", "rests"),
    [
        (["classify · alexnet", "classify · simple_cnn"], "classify · ...", ["alexnet", "simple_cnn"]),
        (["classify · alexnet", "classify · alexnet · light"], "classify · ...", ["alexnet", "alexnet · light"]),
        (["classify · a lr=1 ema=2", "classify · a lr=3 ema=2"], "classify · a ... ema=2", ["lr=1", "lr=3"]),
        (["classify · b", "recon_classify · autogan1 · b"], "... · b", ["classify", "recon_classify · autogan1"]),
        (["recon_error · autogan1", "classify · b"], "", ["recon_error · autogan1", "classify · b"]),
        (["classify · b"], "", ["classify · b"]),
    ],
)
def test_a_table_names_what_tells_configurations_apart(names: list[str], common: str, rests: list[str]) -> None:
    assert told_apart(names) == (common, rests)


@pytest.mark.usefixtures("without_plots")
def test_runs_on_different_faces_are_not_compared(finish: Finish, tmp_path: Path) -> None:
    runs = [finish("pipeline=classify"), finish("pipeline=recon_classify", "data.split.seed=7")]
    _, page = reported(runs, tmp_path / "report")
    for words in ("runs on different faces are not compared", "Faces A", "Faces B"):
        assert words in page.text
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert [group["pairs"] for group in comparison["groups"]] == [[], []]
    with pytest.raises(FakeganError, match=r"because of data\.split\.seed=0 against 7"):
        same_faces(runs)


def test_the_same_run_twice_is_refused(finish: Finish, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="same configuration and seed"):
        write_report([finish("pipeline=classify"), finish("pipeline=classify")], tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("without_plots")
def test_without_the_store_or_matplotlib_the_rest_stands(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=classify")
    moved = replace(run.settings, data=replace(run.settings.data, root=tmp_path / "gone"))
    _, page = reported([FinishedRun(moved, run.folder)], tmp_path / "report")
    assert re.search(r"Pictures are left out: the store \S+gone is gone", page.text)
    assert re.search(r"0\.\d{3} camera, \d{4}", page.text)  # the faces are named all the same
    assert "Plots are left out: they need matplotlib" in page.text
    write_metrics(run.path / "metrics.json", {**run.metrics, "data_fingerprint": "0" * 64})
    _, page = reported([FinishedRun(run.settings, run.folder)], tmp_path / "report")
    assert "has changed since these runs" in page.text
    assert not list((tmp_path / "report" / "report_pictures").iterdir())


def test_autoencoders_alone_have_their_chapter(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=autoencoder")
    write_metrics(run.path / "metrics.json", {"autoencoder": run.metrics["autoencoder"], "objective": 24.5})
    text, page = reported([FinishedRun(run.settings, run.folder)], tmp_path / "report")
    assert "24.50" in page.text
    assert "Side by side" not in page.text
    assert "Not asked by these runs" not in text
    assert not (tmp_path / "report" / "seeds.csv").exists()


def test_a_sweep_reports_on_its_finished_runs(finish: Finish, tmp_path: Path) -> None:
    run = finish("pipeline=classify")
    unfinished = replace(run.settings, paths=replace(run.settings.paths, run_dir=tmp_path / "stopped"))
    assert "classify · simple_cnn" in report_sweep([run.settings, unfinished], tmp_path / "sweep")
    assert (tmp_path / "sweep" / "report.html").is_file()
    with pytest.raises(FakeganError, match="no finished run"):
        report_sweep([unfinished], tmp_path / "sweep")


BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
# Appended to a copy of the page: writes into the page itself how the browser shows it.
PROBE = """<script>
addEventListener("load", () => {
  const broken = [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length;
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  document.title = `images ${document.images.length} broken ${broken} wide ${wide}`;
});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_in_a_browser_nothing_is_missing_and_nothing_complains(
    finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [finish("pipeline=classify"), finish("pipeline=recon_classify"), finish("pipeline=recon_error")]
    monkeypatch.setattr("sys.argv", ["evaluate.py", f"runs=[{','.join(['outputs/a_long_name'] * 20)}]"])
    ledger.record(runs[0].path, 10, "abc")
    _, page = reported(runs, tmp_path / "report")
    content = (tmp_path / "report" / "report.html").read_text()
    watched = tmp_path / "watched.html"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)
    watched.write_text(without_policy.replace("</body>", f"{PROBE}</body>"))
    printed = tmp_path / "printed.html"
    printed.write_text(watched.read_text().replace("@media print", "@media all"))
    quiet = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --enable-logging=stderr --v=0"
    command = [str(BROWSER), "--headless", *quiet.split(), "--virtual-time-budget=5000", "--dump-dom"]
    command.append(f"--user-data-dir={tmp_path / 'profile'}")
    home = {**os.environ, "HOME": str(tmp_path)}
    pages = [(width, shown) for width in (500, 1280) for shown in (watched, tmp_path / "report" / "report.html")]
    for width, shown in [*pages, (688, printed)]:  # Chromium opens none narrower than 500; paper has 182 mm
        asked = [*command, f"--window-size={width},900", shown.as_uri()]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=600, check=True, env=home)
        assert "CONSOLE" not in done.stderr, done.stderr
        if shown in (watched, printed):
            assert f"<title>images {len(page.all('img'))} broken 0 wide false</title>" in done.stdout, shown
