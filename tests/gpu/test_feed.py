"""Faces kept on a device, and networks whose channels come last, as a GPU's tensor cores take them.

On the CPU the same code runs: there it is told that tensor cores compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from fakegan.data import pixels
from fakegan.data.batches import FaceBatches, KeptBatches, StoreOrder, loader, on_device
from fakegan.data.store import FaceStore
from fakegan.nets import cpu
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.backbone import Backbone
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.runs.checkpoints import load_checkpoint
from fakegan.system.devices import float32_convolutions
from fakegan.training import callbacks, trainer
from fakegan.training.callbacks import ChannelsLast, StepSeed
from tests.gpu.test_device import ON_DEVICES
from tests.helpers import autoencoder, faces_of_five_steps, same

pytestmark = ON_DEVICES


@pytest.fixture
def tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every device takes channels last, in float32's own digits, too."""
    monkeypatch.setattr(cpu, "is_for_cpus", lambda x: False)
    for module in (cpu, callbacks, pixels):
        monkeypatch.setattr(module, "uses_tensor_cores", lambda device, dtype: True)


@contextmanager
def _no_waits(device: str) -> Iterator[None]:
    """Within, torch raises an error for whatever makes the host wait for a GPU, as a copy from its memory does."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def test_batches_of_kept_faces_are_those_of_the_store(device: str, store: FaceStore) -> None:
    rows, there = np.arange(0, 320, 2), torch.device(device)
    faces = FaceBatches({"image": store.images}, store.labels)
    batches = iter(loader(KeptBatches(faces, rows, there), StoreOrder(rows, 50)))
    kept, theirs = [next(batches)], list(loader(faces, StoreOrder(rows, 50)))
    with _no_waits(device):
        kept += batches
    assert len(kept) == 4
    for batch, plain in zip(kept, theirs, strict=True):
        assert {value.device.type for value in batch.values()} == {device}
        same({name: value.cpu() for name, value in batch.items()}, plain)
        assert torch.equal(on_device(batch, ("image",))["image"].cpu(), on_device(plain, ("image",))["image"])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "AutoGAN": lambda: AutoGAN(1, 8),
    "AutoGAN with InstanceNorm": lambda: AutoGAN(1, 8, "instance", code_channels=4),
    "AutoGAN with BatchNorm": lambda: AutoGAN(1, 8, "batch"),
    "PatchGAN": lambda: PatchDiscriminator(8),
    "simple CNN": lambda: SimpleCNN(dropout=0.0),
    "AlexNet": lambda: AlexNet(width=8, dropout=0.0),
    "ResNet": lambda: Backbone(resnet18(weights=None)),
    "DCGAN": lambda: DCGANDiscriminator(width=8),
    "DCGAN's generator": lambda: DCGANGenerator(width=8),
}


def _is_last(x: Any) -> bool:
    return not isinstance(x, Tensor) or x.dim() != 4 or x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_keeps_channels_last_and_computes_what_torchs_computes(
    device: str, name: str, tensor_cores: None
) -> None:
    net = NETWORKS[name]()
    for layer in net.modules():
        if isinstance(layer, nn.Linear):  # the last of some is zero before training
            nn.init.normal_(layer.weight, std=0.02)
    net.to(device).train(name != "ResNet")  # whose BatchNorms enlarge rounding
    x = torch.randn(6, 100) if "generator" in name else torch.rand(6, 3, 64, 64) * 2 - 1
    outputs, lost = [], []
    with float32_convolutions():
        with cpu.torchs_layers():
            net.zero_grad()
            outputs.append(net(x.to(device)))
            outputs[0].square().mean().backward()
            expected = [p.grad.clone() for p in net.parameters()]
            net.zero_grad()
        cpu.lay_out_weights(net)
        for part, layer in net.named_modules():
            layer.register_forward_hook(lambda _layer, _given, y, part=part: None if _is_last(y) else lost.append(part))
        outputs.append(net(x.to(device)))
        outputs[1].square().mean().backward()
    assert not lost
    torchs, ours = (y.detach() for y in outputs)
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-4 * float(torchs.abs().max()))
    of_all = max(float(gradient.abs().max()) for gradient in expected)
    for weights, gradient in zip(net.parameters(), expected, strict=True):
        assert _is_last(weights)
        assert _is_last(weights.grad)
        apart = float((weights.grad - gradient).abs().max())
        assert apart < 1e-2 * max(float(gradient.abs().max()), 1e-3 * of_all)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_instance_norm_of_few_digits_is_as_exact_as_torchs(device: str, dtype: torch.dtype, tensor_cores: None) -> None:
    """Of maps whose mean is ten times their deviation; gradients too."""
    x = (torch.randn(4, 8, 16, 16) + 10).to(device, dtype).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(4, 8, 16, 16, device=device)
    norm, found = nn.Sequential(nn.InstanceNorm2d(8)), []
    cpu.quicken(norm)
    for forms in (nullcontext, cpu.torchs_layers):
        for kind in (dtype, torch.float64):
            given = x.to(kind).detach().clone().requires_grad_()
            with forms():
                y = norm(given)
            y.backward(weights.to(kind))
            assert given.grad is not None
            assert y.dtype == given.grad.dtype == kind
            found.append([y.double(), given.grad.double()])
    ours, exact, theirs, _ = found
    for at in range(2):
        apart, apart_of_torchs = ((part[at] - exact[at]).abs().max() for part in (ours, theirs))
        assert apart < 2 * apart_of_torchs
    assert _is_last(ours[0])


def _fitted(store: FaceStore, device: str, epochs: int, resumed: Path | None = None) -> tuple[Any, pl.Trainer]:
    """A small autoencoder after some epochs, with a run's callbacks and checkpoints."""
    torch.manual_seed(0)
    module, quiet = autoencoder(8), ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    fitted = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        max_epochs=epochs,
        callbacks=[ChannelsLast(), StepSeed(0)],
        plugins=[trainer.AtomicCheckpointIO()],
        use_distributed_sampler=False,
        **dict.fromkeys(quiet, False),
    )
    fitted.fit(module, faces_of_five_steps(store), ckpt_path=resumed)
    return module, fitted


def _near(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    for name, value in theirs.items():
        if isinstance(value, Tensor):
            assert float((ours[name].cpu() - value.cpu()).double().abs().mean()) <= tolerance, name


def test_a_training_with_channels_last_ends_near_the_plain_one_and_resumes_from_planes(
    device: str, store: FaceStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With equal bits on the CPU; a GPU adds in any order."""
    file = tmp_path / "last.ckpt"
    with float32_convolutions():
        plain, _ = _fitted(store, device, epochs=1)
        request.getfixturevalue("tensor_cores")
        last, fitted = _fitted(store, device, epochs=1)
        fitted.save_checkpoint(file)
        whole, resumed = (_fitted(store, device, epochs=2, resumed=begun)[0] for begun in (None, file))
    assert not last.autoencoder.encoder.down[1][0].weight.is_contiguous()
    assert not last.pool.images.is_contiguous()
    _near(last.state_dict(), plain.state_dict(), tolerance=1e-3)
    _near(resumed.state_dict(), whole.state_dict(), tolerance=0 if device == "cpu" else 1e-3)
    content = load_checkpoint(file)
    moments = [
        value for of in content["optimizer_states"] for state in of["state"].values() for value in state.values()
    ]
    assert len(moments) > 20
    assert all(x.is_contiguous() for x in [*moments, *content["state_dict"].values()] if isinstance(x, Tensor))
