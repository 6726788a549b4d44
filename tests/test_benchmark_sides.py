"""The sides of a benchmark's row do the same work: the study's networks and steps, written plainly, are ours."""

import math
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fakegan.data.pixels import to_unit
from fakegan.detector import reconstruct
from fakegan.nets.autogan import AutoGAN, PatchDiscriminator
from fakegan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training.pool import ReconstructionPool
from tests.benchmarks import study, trainer
from tests.benchmarks.feed import TO_BYTES, TO_FLOATS, FaceArray
from tests.benchmarks.layers import pairs
from tests.helpers import fit


def copy_weights(into: nn.Module, out_of: nn.Module) -> None:
    """In order; biases of zero that the plain net lacks are left out."""
    given = iter(out_of.parameters())
    with torch.no_grad():
        for parameter in into.parameters():
            while (value := next(given)).shape != parameter.shape:
                assert not value.any()
            parameter.copy_(value)
    assert not any(value.any() for value in given)


def _autogan(depth: int, width: int, norm: bool) -> tuple[nn.Module, nn.Module]:
    return AutoGAN(depth, width, "instance" if norm else "none"), study.autoencoder(depth, width, norm)


@pytest.mark.parametrize(
    ("ours", "plain", "shape"),
    [
        (*_autogan(1, 8, True), (2, 3, 64, 64)),
        (*_autogan(4, 8, True), (2, 3, 64, 64)),
        (*_autogan(1, 32, True), (2, 3, 64, 64)),  # blocks of 128 channels are computed by Winograd's algorithm
        (*_autogan(1, 32, False), (2, 3, 64, 64)),
        (PatchDiscriminator(8), study.patch_discriminator(8), (4, 3, 64, 64)),
        (DCGANDiscriminator(width=8), study.dcgan_discriminator(8), (4, 3, 64, 64)),
        (DCGANGenerator(width=8), nn.Sequential(nn.Unflatten(1, (100, 1, 1)), study.dcgan_generator(8)), (4, 100)),
        (SimpleCNN(dropout=0.0), nn.Sequential(*study.simple_cnn()[:8], study.simple_cnn()[9]), (4, 3, 64, 64)),
        *((pair.ours(), pair.plain(), pair.shape) for pair in pairs(True)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_the_studys_networks_and_layers_are_ours(ours: nn.Module, plain: nn.Module, shape: tuple[int, ...]) -> None:
    if isinstance(ours, SimpleCNN):
        nn.init.normal_(ours.head[-1].weight)  # it starts at zero
    copy_weights(plain, ours)
    x = torch.rand(shape) * 2 - 1
    expected = plain(x).detach()
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=3e-4 * float(expected.std()))
    assert expected.std() > 1e-3


def record_losses(module: Any) -> list[dict[str, float]]:
    """The losses of each step of the fit that follows."""
    steps, update = list[dict[str, float]](), module.train_means.update

    def recorded(values: dict[str, Tensor], weight: int) -> None:
        steps.append({name: float(value.detach()) for name, value in values.items()})
        update(values, weight)

    module.train_means.update = recorded
    return steps


def in_memory(batches: list[dict[str, Tensor]]) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "batch"), [(4, 4), (32, 2)])
def test_the_studys_step_and_ours_compute_the_same(width: int, batch: int) -> None:
    torch.manual_seed(0)
    module = trainer.autoencoder(1, width)
    module.pool = ReconstructionPool(0)
    generator, discriminator = study.autoencoder(1, width), study.patch_discriminator(width)
    copy_weights(generator, module.autoencoder)
    copy_weights(discriminator, module.discriminator)
    batches = [trainer.real(batch) for _ in range(3)]

    step = study.AutoencoderStep(generator, discriminator, pool_size=0)
    theirs = [{name: float(value) for name, value in step(each["image"]).items()} for each in batches]
    losses = record_losses(module)
    fit(module, in_memory(batches))

    ours = [{name: losses[step][name] for name in theirs[step]} for step in range(3)]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-3)  # after two steps of both networks
    assert theirs[2]["adversarial"] != pytest.approx(theirs[0]["adversarial"], rel=1e-2)


class _SameNoise(pl.Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        torch.manual_seed(5)


def test_the_studys_dcgan_step_and_ours_begin_alike() -> None:
    """The study's D learns before G, ours after it: with a rate of 0 for D even G's loss is the same."""
    module = trainer.dcgan(4)
    generator, discriminator = study.dcgan_generator(4), study.dcgan_discriminator(4)
    copy_weights(generator, module.generator)
    copy_weights(discriminator, module.net)
    batch = trainer.labelled(6)

    step = study.DCGANStep(generator, discriminator)
    step.opt_disc.param_groups[0]["lr"] = 0.0
    torch.manual_seed(5)
    theirs = {name: float(value) for name, value in step(batch["x"], batch["label"]).items()}
    losses = record_losses(module)
    fit(module, in_memory([batch]), callbacks=[_SameNoise()])

    (ours,) = losses
    assert ours["loss"] == pytest.approx(theirs["labelled"], rel=1e-5)
    assert ours["discriminator_loss"] == pytest.approx((theirs["labelled"] + theirs["samples"]) / 2, rel=1e-5)
    assert ours["generator_loss"] == pytest.approx(theirs["generator"], rel=1e-5)
    assert len({round(loss, 4) for loss in theirs.values()}) == 3


def _same_weights(before: nn.Module, ours: nn.Module, theirs: nn.Module, moved: float) -> None:
    """In float64 to 1e-9: Adam divides each gradient by its own size, rounding with it where one is nearly 0.

    Every layer has moved, but for biases: those that a norm subtracts again stay.
    """
    for then, got, want in zip(before.parameters(), ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)
        assert want.ndim == 1 or float((want - then).detach().abs().max()) > moved


def _doubles(count: int) -> list[dict[str, Tensor]]:
    return [{"x": torch.rand(6, 3, 64, 64).double() * 2 - 1, "label": torch.arange(6) % 2} for _ in range(count)]


def test_three_updates_of_the_cnn_are_those_of_the_bare_loop() -> None:
    optimized = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1, fused=True)
    module = trainer.simple_cnn(optimized, dropout=0.0).double()
    nn.init.normal_(module.net.head[-1].weight, std=0.01)  # type: ignore[union-attr, index, arg-type]
    plain = study.simple_cnn().double()
    plain[8].p = 0.0  # type: ignore[assignment]
    copy_weights(plain, module.net)
    before, batches = deepcopy(plain), _doubles(3)

    optimizer = torch.optim.AdamW(plain.parameters(), 1e-3, weight_decay=0.1, fused=False, foreach=False)
    for batch in batches:
        study.classifier_step(plain, optimizer, batch["x"], batch["label"])
    fit(module, in_memory(batches))
    _same_weights(before, module.net, plain, 1e-3)


def test_three_updates_of_dcgan_are_those_of_a_plain_loop() -> None:
    """In our order, G before D; the study's is the other. Its nets have no bias at either end, so these are copies."""
    module = trainer.dcgan(4).double()
    generator, discriminator = deepcopy(module.generator), deepcopy(module.net)
    discriminator._forward_pre_hooks.clear()  # it lays its input out with channels last
    opt_gen, opt_disc = (
        torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999), fused=False, foreach=False)
        for net in (generator, discriminator)
    )
    before, batches = deepcopy((generator, discriminator)), _doubles(3)
    real, fake = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    for batch in batches:
        torch.manual_seed(5)
        samples = generator(torch.randn(6, 100).double())
        opt_gen.zero_grad()
        F.cross_entropy(discriminator(samples), real).backward()
        opt_gen.step()
        opt_disc.zero_grad()
        on_samples = F.cross_entropy(discriminator(samples.detach()), fake)
        ((F.cross_entropy(discriminator(batch["x"]), batch["label"]) + on_samples) / 2).backward()
        opt_disc.step()
    module.generator.register_forward_pre_hook(lambda net, noise: (noise[0].double(),))
    fit(module, in_memory(batches), callbacks=[_SameNoise()])

    _same_weights(before[0], module.generator, generator, 1e-4)
    _same_weights(before[1], module.net, discriminator, 1e-4)


@pytest.mark.parametrize(("draws_again", "draws"), [(True, 2), (False, 1)])
def test_the_studys_dcgan_step_trains_both_networks(draws_again: bool, draws: int) -> None:
    generator, discriminator = study.dcgan_generator(2), study.dcgan_discriminator(2)
    drawn: list[int] = []
    generator.register_forward_hook(lambda net, noise, samples: drawn.append(len(samples)))
    before = [net[0].weight.clone() for net in (generator, discriminator)]
    losses = study.DCGANStep(generator, discriminator, draws_again)(torch.rand(4, 3, 64, 64), torch.arange(4) % 2)
    assert drawn == [4] * draws
    assert all(abs(float(loss) - math.log(2)) < 0.5 for loss in losses.values())  # nobody knows anything yet
    assert all(not torch.equal(net[0].weight, w) for net, w in zip((generator, discriminator), before, strict=True))


def test_flops_are_those_of_the_maths() -> None:
    ends, inner = 2 * 64**2 * 49 * 3, 2 * 32**2 * 2 * 9 + 2 * 16**2 * 4 * 2 * 9  # 7x7 to or from RGB; both that halve
    block, ups = 2 * (2 * 16**2 * 4 * 4 * 9), 2 * 32**2 * 2 * 4 * 9 + 2 * 64**2 * 2 * 9
    autoencoder = 2 * ends + inner + block + ups
    assert study.reconstruction_flops(1, 1) == autoencoder
    first = 2 * 32**2 * 3 * 16
    discriminator = first + 3 * (2 * 16**2 * 2 * 16) + 2 * 4**2 * 8 * 16
    # Gradients cost what the forward pass does, towards weights and towards inputs; none is taken of the pictures,
    # and none of the discriminator's weights where it judges for the autoencoder.
    step = 3 * autoencoder - ends + 2 * discriminator + 2 * (3 * discriminator - first)
    assert study.autoencoder_step_flops(1, 1, 5) == 5 * step

    first, inner, linear = 2 * 58**2 * 49 * 3 * 16, 2 * 27**2 * 9 * 16 * 16, 2 * (16 * 27 * 27) * 2
    assert study.classifier_step_flops(3) == 3 * (3 * (first + inner + linear) - first)
    # Kernels of 4x4; a transposed convolution multiplies at each pixel of its input.
    from_noise, to_rgb, between = 2 * 16 * 100 * 8, 2 * 32**2 * 16 * 3, (4**2 * 8 * 4 + 8**2 * 4 * 2 + 16**2 * 2 * 1)
    generator = from_noise + 2 * 16 * between + to_rgb
    discriminator = to_rgb + 2 * 16 * between + 2 * 16 * 8 * 2
    # No gradient of the noise and of the pictures, nor of D's weights where it judges for G.
    step = 3 * generator - from_noise + 2 * discriminator + 2 * (3 * discriminator - to_rgb)
    assert study.dcgan_step_flops(1, 3) == 3 * step


def test_one_by_one_reconstructs_the_same_pictures() -> None:
    torch.manual_seed(0)
    net, plain = (net.eval() for net in _autogan(1, 4, True))
    copy_weights(plain, net)
    faces = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    difference = reconstruct(net, faces).int() - study.reconstruct_one_by_one(plain, faces).int()
    assert difference.abs().max() <= 1  # a level: float rounding at a half


@pytest.mark.parametrize("to_floats", [False, True])
def test_a_dataset_of_pil_images_gives_the_faces_that_ours_gives(to_floats: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    data = FaceArray(images, TO_FLOATS if to_floats else TO_BYTES)
    assert len(data) == 4
    for i in range(4):
        seen = data[i][0]
        face = to_unit(torch.from_numpy(images[i : i + 1]))[0] if to_floats else torch.from_numpy(images[i])
        expected = face if to_floats else face.permute(2, 0, 1)
        flipped = expected.flip(2) if to_floats else expected
        assert seen.dtype == expected.dtype
        assert min(float((seen - x).abs().max()) for x in (expected, flipped)) < 1e-6


def test_the_loop_pool_shows_past_pictures() -> None:
    pool = study.ImagePool(2)
    first = torch.zeros(2, 3, 1, 1)
    assert torch.equal(pool.query(first), first)
    shown = torch.cat([pool.query(torch.full((1, 3, 1, 1), float(i))) for i in range(1, 50)])
    new = shown[:, 0, 0, 0] == torch.arange(1.0, 50.0)
    assert 0 < new.sum() < 49
    assert (shown[:, 0, 0, 0] <= torch.arange(1.0, 50.0)).all()
