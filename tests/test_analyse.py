"""The analysis of an autoencoder that has learnt nothing, on the generated faces: files, numbers, degenerate cases."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fakegan.config.building import TARGET
from fakegan.evaluation import plots
from fakegan.evaluation.reconstructed import PROBES
from fakegan.labels import FAKE, REAL
from fakegan.runs.folder import ANALYSIS_FILE, ANALYSIS_FOLDER
from fakegan.stages.analyse import ANALYSIS, analyse
from fakegan.stages.stage import Run
from tests.conftest import Compose
from tests.helpers import csv_rows, intervals, run_of, save_autoencoder

ERRORS = ("l1", "psnr", "ssim", "high_frequency")
PICTURES = {"examples", "error_distributions", "spectra"}
Make = Callable[..., Run]


@pytest.fixture(scope="module")
def artifact_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the tests here: those on the same faces pay for one analysis."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def make(compose_settings: Compose, artifact_dir: Path) -> Make:
    """A run with an autoencoder, its analysis to be made; perhaps with few test faces, or no fakes to learn from."""

    def of(real: int = 999, fake: int = 999, train_fakes: bool = True, **changes: Any) -> Run:
        words = ("pipeline=recon_classify", "data.split.unseen=[gan_b]", f"paths.artifact_dir={artifact_dir}")
        run = run_of(replace(compose_settings(*words), **changes))
        labels, splits = run.faces.store.labels, run.faces.splits
        test = [splits.test[labels[splits.test] == label][:count] for label, count in ((REAL, real), (FAKE, fake))]
        train = splits.train[train_fakes | (labels[splits.train] == REAL)]
        run.faces = replace(run.faces, splits=replace(splits, test=np.sort(np.concatenate(test)), train=train))
        save_autoencoder(run.autoencoder)
        return run

    return of


def _analysed(run: Run) -> Any:
    """The numbers of a run's analysis, made now; none of them is NaN."""
    analyse(run)
    text = (run.folder / ANALYSIS_FOLDER / ANALYSIS_FILE).read_text()
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the file"))


def test_it_writes_what_the_report_reads(make: Make) -> None:
    run = make()
    found, store, rows = _analysed(run), run.faces.store, run.faces.splits.test
    sources, labels = store.sources[rows], store.labels[rows]
    assert (found["n_real"], found["n_fake"]) == ((labels == REAL).sum(), (labels == FAKE).sum())
    net = {"depth": 1, "width": 2, "code_channels": 3, "code_numbers": 3 * 16 * 16, "picture_numbers": 12288}
    assert found["autoencoder"] == {**net, "psnr": 12.5}
    assert found["unseen"] == ["gan_b"]
    assert tuple(found["errors"]) == ERRORS
    for error in found["errors"].values():
        counts = {name: of["n"] for name, of in error["by_source"].items()}
        assert counts == {name: (sources == name).sum() for name in ("camera", "gan_a", "gan_b")}
        assert error["by_source"]["camera"]["label"] == "real"
        assert set(error["by_generator"]) == {"gan_a", "gan_b"}
        for between in (error["real_vs_fake"], *error["by_generator"].values()):
            assert set(between) == {"cohens_d", "mann_whitney", "kolmogorov_smirnov"}
    assert {name: of["features"] for name, of in found["probes"].items()} == {"code": 6, "residual_spectrum": 46}
    assert {of["n_train"] for of in found["probes"].values()} == {len(run.faces.splits.train)}
    assert tuple(found["complexity"]["spearman"]) == ERRORS
    measures = list(intervals(found))
    assert len(measures) == 4 * (3 + 3 * 3) + 4 + 4 + 2
    assert all(m["low"] <= m["value"] <= m["high"] for m in measures)


def test_the_numbers_are_those_of_the_faces(make: Make) -> None:
    """The fakes carry a checkerboard that this autoencoder loses, so their residuals have more fine detail."""
    run = make()
    found, lines = _analysed(run), csv_rows(run.folder / "analysis" / "errors.csv")
    assert list(lines[0]) == ["file", "source", "label", *ERRORS, "complexity", "l1_given_complexity", *PROBES.values()]
    assert [line["file"] for line in lines] == run.faces.store.files[run.faces.splits.test].tolist()
    for name in ERRORS:
        own = [float(line[name]) for line in lines if line["source"] == "gan_b"]
        source = found["errors"][name]["by_source"]["gan_b"]
        assert source["mean"]["value"] == pytest.approx(np.mean(own), rel=1e-6)
        assert source["median"] == pytest.approx(np.median(own), rel=1e-6)
    fine = found["errors"]["high_frequency"]
    assert fine["real_vs_fake"]["cohens_d"]["low"] > 1
    assert fine["by_generator"]["gan_a"]["mann_whitney"]["auc"]["value"] == 1
    board = 12 / 127.5  # the checkerboard's amplitude in [-1, 1]
    assert fine["by_source"]["gan_a"]["median"] == pytest.approx(board, rel=0.1)
    assert found["complexity"]["real_vs_fake"]["cohens_d"]["value"] > 1
    assert found["probes"]["residual_spectrum"]["auroc"]["value"] > 0.99
    plain = found["errors"]["l1"]["real_vs_fake"]["cohens_d"]["value"]
    assert found["complexity"]["l1_given_complexity"]["cohens_d"]["value"] != pytest.approx(plain, abs=0.01)


def test_tensorboard_shows_pictures_histograms_and_codes(make: Make) -> None:
    run = make()
    analyse(run)
    folder = run.folder / "analysis"
    assert {path.stem for path in folder.glob("*.png")} == PICTURES
    events = EventAccumulator(str(folder), {"histograms": 0, "images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {f"analysis/{name}" for name in PICTURES}
    assert len(events.Tags()["histograms"]) == 2 * len(ERRORS)
    codes, store, rows = folder / "00000" / "codes", run.faces.store, run.faces.splits.test
    assert np.loadtxt(codes / "tensors.tsv").shape == (len(rows), 3)
    classes = ["fake" if label else "real" for label in store.labels[rows]]
    told = [f"{source}\t{name}" for source, name in zip(store.sources[rows], classes, strict=True)]
    assert (codes / "metadata.tsv").read_text().splitlines() == ["source\tclass", *told]
    config = (folder / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "00000/codes/tensors.tsv"' in config  # relative: the run holds a copy, and can be moved


def test_runs_with_one_autoencoder_share_the_work(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make().settings.paths

    def found(name: str, real: int = 8) -> bool:
        """Whether this run's analysis was there."""
        run = make(real, 8, paths=replace(paths, run_dir=tmp_path / name, artifact_dir=tmp_path / "artifacts"))
        assert not ANALYSIS.done(run)
        analyse(run)
        assert ANALYSIS.done(run)
        return "analysis: found" in capsys.readouterr().out

    assert not found("first")
    assert found("second")
    first, second = tmp_path / "first" / "analysis", tmp_path / "second" / "analysis"
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file() and "events" not in path.name]
    assert len(files) >= 9  # all but TensorBoard's own, which tells the time
    for file in files:
        assert (second / file).read_bytes() == (first / file).read_bytes()
    (second / ANALYSIS_FILE).unlink()  # as if the run had been stopped
    assert found("second")
    assert (second / ANALYSIS_FILE).read_bytes() == (first / ANALYSIS_FILE).read_bytes()
    assert not found("third", real=7)  # other test faces


@pytest.mark.parametrize(
    ("real", "fake", "train_fakes"), [(4, 4, True), (1, 7, True), (6, 1, False), (3, 0, True), (0, 3, False)]
)
def test_few_faces_give_neither_a_crash_nor_a_nan(make: Make, real: int, fake: int, train_fakes: bool) -> None:
    found = _analysed(make(real, fake, train_fakes))
    assert (found["n_real"], found["n_fake"]) == (real, fake)
    known = found["errors"]["l1"]["real_vs_fake"]["mann_whitney"]["auc"]["value"] is not None
    assert known == (real > 0 and fake > 0)
    assert (found["probes"]["code"]["auroc"]["value"] is not None) == (known and train_fakes)


def test_reconstructions_that_are_all_alike(make: Make) -> None:
    """A dead net: the code has no spread, so its probe knows nothing."""
    run = make()
    save_autoencoder(run.autoencoder, alike=True, code_channels=None)
    found = _analysed(run)
    assert found["autoencoder"]["code_channels"] == 8
    assert found["probes"]["code"]["auroc"]["value"] == 0.5


def test_without_matplotlib_there_is_the_sheet_alone_and_without_tensorboard_no_events(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    run = make(logger={"csv": {TARGET: "pytorch_lightning.loggers.CSVLogger"}})
    analyse(run)
    names = {path.name for path in (run.folder / "analysis").iterdir()}
    assert names == {"examples.png", "analysis.json", "errors.csv", "codes.npy"}
