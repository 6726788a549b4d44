"""The analysis of an autoencoder that has learnt nothing, on the generated faces: files, numbers, degenerate cases."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fakegan.config.building import TARGET
from fakegan.data.faces import Faces, open_faces
from fakegan.evaluation import plots
from fakegan.evaluation.reconstructed import PROBES
from fakegan.labels import FAKE, REAL
from fakegan.nets.autogan import AutoGAN
from fakegan.runs.checkpoints import save_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.stages.analyse import ANALYSIS_FILE, analyse
from tests.conftest import Compose

AUTOGAN = "fakegan.nets.autogan.AutoGAN"
ERRORS = ("l1", "psnr", "ssim", "high_frequency")


@pytest.fixture(scope="module")
def artifact_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the tests here: those on the same faces pay for one analysis."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options: Any = {"depth": 1, "width": 2, "norm": "none", "code_channels": 3}
    path = tmp_path_factory.mktemp("autoencoder") / "autoencoder.pt"
    content = {
        "net": {TARGET: AUTOGAN, **options},
        "weights": AutoGAN(**options).state_dict(),
        "metrics": {"val/psnr": 12.5},
    }
    save_checkpoint(content, path)
    return path


@pytest.fixture
def settings(compose_settings: Compose, artifact_dir: Path) -> RunSettings:
    return compose_settings(
        "pipeline=recon_classify", "data.split.unseen=[gan_b]", f"paths.artifact_dir={artifact_dir}"
    )


@pytest.fixture
def faces(settings: RunSettings) -> Faces:
    return open_faces(settings.data, settings.paths.data_dir, needs={})


def _analysis(settings: RunSettings) -> Any:
    return json.loads((settings.paths.run_dir / "analysis" / ANALYSIS_FILE).read_text())


def _measures(node: Any) -> Iterator[dict[str, float]]:
    if isinstance(node, dict):
        if set(node) == {"value", "low", "high"}:
            yield node
        for child in node.values():
            yield from _measures(child)


def _few(faces: Faces, real: int, fake: int, train_fakes: bool = True) -> Faces:
    """The same faces with a smaller test split, perhaps with no fakes to learn from."""
    labels = faces.store.labels
    test = faces.splits.test
    kept = np.concatenate([test[labels[test] == REAL][:real], test[labels[test] == FAKE][:fake]])
    train = faces.splits.train[train_fakes | (labels[faces.splits.train] == REAL)]
    return replace(faces, splits=replace(faces.splits, test=np.sort(kept), train=train))


def test_it_writes_what_the_report_reads(settings: RunSettings, faces: Faces, autoencoder: Path) -> None:
    analyse(settings, faces, autoencoder)
    found = _analysis(settings)
    store, rows = faces.store, faces.splits.test
    sources, labels = store.sources[rows], store.labels[rows]
    assert (found["n_real"], found["n_fake"]) == ((labels == REAL).sum(), (labels == FAKE).sum())
    assert found["autoencoder"] == {
        "depth": 1,
        "width": 2,
        "code_channels": 3,
        "code_numbers": 3 * 16 * 16,
        "picture_numbers": 12288,
        "psnr": 12.5,
    }
    assert found["unseen"] == ["gan_b"]
    assert tuple(found["errors"]) == ERRORS
    for error in found["errors"].values():
        assert {name: of["n"] for name, of in error["by_source"].items()} == {
            name: (sources == name).sum() for name in ("camera", "gan_a", "gan_b")
        }
        assert error["by_source"]["camera"]["label"] == "real"
        assert set(error["by_generator"]) == {"gan_a", "gan_b"}
        for between in (error["real_vs_fake"], *error["by_generator"].values()):
            assert set(between) == {"cohens_d", "mann_whitney", "kolmogorov_smirnov"}
    assert {name: of["features"] for name, of in found["probes"].items()} == {"code": 6, "residual_spectrum": 46}
    assert {of["n_train"] for of in found["probes"].values()} == {len(faces.splits.train)}
    assert tuple(found["complexity"]["spearman"]) == ERRORS
    measures = list(_measures(found))
    assert len(measures) == 4 * (3 + 3 * 3) + 4 + 4 + 2
    assert all(m["low"] <= m["value"] <= m["high"] for m in measures)


def test_the_numbers_are_those_of_the_faces(settings: RunSettings, faces: Faces, autoencoder: Path) -> None:
    """The fakes carry a checkerboard that this autoencoder loses, so their residuals have more fine detail."""
    analyse(settings, faces, autoencoder)
    found = _analysis(settings)
    with (settings.paths.run_dir / "analysis" / "errors.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["file", "source", "label", *ERRORS, "complexity", "l1_given_complexity", *PROBES.values()]
    assert [line["file"] for line in lines] == faces.store.files[faces.splits.test].tolist()
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


def test_tensorboard_shows_pictures_histograms_and_codes(
    settings: RunSettings, faces: Faces, autoencoder: Path
) -> None:
    analyse(settings, faces, autoencoder)
    folder = settings.paths.run_dir / "analysis"
    names = {"examples", "error_distributions", "spectra"}
    assert {path.stem for path in folder.glob("*.png")} == names
    events = EventAccumulator(str(folder), {"histograms": 0, "images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {f"analysis/{name}" for name in names}
    assert len(events.Tags()["histograms"]) == 2 * len(ERRORS)
    codes = folder / "00000" / "codes"
    n = len(faces.splits.test)
    assert np.loadtxt(codes / "tensors.tsv").shape == (n, 3)
    metadata = (codes / "metadata.tsv").read_text().splitlines()
    assert metadata[0] == "source\tclass"
    store, rows = faces.store, faces.splits.test
    classes = ["fake" if label else "real" for label in store.labels[rows]]
    assert metadata[1:] == [f"{source}\t{name}" for source, name in zip(store.sources[rows], classes, strict=True)]
    config = (folder / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "00000/codes/tensors.tsv"' in config  # relative: the run holds a copy, and can be moved


def test_runs_with_one_autoencoder_share_the_work(
    settings: RunSettings, faces: Faces, autoencoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, shown: Faces = faces) -> str:
        paths = replace(settings.paths, run_dir=tmp_path / name, artifact_dir=tmp_path / "artifacts")
        analyse(replace(settings, paths=paths), shown, autoencoder)
        return capsys.readouterr().out

    few = _few(faces, 8, 8)
    assert "analyse: found" not in run("first", few)
    assert "analyse: found" in run("second", few)
    first, second = tmp_path / "first" / "analysis", tmp_path / "second" / "analysis"
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file() and "events" not in path.name]
    assert len(files) >= 9  # all but TensorBoard's own, which tells the time
    for file in files:
        assert (second / file).read_bytes() == (first / file).read_bytes()
    (second / ANALYSIS_FILE).unlink()  # as if the run had been stopped
    assert "analyse: found" in run("second", few)
    assert (second / ANALYSIS_FILE).read_bytes() == (first / ANALYSIS_FILE).read_bytes()
    assert "analyse: found" not in run("third", _few(faces, 7, 8))  # other test faces
    shutil.rmtree(tmp_path / "artifacts")
    run("first", few)  # has it already
    assert not (tmp_path / "artifacts").exists()


def test_other_loggers_than_tensorboard_leave_no_events(settings: RunSettings, faces: Faces, autoencoder: Path) -> None:
    analyse(replace(settings, logger={"csv": {TARGET: "pytorch_lightning.loggers.CSVLogger"}}), faces, autoencoder)
    names = {path.name for path in (settings.paths.run_dir / "analysis").iterdir()}
    pictures = {"examples.png", "error_distributions.png", "spectra.png"}
    assert names == {*pictures, "analysis.json", "errors.csv", "codes.npy"}


@pytest.mark.parametrize(
    ("real", "fake", "train_fakes"), [(4, 4, True), (1, 7, True), (6, 1, False), (3, 0, True), (0, 3, False)]
)
def test_few_faces_give_neither_a_crash_nor_a_nan(
    settings: RunSettings, faces: Faces, autoencoder: Path, real: int, fake: int, train_fakes: bool
) -> None:
    analyse(settings, _few(faces, real, fake, train_fakes), autoencoder)
    text = (settings.paths.run_dir / "analysis" / ANALYSIS_FILE).read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    assert (found["n_real"], found["n_fake"]) == (real, fake)
    known = found["errors"]["l1"]["real_vs_fake"]["mann_whitney"]["auc"]["value"] is not None
    assert known == (real > 0 and fake > 0)
    assert (found["probes"]["code"]["auroc"]["value"] is not None) == (known and train_fakes)


def test_reconstructions_that_are_all_alike(settings: RunSettings, faces: Faces, tmp_path: Path) -> None:
    """A dead net: the code has no spread, so its probe knows nothing."""
    options: Any = {"depth": 1, "width": 2, "norm": "none", "code_channels": None}
    weights = {name: torch.zeros_like(weight) for name, weight in AutoGAN(**options).state_dict().items()}
    save_checkpoint(
        {"net": {TARGET: AUTOGAN, **options}, "weights": weights, "metrics": {"val/psnr": 3.0}}, tmp_path / "dead.pt"
    )
    analyse(settings, faces, tmp_path / "dead.pt")
    found = _analysis(settings)
    assert found["autoencoder"]["code_channels"] == 8
    assert found["probes"]["code"]["auroc"]["value"] == 0.5


def test_without_matplotlib_there_is_the_sheet_alone(
    settings: RunSettings, faces: Faces, autoencoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    analyse(settings, faces, autoencoder)
    assert [path.name for path in (settings.paths.run_dir / "analysis").glob("*.png")] == ["examples.png"]
