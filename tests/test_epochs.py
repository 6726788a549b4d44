"""What people see of a fit: the numbers that its logger gets, few lines, and a bar that asks the device seldom."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from fakegan.data.store import FaceStore
from fakegan.runs.status import read_status
from fakegan.training import fitting, parts
from fakegan.training import progress as epochs
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.callbacks import Best, Patience
from fakegan.training.fitting import say_end
from fakegan.training.modules import EpochMeans
from fakegan.training.progress import EpochLines, EpochStatus, StageBar, shown
from fakegan.training.trainer import AtomicCheckpointIO
from tests.conftest import Compose
from tests.helpers import autoencoder, faces_of_five_steps, fit


def fit_five_steps(
    module: pl.LightningModule, store: FaceStore, epochs: int, *callbacks: pl.Callback, **options: Any
) -> pl.Trainer:
    wanted = {"enable_checkpointing": Best, "enable_progress_bar": StageBar}
    options |= {key: any(isinstance(c, kind) for c in callbacks) for key, kind in wanted.items()}
    return fit(
        module, faces_of_five_steps(store), epochs, callbacks=list(callbacks), plugins=[AtomicCheckpointIO()], **options
    )


def test_few_metrics_are_shown_and_the_main_ones() -> None:
    metrics = {"train/l1": torch.tensor(0.0812), "train/disc_real": 1, "train/discriminator": 0.25, "val/psnr": 24.893}
    assert shown(metrics, "train") == "L1 0.081 D 0.250"
    assert shown(metrics, "val") == "PSNR 24.89 dB"
    assert shown({"val/accuracy": 1}, "val") == ""


def test_a_line_has_the_numbers_of_its_own_epoch(
    store: FaceStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = EpochStatus(tmp_path, "autoencoder")
    trainer = fit_five_steps(autoencoder(), store, 3, EpochLines("autoencoder"), status)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == [f"autoencoder epoch {n}/3" for n in (1, 2, 3)]
    assert [shown(trainer.callback_metrics, split) in lines[-1] for split in ("train", "val")] == [True, True]
    assert re.search(r"  train L1 0\.\d{3} D \d\.\d{3}  val PSNR \d+\.\d\d dB  00:00 left$", lines[-1])
    assert all(len(line) < 80 for line in lines)
    assert str(read_status(tmp_path)).startswith("autoencoder epoch 3/3, PSNR ")


def test_a_long_fit_has_about_twenty_lines(store: FaceStore, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"limit_train_batches": 1, "limit_val_batches": 1}
    fit_five_steps(autoencoder(width=2), store, 45, EpochLines("autoencoder"), **one)
    told = [int(n) for n in re.findall(r"epoch (\d+)/45", capsys.readouterr().out)]
    assert told == [1, *range(3, 46, 3)]


@pytest.mark.parametrize(("redraw", "asked"), [(0.0, 3 * (1 + 5 + 1)), (1e9, 3 * (1 + 1))])
def test_the_bar_tells_all_and_asks_for_losses_only_where_it_is_drawn(
    store: FaceStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], redraw: float, asked: int
) -> None:
    calls, here = [], EpochMeans.here
    monkeypatch.setattr(epochs, "_REDRAW", redraw)
    monkeypatch.setattr(EpochMeans, "here", lambda self: calls.append(1) or here(self))
    module = autoencoder()
    fit_five_steps(module, store, 3, StageBar("autoencoder"), EpochLines("autoencoder"))
    assert len(calls) == asked
    drawn = re.split(r"[\r\n]", capsys.readouterr().out)
    bars = [line for line in drawn if "%|" in line]
    assert re.search(r"^autoencoder epoch 3/3 100%\|.*\| 00:00 left, L1 0\.\d{3} val PSNR \d+\.\d\d dB", bars[-1])
    assert max(map(len, bars)) <= 80


def test_an_early_stop_says_why_and_what_is_kept(
    store: FaceStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Worsens(AdversarialAutoencoder):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"val/auroc": [0.5, 0.75, 0.7, 0.6, 0.6][self.current_epoch]})

    best = Best(tmp_path / "classifier", "val/auroc", "max")
    callbacks = [best, EpochLines("classifier"), Patience("val/auroc", "max", 2)]
    trainer = fit_five_steps(autoencoder(2, Worsens), store, 5, *callbacks)
    say_end(tmp_path / "classifier", trainer)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith("classifier epoch 4/5")
    assert lines[-2:] == [
        "classifier: early stop after epoch 4/5: 2 epochs without a better val AUROC",
        "classifier: kept epoch 2/5, val AUROC 0.750",
    ]


@pytest.mark.parametrize(
    ("terminal", "quiet", "word", "drawn"),
    [
        (True, False, "", True),
        (False, False, "", False),
        (True, True, "", False),  # -q
        (False, True, "trainer.enable_progress_bar=true", True),
        (True, False, "trainer.enable_progress_bar=false", False),
    ],
)
def test_a_bar_is_drawn_on_a_terminal_without_q_or_where_the_config_asks_for_it(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, terminal: bool, quiet: bool, word: str, drawn: bool
) -> None:
    settings = compose_settings("pipeline=classify", *filter(None, [word]))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(fitting, "quiet", lambda: quiet)
    folder, budget = settings.paths.run_dir / "classifier", settings.classifier_budget
    trainer, _ = fitting.trainer_for(parts.classifier(settings), None, folder, settings, budget, stops_early=True)
    assert (trainer.progress_bar_callback is not None) == drawn
