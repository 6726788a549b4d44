"""The model card says what the run's files say, and the export command writes it beside the detector."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import fakegan
from fakegan.detector import Detector
from fakegan.export import main
from fakegan.reports.card import model_card
from fakegan.runs.portable import texts_of
from fakegan.runs.results import read_metrics
from fakegan.stages.run import run as carry_out
from tests.helpers import begin, fill, run_script, smooth_faces, write_store


@pytest.fixture(scope="module")
def run_dir(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of approach 2 that has never seen gan_b; nothing may be written into its folder."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    words = ("pipeline=recon_classify", "classifier=simple_cnn", "data.split.unseen=[gan_b]", "trainer=cpu")
    carry_out(begin(store_path, folder, *words))
    return folder


def test_a_card_says_what_a_detector_is_what_it_has_learnt_and_what_it_cannot(run_dir: Path) -> None:
    detector = Detector.load(run_dir)
    card = model_card(run_dir, detector)
    sections = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert sections == [
        *("What it is", "How to use it", "How well it does on test faces", "What it has learnt from"),
        "What it must not be used for",
    ]
    assert "- Autoencoder: fakegan.nets.autogan.AutoGAN." in card
    assert f"A picture is called fake from P(fake) {detector.threshold:.3f}" in card
    auroc = read_metrics(run_dir / "metrics.json")["test"]["by_source"]["gan_b"]["auroc"]
    row = next(line for line in card.splitlines() if line.startswith("| gan_b | fake, never seen |"))
    assert f" {auroc['value']:.3f}" in row
    assert "was not measured." in card
    assert "- Sources that trained or validated the classifier: camera, gan_a." in card
    assert "- Fakes of generators other than gan_a, gan_b: how many it finds was never measured." in card


def test_the_command_writes_a_file_that_judges_as_the_run(run_dir: Path, tmp_path: Path) -> None:
    out, card = tmp_path / "detector.fakegan", tmp_path / "card.md"
    assert main(["--run", str(run_dir), "--out", str(out), "--card", str(card)]) == 0
    assert card.read_text() == texts_of(out)["card"]
    pictures = sorted(fill(tmp_path / "pictures", 4).iterdir())
    assert fakegan.load(out).predict(pictures) == fakegan.load(run_dir).predict(pictures)
    pytest.importorskip("onnxruntime")
    assert main(["--run", str(run_dir), "--out", str(tmp_path / "detector.onnx")]) == 0
    scores = [[row.score for row in fakegan.load(p).predict(pictures)] for p in (tmp_path / "detector.onnx", run_dir)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)  # a level of a reconstruction may round otherwise


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "a.bin"], "end it with .fakegan or .onnx, or name a --format"),
        (["--out", "a.bin", "--format", "onnx"], "a file of --format onnx ends in .onnx"),
        (["--out", "gone/a.onnx"], "there is no folder gone"),
        (["--out", "there.fakegan"], "there.fakegan is there already"),
        (["--out", "a.fakegan", "--card", "a.fakegan"], "is --out as well"),
        (["--out", "a.fakegan"], "is not a run: it has no config.yaml"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.fakegan").touch()
    (tmp_path / "folder").mkdir()
    assert main(["--run", "folder", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "there.fakegan"]


def test_evaluate_scores_a_store_by_an_exported_detector_as_by_its_run(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "detector.fakegan"
    assert main(["--run", str(run_dir), "--out", str(out)]) == 0
    run = shutil.copytree(run_dir, tmp_path / "run")
    rng = np.random.default_rng(5)
    faces = [
        (pixels, f"{source}/{i}", label, source)
        for label, source in ((0, "phone"), (1, "gan_c"))
        for i, pixels in enumerate(smooth_faces(12, rng, 12.0 * label))
    ]
    other = write_store(tmp_path / "other", faces)
    words = ("data=faces", f"data.root={other}", "device=cpu")
    found = []
    for name, place in (("a", out), ("b", run)):
        done = run_script("evaluate.py", f"run={place}", f"out={tmp_path / name}", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        metrics = read_metrics(tmp_path / name / "metrics.json")
        found.append((metrics["test"], metrics["threshold"], metrics["learnt_from"], metrics["scored"]))
    assert found[0] == found[1]
    refused = run_script("evaluate.py", f"run={out}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "has no faces of its own: add data=faces data.root=DIR" in refused.stderr
