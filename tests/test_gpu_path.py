"""What differs on a GPU or among several processes, as far as a CPU can show it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakegan.errors import FakeganError
from fakegan.stages import train_autoencoder
from fakegan.system import ranks
from fakegan.system.devices import use_device
from fakegan.system.processes import SHARING
from fakegan.training import fitting
from fakegan.training.callbacks import Best
from tests.conftest import Compose
from tests.helpers import asked, run_of


@pytest.mark.parametrize(("said_by_rank_0", "current"), [(True, 0.74999994), (False, 0.75)])
def test_rank_0_decides_whether_an_epoch_is_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said_by_rank_0: bool, current: float
) -> None:
    """Ranks may differ in a last digit; one that saved alone would wait for ever."""
    best = Best(tmp_path, "val/auroc", "max")
    best.best_k_models, best.kth_best_model_path = {"best.ckpt": torch.tensor(0.75)}, "best.ckpt"
    assert best.check_monitor_top_k(SimpleNamespace(), torch.tensor(current)) is not said_by_rank_0
    monkeypatch.setattr(ranks, "on_rank_zero", lambda task: said_by_rank_0)
    assert best.check_monitor_top_k(SimpleNamespace(), torch.tensor(current)) is said_by_rank_0


def test_a_job_that_shares_a_gpu_asks_for_its_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: asked.append(given))
    use_device("gpu")
    assert asked == []
    monkeypatch.setenv(SHARING, "4")
    assert use_device("cpu") == torch.device("cpu")
    assert use_device("gpu") == torch.device("cuda:0")
    assert asked == [(0.25, torch.device("cuda:0"))]


def test_too_little_memory_for_a_step_names_the_batch_size(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose_settings("pipeline=recon_classify", "classifier=dcgan", "budget.autoencoder.batch_size=24")
    for stage, error, key in [
        ("autoencoder", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "budget.autoencoder.batch_s"),
        ("classifier", RuntimeError("MPS backend out of memory"), "budget.dcgan.batch_size="),
    ]:
        with pytest.raises(FakeganError, match=rf"{key}.* lower it$"), fitting._out_of_memory_as_error(stage, settings):
            raise error
    monkeypatch.setenv(SHARING, "3")
    says = pytest.raises(FakeganError, match=r"it, or hydra\.launcher\.jobs_per_gpu=3$")
    with says, fitting._out_of_memory_as_error("classifier", settings):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="shape"), fitting._out_of_memory_as_error("classifier", settings):
        raise RuntimeError("shape")


@pytest.mark.parametrize(
    ("words", "tried"),
    [("", True), ("benchmark=true", False), ("deterministic=true", False), ("deterministic=warn", False)],
)
def test_cudnn_tries_convolutions_in_training_alone_unless_the_trainer_says_otherwise(
    compose_settings: Compose, words: str, tried: bool
) -> None:
    """What Lightning has set by trainer.benchmark stays."""
    settings = compose_settings(*asked(words)) if words else compose_settings()
    with fitting._convolutions_tried(settings.trainer.arguments):
        assert torch.backends.cudnn.benchmark is tried
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(("device", "faces"), [("cpu", 64), ("cuda", 256)])
def test_a_gpu_validates_the_autoencoder_on_larger_batches(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, device: str, faces: int
) -> None:
    class Asked(Exception):
        pass

    def fit(make: Any, data: Any, *_: Any, **__: Any) -> None:
        raise Asked(data.val_order.batch_size, data.train_order.batch_size)

    monkeypatch.setattr(train_autoencoder, "fit", fit)
    run = run_of(compose_settings("pipeline=autoencoder", "budget.autoencoder.batch_size=24"))
    run.device = torch.device(device)
    with pytest.raises(Asked) as asked:
        train_autoencoder.find_trained(run)
    assert asked.value.args == (faces, 24)
