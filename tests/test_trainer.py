"""Any argument of Lightning's Trainer: it works in every stage, or one sentence says with its key why it cannot."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from fakegan.data.faces import open_faces
from fakegan.errors import UsageError
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.stages import run as stages
from fakegan.stages.examples import examples
from fakegan.stages.train_autoencoder import train_autoencoder
from fakegan.stages.train_classifier import train_classifier
from fakegan.system import devices, ranks, signals
from fakegan.system.devices import describe
from fakegan.training import fitting, parts, trainer
from fakegan.training.callbacks import ClipGradients, Patience
from fakegan.training.classifier import Classifier
from fakegan.training.modules import ByTurns
from fakegan.training.schedules import constant
from tests.conftest import Compose
from tests.helpers import StopsOnce

from .test_resume import same

ONE_STEP = "trainer.max_steps=1"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Lightning sets these for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)


def train(settings: RunSettings) -> dict[str, Any]:
    """The network of a pipeline that has one, trained; its last checkpoint."""
    view = settings.pipeline.seen
    faces = open_faces(settings.data, settings.paths.data_dir, settings.pipeline.needs, verified=False)
    if view is None:
        train_autoencoder(settings, faces)
    else:
        train_classifier(settings, faces, view, examples(settings, faces, None), None)
    stage = settings.paths.run_dir / ("autoencoder" if view is None else "classifier")
    return load_checkpoint(stage / "checkpoints" / "last.ckpt")


def steps(checkpoint: dict[str, Any]) -> int:
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


CLASSIFY = ("pipeline=classify",)  # 13 steps an epoch, of 8 faces each
AUTOENCODER = ("pipeline=autoencoder", "budget.autoencoder={max_epochs: 1, batch_size: 8}")  # 5 steps


@pytest.mark.parametrize(
    ("words", "done", "epochs"),
    [
        (("trainer.limit_train_batches=3", "trainer.max_epochs=2"), 6, 2),
        (("trainer.limit_train_batches=0.5",), 6, 1),
        (("trainer.fast_dev_run=true",), 1, 1),
        (("trainer.fast_dev_run=2", "trainer.max_epochs=7", "trainer.max_steps=9"), 2, 1),
        (("trainer.max_steps=7",), 7, 1),
        (("trainer.max_steps=7", "trainer.min_steps=5"), 7, 1),
        (("trainer.max_steps=20",), 20, 2),
        (("trainer.max_steps=20", "trainer.max_epochs=1"), 13, 1),
        (("trainer.max_epochs=3", "trainer.min_epochs=3", "callbacks.early_stopping.patience=1"), 39, 3),
        (("trainer.overfit_batches=2", "trainer.max_epochs=2"), 4, 2),
        (("trainer.accumulate_grad_batches=4", "trainer.max_steps=3"), 12, 1),
        (("trainer.val_check_interval=5", "trainer.check_val_every_n_epoch=null"), 13, 1),
    ],
    ids=lambda value: " ".join(w.removeprefix("trainer.") for w in value) if isinstance(value, tuple) else "",
)
def test_how_long_a_classifier_trains(
    compose_settings: Compose, words: tuple[str, ...], done: int, epochs: int
) -> None:
    """A run has its best.ckpt in any case: validation comes after the last step."""
    settings = compose_settings(*CLASSIFY, *words)
    last = train(settings)
    assert (steps(last), last["epoch"] + 1) == (done, epochs)
    best = load_checkpoint(settings.paths.run_dir / "classifier" / "checkpoints" / "best.ckpt")
    assert "val/auroc" in best["metrics"]


@pytest.mark.parametrize(("words", "done"), [(("trainer.max_steps=7",), 7), (("trainer.fast_dev_run=true",), 1)])
def test_networks_that_learn_by_turns_count_batches(
    compose_settings: Compose, words: tuple[str, ...], done: int
) -> None:
    """Lightning would count the step of each of the two optimizers."""
    assert steps(train(compose_settings(*AUTOENCODER, *words))) == done


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("trainer.max_epochs=3",), (39, 13)),
        (("trainer.max_steps=20",), (20, 13)),  # an epoch is no shorter for it
        (("trainer.limit_train_batches=7", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2"), (8, 4)),
    ],
)
def test_schedules_are_told_the_steps_of_the_fit_and_of_an_epoch(
    compose_settings: Compose, words: tuple[str, ...], wanted: tuple[int, int]
) -> None:
    told.clear()
    train(compose_settings(*CLASSIFY, *words, "classifier.schedule._target_=tests.test_trainer.telling"))
    assert wanted in told  # the others are trials


@pytest.mark.parametrize(
    ("monitor", "every", "words"),
    [
        ("val/auroc", 1, "3 epochs without a better val AUROC"),
        ("val/loss", 2, "3 validations without a better val/loss"),
    ],
)
def test_what_patience_waited_for_is_said(monitor: str, every: int, words: str) -> None:
    patience = Patience(monitor, "max", patience=3)
    patience.wait_count = 3
    ended: Any = SimpleNamespace(callbacks=[patience], val_check_interval=1.0, check_val_every_n_epoch=every)
    assert fitting.reason_of_end(ended) == f": {words}"


told: list[tuple[int, int]] = []


def telling(optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
    told.append((total_steps, steps_per_epoch))
    return constant(optimizer)


@pytest.mark.parametrize(
    ("words", "searches"), [((), False), (("trainer.strategy=ddp_find_unused_parameters_true",), True)]
)
def test_a_net_of_several_processes_may_leave_parameters_out_if_the_strategy_says_so(
    compose_settings: Compose, words: tuple[str, ...], searches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose_settings(*CLASSIFY, *words)
    made = parts.classifier(settings)
    monkeypatch.setattr(ranks, "count", lambda: 2)
    strategy: Any = trainer._strategy(made, settings.trainer.node.get("strategy"))
    assert strategy._ddp_kwargs["find_unused_parameters"] is searches


def test_a_clock_ends_training_and_is_said(
    compose_settings: Compose, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "pytorch_lightning.callbacks.timer.time.monotonic", lambda: now.__setitem__(0, now[0] + 1) or now[0]
    )
    settings = compose_settings(*CLASSIFY, "trainer.max_time='00:00:00:05'", "trainer.max_epochs=50")
    last = train(settings)
    assert 0 < steps(last) < 20
    out = capsys.readouterr().out
    assert "early stop after epoch 1/50: trainer.max_time is over" in out
    assert [line.partition(":")[0] for line in settings.trainer.said("cpu")] == ["trainer.max_time"]


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.limit_train_batches=4", "trainer.max_epochs=3"),
        ("trainer.overfit_batches=4", "trainer.max_epochs=3"),
        ("trainer.val_check_interval=2", "trainer.limit_train_batches=6", "trainer.max_epochs=3"),
        ("trainer.check_val_every_n_epoch=2", "trainer.limit_train_batches=4", "trainer.max_epochs=4"),
        ("trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=5", "trainer.max_epochs=3"),
        ("trainer.gradient_clip_val=0.1", "trainer.max_steps=17"),
        ("trainer.precision=bf16-mixed", "trainer.limit_train_batches=4", "trainer.max_epochs=3"),
    ],
    ids=" ".join,
)
def test_a_fit_that_was_stopped_within_an_epoch_ends_with_the_same_bits(
    compose_settings: Compose, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = (
        "callbacks.stops._target_=tests.helpers.StopsOnce",
        "callbacks.stops.epoch=1",
        "callbacks.stops.step=1",
    )
    run = partial(compose_settings, *CLASSIFY, *words, *stopping)
    whole = train(run("paths.run_dir=${paths.artifact_dir}/whole"))
    StopsOnce.armed = True
    with pytest.raises(SystemExit):
        train(run())
    monkeypatch.setattr(signals, "_state", signals._State())  # what goes on is another process
    assert not StopsOnce.armed
    assert 0 < steps(load_checkpoint(run().paths.run_dir / "classifier" / "checkpoints" / "last.ckpt")) < steps(whole)
    again = train(run())
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "metrics"):
        same(again[part], whole[part], part)


class _Two(ByTurns):
    """Two numbers that learn by turns: each loss is a times it, so that its gradient is a."""

    def __init__(self, make: Callable[..., Any], gradient: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.monitor, self.mode = "none", "min"
        self.make_optimizer, self.make_schedule = make, None
        self.pair = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)])
        for net in self.pair:
            nn.init.zeros_(net.weight)  # type: ignore[arg-type]
        self.gradient = torch.tensor([3.0, 4.0]) * gradient

    def configure_optimizers(self) -> Any:
        return self.optimized(*self.pair)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        for net, optimizer in zip(self.pair, self.optimizers(), strict=True):  # type: ignore[arg-type]
            with self.toggled_optimizer(optimizer):
                self.learn(optimizer, (net.weight * self.gradient).sum())


class _One(Classifier):
    """The same with one number, by Lightning's automatic optimization."""

    def __init__(self, make: Callable[..., Any], gradient: float) -> None:
        super().__init__(nn.Linear(2, 1, bias=False), make)
        nn.init.zeros_(self.net.weight)  # type: ignore[arg-type]
        self.pair = [self.net]
        self.gradient = torch.tensor([3.0, 4.0]) * gradient

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.net.weight * self.gradient).sum()  # type: ignore[union-attr, operator]

    def on_train_epoch_end(self) -> None:
        pass


@pytest.mark.parametrize("kind", [_One, _Two])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scaled", [True, False], ids=["16-mixed", "32-true"])
@pytest.mark.parametrize(
    ("gradient", "limit", "algorithm", "step"),
    [
        (1.0, 0.5, "norm", (0.3, 0.4)),  # (3, 4) has norm 5: a tenth of it
        (1.0, 3.5, "value", (3.0, 3.5)),
        (0.01, 0.5, "norm", (0.03, 0.04)),  # below the limit
    ],
)
def test_a_clipped_step_by_hand(
    kind: Any, fused: bool, scaled: bool, gradient: float, limit: float, algorithm: Any, step: tuple[float, float]
) -> None:
    """SGD with rate 1 goes the gradient's way, once; where 16-mixed scales the loss by 65536, this is undone first."""
    plain = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    module = kind(partial(SGD, lr=1.0, fused=fused), gradient)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ClipGradients(limit, algorithm)],
        plugins=[plain] if scaled else None,
    )
    trainer.fit(module, torch.utils.data.DataLoader([torch.zeros(1)], batch_size=None))  # type: ignore[arg-type]
    for net in module.pair:
        assert (-net.weight[0]).tolist() == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("words", [CLASSIFY, AUTOENCODER, (*CLASSIFY, "classifier=dcgan")], ids=lambda w: w[-1][:12])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_clipping_reaches_every_module_of_a_run(
    compose_settings: Compose, words: tuple[str, ...], precision: str
) -> None:
    """With SGD and a rate of 1, a step is no longer than the limit."""
    settings = compose_settings(*words, f"trainer.precision={precision}", "trainer.gradient_clip_val=0.001", ONE_STEP)
    part = "model" if settings.pipeline.seen is None else "classifier"
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1.0}
    kept = getattr(settings, part)
    plain: Any = {part: replace(kept, node={**kept.node, "optimizer": sgd, "schedule": None})}
    settings = replace(settings, **plain)
    before = {name: weights.detach().clone() for name, weights in _fresh(settings).named_parameters()}
    after = train(settings)["state_dict"]
    networks = {name.partition(".")[0] for name in before}
    for network in networks:
        moved = math.sqrt(sum(float((after[n] - p).square().sum()) for n, p in before.items() if n.startswith(network)))
        assert moved == pytest.approx(0.001, rel=0.01), network


def _fresh(settings: RunSettings) -> pl.LightningModule:
    torch.manual_seed(settings.seed)
    make = stages.parts.autoencoder if settings.pipeline.seen is None else stages.parts.classifier
    return make(settings)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("max_time=1", "trainer.max_time=1 must be 'DD:HH:MM:SS'"),
        ("max_time=soon", "trainer.max_time=soon must be 'DD:HH:MM:SS'"),
        ("max_time={seconds: 0}", "must be more than nothing"),
        ("max_epochs=0", "trainer.max_epochs=0 must be 1 or more"),
        ("max_steps=0", "trainer.max_steps=0 must be 1 or more"),
        ("max_steps=many", "trainer.max_steps='many' must be a whole number"),
        ("limit_val_batches=0", "trainer.limit_val_batches=0 must be more: validation chooses"),
        ("limit_train_batches=true", "trainer.limit_train_batches=True must be a whole number or a number"),
        ("gradient_clip_val=-1", "trainer.gradient_clip_val=-1 must be above 0"),
        ("gradient_clip_algorithm=norm", "trainer.gradient_clip_algorithm=norm must be norm or value, beside"),
        ("precision=17", "trainer.precision=17 must be one of 32-true, 16-mixed"),
        ("deterministic=maybe", "trainer.deterministic=maybe must be true, false or warn"),
        ("strategy=fsdp", "trainer.strategy=fsdp is not for a run"),
        ("logger=false", "trainer.logger=False is not for a run: loggers are a group of their own: logger=csv"),
        ("callbacks=[x]", "callbacks are a group of their own"),
        ("plugins=[x]", "trainer.plugins=['x'] is not for a run"),
        (
            "enable_checkpointing=false",
            "trainer.enable_checkpointing=False is not for a run: a run ends and goes on by",
        ),
        ("barebones=true", "trainer.barebones=True is not for a run"),
        ("default_root_dir=x", "give paths.run_dir=DIR"),
        ("limit_test_batches=3", "the test scores every face; for a quick try give data.limit=N"),
        ("devices=[0]", "trainer.devices=[0] must be"),
        ("val_check_interval={minutes: 5} trainer.devices=2", "several processes have no common clock"),
        ("accelerator=tpu", "trainer.accelerator='tpu' must be auto or cpu or gpu or cuda or mps"),
        ("gradient_clip_value=1", "did you mean trainer.gradient_clip_val"),
    ],
)
def test_what_no_run_can_have_is_refused_with_its_key(compose_settings: Compose, word: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        compose_settings(*f"trainer.{word}".replace(" trainer", "  trainer").split("  "))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("trainer.accumulate_grad_batches=3",), "trainer.accumulate_grad_batches=3 is not for AdversarialAutoencoder"),
        (("trainer.accumulate_grad_batches=3", *CLASSIFY, "classifier=dcgan"), "is not for DCGANClassifier"),
        (("trainer.limit_train_batches=2.5",), "trainer.limit_train_batches=2.5: You have passed invalid value 2.5"),
        (("trainer.profiler=simpel",), "trainer.profiler=simpel: "),
        (("trainer.min_epochs=3",), "trainer.min_epochs=3 is more than the epochs, 1"),
        (("trainer.check_val_every_n_epoch=3",), "trainer.check_val_every_n_epoch=3 is more than the epochs, 1"),
        (("trainer.num_nodes=2",), "trainer.num_nodes=2, but this run is on 1"),
        (("callbacks.model_checkpoint=null",), "callbacks.model_checkpoint must be a fakegan Best"),
        (("logger.csv._target_=pytorch_lightning.loggers.NoLogger",), "logger.csv"),
    ],
)
def test_what_this_run_cannot_have_is_refused_before_anything_starts(
    compose_settings: Compose, words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "EVERY", replace(stages.EVERY, faces=lambda *_: pytest.fail("the run has begun")))
    with pytest.raises(UsageError) as refused:
        stages.run(compose_settings("pipeline=recon_classify", *words))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("limit_train_batches=0.01", "trainer.limit_train_batches=0.01 leaves none of 13 batches"),
        ("overfit_batches=0.01", "trainer.overfit_batches=0.01 leaves none of 13 batches"),
        ("val_check_interval=20", "trainer.val_check_interval=20 is more than the 13 batches of an epoch"),
        ("max_steps=5 trainer.min_steps=6", "trainer.max_steps=5 ends before trainer.min_steps=6"),
        ("max_steps=5 trainer.min_epochs=1", "ends before trainer.min_epochs=1, which needs 13 steps"),
    ],
)
def test_what_the_faces_do_not_allow_is_refused_before_the_stage(
    compose_settings: Compose, word: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as refused:
        train(compose_settings(*CLASSIFY, *f"trainer.{word}".split()))
    assert sentence in str(refused.value)


def test_a_profile_is_written_and_said(compose_settings: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    settings = compose_settings(*CLASSIFY, "trainer.profiler=simple", "trainer.fast_dev_run=true")
    train(settings)
    profile = settings.paths.run_dir / "classifier" / "fit-profile.txt"
    assert "run_training_batch" in profile.read_text()
    assert f"classifier: profile in {profile}" in capsys.readouterr().out


def test_a_summary_is_printed(compose_settings: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    train(compose_settings(*CLASSIFY, "trainer.enable_model_summary=true", "trainer.fast_dev_run=true"))
    assert "Trainable params" in capsys.readouterr().out


@pytest.mark.parametrize(
    "word", ["deterministic=true", "detect_anomaly=true", "benchmark=true", "num_sanity_val_steps=2", "strategy=ddp"]
)
def test_what_changes_no_number_changes_none(compose_settings: Compose, word: str) -> None:
    """Nor a run's identity."""
    few = (*CLASSIFY, "trainer.limit_train_batches=3")
    plain, other = compose_settings(*few), compose_settings(*few, f"trainer.{word}", "paths.run_dir=${paths.data_dir}")
    assert plain.configuration() == other.configuration()
    same(train(other)["state_dict"], train(plain)["state_dict"])


@pytest.mark.parametrize("words", [CLASSIFY, AUTOENCODER, (*CLASSIFY, "classifier=dcgan")], ids=lambda w: w[-1][:12])
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_networks_of_another_precision_train(compose_settings: Compose, words: tuple[str, ...], precision: str) -> None:
    last = train(compose_settings(*words, f"trainer.precision={precision}", "trainer.fast_dev_run=true"))
    weights = next(value for name, value in last["state_dict"].items() if name.endswith("weight"))
    assert weights.dtype == {"64-true": torch.float64, "bf16-true": torch.bfloat16}[precision]


def test_a_cpu_has_no_16_mixed_and_it_is_said() -> None:
    asked = TrainerSettings(precision=16)
    assert (asked.precision, asked.precision_on("cpu"), asked.precision_on("cuda")) == (
        *("16-mixed", "bf16-mixed", "16-mixed"),
    )
    assert asked.said("cpu") == ["trainer.precision=16-mixed is not for a CPU: bf16-mixed is taken"]
    assert asked.said("cuda") == []


def test_max_epochs_wins_over_every_budget_and_is_the_same_run(compose_settings: Compose) -> None:
    settings = compose_settings("trainer.max_epochs=3")
    assert (settings.autoencoder_budget.max_epochs, settings.classifier_budget.max_epochs) == (3, 3)
    same_run = compose_settings("budget.autoencoder.max_epochs=3", "budget.classifier.max_epochs=3")
    assert settings.configuration() == same_run.configuration()
    assert settings.configuration() != compose_settings().configuration()


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        (("gradient_clip_val=0.5",), True),
        (("max_steps=5",), True),
        (("max_time='00:01:00:00'",), True),
        (("limit_train_batches=1",), True),  # a batch
        (("limit_train_batches=1.0", "gradient_clip_val=null", "accumulate_grad_batches=1"), False),  # all of them
        (("profiler=simple", "deterministic=true", "log_every_n_steps=3", "inference_mode=false"), False),
        (("enable_progress_bar=false", "sync_batchnorm=true", "max_steps=-1"), False),
    ],
)
def test_which_arguments_make_another_run(compose_settings: Compose, words: tuple[str, ...], counts: bool) -> None:
    other = compose_settings(*(f"trainer.{word}" for word in words))
    assert (other.configuration() != compose_settings().configuration()) == counts


def test_a_quick_try_takes_few_faces_in_all_stages(compose_settings: Compose) -> None:
    assert compose_settings("trainer.fast_dev_run=true", "data.limit=null").data.limit == 100
    assert compose_settings("trainer.fast_dev_run=true", "data.limit=30").data.limit == 30
    many = compose_settings("trainer.fast_dev_run=9", "data.limit=null", "budget.autoencoder.batch_size=20")
    assert many.data.limit == 180
    assert "no result of it means anything" in many.trainer.said("cpu")[0]


@pytest.mark.parametrize(
    ("capability", "precision", "said"),
    [
        ((9, 0), "32-true", "cuda:0, 32-true, TF32 in convolutions"),
        ((7, 5), "32-true", "cuda:0, 32-true, no TF32"),
        ((9, 0), "bf16-mixed", "cuda:0, bf16-mixed"),
    ],
)
def test_the_device_line_says_precision_and_tf32(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert describe(torch.device("cuda:0"), ["channels last"], precision) == said
    with devices.float32_convolutions():
        assert describe(torch.device("cuda:0"), [], precision) == said.replace("TF32 in convolutions", "no TF32")
    assert describe(torch.device("cpu"), ["channels last"], "32-true") == "cpu, 1 thread, 32-true, channels last"


def test_a_gpu_has_one_precision_however_it_was_asked_for(compose_settings: Compose) -> None:
    asked = [compose_settings(f"trainer={name}").trainer for name in ("auto", "gpu", "ddp", "cpu")]
    assert {settings.precision for settings in asked} == {"32-true"}
