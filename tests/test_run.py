"""Whole runs in miniature, in this process, on the generated store."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch

from fakegan.data.arrays import Rows
from fakegan.data.faces import Faces
from fakegan.data.images import Equaliser
from fakegan.data.pixels import to_unit
from fakegan.detector import Detector, reconstruct
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.calibration import Validation, fit_temperature, probability
from fakegan.evaluation.metrics import choose_threshold
from fakegan.nets.recon_error import ERROR_NORMS
from fakegan.runs.artifacts import Reconstructions, fingerprint
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.stages import train_autoencoder
from fakegan.stages.examples import make_examples, own_faces
from fakegan.stages.test import TEST
from fakegan.system.places import CONF
from tests.conftest import Compose
from tests.helpers import csv_rows, elsewhere, intervals, run_of, snapshot, stages_with

MEASURES = (
    *("accuracy", "balanced_accuracy", "auroc", "average_precision", "eer", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"),
    *("brier", "ece", "real_accuracy", "fake_accuracy"),
)


def _metrics(settings: RunSettings) -> Any:
    return json.loads((settings.paths.run_dir / "metrics.json").read_text())


def test_a_finished_run_holds_what_it_promises(finished_once: RunSettings) -> None:
    run_dir, metrics, faces = finished_once.paths.run_dir, _metrics(finished_once), run_of(finished_once).faces
    for split, least in (("test", len(MEASURES) + 3 * 3 + 4), ("val", len(MEASURES))):
        uncalibrated = {"brier_uncalibrated", "ece_uncalibrated"}
        assert set(metrics[split]) == {*MEASURES, *uncalibrated, "n_real", "n_fake", "by_source", "over_generators"}
        assert all(set(metrics[split][name]) == {"value", "low", "high"} for name in MEASURES)
        found = list(intervals(metrics[split]))
        assert len(found) >= least
        assert all(m["low"] <= m["value"] <= m["high"] for m in found)
    assert metrics["label_convention"] == {"real": 0, "fake": 1}
    assert metrics["data_fingerprint"] == faces.store.fingerprint
    assert metrics["objective"] == metrics["val"]["auroc"]["value"]
    scores = csv_rows(run_dir / "scores.csv")
    assert list(scores[0]) == ["file", "source", "label", "score", "call", "verdict"]
    assert [row["file"] for row in scores] == faces.store.files[faces.splits.test].tolist()  # store order
    assert {row["label"] for row in scores} == {"0", "1"}
    low, high = metrics["band"]
    for row in scores:
        score = float(row["score"])
        assert row["call"] == ("fake" if score >= metrics["threshold"] else "real")
        assert row["verdict"] in {"unknown", "unsure" if low <= score < high else row["call"]}
    counted = sum((Counter(part["verdicts"]) for part in metrics["test"]["by_source"].values()), Counter())
    assert counted == Counter(row["verdict"] for row in scores)
    for stage in ("autoencoder", "classifier"):
        assert {"best.ckpt", "last.ckpt"} == {p.name for p in (run_dir / stage / "checkpoints").iterdir()}
        assert list((run_dir / stage).glob("events.out.tfevents.*"))
    assert (run_dir / "autoencoder" / "reconstructions_000.png").is_file()


def test_threshold_temperature_and_band_come_from_validation(finished_once: RunSettings) -> None:
    faces, metrics = run_of(finished_once).faces, _metrics(finished_once)
    detector, val = Detector.load(finished_once.paths.run_dir), faces.splits.val
    margins, labels = detector.margins(faces.store.images, val), faces.store.labels[val]
    assert metrics["temperature"] == pytest.approx(fit_temperature(margins, labels), rel=1e-3)
    scores = probability(margins, metrics["temperature"])
    assert metrics["threshold"] == pytest.approx(choose_threshold(scores, labels), abs=1e-4)
    assert metrics["band"] == pytest.approx(
        Validation.of(scores, labels, faces.store.groups[val]).band(metrics["threshold"]), abs=1e-4
    )


def test_flip_averaging_holds_from_validation_on(compose_settings: Compose) -> None:
    """Temperature and test scores are those of the mean of two plain scorings, of faces and of mirrored faces."""
    settings = compose_settings("pipeline=recon_classify", "detector.flip_average=true")
    stages.run(settings)
    run_dir, faces, metrics = settings.paths.run_dir, run_of(settings).faces, _metrics(settings)
    assert metrics["flip_average"]
    plain = replace(Detector.load(run_dir), flip_average=False)

    def averaged(rows: Rows) -> Any:
        images = faces.store.images[rows]
        return (plain.margins(images) + plain.margins(images[:, :, ::-1])) / 2

    val, test = faces.splits.val, faces.splits.test
    assert metrics["temperature"] == pytest.approx(fit_temperature(averaged(val), faces.store.labels[val]), rel=1e-3)
    expected = probability(averaged(test), metrics["temperature"])
    scores = [float(row["score"]) for row in csv_rows(run_dir / "scores.csv")]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert not np.allclose(scores, probability(plain.margins(faces.store.images, test), metrics["temperature"]))


def test_a_finished_run_is_not_run_again(finished_once: RunSettings) -> None:
    before = snapshot(finished_once.paths.run_dir)
    objective = stages.run(finished_once, open_faces=lambda *_: pytest.fail("ran again"))
    assert objective == _metrics(finished_once)["objective"]
    assert snapshot(finished_once.paths.run_dir) == before


def test_a_stage_that_is_done_is_left_out_and_a_stage_may_be_replaced(finished: RunSettings) -> None:
    """A user's own function in place of a stage is called where that stage would be."""
    run_dir, called = finished.paths.run_dir, []
    for name in ("metrics.json", "analysis/analysis.json"):
        (run_dir / name).unlink()
    done = [path.stat().st_mtime_ns for path in sorted(run_dir.rglob("*.pt"))]
    stages.run(finished, stages_with(analyse=lambda run: called.append(run.folder)))
    assert called == [run_dir]
    assert [path.stat().st_mtime_ns for path in sorted(run_dir.rglob("*.pt"))] == done
    assert (run_dir / "metrics.json").is_file()


def test_test_faces_never_touch_an_earlier_stage(finished_once: RunSettings, tmp_path: Path) -> None:
    """Test pictures are poisoned until the test stage: earlier stages must end with the same weights."""

    class Stop(Exception):
        pass

    def poisoned(*asked: Any) -> Any:
        faces = own_faces(*asked)
        images = faces.store.images[:].copy()
        images[faces.splits.test] = 255 - images[faces.splits.test]
        return replace(faces, store=replace(faces.store, images=images))

    def stop(_: Any) -> None:
        raise Stop

    places = {"run_dir": tmp_path / "run", "artifact_dir": tmp_path / "artifacts"}
    again = replace(finished_once, paths=replace(finished_once.paths, **places))
    with pytest.raises(Stop):
        stages.run(again, stages_with(test=stop), open_faces=poisoned)
    first, second = (load_checkpoint(s.paths.run_dir / "detector.pt") for s in (finished_once, again))
    assert first["threshold"] == second["threshold"]
    for part in ("classifier", "autoencoder"):
        for name, weight in first[part]["weights"].items():
            assert torch.equal(weight, second[part]["weights"][name]), name
    (reconstructed,) = [Reconstructions(p, 64) for p in again.paths.artifact_dir.glob("reconstructions/a*")]
    assert not np.isin(reconstructed.rows, run_of(again).faces.splits.test).any()


def test_one_autoencoder_alone_and_then_by_name(
    compose_settings: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alone = elsewhere(compose_settings("pipeline=autoencoder", "model=autogan1"), "alone")
    run_dir = alone.paths.run_dir
    assert stages.run(alone) == _metrics(alone)["autoencoder"]["psnr"]
    assert "versions" in _metrics(alone)
    named = f"model.checkpoint={run_dir}"
    capsys.readouterr()
    stages.run(compose_settings("model=autogan1", named))
    assert "autoencoder:" not in capsys.readouterr().out

    refused = {
        ("model=autogan4", named): r"has depth 1, but the config says model\.net\.depth=4",
        ("model=autogan4", f"model.checkpoint={tmp_path}/no"): "does not exist",
        (f"model.checkpoint={tmp_path / 'run' / 'detector.pt'}",): "is no autoencoder",
        (named, "model=autogan1", "data.split.seed=5"): r"test faces were among .* that trained .*data\.split",
        (named, "model=autogan1", "data.split.val=0.4"): r"validation faces were among",
    }
    for i, (words, sentence) in enumerate(refused.items()):
        settings = elsewhere(compose_settings(*words), f"refused_{i}")
        with pytest.raises(FakeganError, match=sentence):
            stages.run(settings)
        assert not (settings.paths.run_dir / "autoencoder").exists()


def test_a_run_goes_on_only_with_the_faces_that_it_and_its_autoencoder_began_with(finished: RunSettings) -> None:
    for name in ("metrics.json", "faces.sha256"):
        (finished.paths.run_dir / name).unlink()
    other_split = replace(finished.data, split=replace(finished.data.split, seed=5))
    with pytest.raises(FakeganError, match="test faces were among the faces that trained"):
        stages.run(replace(finished, data=other_split))
    (finished.paths.run_dir / "faces.sha256").write_text("another store\n")
    with pytest.raises(FakeganError, match="has changed since this run began"):
        stages.run(finished)


@pytest.mark.parametrize(
    ("word", "prepared", "same"),
    [
        ("classifier=alexnet", {}, True),
        ("callbacks.reconstructions.every=2", {}, True),
        ("data.modules.autoencoder._target_=their_package.Paler", {}, False),
        ("callbacks.model_checkpoint.monitor=val/ssim", {}, False),
        ("seed=2", {}, False),
        ("seed=1", {"to_srgb": False}, False),  # files without their colour profiles applied
        ("seed=1", {"equalise": Equaliser(64)}, False),
    ],
)
def test_an_autoencoder_is_found_by_all_that_decides_its_numbers(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, word: str, prepared: dict[str, Any], same: bool
) -> None:
    names = []

    def obtain(root: Path, kind: str, name: str, recipe: int, ingredients: dict[str, Any], make: Any) -> Path:
        names.append(fingerprint(ingredients))
        return root

    monkeypatch.setattr(train_autoencoder, "obtain", obtain)
    for words, options in (((), {}), ((word,), prepared)):
        run = run_of(compose_settings("seed=1", *words))
        geometry = replace(run.faces.store.geometry, **options)
        run.faces = replace(run.faces, store=replace(run.faces.store, geometry=geometry))
        train_autoencoder.find_trained(run)
    assert (names[0] == names[1]) == same


def test_a_data_module_must_be_named_and_not_be_given_what_it_gets_anyway(compose_settings: Compose) -> None:
    settings = compose_settings("data.modules.autoencoder.batch_size=1")
    unnamed = replace(settings, data=replace(settings.data, modules={}))  # as a data choice of the user's own may be
    for wrong, sentence in ((settings, ".batch_size=1 is no choice"), (unnamed, " must name what it builds")):
        with pytest.raises(UsageError, match=rf"data\.modules\.autoencoder{sentence}"):
            train_autoencoder.find_trained(run_of(wrong))


def test_a_detector_that_saw_test_faces_is_not_tested(finished: RunSettings) -> None:
    run = run_of(finished)
    assert Detector.load(run.folder).knows(run.faces.store.sha256[run.faces.splits.train]).all()
    run.faces = replace(run.faces, splits=replace(run.faces.splits, test=run.faces.splits.train))
    make_examples(run)
    with pytest.raises(FakeganError, match="took part in training"):
        TEST.run(run)


def test_a_run_that_is_worked_on_is_left_alone(
    finished: RunSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished.paths.run_dir / "metrics.json").unlink()
    monkeypatch.setattr(stages, "PATIENCE", 0.1)
    with (
        filelock.FileLock(finished.paths.run_dir / "run.lock"),
        pytest.raises(FakeganError, match="stop it, or let it finish"),
    ):
        stages.run(finished, open_faces=lambda *_: pytest.fail("worked on"))
    assert "another process works on" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_shipped_experiment_runs(compose_settings: Compose, experiment: str) -> None:
    scratch = ("classifier=efficientnet_b0", "classifier.net.net.weights=null", "trainer.max_epochs=1")
    settings = compose_settings(f"+experiment={experiment}", *(scratch if experiment == "detector" else ()))
    assert stages.run(settings) == _metrics(settings)["objective"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "classifier"),
    [("paper_exp1", "simple_cnn"), ("paper_exp1", "alexnet"), ("paper_exp2", "dcgan")],
)
def test_the_studys_own_settings_train(compose_settings: Compose, experiment: str, classifier: str) -> None:
    """budget=paper in all but counts: its optimizers, norms and splits."""
    budgets = [f"budget.{stage}={{max_epochs:1,batch_size:8}}" for stage in ("autoencoder", "classifier", "dcgan")]
    words = (f"+experiment={experiment}", "budget=paper", f"classifier={classifier}", "budget.width=4", *budgets)
    settings = compose_settings(*words)
    assert settings.model.node["net"]["norm"] == "instance"
    assert 0 <= stages.run(settings) <= 1


@pytest.mark.parametrize("view", ["residual", "stack", "npr"])
def test_views_other_than_face_and_reconstruction_train_and_are_tested(compose_settings: Compose, view: str) -> None:
    settings = compose_settings(f"pipeline={view}_classify", "budget.classifier.max_epochs=3")
    assert stages.run(settings) > 0.9  # the checkerboard does not survive the autoencoder


@pytest.mark.parametrize(
    ("pipeline", "classifier"),
    [
        ("recon_fakes", "simple_cnn"),
        ("recon_fakes", "dcgan"),
        ("spectrum_fakes", "simple_cnn"),
        ("npr_fakes", "dcgan"),
    ],
)
def test_experiment_2_is_tested_on_generated_fakes_and_on_its_own_task(
    compose_settings: Compose, pipeline: str, classifier: str
) -> None:
    settings = compose_settings(f"pipeline={pipeline}", f"classifier={classifier}")
    stages.run(settings)
    run_dir, faces, metrics = settings.paths.run_dir, run_of(settings).faces, _metrics(settings)
    test_files = faces.store.files[faces.splits.test]
    scores = csv_rows(run_dir / "scores.csv")
    assert [row["file"] for row in scores] == test_files.tolist()
    assert set(metrics["test"]["by_source"]) == {"camera", "gan_a", "gan_b"}
    assert set(metrics["test_reconstructed"]["by_source"]) == {"camera", "reconstructed"}
    real = int((faces.store.labels[faces.splits.test] == 0).sum())
    assert metrics["test_reconstructed"]["n_real"] == metrics["test_reconstructed"]["n_fake"] == real
    own = csv_rows(run_dir / "test_reconstructed" / "scores.csv")
    assert {row["file"] for row in own[:real]} == {row["file"] for row in scores[:real]}
    fakes = faces.store.labels == 1
    assert not Detector.load(run_dir).knows(faces.store.sha256[fakes]).any()  # no stage saw a generated fake
    assert (run_dir / "generator.pt").is_file() == (classifier == "dcgan")


def test_the_error_alone_is_a_score_learnt_from_real_faces(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=recon_error")
    stages.run(settings)
    run_dir, faces = settings.paths.run_dir, run_of(settings).faces
    assert not (run_dir / "classifier").exists()
    spec, detector = load_checkpoint(run_dir / "detector.pt")["classifier"], Detector.load(run_dir)
    real = faces.splits.train[faces.store.labels[faces.splits.train] == 0]
    assert detector.autoencoder is not None
    pictures = torch.from_numpy(faces.store.images[real])
    difference = to_unit(reconstruct(detector.autoencoder, pictures)) - to_unit(pictures)
    log_errors = ERROR_NORMS[spec["net"]["norm"]](difference).log()
    assert float(spec["weights"]["mean"]) == pytest.approx(float(log_errors.mean()), abs=1e-4)
    assert float(spec["weights"]["std"]) == pytest.approx(float(log_errors.std(unbiased=False)), rel=1e-3)
    val = detector.margins(faces.store.images, faces.splits.val)
    fake = faces.store.labels[faces.splits.val] == 1
    assert np.median(val[~fake]) == pytest.approx(-np.median(val[fake]), abs=1.0)  # half way: scores centre on 0.5


CPU = "cpu, 1 thread, 32-true, channels last"
FOLDED, COPIES = f"{CPU}, folded upsampling", "InstanceNorm without copies"
WIDE = "pipeline=recon_classify classifier=alexnet"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("pipeline=classify", CPU),
        ("pipeline=classify classifier=alexnet", CPU),
        ("pipeline=classify trainer.precision=bf16-mixed", "cpu, 1 thread, bf16-mixed"),
        (f"{WIDE} budget.width=16", f"{FOLDED}, Winograd convolutions, {COPIES}"),
        (f"{WIDE} budget.width=15", f"{FOLDED}, {COPIES}"),
        ("pipeline=recon_error budget.width=16 model.checkpoint=another/run", FOLDED),
    ],
)
def test_a_run_says_at_its_start_what_it_computes_on_and_how(
    words: str, told: str, compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/test_cpu.py holds the names to the forms of layers that are taken."""

    def begun(*_: object) -> Faces:
        raise FakeganError("it began")

    with pytest.raises(FakeganError):
        stages.run(compose_settings(*words.split()), open_faces=begun)
    assert capsys.readouterr().out == f"device: {told}\n"


def test_a_wrong_option_of_the_classifier_costs_no_training(compose_settings: Compose) -> None:
    settings = compose_settings("classifier=dcgan", "classifier.generator.latent=0")
    with pytest.raises(UsageError, match="latent=0"):
        stages.run(settings, open_faces=lambda *_: pytest.fail("it began"))
