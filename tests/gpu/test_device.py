"""A device beside the CPU: the same numbers, within a stated tolerance. On the CPU these tests show that they work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from torchmetrics.functional.image import structural_similarity_index_measure

from fakegan.data.pixels import to_uint8, to_unit
from fakegan.data.store import FaceStore
from fakegan.detector import reconstruct
from fakegan.evaluation import spectrum
from fakegan.nets.alexnet import AlexNet
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator
from fakegan.nets.likeness import Detail, ssim, total_variation
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.system import ranks
from fakegan.system.devices import float32_convolutions, use_device
from fakegan.system.places import PROJECT
from fakegan.system.processes import SHARING
from fakegan.training.modules import EpochMeans
from fakegan.training.pool import ReconstructionPool
from tests.helpers import autoencoder, faces_of_five_steps, fit
from tests.pictures import detector

_NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ON_DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NO_GPU])])
pytestmark = ON_DEVICES


def _pixels(count: int = 8) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))


def _width(device: str) -> int:
    return 64 if device == "cuda" else 4


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_a_fused_optimizer_rests_where_found_inf_is_1(device: str) -> None:
    for found_inf in (1.0, 0.0):
        weight = nn.Parameter(torch.ones(33, device=device))
        optimizer = Adam([weight], lr=0.1, fused=True)
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.found_inf = torch.tensor(found_inf, device=device)
        optimizer.step()
        assert bool((weight != 1).any()) == (found_inf == 0)


def test_the_pool_shows_the_same_faces(device: str) -> None:
    one, other = ReconstructionPool(50), ReconstructionPool(50).to(device)
    for step in range(12):
        new = torch.rand(16, 3, 64, 64)
        torch.manual_seed(step)
        shown = one(new)
        torch.manual_seed(step)
        assert torch.equal(other(new.to(device)).cpu(), shown)


def test_gradients_become_the_means_of_two_processes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, in one collective a dtype; a gradient that one process lacks is zero there, one that both lack stays."""
    first = torch.zeros(1, 2, 1, 2, device=device).contiguous(memory_format=torch.channels_last)
    last = torch.zeros(1, device=device, dtype=torch.float64)
    learning = [nn.Parameter(weight) for weight in (first, *torch.zeros(4, 2, device=device).unbind(), last)]
    for weight, grad in zip(learning, ([[[1, 2]], [[3, 4]]], [6, -2], None, None, [1, 1], [8]), strict=True):
        if grad is not None:
            weight.grad = torch.empty_like(weight).copy_(torch.tensor(grad))
    before = learning[0].grad
    here = [
        [1, 3, 2, 4, 6, -2, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1],  # as they lie in memory, and which there are
        [8, 1],
    ]
    there = [[3, 5, 4, 6, 0, 0, 10, 2, 0, 0, 3, 3, 1, 0, 1, 0, 1], [2, 1]]

    class Both:
        @staticmethod
        def all_reduce(together: Tensor) -> None:
            assert (2 * together).tolist() == here.pop(0)
            together += torch.tensor(there.pop(0), device=device) / 2

    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "_dist", Both)
    ranks.average_gradients(learning)
    assert learning[0].grad is before
    means = [None if weight.grad is None else weight.grad.flatten().tolist() for weight in learning]
    assert means == [[2, 3, 4, 5], [3, -1], [5, 1], None, [2, 2], [5]]
    assert here == there == []


_TWO = """
import sys
import torch
from torch import nn
from fakegan.system import ranks
from fakegan.training.batchnorm import share_statistics
device = torch.device(sys.argv[1])
ranks.launched = lambda: 2
ranks.connect()
assert torch.distributed.get_backend(ranks._control) == "gloo"
ranks.count = lambda: 2  # of which the other has nothing but zeros
for kind in (torch.bfloat16, torch.float64, torch.int64):
    assert ranks.total(torch.ones(5, dtype=kind, device=device)).tolist() == [1] * 5
weight = nn.Parameter(torch.ones(3, 2, 2, 2, device=device).contiguous(memory_format=torch.channels_last))
torch.distributed.broadcast(weight.detach(), 0)
weight.grad = torch.full_like(weight, 4)
ranks.average_gradients([weight])
assert weight.grad.flatten().tolist() == [2] * 24
norm = nn.BatchNorm2d(1).to(device)
share_statistics(norm)
x = torch.full((2, 1, 2, 2), 2.0, device=device, requires_grad=True)
out = norm(x)  # of means 2 and 0 the mean is 1, the variance 1
torch.testing.assert_close(out, torch.ones_like(x))
out.sum().backward()
assert bool(torch.isfinite(x.grad).all()) and ranks.largest(7) == 7 and ranks.on_rank_zero(lambda: 3) == 3
ranks.disconnect()
"""


@pytest.mark.slow
def test_processes_meet_by_nccl_and_gloo(device: str) -> None:
    """Each kind of collective of a run, in a process alone: two cannot meet by NCCL on one GPU."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    subprocess.run([sys.executable, "-c", _TWO, device], env=os.environ | place, cwd=PROJECT, check=True)


def test_a_job_that_shares_its_gpu_has_its_part_of_the_memory(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that has it for itself has all; on the CPU nothing is divided."""
    monkeypatch.setenv(SHARING, "4")
    found = use_device(device)
    if device == "cuda":
        whole = torch.cuda.get_device_properties(found).total_memory
        try:
            torch.empty(whole // 8, dtype=torch.uint8, device=found)
            with pytest.raises(torch.OutOfMemoryError):
                torch.empty(whole // 3, dtype=torch.uint8, device=found)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, found)
    assert found.type == device


def test_pixels_survive_the_way_to_floats_and_back(device: str) -> None:
    assert torch.equal(to_uint8(to_unit(_pixels().to(device))).cpu(), _pixels())


def test_convolutions_of_scores_have_all_digits_of_float32(device: str) -> None:
    x, weight = torch.randn(8, 64, 16, 16), torch.randn(64, 64, 3, 3) / 24
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    with float32_convolutions():
        assert _apart(F.conv2d(x.to(device), weight.to(device), padding=1), exact) < 5e-6


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "AutoGAN": lambda width: AutoGAN(4, width),
    "AutoGAN with InstanceNorm": lambda width: AutoGAN(1, width, "instance"),
    "PatchGAN": PatchDiscriminator,
    "simple CNN": lambda _: SimpleCNN(dropout=0.0),
    "AlexNet": lambda width: AlexNet(width=width, dropout=0.0),
    "DCGAN": lambda width: DCGANDiscriminator(width=width),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same_output_and_gradients(device: str, name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = NETWORKS[name](_width(device)), NETWORKS[name](_width(device))
    for layer in ours.modules():
        if isinstance(layer, nn.Linear):  # the last of some is zero before training
            nn.init.normal_(layer.weight, std=0.02)
    theirs.load_state_dict(ours.state_dict())
    theirs.to(device)
    x = to_unit(_pixels())
    with float32_convolutions():
        for net, faces in ((ours, x), (theirs, x.to(device))):
            net(faces).square().mean().backward()
            net.eval()
        assert _apart(theirs(x.to(device)), ours(x)) < 1e-3
    of_all = max(float(p.grad.abs().max()) for p in ours.parameters())
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert float((p.grad - q.grad.cpu()).abs().max()) < 1e-2 * max(float(p.grad.abs().max()), 1e-3 * of_all)


def test_reconstructions_differ_by_one_level_at_most_and_scores_little(device: str) -> None:
    torch.manual_seed(0)
    net = AutoGAN(4, _width(device)).eval()
    here = reconstruct(net, _pixels()).int()
    there = reconstruct(net.to(device), _pixels().to(device)).cpu().int()
    assert int((here - there).abs().max()) <= 1
    made = detector("residual")
    on_cpu = made.margins(_pixels().numpy())
    elsewhere = made.to(torch.device(device)).margins(_pixels().numpy())
    np.testing.assert_allclose(elsewhere, on_cpu, atol=1e-2 * np.abs(on_cpu).max())


@pytest.mark.parametrize("size", [64, 128])
def test_what_is_measured_of_a_face_is_what_other_libraries_measure(device: str, size: int) -> None:
    """The analysis's figures, of a batch at once, beside those of each face by torchmetrics and NumPy on the CPU."""
    torch.manual_seed(0)
    face = F.interpolate(2 * torch.rand(11, 3, 5, 5) - 1, size=(size, size), mode="bilinear")  # smooth: faint rings
    recon = (face + 0.1 * torch.randn_like(face)).clamp(-1, 1)
    recon[0], recon[1], face[1] = face[0], 0.5, -0.25
    detail, (x, y) = Detail(size, torch.device(device)), (pictures.to(device) for pictures in (face, recon))
    with torch.autocast(device, torch.bfloat16):  # as in the validation of a fit
        similar = ssim(y, x).cpu()
    grey = detail.grey(y) - detail.grey(x)
    rings, fine = (found.cpu().numpy() for found in detail.power(grey))
    assert similar[0] == pytest.approx(1, abs=1e-6)
    by_hand = (-2 * 0.5 * 0.25 + 0.02**2) / (0.5**2 + 0.25**2 + 0.02**2)  # of two plain pictures: their means alone
    assert similar[1] == pytest.approx(by_hand, abs=1e-4)
    for i in range(len(face)):
        pair = recon[i : i + 1], face[i : i + 1]
        theirs = structural_similarity_index_measure(*pair, data_range=(-1.0, 1.0))
        assert isinstance(theirs, Tensor)
        assert similar[i].item() == pytest.approx(theirs.item(), abs=2e-5)
        residual = np.subtract(*(spectrum.grey(picture.numpy()) for picture in pair))
        assert rings[i] == pytest.approx(spectrum.azimuthal_power(residual)[0], rel=1e-9, abs=1e-20)
        assert total_variation(grey)[i].item() == pytest.approx(spectrum.total_variation(residual)[0], rel=1e-9)
    assert fine[2:].mean() == pytest.approx(0.09 * (spectrum.LUMA**2).sum() ** 0.5, rel=0.05)  # white noise


def test_sums_of_an_epoch_go_to_the_device_in_double(device: str) -> None:
    means = EpochMeans("a")
    means.load_state_dict({"totals": torch.tensor([6.0], dtype=torch.float64), "weight": torch.tensor(3.0).double()})
    means.to(device).update({"a": torch.tensor(4.0, device=device)}, 1)
    assert (means.totals.device.type, means.totals.dtype) == (device, torch.float64)
    assert float(means.compute()["a"]) == 2.5


def test_equal_steps_give_equal_gradients_where_determinism_is_asked_for(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    net, x = AutoGAN(2, _width(device)).to(device), to_unit(_pixels(16).to(device))
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            net.zero_grad()
            with torch.autocast(device, torch.bfloat16):
                loss = (net(x) - x).abs().mean()
            loss.backward()
            gradients.append([p.grad.clone() for p in net.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    for other in gradients[1:]:
        assert all(map(torch.equal, gradients[0], other))


def test_the_decoder_stays_in_bf16(device: str) -> None:
    net, kinds = AutoGAN(1, 4).to(device), []
    for layer in net.decoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _layer, inputs, output: kinds.append((inputs[0].dtype, output.dtype)))
    with torch.autocast(device, torch.bfloat16):
        net(to_unit(_pixels(2).to(device)))
    assert kinds
    assert {output for _, output in kinds} == {torch.bfloat16}
    assert {given for given, _ in kinds} == {torch.bfloat16}


class _Steps(pl.Callback):
    """The losses of every step, and whether the discriminator moved."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.moved: list[bool] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        self.before = [p.detach().clone() for p in module.discriminator.parameters()]

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: object) -> None:
        self.losses.append(module.train_means.totals.clone())
        self.moved.append(not all(map(torch.equal, self.before, module.discriminator.parameters())))


@pytest.mark.parametrize(("floor", "moves"), [(0.0, True), (1e9, False)])
def test_steps_in_bf16_keep_weights_in_float32_and_let_the_discriminator_rest(
    device: str, store: FaceStore, floor: float, moves: bool
) -> None:
    module, steps = autoencoder(_width(device), discriminator_floor=floor), _Steps()
    options = {"accelerator": "gpu" if device == "cuda" else "cpu", "precision": "bf16-mixed"}
    fit(module, faces_of_five_steps(store), callbacks=[steps], **options)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert all(bool(torch.isfinite(losses).all()) for losses in steps.losses)
    assert steps.moved == [moves] * 5


def test_a_step_in_float32_ends_near_the_cpus(device: str, store: FaceStore) -> None:
    ended = []
    for accelerator in ("cpu", "gpu" if device == "cuda" else "cpu"):
        torch.manual_seed(0)
        module = autoencoder(8)
        with float32_convolutions():
            fit(module, faces_of_five_steps(store), accelerator=accelerator, limit_train_batches=1)
        ended.append([p.detach().cpu() for p in module.autoencoder.parameters()])
    for p, q in zip(*ended, strict=True):
        # Adam's first step is the learning rate, 2e-4, in the gradient's direction: where that is 0, it is a coin's
        assert float((p - q).abs().mean()) < 4e-5
