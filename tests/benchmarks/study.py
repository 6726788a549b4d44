"""The study's networks and steps, plainly as one writes them in PyTorch; nothing of FakeGAN's is imported here.

Where the original leaves a choice, the faster way is taken, so that no ratio is won by a straw man: convolutions before
a norm have no bias, ReLUs work in place, and a discriminator that only judges takes no gradients of its weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.harness import Turns, repeating
from tests.benchmarks.machine import synchronizer

REAL, FAKE = 0, 1
SGD = partial(torch.optim.SGD, lr=0.1, weight_decay=5e-4)  # of the simple CNN


def autoencoder(
    depth: int,
    width: int = 64,
    norm: bool = True,  # InstanceNorm, as in the study; False: none, as FakeGAN's default has it
) -> nn.Sequential:
    """AutoGAN (Zhang et al. 2019, arXiv:1907.06515): (B, 3, 64, 64) -> the same, in [-1, 1]."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=not norm), *_norm(width, norm)]
    for c in (width, 2 * width):
        conv = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=not norm)
        layers += [nn.ReLU(inplace=True), conv, *_norm(2 * c, norm)]
    layers += [nn.ReLU(inplace=True), *(ResidualBlock(4 * width, norm) for _ in range(depth))]  # (B, 4W, 16, 16)
    for c in (4 * width, 2 * width):
        conv = nn.Conv2d(c, c // 2, 3, padding=1, bias=not norm)
        layers += [nn.Upsample(scale_factor=2), conv, *_norm(c // 2, norm), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


def _norm(channels: int, norm: bool) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels)] if norm else []


class ResidualBlock(nn.Sequential):
    def __init__(self, channels: int, norm: bool) -> None:
        def convolved() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=not norm), *_norm(channels, norm)]

        super().__init__(*convolved(), nn.ReLU(inplace=True), *convolved())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + super().forward(x)
        return out


def patch_discriminator(width: int = 64) -> nn.Sequential:
    """PatchGAN (arXiv:1611.07004): (B, 3, 64, 64) -> (B, 1, 4, 4) scores."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
    for c in (width, 2 * width, 4 * width):
        conv = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False)
        layers += [conv, nn.InstanceNorm2d(2 * c), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(8 * width, 1, 4, padding=1))


def dcgan_generator(width: int = 64, latent: int = 100) -> nn.Sequential:
    """PyTorch's DCGAN tutorial (arXiv:1511.06434): (B, latent, 1, 1) -> (B, 3, 64, 64)."""
    first = nn.ConvTranspose2d(latent, 8 * width, 4, bias=False)
    layers: list[nn.Module] = [first, nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True)]
    for c in (8 * width, 4 * width, 2 * width):
        conv = nn.ConvTranspose2d(c, c // 2, 4, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(c // 2), nn.ReLU(inplace=True)]
    net = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1, bias=False), nn.Tanh())
    return net.apply(_draw_weights)


def dcgan_discriminator(width: int = 64) -> nn.Sequential:
    """PyTorch's DCGAN tutorial with two outputs: (B, 3, 64, 64) -> (B, 2) logits."""
    first = nn.Conv2d(3, width, 4, stride=2, padding=1, bias=False)
    layers: list[nn.Module] = [first, nn.LeakyReLU(0.2, inplace=True)]
    for c in (width, 2 * width, 4 * width):
        conv = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 2, 4, bias=False), nn.Flatten()).apply(_draw_weights)


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def simple_cnn() -> nn.Sequential:
    """The CNN of the study's tables: (B, 3, 64, 64) -> (B, 2) logits."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 7),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(16 * 27 * 27, 2),
    )


class ImagePool:
    """Past reconstructions, one picture at a time, after the ImagePool of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:  # (B, 3, H, W) -> the same
        """Each picture, or with probability 1/2, once the pool is full, one from the past in its place."""
        shown = []
        for picture in images.unsqueeze(1):
            if len(self.images) < self.size:
                self.images.append(picture)
            elif self.size and random.uniform(0, 1) > 0.5:
                place = random.randrange(self.size)
                shown.append(self.images[place].clone())
                self.images[place] = picture
                continue
            shown.append(picture)
        return torch.cat(shown)


class AutoencoderStep:
    """The adversarial step as the study wrote it.

    The loss of the generator runs it twice, the discriminator sees real and reconstructed faces in two batches,
    Adam is not fused, the pool is a loop over pictures. Gradients of the discriminator's weights are off while
    the generator learns, as in CycleGAN.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, pool_size: int = 50) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.pool = ImagePool(pool_size)
        self.opt_gen = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.8, 0.9))
        self.opt_disc = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.8, 0.9))

    def __call__(self, real: Tensor) -> dict[str, Tensor]:  # (B, 3, 64, 64) -> the step's losses
        """One step of both networks."""
        self.discriminator.requires_grad_(False)
        score = self.discriminator(self.generator(real))
        adversarial = F.mse_loss(score, torch.ones_like(score))
        recon = self.generator(real)
        l1 = F.l1_loss(recon, real)
        loss = (adversarial + 0.8 * l1) / 1.8
        self.opt_gen.zero_grad()
        loss.backward()
        self.opt_gen.step()

        self.discriminator.requires_grad_(True)
        real_score = self.discriminator(real)
        recon_score = self.discriminator(self.pool.query(recon.detach()))
        on_real = F.mse_loss(real_score, torch.ones_like(real_score))
        on_recon = F.mse_loss(recon_score, torch.zeros_like(recon_score))
        disc = (on_real + on_recon) / 2
        self.opt_disc.zero_grad()
        disc.backward()
        self.opt_disc.step()
        return {"l1": l1.detach(), "adversarial": adversarial.detach(), "discriminator": disc.detach()}


class DCGANStep:
    """The DCGAN classifier's step: D learns the labelled batch and samples in two batches, then G learns.

    Adam is not fused. This is the study's step, the loop of PyTorch's DCGAN tutorial with two outputs: G's step judges
    the same samples again, and the gradients of D's weights that this makes are thrown away. With `draws_again` G's
    step draws samples of its own, and gradients of D's weights are off meanwhile.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, draws_again: bool = False) -> None:
        self.generator, self.discriminator, self.draws_again = generator, discriminator, draws_again
        self.opt_gen = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.opt_disc = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def __call__(self, x: Tensor, label: Tensor) -> dict[str, Tensor]:  # (B, 3, 64, 64), (B,) -> losses
        """One step of both networks."""
        self.opt_disc.zero_grad()
        on_labelled = F.cross_entropy(self.discriminator(x), label)
        on_labelled.backward()
        with torch.set_grad_enabled(not self.draws_again):
            samples = self.generator(torch.randn(len(x), 100, 1, 1))
        on_samples = F.cross_entropy(self.discriminator(samples.detach()), torch.full_like(label, FAKE))
        on_samples.backward()
        self.opt_disc.step()

        if self.draws_again:
            self.discriminator.requires_grad_(False)
            samples = self.generator(torch.randn(len(x), 100, 1, 1))
        self.opt_gen.zero_grad()
        generator = F.cross_entropy(self.discriminator(samples), torch.full_like(label, REAL))
        generator.backward()
        self.opt_gen.step()
        self.discriminator.requires_grad_(True)
        return {"labelled": on_labelled.detach(), "samples": on_samples.detach(), "generator": generator.detach()}


def classifier_step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, label: Tensor) -> Tensor:
    """One step of a classifier in a bare loop: its loss."""
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), label)
    loss.backward()
    optimizer.step()
    return loss.detach()


def autoencoder_steps(turns: Turns, depth: int, width: int, batch: int, norm: bool = True, device: str = "cpu") -> None:
    """A side: a unit is one step on the same batch, in float32."""
    real = torch.rand(batch, 3, 64, 64, device=device) * 2 - 1
    step = AutoencoderStep(autoencoder(depth, width, norm).to(device), patch_discriminator(width).to(device))
    turns.serve(repeating(lambda: step(real)), synchronizer(device))


def dcgan_steps(turns: Turns, width: int, batch: int, draws_again: bool) -> None:
    """A side: a unit is one step on the same batch."""
    x, label = torch.rand(batch, 3, 64, 64) * 2 - 1, torch.arange(batch) % 2
    step = DCGANStep(dcgan_generator(width), dcgan_discriminator(width), draws_again)
    turns.serve(repeating(lambda: step(x, label)))


def classifier_steps(
    turns: Turns,
    batch: int,
    build: Callable[[], nn.Module] = simple_cnn,
    optimizer: Callable[..., torch.optim.Optimizer] = SGD,
) -> None:
    """A side: a unit is one step of a classifier on the same batch."""
    x, label = torch.rand(batch, 3, 64, 64) * 2 - 1, torch.arange(batch) % 2
    net = build()
    optimized = optimizer(net.parameters())
    turns.serve(repeating(lambda: classifier_step(net, optimized, x, label)))


def classifier_epochs_on_the_fly(turns: Turns, faces: int, batch: int, depth: int, width: int) -> None:
    """A side: a unit is an epoch of the simple CNN that reconstructs each batch before it learns from it."""
    images, labels = torch.randint(0, 256, (faces, 3, 64, 64), dtype=torch.uint8), torch.arange(faces) % 2
    net, ae = simple_cnn(), autoencoder(depth, width).eval()
    optimizer = SGD(net.parameters())

    def epoch() -> None:
        for rows in torch.randperm(faces).split(batch):
            with torch.no_grad():
                recon = ae(images[rows] / 127.5 - 1)
            classifier_step(net, optimizer, recon, labels[rows])

    turns.serve(repeating(epoch))


def reconstructions(turns: Turns, depth: int, width: int, faces: int) -> None:
    """A side: a unit is one face, reconstructed alone."""
    net = autoencoder(depth, width).eval()
    pixels = torch.randint(0, 256, (faces, 64, 64, 3), dtype=torch.uint8)
    turns.serve(lambda n: (reconstruct_one_by_one(net, pixels[:n]), None)[1])


@torch.no_grad()
def reconstruct_one_by_one(net: nn.Module, faces: Tensor) -> Tensor:  # uint8 (N, 64, 64, 3) -> the same
    """Faces through the autoencoder in batches of one."""
    out = torch.empty_like(faces)
    for i in range(len(faces)):
        x = faces[i].permute(2, 0, 1).unsqueeze(0).float() / 127.5 - 1  # (1, 3, 64, 64)
        recon = net(x)[0]
        out[i] = ((recon + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8)
    return out


def _flops(once: Callable[[], object]) -> int:
    """What a call computes, by torch's count; no number is computed."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        once()
    return counter.get_total_flops()


def autoencoder_step_flops(depth: int, width: int, batch: int) -> int:
    """What the adversarial step needs: each network's forward once, and no gradient that nobody uses."""

    def once() -> None:
        net, disc, real = autoencoder(depth, width), patch_discriminator(width), torch.rand(1, 3, 64, 64)
        disc.requires_grad_(False)
        recon = net(real)
        (disc(recon).square().mean() + (recon - real).abs().mean()).backward()
        disc.requires_grad_(True)
        disc(torch.cat([real, recon.detach()])).square().mean().backward()

    return batch * _flops(once)


def dcgan_step_flops(width: int, batch: int) -> int:
    """What the DCGAN classifier's step needs: samples drawn once, judged for G, then learnt by D."""

    def once() -> None:
        gen, disc, x = dcgan_generator(width), dcgan_discriminator(width), torch.rand(2, 3, 64, 64)
        disc.requires_grad_(False)
        samples = gen(torch.rand(2, 100, 1, 1))
        disc(samples).mean().backward()
        disc.requires_grad_(True)
        (disc(x).mean() + disc(samples.detach()).mean()).backward()

    return batch * _flops(once) // 2  # BatchNorm takes no batch of one


def classifier_step_flops(batch: int) -> int:
    """What a step of the simple CNN needs."""
    return batch * _flops(lambda: simple_cnn()(torch.rand(2, 3, 64, 64)).mean().backward()) // 2


def reconstruction_flops(depth: int, width: int) -> int:
    """What one face's reconstruction needs."""
    return _flops(lambda: autoencoder(depth, width)(torch.rand(1, 3, 64, 64)))
