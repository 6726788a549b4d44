"""What differs on a GPU or among several processes, as far as a CPU can show it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fakegan.errors import FakeganError
from fakegan.stages import train_autoencoder
from fakegan.system import ranks
from fakegan.training import fitting
from fakegan.training.callbacks import Best
from tests.conftest import Compose
from tests.helpers import run_of


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


def test_too_little_memory_for_a_step_names_the_batch_size(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=recon_classify", "classifier=dcgan", "budget.autoencoder.batch_size=24")
    for stage, error, key in [
        ("autoencoder", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "budget.autoencoder.batch_s"),
        ("classifier", RuntimeError("MPS backend out of memory"), "budget.dcgan.batch_size="),
    ]:
        with pytest.raises(FakeganError, match=key), fitting._out_of_memory_as_error(stage, settings):
            raise error
    with pytest.raises(RuntimeError, match="shape"), fitting._out_of_memory_as_error("classifier", settings):
        raise RuntimeError("shape")


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
