"""A run's config.yaml names code: a run is read without importing any, and resumed where all of it is trusted."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fakegan import predict, sample
from fakegan.cli import start
from fakegan.data.sheets import png
from fakegan.data.store import FaceStore
from fakegan.errors import UntrustedError, UsageError
from fakegan.runs.compose import errors_as_sentences
from fakegan.runs.config_file import read_run, write_down
from fakegan.runs.settings import RunSettings
from fakegan.system.places import PROJECT
from fakegan.system.processes import resume_command
from fakegan.training import parts
from tests.conftest import Compose
from tests.helpers import compose_run, run_script
from tests.untrusted import NOBODYS, PYTHONS, T, detector, generator, refused


@pytest.fixture
def composed(tmp_path: Path, store_path: Path) -> RunSettings:
    faces = ("data=faces", f"data.root={store_path}")
    return compose_run(*faces, f"paths.run_dir={tmp_path / 'run'}", "trainer=cpu", "logger=csv")


def written(settings: RunSettings, key: str, value: Any) -> Path:
    """A run's config.yaml with another value at a key; its folder."""
    folder = settings.paths.run_dir
    write_down(settings, folder)
    cfg = OmegaConf.create((folder / "config.yaml").read_text())
    OmegaConf.update(cfg, key, value, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    return folder


LIGHTNING = "pytorch_lightning"
OUT = "write elsewhere than in the run's folder"
CONFIGS: list[tuple[str, Any, str]] = [
    ("classifier.net._target_", "os.system", PYTHONS),
    ("classifier._target_", "own_nets.Net", NOBODYS),
    ("classifier._target_", "fakegan.nets.simple_cnn.SimpleCNN", "is no LightningModule"),
    ("classifier._target_", "fakegan.runs.checkpoints.save_checkpoint", "is no LightningModule"),
    ("classifier.net._target_", "torch.optim.SGD", "is no Module"),
    ("classifier.loss", {T: "torch.optim.SGD"}, "is no Module"),
    ("classifier.optimizer._target_", "torch.nn.Linear", "is no Optimizer"),
    ("classifier.optimizer._target_", "torch.optim.optimizer.functools.partial", "is no Optimizer of"),
    ("model.schedule._target_", "fakegan.training.schedules.move", "is no LRScheduler"),
    ("model.schedule._target_", "fakegan.prepare.main", "is no LRScheduler"),
    ("callbacks.mine", {T: "own_nets.Watch"}, NOBODYS),
    ("callbacks.mine", {T: "fakegan.detector.Detector"}, "is no Callback"),
    ("callbacks.mine", {T: f"{LIGHTNING}.Trainer"}, "is no Callback"),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.LambdaCallback", "setup": {T: "os.system"}}, PYTHONS),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "dirpath": "/home/me"}, OUT),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "dirpath": "here"}, OUT),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "filename": "../../../x"}, OUT),
    ("callbacks.mine", {T: f"{LIGHTNING}.callbacks.ModelCheckpoint", "_args_": ["here"]}, OUT),
    ("callbacks.save_and_stop.folder", "/home/me", OUT),
    ("logger.csv._target_", "fakegan.nets.simple_cnn.SimpleCNN", "send it somewhere"),
    ("logger.csv.save_dir", "~", OUT),
    ("logger.csv.name", "../../..", OUT),
    ("logger.mlflow", {T: f"{LIGHTNING}.loggers.MLFlowLogger", "tracking_uri": "http://example.org"}, OUT),
    ("logger.wandb", {T: f"{LIGHTNING}.loggers.WandbLogger"}, "send it somewhere"),
    ("logger.comet", {T: f"{LIGHTNING}.loggers.CometLogger", "api_key": "theirs"}, "send it somewhere"),
    ("trainer._target_", "fakegan.sweep.launcher.ProcessLauncher", "is no Trainer"),
    ("trainer.default_root_dir", "/home/me", "is not for a run"),
    ("trainer.profiler", {T: "os.system"}, PYTHONS),
    ("trainer.profiler", {T: f"{LIGHTNING}.profilers.SimpleProfiler", "dirpath": "x"}, OUT),
    ("data.modules.classifier._target_", "fakegan.data.store_writer.StoreWriter", "is no LightningDataModule"),
    ("data.split.seed", {T: "os.system"}, "must be a whole number"),
    ("trust", ["own_nets"], "says itself what is to be trusted"),
]


@pytest.mark.parametrize(("key", "value", "why"), CONFIGS, ids=[f"{key}-{value}"[:60] for key, value, _ in CONFIGS])
def test_a_run_that_goes_on_builds_only_what_belongs_to_each_place(
    composed: RunSettings, imported: Path, key: str, value: Any, why: str
) -> None:
    folder = written(composed, key, value)
    sentence = refused(lambda: start._read_trusted(folder, ()), why)
    assert str(folder / "config.yaml") in sentence
    assert not imported.exists()


@pytest.mark.parametrize("classifier", ["simple_cnn", "alexnet", "dcgan", "resnet18"])
@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_every_shipped_choice_goes_on(compose_settings: Compose, classifier: str, logger: str) -> None:
    settings = compose_settings(f"classifier={classifier}", f"logger={logger}", "pipeline=recon_classify")
    write_down(settings, settings.paths.run_dir)
    again = start._read_trusted(settings.paths.run_dir, ())
    assert again == settings
    assert (again.trusted, again.classifier.name) == ((), classifier)


def test_what_the_user_says_to_trust_goes_on_and_is_passed_on(
    compose_settings: Compose, imported: Path, tmp_path: Path
) -> None:
    words = ("+callbacks.mine._target_=own_nets.Watch", "logger.wandb._target_=pytorch_lightning.loggers.WandbLogger")
    settings = compose_settings("classifier.net._target_=own_nets.Net", *words)
    run_dir = settings.paths.run_dir
    assert settings.trusted == ("own_nets", "pytorch_lightning")
    assert settings.needed_to_score == ("own_nets",)
    write_down(settings, run_dir)
    with pytest.raises(UntrustedError) as caught:
        start._read_trusted(run_dir, ())
    assert caught.value.with_overrides().endswith("if you trust own_nets, add trust=[own_nets]")
    with pytest.raises(UntrustedError) as caught:
        start._read_trusted(run_dir, ("own_nets",))
    advice = "if you trust pytorch_lightning, add trust=[own_nets,pytorch_lightning]"
    assert caught.value.with_overrides().endswith(advice)
    assert not imported.exists()
    again = start._read_trusted(run_dir, settings.trusted)
    assert again.trusted == settings.trusted
    assert resume_command(run_dir, again.trusted)[-1] == "trust=[own_nets,pytorch_lightning]"


def test_reading_a_config_builds_and_imports_nothing(composed: RunSettings, imported: Path, marker: Path) -> None:
    """As evaluate.py and the reports read it."""
    folder = written(composed, "classifier.net", {T: "own_nets.Net", "x": {T: "os.mkdir", "path": str(marker)}})
    settings = read_run(str(folder))
    assert settings.classifier.node["net"][T] == "own_nets.Net"
    assert settings.trusted == ("own_nets",)
    assert settings.configuration()
    assert settings.label()
    assert not imported.exists()


def test_what_a_run_could_not_read_again_is_said_before_it_trains(compose_settings: Compose, imported: Path) -> None:
    settings = compose_settings("classifier.net._target_=own_nets.resnet18")
    assert isinstance(parts.with_channels(settings.classifier.node, 3), dict)
    settings = compose_settings("classifier.net._target_=own_nets.system")
    with pytest.raises(UsageError, match=r"classifier\.net\._target_=own_nets\.system .*: the run could not read it"):
        parts.classifier(settings)


# What the commands say


def test_each_command_says_it_in_its_own_words(
    tmp_path: Path, imported: Path, capsys: pytest.CaptureFixture[str], composed: RunSettings
) -> None:
    detector(tmp_path, {T: "own_nets.Net"})
    (tmp_path / "a.png").write_bytes(b"")
    assert predict.main(["--run", str(tmp_path), str(tmp_path / "a.png")]) == 1
    assert capsys.readouterr().err.endswith("if you trust own_nets, add --trust own_nets\n")
    generator(tmp_path, {T: "own_nets.Net"})
    assert sample.main(["--run", str(tmp_path), "--count", "1", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.endswith("if you trust own_nets, add --trust own_nets\n")
    assert not (tmp_path / "out").exists()
    folder = written(composed, "classifier.net", {T: "own_nets.Net"})
    with contextlib.suppress(SystemExit), errors_as_sentences():
        start._read_trusted(folder, ())
    told = "is code from elsewhere, which a file may not name by itself: if you trust own_nets, add trust=[own_nets]"
    assert capsys.readouterr().err == f"error: {folder / 'config.yaml'}: classifier.net._target_=own_nets.Net {told}\n"
    assert not imported.exists()


def test_the_command_to_go_on_with_trusts_what_the_run_needs(
    compose_settings: Compose, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose_settings("classifier.net._target_=own_nets.Net")
    monkeypatch.setattr(start, "_run", settings)
    assert start.to_resume(settings.paths.run_dir).endswith("'trust=[own_nets]'")
    assert "trust" not in start.to_resume(settings.paths.run_dir / "another")


# A run of the user's own code, from its start to a verdict


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_and_jobs_of_a_run_with_own_code_trust_it(
    tmp_path: Path, store_path: Path, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["classifier.net._target_=own_nets.Net", "+callbacks.mine._target_=own_nets.Watch", "pipeline=classify"]
    faces = ["data=faces", f"data.root={store_path}", "+debug=fast", f"paths.artifact_dir={tmp_path / 'artifacts'}"]

    def train(*words: str) -> subprocess.CompletedProcess[str]:
        modules = os.pathsep.join([str(PROJECT), str(tmp_path / "code")])
        return run_script("train.py", *words, cwd=tmp_path, PYTHONPATH=modules)

    run_dir, sweep = tmp_path / "run", tmp_path / "sweep"
    done = train(*own, *faces, "trainer=ddp_cpu", f"hydra.run.dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert "evaluate.py run=run 'trust=[own_nets]'" in done.stdout
    (run_dir / "metrics.json").unlink()
    refused = train(f"resume={run_dir}")
    assert refused.returncode == 1
    assert refused.stderr.endswith("if you trust own_nets, add trust=[own_nets]\n")
    assert not (run_dir / "metrics.json").exists()
    assert train(f"resume={run_dir}", "trust=[own_nets]").returncode == 0
    assert (run_dir / "metrics.json").is_file()

    jobs = [*own, *faces, "trainer=cpu", f"hydra.sweep.dir={sweep}"]
    assert train("-m", "seed=1", *jobs).returncode == 0
    done = train("-m", "seed=1,2", "resume=true", *jobs)
    assert done.returncode == 0, done.stderr
    assert len(list(sweep.glob("*/metrics.json"))) == 2

    (tmp_path / "face.png").write_bytes(png(FaceStore.open(store_path).images[0]))
    words = ["--run", str(run_dir), str(tmp_path / "face.png")]
    assert predict.main(words) == 1
    assert capsys.readouterr().err.endswith("add --trust own_nets\n")
    assert predict.main([*words, "--trust", "own_nets"]) == 0
