"""Whole runs in miniature, in this process, on the generated store."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fakegan.data.faces import Faces, open_faces
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.pixels import to_unit
from fakegan.data.store import FaceStore, Row, StoreWriter
from fakegan.detector import Detector, reconstruct
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation.calibration import fit_temperature, probability
from fakegan.evaluation.metrics import choose_threshold
from fakegan.nets.recon_error import ERROR_NORMS
from fakegan.reports.evaluating import compare, evaluate
from fakegan.runs.artifacts import Reconstructions, fingerprint
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.ledger import read_ledger
from fakegan.runs.results import FaceScores, write_scores
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.stages import run as stages
from fakegan.stages import test, train_autoencoder
from fakegan.stages.examples import examples, own_faces
from fakegan.system.places import PROJECT
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.callbacks import ReconstructionGrid, StopOnDivergence, reconstruction_grid
from fakegan.training.classifier import Classifier
from fakegan.training.means import EpochMeans
from tests.conftest import Compose
from tests.helpers import csv_rows, smooth_faces

from .test_config import EXPERIMENTS

MEASURES = (
    *("accuracy", "balanced_accuracy", "auroc", "average_precision", "eer", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"),
    *("brier", "ece", "real_accuracy", "fake_accuracy"),
)


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _elsewhere(settings: RunSettings, name: str) -> RunSettings:
    return replace(settings, paths=replace(settings.paths, run_dir=settings.paths.run_dir.with_name(name)))


def faces_of(settings: RunSettings) -> Faces:
    return open_faces(settings.data, settings.paths.data_dir, needs={})


def _evaluate(settings: RunSettings, **changes: Any) -> str:
    run = EvaluateSettings(str(settings.paths.run_dir), (), None, (), "cpu", settings.paths.data_dir)
    if "data" in changes:
        changes["data"] = replace(changes["data"], limit=None)  # which +debug=fast sets for training alone
    return evaluate(replace(run, **changes), settings)


@pytest.fixture
def finished(compose_settings: Compose) -> RunSettings:
    settings = compose_settings("pipeline=recon_classify", "model=autogan4")
    stages.run(settings)
    return settings


def test_a_finished_run_holds_what_it_promises(finished: RunSettings, store: FaceStore) -> None:
    run_dir = finished.paths.run_dir
    metrics = _json(run_dir / "metrics.json")
    for split in ("val", "test"):
        uncalibrated = {"brier_uncalibrated", "ece_uncalibrated"}
        assert set(metrics[split]) == {*MEASURES, *uncalibrated, "n_real", "n_fake", "by_source", "over_generators"}
        assert all(set(metrics[split][name]) == {"value", "low", "high"} for name in MEASURES)
    assert metrics["label_convention"] == {"real": 0, "fake": 1}
    assert metrics["data_fingerprint"] == store.fingerprint
    assert metrics["objective"] == metrics["val"]["auroc"]["value"]
    faces = open_faces(finished.data, finished.paths.data_dir, needs={})
    scores = csv_rows(run_dir / "scores.csv")
    assert list(scores[0]) == ["file", "source", "label", "score", "verdict"]
    assert [row["file"] for row in scores] == store.files[faces.splits.test].tolist()  # store order
    assert {row["label"] for row in scores} == {"0", "1"}
    for row in scores:
        assert row["verdict"] == ("fake" if float(row["score"]) >= metrics["threshold"] else "real")
    for stage in ("autoencoder", "classifier"):
        assert {"best.ckpt", "last.ckpt"} == {p.name for p in (run_dir / stage / "checkpoints").iterdir()}
        assert list((run_dir / stage).glob("events.out.tfevents.*"))
    assert (run_dir / "autoencoder" / "reconstructions_000.png").is_file()


def test_a_finished_run_is_not_run_again(finished: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished.paths.run_dir / "metrics.json").read_bytes()
    monkeypatch.setattr(stages, "EVERY", replace(stages.EVERY, faces=lambda *_: pytest.fail("ran again")))
    assert stages.run(finished).objective == json.loads(before)["objective"]
    assert (finished.paths.run_dir / "metrics.json").read_bytes() == before


def test_evaluating_gives_the_runs_own_scores_and_overwrites_nothing(finished: RunSettings) -> None:
    run_dir = finished.paths.run_dir
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "test_ledger.csv"}
    assert "gan_a (fake)" in _evaluate(finished)
    _evaluate(finished)
    folders = sorted((run_dir / "evaluations").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "scores.csv").read_bytes() == (run_dir / "scores.csv").read_bytes()
        for key in ("test", "objective", "autoencoder"):  # the last two are of validation faces
            assert _json(folder / "metrics.json")[key] == _json(run_dir / "metrics.json")[key]
    assert all(p.read_bytes() == content for p, content in before.items())


def test_evaluating_says_what_it_computes_on_and_how(finished: RunSettings, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    _evaluate(finished)
    assert "device: cpu, 1 thread, channels last, folded upsampling\n" in capsys.readouterr().out


def test_evaluating_chosen_sources_and_the_same_store_as_a_foreign_one(finished: RunSettings) -> None:
    run_dir = finished.paths.run_dir
    _evaluate(finished, sources=("camera", "gan_b"))
    assert {r["source"] for r in csv_rows(run_dir / "evaluations" / "faces" / "scores.csv")} == {"camera", "gan_b"}
    with pytest.raises(UsageError, match=r"no 'gan_c'.*gan_a"):
        _evaluate(finished, sources=("gan_c",))
    with pytest.raises(FakeganError, match="no fake faces"):
        _evaluate(finished, sources=("camera",))
    other_split = replace(finished.data, split=replace(finished.data.split, seed=9))
    _evaluate(finished, data=other_split)  # the store again, but named: still the run's own test split
    assert csv_rows(run_dir / "evaluations" / "faces-2" / "scores.csv") == csv_rows(run_dir / "scores.csv")
    (run_dir / "faces.sha256").write_text("as if the store were another\n")
    assert "took part in training and are left out" in _evaluate(finished, data=finished.data)
    left = {r["file"] for r in csv_rows(run_dir / "evaluations" / "faces-3" / "scores.csv")}
    assert left >= {r["file"] for r in csv_rows(run_dir / "scores.csv")}
    seen = Detector.load(run_dir).knows(faces_of(finished).store.sha256)
    assert not left & set(faces_of(finished).store.files[seen])


def test_a_sweep_over_classifiers_trains_the_autoencoder_once(
    finished: RunSettings, compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    stages.run(_elsewhere(compose_settings("pipeline=recon_classify", "classifier=alexnet"), "second"))
    printed = capsys.readouterr().out
    assert "autoencoder: found trained" in printed
    assert "reconstruct: found" in printed
    stages.run(_elsewhere(compose_settings("pipeline=recon_classify", "seed=2"), "third"))
    assert "autoencoder: training" in capsys.readouterr().out


def test_test_faces_never_touch_an_earlier_stage(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, store: FaceStore
) -> None:
    """Test pictures are poisoned until the test stage: earlier stages must end with the same weights."""
    settings = compose_settings("pipeline=recon_classify")
    stages.run(settings)
    splits = open_faces(settings.data, settings.paths.data_dir, needs={}).splits
    images = store.images[:].copy()
    images[splits.test] = 255 - images[splits.test]

    class Stop(Exception):
        pass

    def poisoned(*arguments: Any) -> Any:
        faces = own_faces(*arguments)
        return replace(faces, store=replace(faces.store, images=images))

    def stop(*_: Any) -> None:
        raise Stop

    again = _elsewhere(settings, "poisoned")
    again = replace(again, paths=replace(again.paths, artifact_dir=again.paths.run_dir.with_name("artifacts2")))
    monkeypatch.setattr(stages, "EVERY", replace(stages.EVERY, faces=poisoned))
    monkeypatch.setattr(stages, "EVERY", replace(stages.EVERY, test=stop))
    with pytest.raises(Stop):
        stages.run(again)
    first, second = (load_checkpoint(s.paths.run_dir / "detector.pt") for s in (settings, again))
    assert first["threshold"] == second["threshold"]
    for part in ("classifier", "autoencoder"):
        for name, weight in first[part]["weights"].items():
            assert torch.equal(weight, second[part]["weights"][name]), name
    reconstructed = [Reconstructions(p) for p in again.paths.artifact_dir.glob("reconstructions/a*")]
    assert len(reconstructed) == 1
    assert not np.isin(reconstructed[0].rows, splits.test).any()


def test_a_stopped_run_goes_on_where_it_stood(compose_settings: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("pipeline=recon_classify", "budget.classifier.max_epochs=3")
    whole = _elsewhere(compose_settings(*options), "whole")
    stages.run(whole)
    stopped = compose_settings(*options)

    class Killed(Exception):
        pass

    real_log = Classifier.on_train_epoch_end

    def killed_in_the_third_epoch(module: Any) -> None:
        if module.current_epoch == 2:
            raise Killed
        real_log(module)

    monkeypatch.setattr(Classifier, "on_train_epoch_end", killed_in_the_third_epoch)
    with pytest.raises(Killed):
        stages.run(stopped)
    monkeypatch.setattr(Classifier, "on_train_epoch_end", real_log)
    assert not (stopped.paths.run_dir / "metrics.json").exists()
    stages.run(stopped)
    assert (stopped.paths.run_dir / "scores.csv").read_bytes() == (whole.paths.run_dir / "scores.csv").read_bytes()


def test_one_autoencoder_alone_and_then_by_name(
    compose_settings: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alone = _elsewhere(compose_settings("pipeline=autoencoder", "model=autogan1"), "alone")
    outcome = stages.run(alone)
    run_dir = alone.paths.run_dir
    assert outcome.objective == _json(run_dir / "metrics.json")["autoencoder"]["psnr"]
    capsys.readouterr()
    stages.run(compose_settings("model=autogan1", f"model.checkpoint={run_dir}"))
    assert "autoencoder:" not in capsys.readouterr().out
    other = _elsewhere(compose_settings("model=autogan4", f"model.checkpoint={run_dir}"), "other")
    with pytest.raises(UsageError, match=r"has depth 1, but the config says model\.net\.depth=4"):
        stages.run(other)
    nothing = _elsewhere(compose_settings("model=autogan4", f"model.checkpoint={tmp_path}/no"), "nothing")
    with pytest.raises(UsageError, match="does not exist"):
        stages.run(nothing)
    detector = _elsewhere(compose_settings(f"model.checkpoint={tmp_path / 'run' / 'detector.pt'}"), "detector")
    with pytest.raises(UsageError, match=r"is no autoencoder"):
        stages.run(detector)


def test_files_with_and_without_their_colour_profiles_train_two_autoencoders(
    compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose_settings("pipeline=autoencoder")
    faces = faces_of(settings)
    for to_srgb, name in ((True, "converted"), (False, "as_they_are"), (True, "again")):
        store = replace(faces.store, geometry=replace(faces.store.geometry, to_srgb=to_srgb))
        train_autoencoder.train_autoencoder(_elsewhere(settings, name), replace(faces, store=store))
        assert ("found trained" in capsys.readouterr().out) == (name == "again")


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("callbacks.reconstructions.every=2", True),
        ("data.modules.autoencoder._target_=my_package.Paler", False),
        ("callbacks.model_checkpoint.monitor=val/ssim", False),
    ],
)
def test_an_autoencoder_is_found_by_all_that_decides_its_numbers(
    compose_settings: Compose, store: FaceStore, monkeypatch: pytest.MonkeyPatch, word: str, same: bool
) -> None:
    names = []

    def obtain(root: Path, kind: str, name: str, recipe: int, ingredients: dict[str, Any], make: Any) -> Any:
        names.append(fingerprint(ingredients))
        return SimpleNamespace(reused=False)

    monkeypatch.setattr(train_autoencoder, "obtain", obtain)
    for settings in (compose_settings(), compose_settings(word)):
        train_autoencoder._trained_autoencoder(settings, faces_of(settings))
    assert (names[0] == names[1]) == same


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.modules.autoencoder.batch_size=1"], r"data\.modules\.autoencoder\.batch_size=1 is no choice"),
        (["data.modules={}"], r"data\.modules\.autoencoder must name what it builds"),
    ],
)
def test_what_a_data_module_is_given_anyway_is_refused(
    compose_settings: Compose, words: list[str], sentence: str
) -> None:
    settings = compose_settings(*words)
    if words[0].endswith("{}"):  # as a data choice of the user's own that names none
        settings = replace(settings, data=replace(settings.data, modules={}))
    with pytest.raises(UsageError, match=sentence):
        train_autoencoder.train_autoencoder(settings, faces_of(settings))


def test_an_autoencoder_that_saw_test_faces_is_refused(compose_settings: Compose) -> None:
    alone = _elsewhere(compose_settings("pipeline=autoencoder"), "alone")
    stages.run(alone)
    settings = compose_settings(f"model.checkpoint={alone.paths.run_dir}", "data.split.seed=5")
    with pytest.raises(FakeganError, match=r"test faces were among the faces that trained .*data\.split"):
        stages.run(settings)
    larger_val = compose_settings(f"model.checkpoint={alone.paths.run_dir}", "data.split.val=0.4")
    with pytest.raises(FakeganError, match=r"validation faces were among"):
        stages.run(_elsewhere(larger_val, "larger_val"))


def test_a_detector_that_saw_test_faces_is_not_tested(finished: RunSettings) -> None:
    faces = open_faces(finished.data, finished.paths.data_dir, needs={})
    detector = Detector.load(finished.paths.run_dir)
    swapped = replace(faces, splits=replace(faces.splits, test=faces.splits.train))
    assert detector.knows(faces.store.sha256[faces.splits.train]).all()
    autoencoder = finished.paths.run_dir / "autoencoder" / "autoencoder.pt"
    shown = examples(finished, faces, autoencoder)
    with pytest.raises(FakeganError, match="took part in training"):
        test.test(finished, swapped, shown, autoencoder)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("pipeline=classify", "classifier.optimizer.lr=1e30", "classifier.optimizer._target_=torch.optim.SGD"),
            "classifier",
        ),
        (("pipeline=autoencoder", "model.optimizer.lr=1e30"), "model"),
        (("pipeline=classify", "classifier=dcgan", "classifier.optimizer.lr=1e30"), "classifier"),
    ],
)
def test_training_that_diverges_says_where_and_which_key_to_lower(
    words: tuple[str, ...], told: str, compose_settings: Compose
) -> None:
    with pytest.raises(FakeganError, match=rf"diverged: .* in epoch 1; lower {told}\.optimizer\.lr"):
        stages.run(compose_settings(*words))
    assert not list(compose_settings().paths.run_dir.rglob("*.ckpt"))  # nothing that is no number was saved


def test_divergence_is_seen_within_an_epoch_and_pictures_of_it_are_no_trace() -> None:
    module: Any = torch.nn.Linear(1, 1)
    module.train_means = EpochMeans("l1", "adversarial")
    module.train_means.update({"l1": torch.tensor(1.0), "adversarial": torch.tensor(float("inf"))}, weight=1)
    trainer: Any = SimpleNamespace(current_epoch=3, max_epochs=9, is_global_zero=True, callback_metrics={})
    stop = StopOnDivergence("autoencoder")
    for step in range(StopOnDivergence.EVERY - 1):
        stop.on_train_batch_end(trainer, module, None, None, step)
    with pytest.raises(FakeganError, match=r"train/adversarial is not a number in epoch 4; lower model\.optimizer\.lr"):
        stop.on_train_batch_end(trainer, module, None, None, StopOnDivergence.EVERY - 1)
    grid = ReconstructionGrid(Path("nowhere"), every=1, faces=1)
    grid.shown = torch.zeros(1, 3, 64, 64)
    nothing: Any = lambda faces: torch.full_like(faces, float("nan"))  # noqa: E731
    with pytest.raises(FakeganError, match=r"reconstructions of epoch 4 are no pictures .*; lower the"):
        grid.on_validation_end(trainer, nothing)


def test_the_grid_shows_face_reconstruction_and_residual_in_the_right_range() -> None:
    real = torch.full((2, 3, 64, 64), -1.0)
    recon = torch.full((2, 3, 64, 64), 1.0)
    picture = reconstruction_grid(real, recon)
    assert picture.shape == (3 * 66 + 2, 2 * 66 + 2, 3)
    middle = [picture[33 + 66 * row, 33 + 66] for row in range(3)]
    assert [m.tolist() for m in middle] == [[0] * 3, [255] * 3, [255] * 3]
    assert picture[33 + 132, 33].tolist() == reconstruction_grid(real, real)[0, 0].tolist()  # full difference is white
    assert reconstruction_grid(real, real)[33 + 132, 33].tolist() == [0, 0, 0]
    slightly_off = reconstruction_grid(real, real + 0.1)[33 + 132, 33]  # 0.1 of 2, four times: a fifth of 255
    assert slightly_off.tolist() == [51, 51, 51]


def test_a_run_goes_on_only_with_the_faces_it_began_with(finished: RunSettings, store: FaceStore) -> None:
    (finished.paths.run_dir / "metrics.json").unlink()
    (finished.paths.run_dir / "faces.sha256").write_text("another store\n")
    with pytest.raises(FakeganError, match="has changed since this run began"):
        stages.run(finished)


def test_a_stopped_run_that_was_moved_keeps_its_best_checkpoint(compose_settings: Compose) -> None:
    """Metrics are rigged: the first epoch is the best by far, so going on elsewhere must not replace it."""
    settings = compose_settings("pipeline=classify", "budget.classifier.max_epochs=4")

    class Killed(Exception):
        pass

    class Rigged(Classifier):
        killed_at: int | None = 2

        def log_dict(self, dictionary: Any, *args: Any, **options: Any) -> None:
            if self.current_epoch == Rigged.killed_at:
                raise Killed
            rigged = {"val/auroc": torch.tensor(0.99 if self.current_epoch == 0 else 0.1)}
            super().log_dict({k: rigged.get(k, v) for k, v in dictionary.items()}, *args, **options)

    moved = _elsewhere(settings, "moved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fakegan.training.classifier.Classifier", Rigged)
        with pytest.raises(Killed):
            stages.run(settings)
        settings.paths.run_dir.rename(moved.paths.run_dir)
        Rigged.killed_at = None
        stages.run(moved)
    checkpoints = moved.paths.run_dir / "classifier" / "checkpoints"
    assert load_checkpoint(checkpoints / "best.ckpt")["epoch"] == 0
    assert load_checkpoint(checkpoints / "last.ckpt")["epoch"] == 3


def test_of_equal_epochs_the_latest_is_tested(compose_settings: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adversarial classifier that solves its own task in the first epoch has learnt little else by then."""
    real_log = Classifier.log_dict

    def solved(module: Any, dictionary: Any, *args: Any, **options: Any) -> None:
        perfect = {"val/auroc": torch.tensor(1.0)}
        real_log(module, {k: perfect.get(k, v) for k, v in dictionary.items()}, *args, **options)

    monkeypatch.setattr(Classifier, "log_dict", solved)
    settings = compose_settings("pipeline=classify", "budget.classifier.max_epochs=3")
    stages.run(settings)
    checkpoints = settings.paths.run_dir / "classifier" / "checkpoints"
    assert load_checkpoint(checkpoints / "best.ckpt")["epoch"] == 2


def test_a_stopped_autoencoder_goes_on_where_it_stood(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two optimizers, two schedules and the pool come back: the weights end the same."""
    options = ("pipeline=autoencoder", "budget.autoencoder.max_epochs=3")
    whole = _elsewhere(compose_settings(*options, f"paths.artifact_dir={_tmp(compose_settings)}/other"), "whole")
    stages.run(whole)
    stopped = compose_settings(*options)

    class Killed(Exception):
        pass

    module = AdversarialAutoencoder
    real_end = module.on_train_epoch_end

    def killed_in_the_third_epoch(self: Any) -> None:
        if self.current_epoch == 2:
            raise Killed
        real_end(self)

    with monkeypatch.context() as patch:
        patch.setattr(module, "on_train_epoch_end", killed_in_the_third_epoch)
        with pytest.raises(Killed):
            stages.run(stopped)
    stages.run(stopped)
    ours, theirs = (load_checkpoint(s.paths.run_dir / "autoencoder" / "autoencoder.pt") for s in (stopped, whole))
    assert ours["metrics"] == theirs["metrics"]
    for name, weight in theirs["weights"].items():
        assert torch.equal(weight, ours["weights"][name]), name


def _tmp(compose_settings: Compose) -> Path:
    return compose_settings().paths.run_dir.parent


def test_a_fit_that_ran_out_of_patience_does_not_go_on_when_resumed(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last epoch and before it said so: another epoch could be the best."""
    words = (
        "pipeline=classify",
        "budget.classifier.max_epochs=30",
        "callbacks.early_stopping.patience=2",
        "classifier.optimizer.lr=0",
    )
    settings = compose_settings(*words)
    stages.run(settings)
    stage = settings.paths.run_dir / "classifier"
    stood = load_checkpoint(stage / "checkpoints" / "last.ckpt")["global_step"]
    (stage / "finished").unlink()
    (settings.paths.run_dir / "detector.pt").unlink()
    (settings.paths.run_dir / "metrics.json").unlink()
    epochs: list[int] = []
    monkeypatch.setattr(Classifier, "on_train_epoch_start", lambda self: epochs.append(1))
    stages.run(settings)
    assert not epochs
    assert load_checkpoint(stage / "checkpoints" / "last.ckpt")["global_step"] == stood


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_shipped_experiment_runs(compose_settings: Compose, experiment: str) -> None:
    stages.run(compose_settings(f"+experiment={experiment}"))


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
    assert 0 <= stages.run(settings).objective <= 1


@pytest.mark.parametrize("view", ["residual", "stack"])
def test_views_of_more_than_the_reconstruction_train_and_are_tested(compose_settings: Compose, view: str) -> None:
    settings = compose_settings(f"pipeline={view}_classify", "budget.classifier.max_epochs=3")
    assert stages.run(settings).objective > 0.9  # the checkerboard does not survive the autoencoder


def test_every_link_of_readme_leads_somewhere() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text())]
    assert len(links) > 5
    for page, link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), (page, link)


def test_a_name_that_is_no_utf8_is_written_as_it_was_read(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    names, one = np.array([name]), np.array([1])
    write_scores(tmp_path / "scores.csv", FaceScores(names, np.array(["a"]), one, names, one * 0.75, one == 1))
    assert b"caf\xe9.jpg,a,1,0.75,fake" in (tmp_path / "scores.csv").read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_whole_run_on_a_gpu_in_bf16(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=recon_classify", "trainer=gpu")
    assert 0 <= stages.run(settings).objective <= 1


def test_swapped_labels_give_one_minus_every_score_and_are_refused_by_a_trained_run(
    compose_settings: Compose, store: FaceStore, tmp_path: Path
) -> None:
    """The same pictures with real and fake swapped: nothing in training may favour a class."""
    swapped = tmp_path / "swapped"
    with StoreWriter(swapped, Geometry()) as writer:
        for i, pixels in enumerate(store.images):
            face = face_from_pixels(np.asarray(pixels))
            label = 1 - int(store.labels[i])
            writer.append(
                face.pixels, Row.of(face, file=str(store.files[i]), label=label, source=str(store.sources[i]))
            )
    words = ("pipeline=classify", "data.split.autoencoder_share=0")
    as_is = compose_settings(*words)
    other = _elsewhere(compose_settings(*words, f"data.root={swapped}"), "swapped_run")
    scores = []
    for settings in (as_is, other):
        stages.run(settings)
        scores.append(np.array([float(row["score"]) for row in csv_rows(settings.paths.run_dir / "scores.csv")]))
    assert scores[0].std() > 0.01
    np.testing.assert_allclose(scores[1], 1 - scores[0], atol=5e-3)  # rounding differs, and Adam enlarges it
    with pytest.raises(FakeganError, match="real and fake are swapped"):
        _evaluate(as_is, data=other.data)
    tested = tmp_path / "tested"  # the same for a store of the run's test faces alone, which training never saw
    with StoreWriter(tested, Geometry()) as writer:
        for i in faces_of(as_is).splits.test:
            face = face_from_pixels(np.asarray(store.images[i]))
            label = 1 - int(store.labels[i])
            writer.append(face.pixels, Row.of(face, file=str(store.files[i]), label=label, source=str(label)))
    with pytest.raises(FakeganError, match=r"45 faces .* real and fake are swapped"):
        _evaluate(as_is, data=replace(as_is.data, root=tested))


@pytest.mark.parametrize("classifier", ["simple_cnn", "dcgan"])
def test_experiment_2_is_tested_on_generated_fakes_and_on_its_own_task(
    compose_settings: Compose, classifier: str
) -> None:
    settings = compose_settings("pipeline=recon_fakes", f"classifier={classifier}")
    stages.run(settings)
    run_dir, faces = settings.paths.run_dir, faces_of(settings)
    metrics = _json(run_dir / "metrics.json")
    test_files = faces.store.files[faces.splits.test]
    assert [row["file"] for row in csv_rows(run_dir / "scores.csv")] == test_files.tolist()
    assert set(metrics["test"]["by_source"]) == {"camera", "gan_a", "gan_b"}
    assert set(metrics["test_reconstructed"]["by_source"]) == {"camera", "reconstructed"}
    real = int((faces.store.labels[faces.splits.test] == 0).sum())
    assert metrics["test_reconstructed"]["n_real"] == metrics["test_reconstructed"]["n_fake"] == real
    own = csv_rows(run_dir / "test_reconstructed" / "scores.csv")
    assert {row["file"] for row in own[:real]} == {row["file"] for row in csv_rows(run_dir / "scores.csv")[:real]}
    detector = Detector.load(run_dir)
    fakes = faces.store.labels == 1
    assert not detector.knows(faces.store.sha256[fakes]).any()  # no stage saw a generated fake
    assert (run_dir / "generator.pt").is_file() == (classifier == "dcgan")


def test_the_error_alone_is_a_score_learnt_from_real_faces(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=recon_error")
    stages.run(settings)
    run_dir = settings.paths.run_dir
    assert not (run_dir / "classifier").exists()
    faces = faces_of(settings)
    spec = load_checkpoint(run_dir / "detector.pt")["classifier"]
    detector = Detector.load(run_dir)
    real = faces.splits.train[faces.store.labels[faces.splits.train] == 0]
    assert detector.autoencoder is not None
    recon = reconstruct(detector.autoencoder, torch.from_numpy(faces.store.images[real]))
    difference = to_unit(recon) - to_unit(torch.from_numpy(faces.store.images[real]))
    log_errors = ERROR_NORMS[spec["net"]["norm"]](difference).log()
    assert float(spec["weights"]["mean"]) == pytest.approx(float(log_errors.mean()), abs=1e-4)
    assert float(spec["weights"]["std"]) == pytest.approx(float(log_errors.std(unbiased=False)), rel=1e-3)
    val = detector.margins(faces.store.images, faces.splits.val)
    fake = faces.store.labels[faces.splits.val] == 1
    assert np.median(val[~fake]) == pytest.approx(-np.median(val[fake]), abs=1.0)  # half way: scores centre on 0.5


def test_threshold_temperature_and_band_come_from_validation(finished: RunSettings) -> None:
    faces, metrics = faces_of(finished), _json(finished.paths.run_dir / "metrics.json")
    detector = Detector.load(finished.paths.run_dir)
    val = faces.splits.val
    margins, labels = detector.margins(faces.store.images, val), faces.store.labels[val]
    assert metrics["temperature"] == pytest.approx(fit_temperature(margins, labels), rel=1e-3)
    scores = probability(margins, metrics["temperature"])
    assert metrics["threshold"] == pytest.approx(choose_threshold(scores, labels), abs=1e-4)
    assert metrics["band"][0] <= metrics["threshold"] <= metrics["band"][1]


def test_every_measure_has_an_interval_around_it(finished: RunSettings) -> None:
    metrics = _json(finished.paths.run_dir / "metrics.json")

    def check(content: Any) -> int:
        if not isinstance(content, dict):
            return 0
        if set(content) == {"value", "low", "high"}:
            assert content["low"] <= content["value"] <= content["high"]
            return 1
        return sum(check(inner) for inner in content.values())

    assert check(metrics["test"]) >= len(MEASURES) + 3 * 3 + 4
    assert check(metrics["val"]) >= len(MEASURES)


def test_the_ledger_counts_each_time_that_test_faces_are_scored(finished: RunSettings) -> None:
    run_dir = finished.paths.run_dir
    assert len(read_ledger(run_dir)) == 1
    _evaluate(finished)
    entries = read_ledger(run_dir)
    assert len(entries) == 2
    assert {entry.faces for entry in entries} == {str(len(faces_of(finished).splits.test))}


def test_test_faces_in_another_store_are_in_the_ledger(finished: RunSettings, tmp_path: Path) -> None:
    faces = faces_of(finished)
    with StoreWriter(tmp_path / "some", Geometry()) as writer:
        for i in faces.splits.test:
            face = face_from_pixels(np.asarray(faces.store.images[i]))
            writer.append(face.pixels, Row.of(face, file=str(i), label=int(faces.store.labels[i]), source=str(i % 2)))
        new = face_from_pixels(np.full((64, 64, 3), 7, dtype=np.uint8))
        writer.append(new.pixels, Row.of(new, file="new", label=0, source="new"))
    _evaluate(finished, data=replace(finished.data, root=tmp_path / "some"))
    assert [entry.faces for entry in read_ledger(finished.paths.run_dir)] == [str(len(faces.splits.test))] * 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("pipeline=classify",), "cpu, 1 thread, 32-true, channels last"),
        (("pipeline=classify", "classifier=alexnet"), "cpu, 1 thread, 32-true, channels last"),
        (("pipeline=classify", "trainer.precision=bf16-mixed"), "cpu, 1 thread, bf16-mixed"),
        (
            ("pipeline=recon_classify", "budget.width=16", "classifier=alexnet"),
            "cpu, 1 thread, 32-true, channels last, folded upsampling, Winograd convolutions, "
            "InstanceNorm without copies",
        ),
        (
            ("pipeline=recon_classify", "budget.width=15", "classifier=alexnet"),
            "cpu, 1 thread, 32-true, channels last, folded upsampling, InstanceNorm without copies",
        ),
        (
            ("pipeline=recon_error", "budget.width=16", "model.checkpoint=another/run"),
            "cpu, 1 thread, 32-true, channels last, folded upsampling",
        ),
    ],
)
def test_a_run_says_at_its_start_what_it_computes_on_and_how(
    words: tuple[str, ...], told: str, compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names are held to what is taken in tests/test_layers.py."""
    settings = compose_settings(*words)
    settings = replace(settings, data=replace(settings.data, root=Path("nowhere")))
    with pytest.raises(FakeganError):
        stages.run(settings)
    assert capsys.readouterr().out == f"device: {told}\n"


def test_a_wrong_option_of_the_classifier_costs_no_training(compose_settings: Compose) -> None:
    settings = compose_settings("classifier=dcgan", "classifier.generator.latent=0")
    with pytest.raises(UsageError, match="latent=0"):
        stages.run(settings)
    assert not (settings.paths.run_dir / "autoencoder").exists()


def test_a_store_of_one_new_generator_is_tested_beside_the_runs_own_real_faces(
    finished: RunSettings, tmp_path: Path
) -> None:
    path = tmp_path / "new"
    with StoreWriter(path, Geometry()) as writer:
        for i, pixels in enumerate(smooth_faces(9, np.random.default_rng(5), 12.0)):
            face = face_from_pixels(pixels)
            writer.append(pixels, Row.of(face, file=f"gan_new/{i}", label=1, source="gan_new"))
    printed = _evaluate(finished, data=replace(finished.data, root=path))
    faces = faces_of(finished)
    real = int((faces.store.labels[faces.splits.test] == 0).sum())
    assert f"the run's own {real} real test faces stand in" in " ".join(printed.split())
    result = _json(finished.paths.run_dir / "evaluations" / "new" / "metrics.json")["test"]
    assert (result["n_real"], result["n_fake"]) == (real, 9)
    assert len(read_ledger(finished.paths.run_dir)) == 2


def test_runs_are_compared_side_by_side_on_the_same_faces(
    finished: RunSettings, compose_settings: Compose, tmp_path: Path
) -> None:
    direct = _elsewhere(compose_settings("pipeline=classify"), "direct")
    stages.run(direct)
    settings = EvaluateSettings(None, (), tmp_path / "report", (), "cpu", finished.paths.data_dir)
    printed = compare(settings, [finished, direct])
    assert "recon_classify" in printed
    assert (tmp_path / "report" / "report.html").is_file()
    assert len(read_ledger(direct.paths.run_dir)) == 1  # nothing was scored again
    elsewhere = _elsewhere(compose_settings("pipeline=classify", "data.split.seed=3"), "elsewhere")
    stages.run(elsewhere)
    with pytest.raises(FakeganError, match="were scored on different faces"):
        compare(replace(settings, out=tmp_path / "other"), [direct, elsewhere])
    with pytest.raises(UsageError, match="report is there already"):
        compare(settings, [finished, direct])
