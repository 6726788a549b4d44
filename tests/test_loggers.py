"""What each logger is given: scalars, hyperparameters, pictures; one run at W&B and MLflow for a run of ours."""

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fakegan.config.overrides import from_hydra, hydra_argv
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.system import ranks
from fakegan.training import loggers as writers
from fakegan.training.loggers import hyperparameters, log_picture, loggers
from tests.conftest import Compose
from tests.helpers import stages_with

PICTURES = {
    *("autoencoder/reconstructions", "classifier/samples"),
    *("analysis/examples", "analysis/error_distributions", "analysis/spectra"),
    *("test/roc", "test/confusion", "test/score_histogram", "test/reliability"),
}
CURVES = {"autoencoder/train/l1", "autoencoder/val/psnr", "classifier/train/loss", "classifier/val/auroc"}
FINALS = {"test/auroc", "test/eer", "objective"}
DCGAN = ("pipeline=recon_classify", "classifier=dcgan", "classifier.optimizer.lr=0.0003")


class Recording(Logger):
    """A logger of somebody's own: what it is given, by name of the logger's stage."""

    given: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    name, version = "recording", "0"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.given += [(self.stage, key) for key in metrics]

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.given += [(self.stage, f"{key}={value}") for key, value in params.items()]

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        assert [picture.dtype for picture in images] == [np.uint8]
        self.given += [(self.stage, key)]


def test_hyperparameters_are_plain_without_paths_and_of_what_the_run_uses(compose_settings: Compose) -> None:
    words = ("classifier.net.dropout=0.4", "data.split.autoencoder_share=0.3", "budget.classifier.max_epochs=2")
    chosen = hyperparameters(compose_settings("pipeline=classify", "logger=mlflow", "seed=7", *words))
    assert chosen.items() >= {"seed": 7, "classifier.optimizer.lr": 0.001, "pipeline.view": "pixels"}.items()
    for word in words:
        key, _, value = word.partition("=")
        assert chosen[key] == float(value)
    groups = {"seed", "data", "classifier", "augment", "pipeline", "detector", "budget", "trainer", "callbacks"}
    assert {key.partition(".")[0] for key in chosen} == groups
    assert {type(value) for value in chosen.values()} <= {bool, int, float, str}
    assert not [value for value in chosen.values() if str(value).startswith(("/", "~"))]


def test_several_loggers_one_less_and_none(compose_settings: Compose, tmp_path: Path) -> None:
    def kinds(*overrides: str) -> list[str]:
        return [type(logger).__name__ for logger in loggers(compose_settings(*overrides), tmp_path / "stage")]

    assert kinds() == ["TensorBoardLogger"]
    assert kinds("logger=[csv,tensorboard]") == ["CSVLogger", "TensorBoardLogger"]
    assert kinds("logger=[csv,tensorboard]", "logger.csv=null") == ["TensorBoardLogger"]
    assert kinds("logger=null") == []
    assert [from_hydra(word) for word in hydra_argv(["logger=null"])] == ["logger=null"]
    assert kinds("logger.mine._target_=tests.test_loggers.Recording")[1] == "Recording"


@pytest.mark.parametrize("words", [("logger=null",), ("logger.tensorboard=null",)])
def test_a_run_without_a_logger(
    compose_settings: Compose, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose_settings("pipeline=classify", *words)
    stages.run(settings)
    assert "tensorboard" not in capsys.readouterr().out
    assert not list(settings.paths.run_dir.rglob("events*"))


def test_other_processes_than_the_first_write_nothing(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "is_rank_zero", lambda: False)
    found = loggers(compose_settings("logger=[csv,tensorboard,mlflow]"), tmp_path / "stage")
    assert [type(logger) for logger in found] == [DummyLogger] * 3
    assert not (tmp_path / "mlflow.db").exists()


def test_a_logger_of_ones_own_gets_scalars_hyperparameters_and_pictures(compose_settings: Compose) -> None:
    Recording.given.clear()
    stages.run(compose_settings(*DCGAN, "logger=null", "logger.mine._target_=tests.test_loggers.Recording"))
    given = {f"{stage.strip('.').removesuffix('.building')}/{name}" for stage, name in Recording.given}
    once_more = {f"{name.partition('/')[0]}/{name}" for name in PICTURES if name.startswith(("analysis", "test"))}
    assert {name for name in PICTURES if name.startswith(("auto", "class"))} | once_more <= given
    assert {*CURVES, "test/test/auroc", "test/objective", "test/classifier.optimizer.lr=0.0003"} <= given


NOT_INSTALLED = r"logger\.{0} needs {0}: pip install -e '\.\[{0}\]'"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("logger.csv.prefix=x", r"logger\.csv.*: logger\.csv\._target_=package"),
        ("logger.mine._target_=nowhere.Logger", r"logger\.mine\._target_=nowhere\.Logger cannot be imported"),
        ("logger.mine._target_=fakegan.training.callbacks.Last", r"logger\.mine\._target_=.* makes no Logger"),
        ("logger.tensorboard.log_dir=x", r"tensorboard\.log_dir is not a config key"),
        ("logger.tensorboard.flush_sec=9", r"flush_sec is not a config key: did you mean .*\.flush_secs\?"),
        ("logger=wandb", NOT_INSTALLED.format("wandb")),
        ("logger=mlflow", NOT_INSTALLED.format("mlflow")),
    ],
)
def test_what_is_no_logger_or_not_installed_is_said_before_anything_starts(
    compose_settings: Compose, word: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = writers.importlib.util.find_spec
    missing = {"wandb", "mlflow"}
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda n: None if n in missing else find_spec(n))
    with pytest.raises(UsageError, match=sentence):
        stages.run(compose_settings("pipeline=classify", word), open_faces=lambda *_: pytest.fail("started"))


def test_pictures_go_where_each_kind_of_logger_keeps_them() -> None:
    """MLflow's client is told the stage, which its logger puts before scalars alone."""
    calls: list[Any] = []
    picture = np.zeros((4, 6, 3), np.uint8)

    def noting(*given: Any, **options: Any) -> None:
        calls.append([value for value in (*given, *options.values()) if value is not picture])

    board = SimpleNamespace(experiment=SimpleNamespace(add_image=noting))
    weights = SimpleNamespace(experiment=SimpleNamespace(), log_image=lambda name, pictures, step: noting(name, step))
    client = SimpleNamespace(experiment=SimpleNamespace(log_image=noting), version="id", _prefix="stage")
    for logger in (board, weights, client, SimpleNamespace(experiment=SimpleNamespace()), SimpleNamespace()):
        log_picture(logger, "name", picture, 3)  # type: ignore[arg-type]
    assert calls == [["name", 3, "HWC"], ["name", 3], ["id", "stage/name", 3]]


def test_tensorboards_hparams_hold_every_choice_and_what_came_of_it(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=autoencoder", "model.optimizer.lr=0.002")
    stages.run(settings)
    held = EventAccumulator(str(settings.paths.run_dir)).Reload().PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(held["_hparams_/session_start_info"]).session_start_info.hparams
    metrics = json.loads((settings.paths.run_dir / "metrics.json").read_text())
    assert start["model.optimizer.lr"].number_value == 0.002
    assert start["validation/psnr"].number_value == metrics["autoencoder"]["psnr"]
    assert "_hparams_/experiment" not in held  # the columns of one run would hide what others differ in
    of_stages = ("validation", "autoencoder")
    points, curves = (
        EventAccumulator(str(settings.paths.run_dir / stage)).Reload().Tags()["scalars"] for stage in of_stages
    )
    assert not points  # a result as a curve would be a chart of one dot
    assert sorted(curves)[:2] == ["Losses/train/adversarial", "Losses/train/discriminator"]
    assert "epoch" not in curves


@pytest.mark.slow
def test_mlflow_has_one_run_in_a_file_and_goes_on_with_it(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = compose_settings(*DCGAN, "logger=mlflow")
    run_dir = settings.paths.run_dir
    _stopped_after_the_autoencoder(settings)
    database = sqlite3.connect(run_dir.parent / "mlflow.db")
    assert database.execute("select name, status from runs").fetchall() == [(run_dir.name, "FAILED")]
    stages.run(settings)
    [(run_id, name, status)] = database.execute("select run_uuid, name, status from runs").fetchall()
    assert (run_id, name, status) == (_ids(settings)["mlflow"], run_dir.name, "FINISHED")
    assert database.execute("select name from experiments where name != 'Default'").fetchall() == [("fakegan",)]
    params = dict(database.execute("select key, value from params").fetchall())
    assert params == {key: str(value) for key, value in hyperparameters(settings).items()}
    metrics = dict(database.execute("select key, value from latest_metrics").fetchall())
    assert set(metrics) >= CURVES | FINALS
    measured = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test/auroc"] == pytest.approx(measured["test"]["auroc"]["value"])
    kept = {path.name.partition("+")[0] for path in (run_dir.parent / "mlflow" / run_id).rglob("*.png")}
    assert kept == {name.replace("/", "~") for name in PICTURES}
    database.execute("delete from runs")
    database.commit()
    (run_dir / "metrics.json").unlink()
    with pytest.raises(FakeganError, match=r"logger\.mlflow: .*loggers\.json names the run there: remove it"):
        stages.run(settings)


@pytest.mark.slow
def test_wandb_has_one_run_in_its_folder_and_goes_on_with_it(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = compose_settings(*DCGAN, "logger=wandb", "logger.wandb.project=mine", "logger.wandb.group=night")
    run_dir = settings.paths.run_dir
    _stopped_after_the_autoencoder(settings)
    stages.run(settings)
    wandb.teardown()  # as at a process's end: its own process may still write
    records = [r for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")) for r in _wandb_records(file)]
    begun = [r.run for r in records if r.HasField("run")]
    of = {(r.run_id, r.display_name, r.project, r.run_group) for r in begun}
    assert of == {(_ids(settings)["wandb"], run_dir.name, "mine", "night")}
    ends = [r.exit.exit_code for r in records if r.HasField("exit")]
    assert ends[0] == 1
    assert set(ends[1:]) <= {0}
    config = {u.key: json.loads(u.value_json) for r in records if r.HasField("config") for u in r.config.update}
    assert {key: config[key] for key in hyperparameters(settings)} == hyperparameters(settings)
    history = {i.key or i.nested_key[0]: i.value_json for r in records if r.HasField("history") for i in r.history.item}
    assert set(history) >= CURVES | FINALS | PICTURES | {"test/score_real", "analysis/psnr_fake"}
    measured = json.loads((run_dir / "metrics.json").read_text())
    assert json.loads(history["test/auroc"]) == pytest.approx(measured["test"]["auroc"]["value"])
    kept = run_dir.glob("wandb/offline-run-*/files/media/images/*/*.png")
    assert {f"{path.parent.name}/{path.name.rsplit('_', 2)[0]}" for path in kept} == PICTURES  # NAME_STEP_HASH


def _stopped_after_the_autoencoder(settings: RunSettings) -> None:
    def stopped(*_: object) -> None:
        raise FakeganError("stopped")

    with pytest.raises(FakeganError, match="stopped"):
        stages.run(settings, stages_with(classifier=stopped))


def _ids(settings: RunSettings) -> dict[str, str]:
    ids: dict[str, str] = json.loads((settings.paths.run_dir / "loggers.json").read_text())
    return ids


def _wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log of 32 kB blocks, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # a block's padding
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""
