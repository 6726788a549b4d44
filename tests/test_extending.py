"""Code of the user's own beside the package: what docs/extending.md shows runs, and what is wrong is one sentence."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fakegan.cli import entry
from fakegan.config.building import build, untrained
from fakegan.config.overrides import hydra_argv
from fakegan.data.images import Geometry
from fakegan.data.store import FaceStore
from fakegan.detector import Detector, NetSpec
from fakegan.errors import FakeganError, UntrustedError, UsageError
from fakegan.nets.dropout import Dropout
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs import compose as composing
from fakegan.runs import config_file as runs
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.system import own_code
from fakegan.system.places import PROJECT
from fakegan.system.shell import CONFIG_DIR, config_dir
from fakegan.training import parts
from fakegan.training.schedules import follow
from tests.conftest import Compose
from tests.helpers import fit, real_and_fake, run_script
from tests.odd_parts import HasItsNet
from tests.pages import blocks, commands

PAGE = PROJECT / "docs" / "extending.md"
COMMANDS = [line.removeprefix("python train.py ") for line in commands(PAGE)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the page's code and config files in it, where Python looks last."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "my_package.py").write_text("\n\n".join(blocks(PAGE, "python")))
    for block in blocks(PAGE, "yaml"):
        place, text = block.removeprefix("# ").split("\n", maxsplit=1)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    before = list(sys.path)
    sys.path.append(str(folder))
    yield folder
    sys.path[:] = before
    sys.modules.pop("my_package", None)


@pytest.fixture
def composed(compose_settings: Compose, study: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Settings of what one line of the page asks for, of a sweep its first job, tiny."""
    monkeypatch.chdir(study)

    def make(line: str) -> RunSettings:
        words = hydra_argv([re.sub(r"=(\w+),\w+$", r"=\1", word) for word in shlex.split(line) if word != "-m"])
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        typed = [word.removeprefix("++") for word in words if not word.startswith(CONFIG_DIR)]
        return compose_settings(*composing.searched(), *typed)

    return make


def test_the_page_shows_each_kind() -> None:
    for key in ("classifier.net.", "model.net.", "classifier.loss.", "optimizer.", "schedule.", "classifier._target_"):
        assert any(key in line for line in COMMANDS), key
    for key in ("callbacks.", "logger.", "augment.", "data.modules.", "pipeline.view=", "--config-dir"):
        assert any(key in line for line in COMMANDS), key


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_what_the_page_shows_runs_and_scores_again(composed: Any, line: str) -> None:
    settings = composed(line)
    stages.run(settings)
    run_dir = settings.paths.run_dir
    assert "test" in json.loads((run_dir / "metrics.json").read_text())
    if "my_package.My" in line or "my_view" in line:
        with pytest.raises(UntrustedError, match=r'add trust=\["?my_package"?\]'):
            Detector.load(run_dir)
    assert Detector.load(run_dir, trust=("my_package",)).view.channels == 3
    if "CountSteps" in line:
        assert (run_dir / "classifier" / "steps.txt").read_text().endswith(" batches")
    if "TextLogger" in line:
        assert " val/auroc " in (run_dir / "classifier" / "values.txt").read_text()


@pytest.mark.parametrize("line", COMMANDS)
def test_what_the_page_shows_is_composed_written_down_and_built(composed: Any, line: str) -> None:
    settings = composed(line)
    runs.write_down(settings, settings.paths.run_dir)
    again = runs.read_run(str(settings.paths.run_dir))
    assert again == settings  # all of it is in config.yaml
    assert again.repeats(settings)
    assert ("my_package" in settings.trusted) == ("my_package" in line or "--config-dir" in line)
    torch.manual_seed(0)
    assert all(isinstance(net, pl.LightningModule) for net in stages.try_networks(settings))
    folder = settings.paths.run_dir / "classifier"
    parts.callbacks(settings, folder, parts.classifier(settings), stops_early=True, terminal=False)


def test_options_of_the_class_before_are_left_out_and_those_that_were_typed_are_refused(composed: Any) -> None:
    node = composed("classifier.optimizer._target_=torch.optim.RMSprop classifier.optimizer.alpha=0.9").classifier.node
    assert set(node["optimizer"]) == {"_target_", "_partial_", "lr", "weight_decay", "alpha"}  # it has no `fused`
    with pytest.raises(UsageError, match=r"model\.net\.depth is not a config key"):
        composed("pipeline=recon_error model.net._target_=my_package.MyAutoencoder model.net.depth=2")


def test_a_net_of_ones_own_is_not_called_by_another_ones_name(composed: Any) -> None:
    target = "classifier.net._target_=my_package.MyNet"
    assert composed(target).classifier.name == "MyNet"
    assert composed(f"{target} classifier.name=ours").classifier.name == "ours"
    assert composed("classifier._target_=my_package.Plain").label().endswith("Plain")


def test_own_options_make_another_run_and_another_autoencoder(composed: Any) -> None:
    narrow, wide = (composed(f"classifier.net._target_=my_package.MyNet classifier.net.width={w}") for w in (4, 8))
    assert not narrow.repeats(wide)
    assert wide.repeats(composed("classifier.net._target_=my_package.MyNet classifier.name=MyNet"))  # 8 is its default
    ours = composed("pipeline=autoencoder model.net._target_=my_package.MyAutoencoder")
    assert not ours.repeats(composed("pipeline=autoencoder"))


ODD = "tests.odd_parts"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (f"classifier.net._target_={ODD}.Several", r"Several must return a tensor.*returns a dict"),
        (f"pipeline=stack_classify classifier.net._target_={ODD}.NoChannels", "no option in_channels.* view has 9"),
        (f"classifier._target_={ODD}.KeepsNothing", r"must keep its option `net` as self\.net"),
        (
            "classifier.net._target_=torchvision.models.resnet18",
            r"must return two logits .* \(2, 2\) for 2 faces.* returns \(2, 1000\)",
        ),
        (f"pipeline=recon_error model.net._target_={ODD}.NoEncoder", "has no part `encoder`"),
        (f"pipeline=recon_error model.net._target_={ODD}.TwoCodes", "`encoder` must be called once"),
        (f"pipeline=recon_error model.net._target_={ODD}.OtherSize", r"faces again.*returns \(2, 3, 32, 64\)"),
        (
            "classifier.net._target_=my_package.Mynet",
            r"classifier\.net\._target_=my_package\.Mynet cannot be imported: my_package has no Mynet$",
        ),
        ("classifier.net._target_=no_package.MyNet", r"cannot be imported: there is no module no_package: put it into"),
        ("classifier.optimizer._target_=torch.optim.Adamm", r"Adamm cannot be imported: torch\.optim has no Adamm$"),
        ("classifier=resnet18 classifier.net.net.weights=DEFAULTS", r"weights=DEFAULTS is no name that torchvision"),
        (f"classifier.net._target_={ODD}.LearnsNothing", r"LearnsNothing has no weights that learn"),
        (f"classifier.net._target_={ODD}.NoNet", r"NoNet makes no Module, but a NoNet"),
        ("classifier.net._target_=my_package.MyNet classifier.net.widht=3", r"widht is not a config key.*net\.width"),
        ("pipeline.view=my_package.my_vieww", r"pipeline\.view=my_package\.my_vieww cannot be imported"),
        ("pipeline.view=my_package.marked", r"is a function: it must be a fakegan\.views\.View"),
        (
            "classifier.schedule._target_=torch.optim.lr_scheduler.StepLR classifier.schedule.step=5",
            "schedule.step is not",
        ),
        ("classifier.schedule._target_=torch.optim.lr_scheduler.StepLR", r"classifier\.schedule: StepLR.*'step_size'"),
        (
            "pipeline=recon_error model.schedule._target_=torch.optim.lr_scheduler.OneCycleLR",
            r"model\.schedule: OneCycleLR.*'max_lr'",
        ),
        ("classifier.schedule.warmup=-1", r"classifier\.schedule: warmup=-1 must be 0 or more"),
        ("classifier.loss._target_=torch.nn.BCEWithLogitsLoss", r"classifier\.loss\._target_=.* cannot take"),
        (
            "classifier.loss._target_=torch.nn.CrossEntropyLoss classifier.loss.reduction=none",
            r"classifier\.loss\._target_=.* must return one number, of shape \(\) .* returns \(2,\)",
        ),
        (f"classifier._target_={ODD}.KeepsAnother", r"keeps 'other' as other\.pt: it must have a network"),
    ],
)
def test_what_is_wrong_with_own_code_is_one_sentence_before_anything_trains(
    composed: Any, words: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        stages.try_networks(composed(words if "pipeline" in words else f"pipeline=classify {words}"))
    assert "\n" not in str(caught.value)
    assert re.search(sentence, str(caught.value)), str(caught.value)


def test_a_frozen_autoencoder_may_read_numbers_as_it_is_made(composed: Any) -> None:
    words = f"pipeline=recon_error model.net._target_={ODD}.ReadsNumbers model.checkpoint=autoencoder.pt"
    (frozen,) = stages.try_networks(composed(words))
    assert not any(weights.requires_grad for weights in frozen.parameters())


def test_a_run_that_names_a_view_of_ones_own_is_read_without_importing_it(
    composed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = composed("pipeline.view=my_package.my_view")
    runs.write_down(settings, settings.paths.run_dir)
    config = settings.paths.run_dir / "config.yaml"
    config.write_text(config.read_text().replace("my_package.my_view", "antigravity.fly"))
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    read = runs.read_run(str(settings.paths.run_dir))
    assert (read.pipeline.needs_autoencoder, read.pipeline.seen.channels) == (True, 3)  # type: ignore[union-attr]
    assert read.label()
    assert "antigravity" not in sys.modules


def test_a_detector_whose_file_names_a_view_is_asked_for_trust(composed: Any) -> None:
    spec = NetSpec({"_target_": "fakegan.nets.simple_cnn.SimpleCNN"}, SimpleCNN().state_dict())
    for name, error in (("my_package.my_view", UntrustedError), ("os.system", UntrustedError), ("odd", FakeganError)):
        with pytest.raises(error):
            Detector(Geometry(), name, spec, None)
    with pytest.raises(FakeganError, match="needs an autoencoder"):
        Detector(Geometry(), "my_package.my_view", spec, None, trust=("my_package",))


@pytest.mark.parametrize("words", [["--config-dir", "CONF"], ["--config-dir=CONF"], ["-cd", "CONF"], ["-cd=CONF"]])
def test_a_config_folder_is_found_however_it_is_named(study: Path, monkeypatch: pytest.MonkeyPatch, words: Any) -> None:
    monkeypatch.chdir(study)
    meant = hydra_argv(["-m", "seed=2", *(word.replace("CONF", "mystudy/conf") for word in words), "trust=[a]"])
    assert meant == ["--config-dir=mystudy/conf", "-m", "seed=2", "trust=[a]"]  # Hydra's parser takes it at an end only
    assert config_dir(meant) == study / "mystudy" / "conf"
    with pytest.raises(UsageError, match="--config-dir nothing: there is no such folder"):
        hydra_argv([word.replace("CONF", "nothing") for word in words])


def test_code_beside_the_command_and_the_config_folder_is_found_last_and_by_child_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["first"])
    monkeypatch.delenv(own_code._VARIABLE, raising=False)
    own_code.find([tmp_path / "a" / "conf", tmp_path / "a"])
    expected = ["first", str(tmp_path), str(tmp_path / "a" / "conf"), str(tmp_path / "a")]
    assert sys.path == expected
    monkeypatch.setattr(sys, "path", ["first"])
    own_code.find()  # as a child does, which inherits the environment
    assert sys.path == expected


def test_help_and_unknown_names_know_the_config_folder(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", f"{CONFIG_DIR}{study}/mystudy/conf", "classifier=mine", "--help"])
    composing.register_resolvers()
    text = entry._shown("train", "One run.\n\npython train.py    # it\n", sweeps=True)
    assert text is not None
    assert re.search(r"\* classifier=mine +Our net\.", text)
    assert re.search(r"  classifier=simple_cnn ", text)
    with pytest.raises(Exception, match="mien") as caught:
        composing.composed("train", ["classifier=mien"])
    assert "did you mean mine" in composing.explain(caught.value)


def test_resnet18_takes_every_view_and_its_file_downloads_nothing(
    composed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    words = "classifier=resnet18 pipeline=stack_classify"
    net = stages.try_networks(composed(words))[-1].get_submodule("net")
    assert net.get_parameter("net.conv1.weight").shape == (64, 9, 3, 3)
    sentence = r"classifier\.net\.net\.weights=DEFAULT cannot be downloaded \(no network\): .*classifier\.weights_file="
    with pytest.raises(FakeganError, match=sentence):
        stages.try_networks(composed(f"{words} classifier.net.net.weights=DEFAULT"))
    node = composed(f"{words} classifier.net.net.weights=DEFAULT").classifier.node["net"]
    assert untrained(node)["net"]["weights"] is None
    built = build({**untrained(node), "in_channels": 9}, "net", nn.Module)
    assert built.get_parameter("net.fc.weight").shape == (2, 512)


@pytest.mark.slow
def test_a_sweep_over_options_of_ones_own_net(study: Path, store_path: Path, tmp_path: Path) -> None:
    """Its jobs are processes of their own, which find a config folder and what lies beside it."""
    beside = tmp_path / "study"
    shutil.copytree(study / "mystudy", beside)
    shutil.copy(study / "my_package.py", beside)
    places = [f"paths.{kind}_dir={tmp_path / kind}" for kind in ("data", "artifact")]
    words = ["data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu", "pipeline=classify", *places]
    words += ["classifier=mine", "classifier.net.width=4,8,4", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    result = run_script("train.py", "-m", *words, "--config-dir", str(beside / "conf"), cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "job 2 is the same run as" in result.stdout
    widths = {run.classifier.node["net"]["width"] for run in runs.read_runs([str(tmp_path / "sweep")])}
    assert widths == {4, 8}


@pytest.mark.parametrize(("metric", "mode"), [("val/auroc", "max"), ("val/l1", "min")])
def test_a_plateau_is_one_of_the_metric_that_chooses_the_epoch(metric: str, mode: str) -> None:
    trainer = SimpleNamespace(datamodule=None, estimated_stepping_batches=10, max_epochs=2)
    module: Any = SimpleNamespace(monitor=metric, mode=mode, trainer=trainer)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    found = follow(partial(ReduceLROnPlateau, patience=0), optimizer, module)
    assert (found["monitor"], found["interval"], found["scheduler"].mode) == (metric, "epoch", mode)


def test_a_callback_may_be_added_with_a_plus_as_in_the_template(composed: Any) -> None:
    plain, plus = (composed(f"{mark}callbacks.count._target_=my_package.CountSteps") for mark in ("", "+"))
    assert plain.callbacks["count"] == plus.callbacks["count"] == {"_target_": "my_package.CountSteps", "word": "steps"}


def test_plain_dropout_is_drawn_for_the_whole_batch(compose_settings: Compose) -> None:
    net = parts.classifier(compose_settings("classifier.net._target_=tests.helpers.PlainNet")).get_submodule("net")
    assert type(net.get_submodule("features.3")) is Dropout
    words = ("classifier.net._target_=tests.helpers.PlainNet", "classifier.net.alpha=true")
    other = parts.classifier(compose_settings(*words)).get_submodule("net")
    assert type(other.get_submodule("features.3")) is nn.AlphaDropout


def test_a_net_may_take_views_of_its_maps_in_training_and_in_scoring(composed: Any, store: FaceStore) -> None:
    settings = composed("pipeline=classify classifier.net._target_=tests.odd_parts.TakesViews")
    stages.run(settings)
    Detector.load(settings.paths.run_dir, trust=["tests"]).scores(store.images[:4])
    module = HasItsNet()
    before = module.inner.head.weight.clone()
    fit(module, real_and_fake(store))
    assert not torch.equal(before, module.inner.head.weight)


@pytest.mark.slow
def test_resnet18_runs_and_is_scored_again(composed: Any) -> None:
    settings = composed("classifier=resnet18 pipeline=classify classifier.net.stride=4")
    stages.run(settings)
    content = load_checkpoint(settings.paths.run_dir / DETECTOR_FILE)
    assert content["classifier"]["net"]["net"] == {"_target_": "torchvision.models.resnet18", "weights": None}
    Detector.load(settings.paths.run_dir)
