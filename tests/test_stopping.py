"""Signals during a fit, in this process: noted, saved, followed."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

from fakegan.data.store import FaceStore
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.training import stopping
from fakegan.training.datamodules import RealFacesDataModule
from fakegan.training.stopping import SaveAndStop, Stopped
from fakegan.training.trainer import AtomicCheckpointIO
from tests.helpers import autoencoder, fit


class Sends(pl.Callback):
    """A signal at the end of one step."""

    def __init__(self, stop: SaveAndStop, epoch: int, step: int) -> None:
        self.stop, self.epoch, self.step = stop, epoch, step

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.step):
            self.stop.note(signal.SIGTERM, None)


def _stopped(store: FaceStore, folder: Path, epoch: int, step: int, minutes: float = 60) -> SaveAndStop:
    rows = np.flatnonzero(store.labels == 0)
    data = RealFacesDataModule(store.images, store.labels, rows[:40], rows[40:50], 8, seed=1, workers=0)  # 5 steps
    stop = SaveAndStop(folder, minutes)
    with pytest.raises(Stopped) as stopped:
        fit(
            autoencoder(),
            data,
            epochs=3,
            callbacks=[Sends(stop, epoch, step), stop],
            plugins=[AtomicCheckpointIO()],
        )
    assert stopped.value.number == signal.SIGTERM
    return stop


def _stands(path: Path) -> int:
    return int(load_checkpoint(path)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


def test_a_signal_within_an_epoch_saves_after_the_step(store: FaceStore, tmp_path: Path) -> None:
    _stopped(store, tmp_path, epoch=1, step=2)
    assert _stands(tmp_path / "checkpoints" / "last.ckpt") == 5 + 3


def test_a_signal_at_an_epochs_last_step_leaves_saving_to_the_epochs_end(store: FaceStore, tmp_path: Path) -> None:
    _stopped(store, tmp_path, epoch=0, step=4)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()  # `Last` writes it


def test_it_saves_every_so_many_minutes(store: FaceStore, tmp_path: Path) -> None:
    _stopped(store, tmp_path, epoch=0, step=4, minutes=0)
    assert _stands(tmp_path / "checkpoints" / "last.ckpt") == 4  # after each step but the last


def test_only_a_later_second_ctrl_c_is_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = SaveAndStop(Path("unused"), 60)
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    stop.note(signal.SIGINT, None)
    stop.note(signal.SIGINT, None)  # passed on by another process
    stop.note(signal.SIGTERM, None)
    assert stop.noted == signal.SIGINT
    now[0] += 5
    with pytest.raises(KeyboardInterrupt):
        stop.note(signal.SIGINT, None)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, None)])
def test_what_a_signal_means_after_the_fit(number: signal.Signals, code: int | None) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    try:
        stop = SaveAndStop(Path("unused"), 60)
        stop.follow(0)
        with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as ended:
            stop.follow(number)
        assert code is None or ended.value.code == code
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
