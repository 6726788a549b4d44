"""Signals during a fit, in this process: noted, saved; test_resume.py sends them to whole runs."""

import signal
from pathlib import Path

import pytest

from fakegan.data.store import FaceStore
from fakegan.training import stopping
from fakegan.training.stopping import SaveAndStop, Stopped
from fakegan.training.trainer import AtomicCheckpointIO
from tests.helpers import autoencoder, faces_of_five_steps, fit, steps_done
from tests.odd_parts import StopsOnce


@pytest.mark.parametrize(
    ("epoch", "step", "minutes", "saved"),
    [
        (1, 2, 60, 5 + 3),  # within an epoch it saves after the step
        (0, 4, 60, None),  # at the epoch's last step `Last` writes the checkpoint
        (0, 4, 0, 4),  # it is time after each step; the last is left to `Last`
    ],
)
def test_it_saves_when_a_signal_or_the_time_says_so(
    store: FaceStore, tmp_path: Path, epoch: int, step: int, minutes: float, saved: int | None
) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    callbacks = [StopsOnce(epoch, step), SaveAndStop(tmp_path, minutes)]
    StopsOnce.armed = True
    with pytest.raises(Stopped) as stopped:
        fit(autoencoder(), faces_of_five_steps(store), epochs=3, callbacks=callbacks, plugins=[AtomicCheckpointIO()])
    assert stopped.value.number == signal.SIGTERM
    assert last.exists() == (saved is not None)
    assert saved is None or steps_done(last) == saved


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
