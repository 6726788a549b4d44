"""conf/: every choice composes to typed settings, the study's are the study's, and a wrong value is refused."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn

from fakegan.cli.start import start_run, without_effect
from fakegan.config.trust import packages_to_trust
from fakegan.errors import FakeganError, UsageError
from fakegan.runs import config_file as runs
from fakegan.runs.compose import settings_of
from fakegan.runs.settings import EvaluateSettings
from fakegan.system.places import CONF, PROJECT
from fakegan.training import parts
from tests.conftest import Compose
from tests.helpers import compose_run, composed, own_config, refusal

GROUPS = ("data", "model", "classifier", "augment", "pipeline", "budget", "trainer", "callbacks", "logger")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_shipped_choice_gives_typed_settings(compose_settings: Compose, group: str, choice: str) -> None:
    drawn = ["data.root=null"] if choice == "demo" else []
    assert getattr(compose_settings(f"{group}={choice}", *drawn), group) is not None


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("budget", ["quick", "paper"])
def test_every_experiment_composes_and_is_a_sweep_where_it_names_values(
    compose_settings: Compose, experiment: str, budget: str
) -> None:
    own = ["classifier=efficientnet_b0"] if experiment == "detector" else []  # whose weights it names
    compose_settings(f"+experiment={experiment}", f"budget={budget}", *own)
    cfg = composed(f"+experiment={experiment}", f"budget={budget}")
    assert (cfg.hydra.mode is not None) == bool(cfg.hydra.sweeper.params)


def test_the_studys_experiments_are_sweeps_over_its_questions() -> None:
    assert dict(composed("+experiment=paper_exp1").hydra.sweeper.params) == {
        "pipeline": "classify,recon_classify",
        "model": "autogan1,autogan4",
        "classifier": "simple_cnn,alexnet",
    }
    assert dict(composed("+experiment=paper_exp2").hydra.sweeper.params) == {"classifier": "simple_cnn,alexnet,dcgan"}


def test_the_study_s_settings_come_with_its_experiments_and_its_budget_alone(compose_settings: Compose) -> None:
    study = compose_settings("+experiment=paper_exp1", "budget=paper", "classifier=simple_cnn")
    optimizer, schedule = (study.classifier.node[part] for part in ("optimizer", "schedule"))
    assert (optimizer["_target_"], optimizer["lr"]) == ("torch.optim.SGD", 0.1)
    assert schedule["_target_"] == "fakegan.training.schedules.falling"
    assert study.callbacks["early_stopping"] is None
    assert study.data.split.autoencoder_share == 0
    train = 1 - study.data.split.val - study.data.split.test
    assert [round(30 * share, 1) for share in (train, study.data.split.val, study.data.split.test)] == [16, 4, 10]
    dcgan = compose_settings("+experiment=paper_exp2", "budget=paper", "classifier=dcgan").classifier.node
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 2e-4, "betas": [0.5, 0.999], "fused": True}
    assert dcgan["optimizer"] == adam
    assert dcgan["schedule"]["_target_"] == "fakegan.training.schedules.constant"
    for words in (("+experiment=paper_exp1", "budget=quick"), ("budget=paper",), ("protocol=study",)):
        own = compose_settings(*words, "classifier=simple_cnn")
        assert own.classifier.node["optimizer"]["_target_"] == "torch.optim.AdamW"
        assert own.model.node["net"]["norm"] == "none"
    for words in (("+experiment=study_autoencoder",), ("protocol=study", "budget=paper")):
        model = compose_settings(*words).model.node
        found = (model["net"]["norm"], model["reconstruction_weight"], model["optimizer"]["lr"])
        assert found == ("instance", 0.8, 2e-4)
        assert (model["discriminator_floor"], model["optimizer"]["betas"]) == (0, [0.8, 0.9])
        assert model["schedule"]["_target_"] == "fakegan.training.schedules.constant"


def test_budgets_and_models_are_what_their_names_say(compose_settings: Compose) -> None:
    paper = compose_run("budget=paper", "classifier=dcgan", "paths.run_dir=x")
    assert (paper.classifier_budget.max_epochs, paper.classifier_budget.batch_size) == (30, 128)  # the DCGAN's own
    assert paper.budget.stages["classifier"].max_epochs == 50
    widths = [composed("classifier=alexnet", f"budget={budget}").classifier.net.width for budget in ("quick", "paper")]
    assert widths == [16, 64]  # a quarter of torchvision's, or torchvision's own
    one, four = (compose_settings(f"model=autogan{depth}").model for depth in (1, 4))
    assert (one.depth, four.depth, one.name, four.name) == (1, 4, "autogan1", "autogan4")
    node = {**four.node, "net": {**four.node["net"], "depth": 1}}
    assert replace(four, name="autogan1", node=node) == one  # depth is the only difference
    main = compose_run("model=autogan4", "pipeline=recon_classify", "paths.run_dir=x")
    assert (main.data.name, main.budget.name, main.paths.artifact_dir) == ("demo", "quick", PROJECT / "artifacts")


@pytest.mark.parametrize(
    ("base", "changes", "same"),
    [
        ("pipeline=classify", "model=autogan1", True),  # no autoencoder is trained
        ("pipeline=classify", "seed=2", True),
        ("pipeline=classify", "data.workers=1", True),
        ("pipeline=classify", "data.limit=5", False),
        ("pipeline=classify", "classifier=alexnet", False),
        ("pipeline=classify", "data.split.test=0.2", False),
        ("pipeline=classify", "data.split.autoencoder_share=0.5", True),  # as runs of earlier versions have it
        ("pipeline=classify", "data.split.autoencoder_share=0", False),
        ("pipeline=classify", "pipeline=recon_classify", False),
        ("pipeline=classify", "callbacks.samples.every=1", True),
        ("pipeline=classify", "callbacks.model_checkpoint.monitor=val/loss", False),  # it chooses another epoch
        ("pipeline=classify", "callbacks.early_stopping.patience=1", False),
        ("pipeline=classify", "detector.flip_average=true", False),
        ("pipeline=autoencoder", "detector.flip_average=true", True),  # it has no detector
        ("pipeline=recon_classify", "model=autogan1", False),
        ("pipeline=recon_fakes", "model=autogan1", False),
        ("pipeline=recon_error", "model=autogan1", False),
        ("pipeline=recon_error", "classifier=alexnet", True),  # no classifier is trained
    ],
)
def test_a_configuration_is_what_decides_the_numbers_besides_the_seed(
    compose_settings: Compose, base: str, changes: str, same: bool
) -> None:
    changed = [changes] if changes.startswith("pipeline=") else [base, changes]
    plain, other = compose_settings(base), compose_settings(*changed)
    assert (plain.configuration() == other.configuration()) == same
    assert plain.repeats(other) == (same and changes != "seed=2")
    assert not plain.repeats(replace(plain, data=replace(plain.data, root=Path("elsewhere"))))


def test_several_runs_are_found_in_a_folder_in_their_order(compose_settings: Compose, tmp_path: Path) -> None:
    for name in ("2_b", "10_a", "1_c", "3_d"):
        settings = compose_settings(f"paths.run_dir={tmp_path / name}")
        runs.write_down(settings, tmp_path / name)
    (tmp_path / "3_d").rename(tmp_path / "3²5_d")  # ² is a digit, but no number
    found = runs.read_runs([str(tmp_path), str(tmp_path / "1_c")])
    assert [run.paths.run_dir.name for run in found] == ["1_c", "2_b", "3²5_d", "10_a"]
    with pytest.raises(UsageError, match="no run at"):
        runs.read_runs([str(tmp_path / "nothing")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty is not a run"):
        runs.read_run(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match=r"run=DIR"):
        runs.read_runs([])


def test_evaluate_composes(tmp_path: Path) -> None:
    for words, root in ((["run=outputs/x"], None), (["run=x", "data=faces", f"data.root={tmp_path}"], tmp_path)):
        data = settings_of(EvaluateSettings, own_config(*words, name="evaluate")).data
        assert (data and data.root) == root


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.net.depth=0", r"model\.net\.depth=0 must be 1 or more"),
        ("model.net.width=0", r"model\.net\.width=0 must be 1 or more"),
        ("model.net.code_channels=0", r"model\.net\.code_channels=0 must be 1 or more"),
        ("classifier.optimizer.lr=-1", r"classifier\.optimizer: Invalid learning rate: -1"),
        ("classifier.optimizer.lr=fast", r"classifier\.optimizer: .*: is lr=fast of the right type\?"),
        ("model.optimizer.betas=[0.5]", r"model\.optimizer: list index out of range"),
        ("callbacks.reconstructions.every=0", r"callbacks\.reconstructions\.every=0 must be 1 or more"),
    ],
)
def test_a_value_that_a_class_refuses_is_named_in_full(override: str, sentence: str) -> None:
    settings = compose_run("paths.run_dir=x", override)
    with pytest.raises(UsageError, match=sentence):  # noqa: PT012
        parts.autoencoder(settings), parts.classifier(settings)
        parts.callbacks(settings, Path("x"), nn.Module(), True, True)  # type: ignore[arg-type]


def test_a_number_of_channels_that_the_view_has_may_be_typed() -> None:
    assert refusal("paths.run_dir=x", "pipeline=stack_classify", "classifier.net.in_channels=9") == ""


def test_a_run_is_written_down_before_it_runs_and_read_back(tmp_path: Path, store_path: Path) -> None:
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    cfg = own_config("data=faces", f"data.root={store_path}", f"paths.run_dir={run_dir}")
    settings = start_run(cfg)
    assert "${" not in (run_dir / "config.yaml").read_text()  # resolved
    assert runs.read_run(str(run_dir)) == settings
    run_dir.rename(moved)
    assert runs.read_run(str(moved)).paths.run_dir == moved
    moved.rename(run_dir)
    with pytest.raises(UsageError, match="holds a run already"):
        start_run(cfg)


def test_a_key_that_a_run_does_not_use_is_named_with_the_reason(compose_settings: Compose) -> None:
    keys = ("seed", "pipeline", "model.net.depth", "data.demo_size", "classifier.weights_file", "augment.shift")
    assert without_effect(compose_settings("pipeline=recon_error"), keys) == {
        "data.demo_size": "the faces come from data.root",
        "classifier.weights_file": "pipeline=recon_error trains no classifier",
        "augment.shift": "pipeline=recon_error trains no classifier",
    }
    no_autoencoder = {"model.net.depth": "pipeline=classify has no autoencoder"}
    assert without_effect(compose_settings("pipeline=classify", "data.root=null"), keys) == no_autoencoder


@pytest.mark.parametrize("content", ["a: [", "- 1", "seed: 1", "seed: 1\nhostile: {_target_: os.system}"])
def test_a_damaged_or_hostile_config_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(FakeganError):
        runs.read_run(str(tmp_path))


def test_every_config_names_trusted_code_only() -> None:
    for path in CONF.rglob("*.yaml"):
        if not path.is_relative_to(CONF / "hydra"):
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
