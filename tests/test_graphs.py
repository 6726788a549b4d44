"""Training steps as CUDA graphs, as far as a CPU can show it: when they pay, the same bits, going on without them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode

from fakegan.data.store import FaceStore
from fakegan.nets.cpu import torchs_layers
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.stages import run as stages
from fakegan.system import devices
from fakegan.system.devices import uses_tensor_cores
from fakegan.training import graphs
from fakegan.training.autoencoder import AdversarialAutoencoder
from fakegan.training.callbacks import EndAfter, StepSeed
from fakegan.training.classifier import Classifier
from fakegan.training.dcgan import DCGANClassifier
from fakegan.training.graphs import CudaGraphs
from tests.conftest import Compose
from tests.helpers import autoencoder, elsewhere, faces_of_five_steps, fit, real_and_fake, same, same_run


@pytest.mark.parametrize(
    ("changed", "pays"),
    [
        ({}, True),
        ({"device": "cpu"}, False),
        ({"deterministic": True}, False),
        ({"max_epochs": 19}, False),  # 4,750 steps are left
        ({"callbacks": [EndAfter(4999, 500)]}, False),
        ({"accumulate_grad_batches": 2}, False),
        ({"batch": {"x": torch.empty(129, 1, 64, 64)}}, False),
        ({"batch": {"x": torch.empty(9, 9, 256, 256)}}, False),
        ({"batch": {"x": torch.empty(8, 9, 256, 256), "label": torch.empty(8)}}, True),
        ({"batch": [torch.empty(9)]}, False),  # of a data module that nobody knows
    ],
)
def test_graphs_are_for_many_steps_of_few_pixels_on_one_gpu(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], pays: bool
) -> None:
    said = {"device": "cuda", "batch": {"image": torch.empty(128, 3, 64, 64)}, "max_epochs": 20, "callbacks": []}
    said |= {"accumulate_grad_batches": 1, "num_training_batches": 500, "current_epoch": 10} | changed
    deterministic = said.pop("deterministic", False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    module = SimpleNamespace(device=torch.device(said.pop("device")))
    assert graphs._pays(SimpleNamespace(**said), module, said.pop("batch")) is pays  # type: ignore[arg-type]


def test_a_module_without_networks_trains_without_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    callback = CudaGraphs("classifier", True)
    callback.on_train_batch_start(pl.Trainer(logger=False, enable_checkpointing=False), pl.LightningModule(), {}, 0)
    assert callback.on is False
    assert "classifier: it has no `net`" in "".join(capsys.readouterr())


class AsksForTensorCores(nn.Module):
    """As the layers of fakegan.nets.cpu ask on a GPU, of a network in float32."""

    def forward(self, x: Tensor) -> Tensor:  # any shape, the same
        return 2 * x if uses_tensor_cores(torch.device("cuda"), x.dtype) else x


def test_a_layer_that_asks_for_tensor_cores_ends_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_BACKEND", "eager")
    monkeypatch.setattr(devices, "_has_tf32", lambda: True)
    module = pl.LightningModule()
    module.net = nn.Sequential(nn.ReLU(), AsksForTensorCores(), nn.ReLU())
    assert CudaGraphs("classifier", True)._compile(module)
    counters.clear()
    assert module.net(torch.ones(2)).tolist() == [2, 2]
    assert not counters["graph_break"]
    torch.compiler.reset()


class Overwritten:
    """A backend whose tensors are lost when the next step begins, as those of CUDA graphs are; in bits torch's own."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []
        self.graphs = 0

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiler = aot_autograd(fw_compiler=self.compiled, bw_compiler=self.compiled)
        run: Callable[..., Any] = compiler(graph, inputs)
        return run

    def compiled(self, graph: fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1

        def run(*inputs: Any) -> Any:
            given = {x.untyped_storage().data_ptr() for x in inputs if isinstance(x, Tensor)}
            outputs = graph(*inputs)
            new = [x for x in outputs if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in given]
            self.made += [x.detach() for x in new if x.is_floating_point()]
            return outputs

        return run

    def begin_step(self) -> None:
        for tensor in self.made:
            tensor.fill_(torch.nan)
        self.made.clear()


def _simple_cnn() -> Classifier:
    return Classifier(SimpleCNN(dropout=0.5), partial(Adam, lr=1e-3, fused=True))


def _dcgan() -> DCGANClassifier:
    nets = DCGANDiscriminator(width=2), DCGANGenerator(latent=3, width=2)
    return DCGANClassifier(*nets, partial(Adam, lr=1e-3, fused=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "data", "recorded", "steps"),
    [  # a forward and a backward graph: autoencoder; discriminator, whose weights rest, then learn
        (autoencoder, faces_of_five_steps, 6, 20),
        (_dcgan, partial(real_and_fake, batch_size=40), 8, 20),  # the discriminator a third time: no statistics
        (_simple_cnn, partial(real_and_fake, batch_size=40), 2, 10),
    ],
)
def test_steps_in_graphs_end_with_the_same_bits(
    store: FaceStore,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], pl.LightningModule],
    data: Callable[[FaceStore], Any],
    recorded: int,
    steps: int,
) -> None:
    backend, ended = Overwritten(), []
    monkeypatch.setattr(graphs, "_BACKEND", backend)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", backend.begin_step)
    counters.clear()
    for asked in (False, True):
        torch.manual_seed(0)
        module = make()
        with torchs_layers():  # a GPU's
            trainer = fit(module, data(store), epochs=2, callbacks=[StepSeed(0), CudaGraphs("classifier", asked)])
        torch.compiler.set_stance("default")
        ended.append({**module.state_dict(), **trainer.callback_metrics, "steps": trainer.global_step})
    torch.compiler.reset()
    same(*ended)
    assert (backend.graphs, ended[1]["steps"]) == (recorded, steps)
    assert not counters["graph_break"]


class Launches(TorchDispatchMode):
    """Names of the kernels that are started: calls that compute, and return no view."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, call: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [returned.alias_info for returned in call._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in aliases)
        if not view and not call.__name__.startswith(("empty", "new_empty", "_record_function")):
            self.names.append(call.__name__)
        return call(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("make", "data", "most"),
    [(autoencoder, faces_of_five_steps, 185), (_dcgan, real_and_fake, 182), (_simple_cnn, real_and_fake, 52)],
)
def test_a_step_starts_few_kernels_and_never_waits(
    store: FaceStore, make: Callable[[], pl.LightningModule], data: Callable[[FaceStore], Any], most: int
) -> None:
    """On a GPU each takes some microseconds to launch; `_local_scalar_dense` is a number that the host waits for."""
    launches = Launches()

    class SecondStep(pl.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            if arguments[-1] == 1:
                launches.__enter__()

        def on_train_batch_end(self, *arguments: Any) -> None:
            if arguments[-1] == 1:
                launches.__exit__(None, None, None)

    with torchs_layers():
        fit(make(), data(store), callbacks=[SecondStep()], limit_train_batches=2, limit_val_batches=0)
    print(len(launches.names), "kernels")
    assert 0 < len(launches.names) <= most
    assert "_local_scalar_dense.default" not in launches.names


@pytest.mark.slow
def test_where_recording_fails_training_begins_again_without_graphs(
    compose_settings: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("pipeline=classify", "classifier.ema=0.5", "budget.classifier.max_epochs=1")
    whole, failing = (elsewhere(compose_settings(*words), name) for name in ("whole", "failing"))
    stages.run(whole)
    monkeypatch.setattr(graphs, "_pays", lambda *_: True)

    def no_backend(*_: Any) -> None:
        raise ValueError("no such kernel")

    monkeypatch.setattr(graphs, "_BACKEND", no_backend)
    capsys.readouterr()
    stages.run(failing)
    said = "".join(capsys.readouterr())
    assert "classifier: training with CUDA graphs failed (" in said
    assert "no such kernel" in said
    same_run(failing.paths.run_dir, whole.paths.run_dir)


@pytest.mark.slow
def test_where_a_graph_fails_later_training_goes_on_from_the_last_checkpoint(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("pipeline=autoencoder", "budget.autoencoder.max_epochs=3")
    whole, failing = (
        elsewhere(compose_settings(*words, f"paths.artifact_dir={tmp_path / name}"), name)
        for name in ("whole", "failing")
    )
    stages.run(whole)
    begun, real_start = [], AdversarialAutoencoder.training_step

    def fails_in_the_third_epoch(self: Any, batch: Any, batch_idx: int) -> None:
        begun.append((self.current_epoch, batch_idx))
        assert signal.getsignal(signal.SIGTERM).__self__ in self.trainer.callbacks  # type: ignore[union-attr]
        if begun.count((2, 1)) == 1 and begun[-1] == (2, 1):
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        real_start(self, batch, batch_idx)

    monkeypatch.setattr(graphs, "_pays", lambda *_: True)
    monkeypatch.setattr(graphs, "_BACKEND", "aot_eager")
    monkeypatch.setattr(AdversarialAutoencoder, "training_step", fails_in_the_third_epoch)
    stages.run(failing)
    assert begun.count((0, 0)) == begun.count((1, 0)) == 1
    assert begun.count((2, 0)) == 2
    same_run(failing.paths.run_dir, whole.paths.run_dir)
