"""What a run keeps of a training: the best epoch, nothing that diverged, and the same weights after a stop."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.callbacks import Best, Last, ReconstructionGrid, StopOnDivergence, reconstruction_grid
from fakegan.training.classifier import Classifier
from fakegan.training.modules import EpochMeans
from fakegan.training.trainer import AtomicCheckpointIO
from tests.conftest import Compose
from tests.helpers import autoencoder, elsewhere, faces_of_five_steps, fit, same, same_run


class Killed(Exception):
    pass


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the classifier's epochs these validation AUROCs; the epoch after the last of them is killed."""
    real_log = Classifier.log_dict

    def to(*aurocs: float) -> None:
        def log_dict(module: Any, dictionary: Any, *args: Any, **options: Any) -> None:
            if module.current_epoch == len(aurocs):
                raise Killed
            rigged = {"val/auroc": torch.tensor(aurocs[module.current_epoch])}
            real_log(module, {k: rigged.get(k, v) for k, v in dictionary.items()}, *args, **options)

        monkeypatch.setattr(Classifier, "log_dict", log_dict)

    return to


def _epoch(settings: RunSettings, checkpoint: str) -> Any:
    return load_checkpoint(settings.paths.run_dir / "classifier" / "checkpoints" / checkpoint)["epoch"]


def test_a_killed_run_that_was_moved_keeps_its_best_checkpoint(
    compose_settings: Compose, rig: Callable[..., None]
) -> None:
    """The first epoch is the best by far, so going on elsewhere must not replace it."""
    settings = compose_settings("pipeline=classify", "budget.classifier.max_epochs=4")
    rig(0.99, 0.1)
    with pytest.raises(Killed):
        stages.run(settings)
    moved = elsewhere(settings, "moved")
    settings.paths.run_dir.rename(moved.paths.run_dir)
    rig(0.99, 0.1, 0.1, 0.1)
    stages.run(moved)
    assert (_epoch(moved, "best.ckpt"), _epoch(moved, "last.ckpt")) == (0, 3)


def test_of_equal_epochs_the_latest_is_tested(compose_settings: Compose, rig: Callable[..., None]) -> None:
    """An adversarial classifier that solves its own task in the first epoch has learnt little else by then."""
    settings = compose_settings("pipeline=classify", "budget.classifier.max_epochs=3")
    rig(1.0, 1.0, 1.0)
    stages.run(settings)
    assert _epoch(settings, "best.ckpt") == 2


def test_a_killed_autoencoder_goes_on_where_it_stood(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two optimizers, two schedules and the pool come back; tests/test_trainer.py has the classifier."""
    words = ("pipeline=autoencoder", "budget.autoencoder.max_epochs=3")
    whole = elsewhere(compose_settings(*words, f"paths.artifact_dir={tmp_path / 'other'}"), "whole")
    stages.run(whole)
    killed, real_end = compose_settings(*words), AdversarialAutoencoder.on_train_epoch_end

    def killed_in_the_third_epoch(self: Any) -> None:
        if self.current_epoch == 2:
            raise Killed
        real_end(self)

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialAutoencoder, "on_train_epoch_end", killed_in_the_third_epoch)
        with pytest.raises(Killed):
            stages.run(killed)
    stages.run(killed)
    same_run(killed.paths.run_dir, whole.paths.run_dir)


def _begun(settings: RunSettings) -> Path:
    """A run whose classifier stands at its last checkpoint: the file."""
    stages.run(settings)
    for name in ("classifier/finished", "detector.pt", "metrics.json"):
        (settings.paths.run_dir / name).unlink()
    return settings.paths.run_dir / "classifier" / "checkpoints" / "last.ckpt"


def test_a_fit_that_ran_out_of_patience_does_not_go_on_when_resumed(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its last epoch and before it said so: another epoch could be the best."""
    patience = ("budget.classifier.max_epochs=30", "callbacks.early_stopping.patience=2", "classifier.optimizer.lr=0")
    settings = compose_settings("pipeline=classify", *patience)
    last = _begun(settings)
    stood = load_checkpoint(last)["global_step"]
    monkeypatch.setattr(Classifier, "on_train_epoch_start", lambda self: pytest.fail("another epoch"))
    stages.run(settings)
    assert load_checkpoint(last)["global_step"] == stood


def test_a_checkpoint_of_another_network_is_refused_in_a_sentence(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=classify")
    last = _begun(settings)
    content = load_checkpoint(last)
    weights = content["state_dict"] | {"net.features.0.weight": torch.zeros(2, 2)}
    without = {key: value for key, value in content.items() if key != "pytorch-lightning_version"}
    for damaged in (without, content | {"state_dict": weights}):
        save_checkpoint(damaged, last)
        with pytest.raises(FakeganError, match="is of another network"):
            stages.run(settings)


def test_a_folder_that_cannot_take_checkpoints_is_refused_before_training(
    compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose_settings("pipeline=classify")
    (settings.paths.run_dir / "classifier").mkdir(parents=True)
    (settings.paths.run_dir / "classifier" / "checkpoints").touch()  # a file: root may write into any folder
    with pytest.raises(FakeganError, match=r"checkpoints cannot be written \(File exists\)"):
        stages.run(settings)
    assert "epoch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("pipeline=classify classifier.optimizer.lr=1e30 classifier.optimizer._target_=torch.optim.SGD", "classifier"),
        ("pipeline=autoencoder model.optimizer.lr=1e30", "model"),
        ("pipeline=classify classifier=dcgan classifier.optimizer.lr=1e30", "classifier"),
    ],
)
def test_training_that_diverges_says_where_and_which_key_to_lower(
    words: str, at: str, compose_settings: Compose
) -> None:
    settings = compose_settings(*words.split())
    with pytest.raises(FakeganError, match=rf"diverged: .* in epoch 1; lower {at}\.optimizer\.lr"):
        stages.run(settings)
    assert not list(settings.paths.run_dir.rglob("*.ckpt"))  # nothing that is no number was saved


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
    real = torch.full((3, 3, 64, 64), -1.0)
    off_by = torch.tensor([0.0, 2.0, 0.1])[:, None, None, None]  # nothing, all of the range, a twentieth
    picture = reconstruction_grid(real, real + off_by)
    assert picture.shape == (3 * 66 + 2, 96 + 3 * 66 + 2, 3)
    names = picture[:, 2:96]
    assert [bool((names[66 * i + 20 : 66 * i + 50] < 128).any()) for i in range(3)] == [True] * 3
    assert (names[:, -2:] == 255).all()  # the longest fits
    middles = picture[33::66, 96 + 33 :: 66]
    assert (middles == middles[..., :1]).all()
    assert middles[..., 0].tolist() == [[0, 0, 0], [0, 255, 13], [0, 255, 51]]  # the residual four times: a fifth


@pytest.mark.parametrize(
    ("within", "epochs", "links", "written"),
    [(1.0, 1, False, 1), (1.0, 3, True, 3), (0.4, 1, True, 3)],
)
def test_an_epoch_is_written_once_also_where_it_is_the_best(
    store: FaceStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    within: float,
    epochs: int,
    links: bool,
    written: int,
) -> None:
    """The epochs are good, worse, best. Where the best was found within an epoch, its end is another content."""

    class Rigged(AdversarialAutoencoder):
        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            self.log("val/auroc", [0.5, 0.25, 0.75][self.current_epoch] + self.global_step / 1e3)

    def trained() -> dict[str, Any]:
        best = Best(tmp_path, "val/auroc", "max")
        options = {"plugins": [AtomicCheckpointIO()], "enable_checkpointing": True, "val_check_interval": within}
        torch.manual_seed(0)
        net, callbacks = autoencoder(2, Rigged), [best, Last(tmp_path, best)]
        fit(net, faces_of_five_steps(store), epochs, callbacks=callbacks, **options)
        return {path.name: load_checkpoint(path) for path in (tmp_path / "checkpoints").iterdir()}

    def refused(*paths: Path) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    saved, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda *given: saved.append(save(*given)))
    found = trained()
    assert len(saved) == written
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    is_best = within == 1
    assert (best.read_bytes() == last.read_bytes()) == is_best
    assert os.path.samefile(best, last) == (is_best and links)
    monkeypatch.setattr(Best, "written_at_end_of_epoch", lambda best, trainer: None)  # each writes its own
    same(found, trained())
