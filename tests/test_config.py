import errno
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from torch import nn

from fakegan.cli import start
from fakegan.config.overrides import to_hydra
from fakegan.config.trust import packages_to_trust
from fakegan.errors import FakeganError, UsageError
from fakegan.runs import compose as composing
from fakegan.runs import config_file as runs
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.system.places import PROJECT
from fakegan.training import parts
from tests.conftest import Compose

GROUPS = ("data", "model", "classifier", "pipeline", "budget", "trainer", "callbacks", "logger")
CHOICES = [(g, p.stem) for g in GROUPS for p in sorted((composing.CONF / g).glob("*.yaml"))]
EXPERIMENTS = sorted(p.stem for p in (composing.CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_shipped_choice_gives_typed_settings(compose_settings: Compose, group: str, choice: str) -> None:
    settings = compose_settings(f"{group}={choice}")
    assert getattr(settings, group) is not None


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("budget", ["quick", "paper"])
def test_every_experiment_composes_on_its_own_and_as_a_sweep(
    compose_settings: Compose, experiment: str, budget: str
) -> None:
    compose_settings(f"+experiment={experiment}", f"budget={budget}")
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        cfg = compose("train", [f"+experiment={experiment}", f"budget={budget}"], return_hydra_config=True)
    assert (cfg.hydra.mode is not None) == bool(cfg.hydra.sweeper.params)


def test_the_studys_experiments_are_sweeps_over_its_questions() -> None:
    swept = {}
    for experiment in ("paper_exp1", "paper_exp2"):
        with initialize_config_dir(str(composing.CONF), version_base="1.3"):
            cfg = compose("train", [f"+experiment={experiment}"], return_hydra_config=True)
        swept[experiment] = dict(cfg.hydra.sweeper.params)
    assert swept["paper_exp1"]["pipeline"] == "classify,recon_classify"
    assert swept["paper_exp1"]["model"] == "autogan1,autogan4"
    assert swept["paper_exp1"]["classifier"] == "simple_cnn,alexnet"
    assert swept["paper_exp2"]["classifier"] == "simple_cnn,alexnet,dcgan"


@pytest.mark.parametrize(("budget", "width"), [("quick", 16), ("paper", 64)])
def test_alexnets_width_follows_the_budget(budget: str, width: int) -> None:
    """A quarter of torchvision's, or torchvision's own."""
    composing.register_resolvers()
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        cfg = compose("train", ["classifier=alexnet", f"budget={budget}"])
    assert cfg.classifier.net.width == width


def test_budget_paper_is_the_studys_in_its_experiments_and_only_there(compose_settings: Compose) -> None:
    study = compose_settings("+experiment=paper_exp1", "budget=paper", "classifier=simple_cnn")
    optimizer, schedule = (study.classifier.node[part] for part in ("optimizer", "schedule"))
    assert (optimizer["_target_"], optimizer["lr"]) == ("torch.optim.SGD", 0.1)
    assert schedule["_target_"] == "fakegan.training.schedules.falling"
    assert (study.model.node["net"]["norm"], study.model.node["reconstruction_weight"]) == ("instance", 0.8)
    assert study.callbacks["early_stopping"] is None
    assert study.data.split.autoencoder_share == 0
    train = 1 - study.data.split.val - study.data.split.test
    assert [round(30 * share, 1) for share in (train, study.data.split.val, study.data.split.test)] == [16, 4, 10]
    dcgan = compose_settings("+experiment=paper_exp2", "budget=paper", "classifier=dcgan").classifier.node
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 2e-4, "betas": [0.5, 0.999], "fused": True}
    assert dcgan["optimizer"] == adam
    assert dcgan["schedule"]["_target_"] == "fakegan.training.schedules.constant"
    for words in (("+experiment=paper_exp1", "budget=quick"), ("budget=paper",)):
        own = compose_settings(*words, "classifier=simple_cnn")
        assert (own.classifier.node["optimizer"]["_target_"], own.model.node["net"]["norm"]) == (
            "torch.optim.AdamW",
            "none",
        )


def test_the_budget_of_a_dcgan_is_its_own(compose_settings: Compose) -> None:
    composing.register_resolvers()
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        cfg = compose("train", ["budget=paper", "classifier=dcgan", "paths.run_dir=x"])
    settings = composing.settings_of(RunSettings, cfg)
    assert (settings.classifier_budget.max_epochs, settings.classifier_budget.batch_size) == (30, 128)
    assert settings.budget.stages["classifier"].max_epochs == 50


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (("pipeline=classify", "model=autogan1"), True),  # no autoencoder is trained
        (("pipeline=classify", "seed=2"), True),
        (("pipeline=classify", "data.workers=1"), True),
        (("pipeline=classify", "data.limit=5"), False),
        (("pipeline=classify", "classifier=alexnet"), False),
        (("pipeline=classify", "data.split.test=0.2"), False),
        (("pipeline=classify", "data.split.autoencoder_share=0.5"), True),  # as runs of earlier versions have it
        (("pipeline=classify", "data.split.autoencoder_share=0"), False),
        (("pipeline=recon_classify",), False),
        (("pipeline=classify", "callbacks.samples.every=1"), True),
        (("pipeline=classify", "callbacks.model_checkpoint.monitor=val/loss"), False),  # it chooses another epoch
        (("pipeline=classify", "callbacks.early_stopping.patience=1"), False),
    ],
)
def test_a_configuration_is_what_decides_the_numbers_besides_the_seed(
    compose_settings: Compose, words: tuple[str, ...], same: bool
) -> None:
    plain, other = compose_settings("pipeline=classify"), compose_settings(*words)
    assert (plain.configuration() == other.configuration()) == same
    assert plain.repeats(other) == (same and "seed=2" not in words)
    elsewhere = replace(plain, data=replace(plain.data, root=Path("elsewhere")))
    assert not plain.repeats(elsewhere)


def test_depth_matters_where_an_autoencoder_is_trained_and_the_classifier_where_it_learns(
    compose_settings: Compose,
) -> None:
    def configuration(*words: str) -> object:
        return compose_settings(*words).configuration()

    for pipeline in ("recon_classify", "recon_fakes", "recon_error"):
        assert configuration(f"pipeline={pipeline}") != configuration(f"pipeline={pipeline}", "model=autogan1")
    error = ("pipeline=recon_error",)
    assert configuration(*error) == configuration(*error, "classifier=alexnet")


def test_several_runs_are_found_in_a_folder_in_their_order(tmp_path: Path, store_path: Path) -> None:
    composing.register_resolvers()
    for name in ("2_b", "10_a", "1_c"):
        with initialize_config_dir(str(composing.CONF), version_base="1.3"):
            cfg = compose("train", ["data=faces", f"data.root={store_path}", f"paths.run_dir={tmp_path / name}"])
        start.start_run(cfg)
    found = runs.read_runs([str(tmp_path), str(tmp_path / "1_c")])
    assert [run.paths.run_dir.name for run in found] == ["1_c", "2_b", "10_a"]
    with pytest.raises(UsageError, match="no run at"):
        runs.read_runs([str(tmp_path / "nothing")])
    with pytest.raises(UsageError, match=r"run=DIR"):
        runs.read_runs([])


def test_evaluate_composes(tmp_path: Path) -> None:
    composing.register_resolvers()
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        own = composing.settings_of(EvaluateSettings, compose("evaluate", ["run=outputs/x"]))
        other = composing.settings_of(
            EvaluateSettings, compose("evaluate", ["run=x", "data=faces", f"data.root={tmp_path}"])
        )
    assert own.data is None
    assert other.data is not None
    assert other.data.root == tmp_path


def test_depth_is_the_only_difference_between_the_two_models(compose_settings: Compose) -> None:
    one, four = (compose_settings(f"model=autogan{d}").model for d in (1, 4))
    assert (one.depth, four.depth) == (1, 4)
    assert (one.name, four.name) == ("autogan1", "autogan4")
    node = {**four.node, "net": {**four.node["net"], "depth": 1}}
    assert replace(four, name="autogan1", node=node) == one


def test_the_main_job_needs_no_words_but_its_own() -> None:
    composing.register_resolvers()
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        cfg = compose("train", ["model=autogan4", "pipeline=recon_classify", "paths.run_dir=x"])
        settings = composing.settings_of(RunSettings, cfg)
    assert (settings.data.name, settings.budget.name) == ("demo", "quick")
    assert settings.paths.artifact_dir == PROJECT / "artifacts"


def test_a_study_setting_is_the_studys(compose_settings: Compose) -> None:
    model = compose_settings("+experiment=study_autoencoder").model.node
    optimizer = model["optimizer"]
    assert (model["net"]["norm"], model["reconstruction_weight"], optimizer["lr"]) == ("instance", 0.8, 0.0002)
    assert (model["discriminator_floor"], optimizer["betas"]) == (0, [0.8, 0.9])
    assert model["schedule"]["_target_"] == "fakegan.training.schedules.constant"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["logger=[csv,tensorbord]"], r"logger=tensorbord does not exist: did you mean tensorboard"),
        (["model=autogan5"], r"model=autogan5 does not exist: did you mean autogan1 or autogan4"),
        (["model.net.dept=3"], r"model\.net\.dept is not a config key: did you mean model\.net\.depth"),
        (["modle=autogan4"], r"modle is not a config key: did you mean model"),
        (["lr=0.1"], r"lr is not a config key: did you mean model\.optimizer\.lr or classifier\.optimizer\.lr\?"),
        (["batch_size=8"], r"did you mean budget\.autoencoder\.batch_size or budget\.classifier\.batch_size or"),
        (["width=8"], r"did you mean model\.net\.width or model\.discriminator\.width or"),
        (["data.limit=0"], r"data\.limit=0 must be 1 or more, or null"),
        (["+nothing=1"], r"nothing is not a config key"),
        (["data.split.vall=1"], r"data\.split\.vall is not a config key: did you mean data\.split\.val\?"),
        (["model.net.depth=deep"], r"model\.net\.depth='deep' must be a whole number"),
        (["seed=true"], r"seed=True must be a whole number"),
        (["model.net.norm=layer"], r"model\.net\.norm='layer' must be none or instance or batch"),
        (["budget.classifier=3"], r"budget\.classifier=3 must be a group of keys"),
        (["data=faces", "data.root=???"], r"data\.root must be given.*prepare"),
        (["model.depth"], r"model\.depth"),
        (["data.split={unseen:[7]}"], r"data\.split\.unseen\[0\]=7 must be text, in quotes"),
        (["model.net.depth=0"], r"model\.net\.depth=0 must be 1 or more"),
        (["model.net.width=0"], r"model\.net\.width=0 must be 1 or more"),
        (["model.net.code_channels=0"], r"model\.net\.code_channels=0 must be 1 or more"),
        (["seed=-1"], r"seed=-1 must be 0 or more"),
        (["classifier.optimizer.lr=-1"], r"classifier\.optimizer: Invalid learning rate: -1"),
        (["model.optimizer.betas=[0.5]"], r"model\.optimizer: list index out of range"),
        (["classifier.schedul=null"], r"classifier\.schedul is not a config key: did you mean classifier\.schedule"),
        (["budget.classifier.max_epochs=0"], r"budget\.classifier\.max_epochs=0 must be 1 or more"),
        (["classifier.net=vgg"], r"classifier\.net must name what it builds: classifier\.net\._target_=package"),
        (["pipeline.view=residuals"], r"pipeline\.view='residuals' does not exist: choose .*residual"),
        (["pipeline.fakes=none"], r"pipeline\.fakes='none' must be generated or reconstructed"),
        (["callbacks.reconstructions.every=0"], r"callbacks\.reconstructions\.every=0 must be 1 or more"),
    ],
)
def test_what_is_wrong_with_a_config_is_one_sentence(overrides: list[str], words: str) -> None:
    composing.register_resolvers()
    with pytest.raises((HydraException, UsageError)) as caught:  # noqa: PT012
        with initialize_config_dir(str(composing.CONF), version_base="1.3"):
            cfg = compose("train", ["paths.run_dir=x", *map(to_hydra, overrides)])
        settings = composing.settings_of(RunSettings, cfg)
        parts.autoencoder(settings), parts.classifier(settings)
        parts.callbacks(settings, Path("x"), nn.Module(), True, True)  # type: ignore[arg-type]
    sentence = str(caught.value) if isinstance(caught.value, UsageError) else composing.explain(caught.value)
    assert "\n" not in sentence
    assert re.search(words, sentence), sentence


def test_a_run_is_written_down_before_it_runs_and_read_back(tmp_path: Path, store_path: Path) -> None:
    composing.register_resolvers()
    run_dir = tmp_path / "run"
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        cfg = compose("train", ["data=faces", f"data.root={store_path}", f"paths.run_dir={run_dir}"])
    settings = start.start_run(cfg)
    text = (run_dir / "config.yaml").read_text()
    assert "${" not in text  # resolved
    assert runs.read_run(str(run_dir)) == settings
    moved = tmp_path / "moved"
    run_dir.rename(moved)
    assert runs.read_run(str(moved)).paths.run_dir == moved
    moved.rename(run_dir)
    with pytest.raises(UsageError, match="holds a run already"):
        start.start_run(cfg)


@pytest.mark.parametrize("content", ["a: [", "- 1", "seed: 1", "seed: 1\nhostile: {_target_: os.system}"])
def test_a_damaged_or_hostile_config_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(FakeganError):
        runs.read_run(str(tmp_path))


def test_every_config_names_trusted_code_only() -> None:
    for path in composing.CONF.rglob("*.yaml"):
        if not path.is_relative_to(composing.CONF / "hydra"):
            assert not packages_to_trust(OmegaConf.to_container(OmegaConf.load(path))), path


@pytest.mark.parametrize("links", [True, False])
def test_a_config_is_written_whole_and_never_over_another(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links on this file system")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    runs.write_down(compose_settings("seed=1"), tmp_path / "run")
    with pytest.raises(UsageError, match="holds a run already"):
        runs.write_down(compose_settings("seed=2"), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [runs.CONFIG_FILE]
    assert runs.read_run(str(tmp_path / "run")).seed == 1


def test_a_config_that_a_full_disk_cuts_short_is_not_there(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, folder = compose_settings(), tmp_path / "run"

    def half(path: Path, text: str, **_: object) -> int:
        path.write_bytes(text[:3].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(FakeganError, match=r"cannot be written \(.*No space"):
        runs.write_down(settings, folder)
    assert not list(folder.iterdir())
