"""conf/trainer before a run: arguments that no run can have, those that make another run, precision and device."""

import pytest
import torch

from fakegan.errors import UsageError
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.system import devices
from fakegan.system.devices import describe
from tests.benchmarks.trainer import PRECISION
from tests.conftest import Compose
from tests.helpers import asked


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
        ("cuda_graphs=often", "trainer.cuda_graphs=often must be auto, true or false"),
        ("strategy=fsdp", "trainer.strategy=fsdp is not for a run"),
        ("logger=false", "trainer.logger=False is not for a run: loggers are a group of their own: logger=csv"),
        ("callbacks=[x]", "callbacks are a group of their own"),
        ("plugins=[x]", "trainer.plugins=['x'] is not for a run"),
        ("enable_checkpointing=false", "=False is not for a run: a run ends and goes on by"),
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


def test_a_cpu_has_no_16_mixed_and_it_is_said() -> None:
    settings = TrainerSettings(precision=16)
    assert (settings.precision, settings.precision_on("cpu"), settings.precision_on("cuda")) == (
        *("16-mixed", "bf16-mixed", "16-mixed"),
    )
    assert settings.said("cpu") == ["trainer.precision=16-mixed is not for a CPU: bf16-mixed is taken"]
    assert settings.said("cuda") == []


def test_max_epochs_wins_over_every_budget_and_is_the_same_run(compose_settings: Compose) -> None:
    settings = compose_settings("trainer.max_epochs=3")
    assert (settings.autoencoder_budget.max_epochs, settings.classifier_budget.max_epochs) == (3, 3)
    same_run = compose_settings("budget.autoencoder.max_epochs=3", "budget.classifier.max_epochs=3")
    assert settings.configuration() == same_run.configuration()
    assert settings.configuration() != compose_settings().configuration()


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        ("gradient_clip_val=0.5", True),
        ("max_steps=5", True),
        ("max_time='00:01:00:00'", True),
        ("limit_train_batches=1", True),  # a batch
        ("limit_train_batches=1.0 gradient_clip_val=null accumulate_grad_batches=1", False),  # all of them
        ("profiler=simple deterministic=true log_every_n_steps=3 inference_mode=false", False),
        ("enable_progress_bar=false sync_batchnorm=true max_steps=-1", False),
    ],
)
def test_which_arguments_make_another_run(compose_settings: Compose, arguments: str, counts: bool) -> None:
    other = compose_settings(*asked(arguments))
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
    assert describe(torch.device("cuda:0"), ["channels last"], precision) == f"{said}, channels last"
    with devices.float32_convolutions():
        assert describe(torch.device("cuda:0"), [], precision) == said.replace("TF32 in convolutions", "no TF32")
    assert describe(torch.device("cpu"), ["channels last"], "32-true") == "cpu, 1 thread, 32-true, channels last"


@pytest.mark.parametrize(("capability", "in_tf32"), [((9, 0), True), ((7, 5), False)])
def test_tensor_cores_compute_16_bits_and_on_newer_gpus_tf32_where_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], in_tf32: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    on, gpu = devices.uses_tensor_cores, torch.device("cuda")
    assert on(gpu, torch.float32) is in_tf32
    assert (on(gpu, torch.bfloat16), on(gpu, torch.float64), on(torch.device("cpu"), torch.bfloat16)) == (True, 0, 0)
    with devices.float32_convolutions():  # as of scores
        assert not on(gpu, torch.float32)
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
        assert on(gpu, torch.float32)


def test_a_gpu_has_one_precision_however_it_was_asked_for(compose_settings: Compose) -> None:
    found = [compose_settings(f"trainer={name}").trainer for name in ("auto", "gpu", "ddp", "cpu")]
    assert {settings.precision for settings in found} == {"32-true"} == {PRECISION}
