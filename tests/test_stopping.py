"""Signals during a fit, in this process: noted, saved; test_resume.py sends them to whole runs."""

import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakegan.data.store import FaceStore
from fakegan.system import ranks
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


@pytest.mark.parametrize(
    ("step", "theirs", "minutes", "agreed_after"),
    [
        (0.125, 0.0, 60, [1, 9, 17, 25, 33]),  # eight steps are a second
        (0.125, 0.26, 60, [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40]),  # the other takes 0.26 s a step
        (0.0, 0.0, 60, [1, 21]),  # however quick they are
        (3.0, 0.0, 60, list(range(1, 41))),  # a slow step, or one after which it is time to save: each
        (0.125, 0.0, 0, list(range(1, 41))),
    ],
)
def test_several_processes_agree_within_a_second_and_a_signal_is_saved_then(
    monkeypatch: pytest.MonkeyPatch, step: float, theirs: float, minutes: float, agreed_after: list[int]
) -> None:
    """In up to 40 steps of an epoch; the signal comes in the last of them."""
    now, done, agreed, saved = 100.0, 0, list[int](), list[int]()

    def largest(number: int) -> int:  # a signal's number, or a step's microseconds
        agreed.append(done)
        return max(number, round(1e6 * theirs)) if number > 64 else number

    monkeypatch.setattr(stopping.time, "monotonic", lambda: now)
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "largest", largest)
    trainer: Any = SimpleNamespace(should_stop=False, num_training_batches=41, accumulate_grad_batches=1)
    trainer.save_checkpoint = lambda _: saved.append(done)
    stop = SaveAndStop(Path("unused"), minutes)
    stop.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    assert agreed == [0]
    for done in range(1, agreed_after[-1] + 1):
        now += step
        last = done == agreed_after[-1]
        if last:
            stop.note(signal.SIGTERM, None)
        with pytest.raises(Stopped) if last else nullcontext():
            stop.on_train_batch_end(trainer, None, None, None, done - 1)
    assert sorted({*agreed} - {0}) == agreed_after
    assert saved == (agreed_after if minutes == 0 else agreed_after[-1:])
