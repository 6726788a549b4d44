"""Any argument of Lightning's Trainer: it works in every stage, or one sentence says with its key why it cannot."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from fakegan.data.faces import open_faces
from fakegan.errors import UsageError
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.stages.examples import make_examples
from fakegan.stages.stage import Run
from fakegan.stages.train_autoencoder import train_autoencoder
from fakegan.stages.train_classifier import train_classifier
from fakegan.system import ranks, signals
from fakegan.training import fitting, parts, trainer
from fakegan.training.callbacks import ClipGradients, Patience
from fakegan.training.modules import ByTurns
from fakegan.training.schedules import constant
from tests.conftest import Compose
from tests.helpers import asked, fit, same
from tests.odd_parts import StopsOnce

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
    run = Run(settings, torch.device("cpu"), faces)
    if view is None:
        train_autoencoder(run)
    else:
        make_examples(run)
        train_classifier(run)
    stage = settings.paths.run_dir / ("autoencoder" if view is None else "classifier")
    return load_checkpoint(stage / "checkpoints" / "last.ckpt")


def steps(checkpoint: dict[str, Any]) -> int:
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


CLASSIFY = ("pipeline=classify",)  # 13 steps an epoch, of 8 faces each
AUTOENCODER = ("pipeline=autoencoder", "budget.autoencoder={max_epochs: 1, batch_size: 8}")  # 5 steps
DCGAN = (*CLASSIFY, "classifier=dcgan")
RECON = ("pipeline=recon_classify",)
MODULES = pytest.mark.parametrize("words", [CLASSIFY, AUTOENCODER, DCGAN], ids=["classifier", "autoencoder", "dcgan"])


@pytest.mark.parametrize(
    ("words", "arguments", "done", "epochs"),
    [
        (CLASSIFY, "limit_train_batches=3 max_epochs=2", 6, 2),
        (CLASSIFY, "limit_train_batches=0.5", 6, 1),
        (CLASSIFY, "fast_dev_run=true", 1, 1),
        (CLASSIFY, "fast_dev_run=2 max_epochs=7 max_steps=9", 2, 1),
        (CLASSIFY, "max_steps=7", 7, 1),
        (CLASSIFY, "max_steps=7 min_steps=5", 7, 1),
        (CLASSIFY, "max_steps=20", 20, 2),
        (CLASSIFY, "max_steps=20 max_epochs=1", 13, 1),
        (CLASSIFY, "max_epochs=3 min_epochs=3 callbacks.early_stopping.patience=1", 39, 3),
        (CLASSIFY, "overfit_batches=2 max_epochs=2", 4, 2),
        (CLASSIFY, "accumulate_grad_batches=4 max_steps=3", 12, 1),
        (CLASSIFY, "val_check_interval=5 check_val_every_n_epoch=null", 13, 1),
        (AUTOENCODER, "max_steps=7", 7, 2),  # Lightning would count the steps of both optimizers
        (AUTOENCODER, "fast_dev_run=true", 1, 1),
    ],
)
def test_how_long_a_network_trains(
    compose_settings: Compose, words: tuple[str, ...], arguments: str, done: int, epochs: int
) -> None:
    """A run has its best.ckpt in any case: validation comes after the last step."""
    settings = compose_settings(*words, *asked(arguments))
    last = train(settings)
    assert (steps(last), last["epoch"] + 1) == (done, epochs)
    stage, metric = ("classifier", "val/auroc") if settings.pipeline.seen else ("autoencoder", "val/l1")
    best = load_checkpoint(settings.paths.run_dir / stage / "checkpoints" / "best.ckpt")
    assert metric in best["metrics"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("max_epochs=3", (39, 13)),
        ("max_steps=20", (20, 13)),  # an epoch is no shorter for it
        ("limit_train_batches=7 accumulate_grad_batches=2 max_epochs=2", (8, 4)),
    ],
)
def test_schedules_get_the_steps_of_the_fit_and_of_an_epoch(
    compose_settings: Compose, arguments: str, wanted: tuple[int, int]
) -> None:
    told.clear()
    train(compose_settings(*CLASSIFY, *asked(arguments), "classifier.schedule._target_=tests.test_trainer.telling"))
    assert wanted in told  # the others are trials


@pytest.mark.parametrize(
    ("monitor", "every", "words"),
    [
        ("val/auroc", 1, "3 epochs without a better val AUROC"),
        ("val/loss", 2, "3 validations without a better val/loss"),
    ],
)
def test_the_reason_of_an_early_stop_is_said(monitor: str, every: int, words: str) -> None:
    patience = Patience(monitor, "max", patience=3)
    patience.wait_count = 3
    ended: Any = SimpleNamespace(callbacks=[patience], val_check_interval=1.0, check_val_every_n_epoch=every)
    assert fitting.reason_of_end(ended) == f": {words}"


told: list[tuple[int, int]] = []


def telling(optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
    told.append((total_steps, steps_per_epoch))
    return constant(optimizer)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ((), "DDPStrategy"),
        (("trainer.strategy=ddp_find_unused_parameters_true",), "SyncEachBackward"),  # a net may leave weights out
        (("classifier.frozen_epochs=1", "classifier=simple_cnn"), "SyncEachBackward"),
        (("classifier=dcgan",), "SyncEachBackward"),
    ],
)
def test_where_weights_rest_several_processes_do_without_distributed_data_parallel(
    compose_settings: Compose, words: tuple[str, ...], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose_settings(*CLASSIFY, *words)
    made = parts.classifier(settings)
    monkeypatch.setattr(ranks, "count", lambda: 2)
    strategy: Any = trainer._strategy(made, settings.trainer.node.get("strategy"))
    assert type(strategy).__name__ == kind
    if kind == "DDPStrategy":
        assert strategy._ddp_kwargs == {"broadcast_buffers": False}
        return
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, source: sent.append((tensor.data_ptr(), source)))
    strategy.connect(made)
    strategy.configure_ddp()
    assert sent == [(weights.data_ptr(), 0) for weights in made.parameters()]  # and no buffers


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
    "arguments",
    [
        "limit_train_batches=4 max_epochs=3",
        "overfit_batches=4 max_epochs=3",
        "val_check_interval=2 limit_train_batches=6 max_epochs=3",
        "check_val_every_n_epoch=2 limit_train_batches=4 max_epochs=4",
        "accumulate_grad_batches=2 limit_train_batches=5 max_epochs=3",
        "gradient_clip_val=0.1 max_steps=17",
        "precision=bf16-mixed limit_train_batches=4 max_epochs=3",
    ],
)
def test_a_fit_that_was_stopped_within_an_epoch_ends_with_the_same_bits(
    compose_settings: Compose, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = (f"callbacks.stops.{word}" for word in ("_target_=tests.odd_parts.StopsOnce", "epoch=1", "step=1"))
    run = partial(compose_settings, *CLASSIFY, *asked(arguments), *stops)
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


class _Slope(ByTurns):
    """A net whose loss is its weights times a gradient; it learns by manual or by automatic optimization."""

    monitor, mode = "none", "min"
    networks, train_logged = ("net",), ()

    def __init__(self, automatic: bool, make: Callable[..., Any], gradient: float) -> None:
        super().__init__()
        self.automatic_optimization = automatic
        self.make_optimizer, self.make_schedule = make, None
        self.net = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.net.weight)
        self.gradient = torch.tensor([3.0, 4.0]) * gradient

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        loss = (self.net.weight * self.gradient).sum()
        if self.automatic_optimization:
            return loss
        self.learn(self.optimizers(), loss)  # type: ignore[arg-type]
        return None


@pytest.mark.parametrize("automatic", [True, False])
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
    automatic: bool, fused: bool, scaled: bool, gradient: float, limit: float, algorithm: Any, step: tuple[float, float]
) -> None:
    """SGD with rate 1 goes the gradient's way, once; where 16-mixed scales the loss by 65536, this is undone first."""
    plain = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    module = _Slope(automatic, partial(SGD, lr=1.0, fused=fused), gradient)
    data: Any = torch.utils.data.DataLoader([torch.zeros(1)], batch_size=None)  # type: ignore[arg-type]
    fit(module, data, callbacks=[ClipGradients(limit, algorithm)], plugins=[plain] if scaled else None)
    assert (-module.net.weight[0]).tolist() == pytest.approx(step, rel=1e-5)


@MODULES
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_clipping_reaches_every_module_of_a_run(
    compose_settings: Compose, words: tuple[str, ...], precision: str
) -> None:
    """With SGD and a rate of 1, a step is no longer than the limit."""
    settings = compose_settings(*words, f"trainer.precision={precision}", "trainer.gradient_clip_val=0.001", ONE_STEP)
    part, make = ("model", parts.autoencoder) if settings.pipeline.seen is None else ("classifier", parts.classifier)
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1.0}
    kept = getattr(settings, part)
    plain: Any = {part: replace(kept, node={**kept.node, "optimizer": sgd, "schedule": None})}
    settings = replace(settings, **plain)
    torch.manual_seed(settings.seed)
    before = {name: weights.detach().clone() for name, weights in make(settings).named_parameters()}
    after = train(settings)["state_dict"]
    networks = {name.partition(".")[0] for name in before}
    for network in networks:
        moved = math.sqrt(sum(float((after[n] - p).square().sum()) for n, p in before.items() if n.startswith(network)))
        assert moved == pytest.approx(0.001, rel=0.01), network


@pytest.mark.parametrize(
    ("words", "arguments", "sentence"),
    [
        (RECON, "accumulate_grad_batches=3", "trainer.accumulate_grad_batches=3 is not for AdversarialAutoencoder"),
        (DCGAN, "accumulate_grad_batches=3", "trainer.accumulate_grad_batches=3 is not for DCGANClassifier"),
        (RECON, "limit_train_batches=2.5", "trainer.limit_train_batches=2.5: You have passed invalid value 2.5"),
        (RECON, "profiler=simpel", "trainer.profiler=simpel: "),
        (RECON, "min_epochs=3", "trainer.min_epochs=3 is more than the epochs, 1"),
        (RECON, "check_val_every_n_epoch=3", "trainer.check_val_every_n_epoch=3 is more than the epochs, 1"),
        (RECON, "cuda_graphs=true", "trainer.cuda_graphs=true needs a CUDA device: leave it out"),
        (RECON, "num_nodes=2", "trainer.num_nodes=2, but this run is on 1"),
        (RECON, "callbacks.model_checkpoint=null", "callbacks.model_checkpoint must be a fakegan Best"),
        (RECON, "logger.csv._target_=pytorch_lightning.loggers.NoLogger", "logger.csv"),
    ],
)
def test_what_this_run_cannot_have_is_refused_before_anything_starts(
    compose_settings: Compose, words: tuple[str, ...], arguments: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as refused:
        stages.run(compose_settings(*words, *asked(arguments)), open_faces=lambda *_: pytest.fail("it began"))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("limit_train_batches=0.01", "trainer.limit_train_batches=0.01 leaves none of 13 batches"),
        ("overfit_batches=0.01", "trainer.overfit_batches=0.01 leaves none of 13 batches"),
        ("val_check_interval=20", "trainer.val_check_interval=20 is more than the 13 batches of an epoch"),
        ("max_steps=5 min_steps=6", "trainer.max_steps=5 ends before trainer.min_steps=6"),
        ("max_steps=5 min_epochs=1", "ends before trainer.min_epochs=1, which needs 13 steps"),
    ],
)
def test_what_the_faces_do_not_allow_is_refused_before_the_stage(
    compose_settings: Compose, word: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as refused:
        train(compose_settings(*CLASSIFY, *asked(word)))
    assert sentence in str(refused.value)


def test_a_summary_is_printed_and_a_profile_written_and_said(
    compose_settings: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("trainer.enable_model_summary=true", "trainer.profiler=simple", "trainer.fast_dev_run=true")
    settings = compose_settings(*CLASSIFY, *words)
    train(settings)
    profile = settings.paths.run_dir / "classifier" / "fit-profile.txt"
    assert "run_training_batch" in profile.read_text()
    out = capsys.readouterr().out
    assert f"classifier: profile in {profile}" in out
    assert "Trainable params" in out


def test_what_changes_no_number_changes_none(compose_settings: Compose) -> None:
    """Nor a run's identity."""
    arguments = "deterministic=true detect_anomaly=true benchmark=true num_sanity_val_steps=2 strategy=ddp"
    few = (*CLASSIFY, "trainer.limit_train_batches=3")
    plain, other = compose_settings(*few), compose_settings(*few, *asked(arguments), "paths.run_dir=${paths.data_dir}")
    assert plain.configuration() == other.configuration()
    same(train(other)["state_dict"], train(plain)["state_dict"])


@MODULES
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_networks_of_another_precision_train(compose_settings: Compose, words: tuple[str, ...], precision: str) -> None:
    last = train(compose_settings(*words, f"trainer.precision={precision}", "trainer.fast_dev_run=true"))
    weights = next(value for name, value in last["state_dict"].items() if name.endswith("weight"))
    assert weights.dtype == {"64-true": torch.float64, "bf16-true": torch.bfloat16}[precision]
