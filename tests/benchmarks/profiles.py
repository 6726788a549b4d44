"""Where a step's time goes, by operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from fakegan.modules.autoencoder import AdversarialAutoencoder
from fakegan.modules.classifier import Classifier
from fakegan.modules.dcgan import DCGANClassifier
from tests.benchmarks.autoencoder import STUDY
from tests.benchmarks.harness import Side, SideError, Turns, playing
from tests.benchmarks.results import NotMeasured, Operator, Profile, Result
from tests.benchmarks.trainer import PRECISION, fit_in_turns

TOP = 8

# What each operator does in these nets. An operator that is not here gets no sentence.
SENTENCES = {
    "aten::convolution_backward": "Gradients of convolutions, towards weights and input: twice the arithmetic of "
    "their forward pass.",
    "aten::mkldnn_convolution": "The forward pass of convolutions on the CPU, in oneDNN.",
    "aten::_convolution": "The forward pass of transposed convolutions on the CPU, which oneDNN computes without a "
    "line of its own; of other convolutions the choice of a kernel.",
    "aten::nll_loss_backward": "Cross entropy's gradient: two numbers a face.",
    "aten::empty": "Memory asked for.",
    "aten::cudnn_convolution": "The forward pass of convolutions on the GPU, in cuDNN.",
    "aten::cudnn_convolution_transpose": "The forward pass of transposed convolutions on the GPU, in cuDNN.",
    "aten::_slow_conv2d_forward": "Convolutions that oneDNN does not take: patches are copied out, then multiplied.",
    "aten::slow_conv_transpose2d": "Transposed convolutions that oneDNN does not take.",
    "aten::mm": "Matrix products: the transforms of Winograd's convolutions in the residual blocks; in the classifiers "
    "the gradients of linear layers.",
    "aten::bmm": "The products of Winograd's convolutions in the residual blocks, 36 at once, and of their gradients.",
    "aten::addcmul": "InstanceNorm's gradient on the CPU: one pass over each map.",
    "aten::mean": "InstanceNorm's means and variances on the CPU: passes over each map; and losses.",
    "aten::sub": "InstanceNorm on the CPU takes the mean away: one pass over each map.",
    "aten::mul_": "InstanceNorm on the CPU divides by the deviation: one pass over each map.",
    "aten::addmm": "A linear layer: a matrix product and its bias.",
    "aten::native_batch_norm": "BatchNorm, and InstanceNorm where it is computed as BatchNorm over every channel of "
    "every face: a mean, a variance and a scaled copy of each map.",
    "aten::native_batch_norm_backward": "The same norms' gradients: three passes over each map, bound by memory.",
    "aten::cudnn_batch_norm": "BatchNorm and InstanceNorm on the GPU, in cuDNN.",
    "aten::cudnn_batch_norm_backward": "The same norms' gradients on the GPU, in cuDNN.",
    "aten::copy_": "Copies: of weights and maps between memory layouts, and into buffers.",
    "aten::add_": "Sums in place: gradients that meet at a residual block's two branches, a bias, and the tiles of "
    "Winograd's gradients where they overlap.",
    "aten::add": "Sums: a residual block's input and its branch.",
    "aten::threshold_backward": "ReLU's gradient: one pass over each map.",
    "aten::clamp_min_": "ReLU in place: one pass over each map.",
    "aten::relu_": "ReLU in place: one pass over each map.",
    "aten::leaky_relu_": "The discriminator's LeakyReLU in place: one pass over each map.",
    "aten::leaky_relu_backward": "LeakyReLU's gradient: one pass over each map.",
    "aten::leaky_relu": "The discriminator's LeakyReLU: one pass over each map.",
    "aten::reflection_pad2d": "Reflection padding: a copy of each map with a frame.",
    "aten::reflection_pad2d_backward": "The gradient of reflection padding: adds the frame back to the map.",
    "aten::_upsample_nearest_exact2d": "Nearest-neighbour upsampling: every pixel written four times.",
    "aten::upsample_nearest2d": "Nearest-neighbour upsampling: every pixel written four times.",
    "aten::upsample_nearest2d_backward": "Upsampling's gradient: the sum of each four pixels.",
    "aten::_fused_adam_": "Adam: one pass over the weights, their gradients and both moments.",
    "aten::_fused_adamw_": "AdamW: one pass over the weights, their gradients and both moments.",
    "aten::_fused_sgd_": "SGD: one pass over the weights and their gradients.",
    "aten::max_pool2d_with_indices": "The CNNs' pooling; it writes down where each maximum was.",
    "aten::max_pool2d_with_indices_backward": "Pooling's gradient: each goes back to where its maximum was.",
    "aten::fill_": "Zeros written into fresh gradients and buffers.",
    "aten::tanh": "The last layer of the autoencoder and of the generator.",
    "aten::cat": "Batches put together: real faces and reconstructions for the discriminator.",
    "aten::sum": "Sums over maps: the means of InstanceNorm, gradients of biases, and losses.",
    "aten::mul": "Products element by element: in InstanceNorm's gradient, dropout's mask and losses.",
    "aten::uniform_": "Random numbers of dropout's mask and of the pool.",
    "aten::normal_": "The generator's noise.",
    "aten::convolution_overrideable": "Convolutions of a device without kernels of its own in torch.",
}


def _autoencoder(small: bool) -> tuple[pl.LightningModule, dict[str, torch.Tensor]]:
    width, depth, batch = (2, 1, 4) if small else (64, 4, 50)
    return AdversarialAutoencoder(depth, width, **STUDY), {"image": torch.rand(batch, 3, 64, 64) * 2 - 1}


def _labelled(batch: int) -> dict[str, torch.Tensor]:
    return {"x": torch.rand(batch, 3, 64, 64) * 2 - 1, "label": torch.arange(batch) % 2}


def _dcgan(small: bool) -> tuple[pl.LightningModule, dict[str, torch.Tensor]]:
    width, batch = (4, 4) if small else (64, 128)
    options = {"width": width, "latent": 100}
    return DCGANClassifier(net_options=options, optimizer="adam", learning_rate=2e-4), _labelled(batch)


def _simple_cnn(small: bool) -> tuple[pl.LightningModule, dict[str, torch.Tensor]]:
    return Classifier("simple_cnn"), _labelled(4 if small else 50)


def _alexnet(small: bool) -> tuple[pl.LightningModule, dict[str, torch.Tensor]]:
    return Classifier("alexnet", net_options={"hidden": 8 if small else 1024}), _labelled(4 if small else 50)


MODULES: dict[str, Callable[[bool], tuple[pl.LightningModule, dict[str, torch.Tensor]]]] = {
    "autoencoder step, depth 4, width 64, batch 50": _autoencoder,
    "DCGAN step, width 64, batch 128": _dcgan,
    "simple-CNN step, batch 50": _simple_cnn,
    "AlexNet step, batch 50": _alexnet,
}


def profiled(turns: Turns, name: str, small: bool, accelerator: str) -> None:
    """A side: a turn is so many steps under torch's profiler; the reply, seconds a step and the operators."""
    module, batch = MODULES[name](small)
    if accelerator == "gpu":
        batch = {key: value.cuda() for key, value in batch.items()}
    fit_in_turns(_Profiled(turns, accelerator), module, DataLoader([batch] * 1000, batch_size=None), accelerator)


class _Profiled(Turns):
    """Turns that profile all but the first, and reply with what was found."""

    def __init__(self, turns: Turns, accelerator: str) -> None:
        super().__init__(turns.pipe)
        self.on_gpu = accelerator == "gpu"
        self.profile: Any = None  # None: the warm-up
        self.units = 0

    def wait(self) -> int | None:
        units = super().wait()
        if self.units and units:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
            self.profile = profile(activities=kinds)
            self.profile.__enter__()
        self.units = units or 0
        return units

    def done(self, reply: Any) -> None:
        if self.profile is None:
            return super().done(reply)
        self.profile.__exit__(None, None, None)
        super().done(_operators(self.profile, self.units, self.on_gpu))
        self.profile = None
        return None


def _operators(found: Any, steps: int, on_gpu: bool) -> tuple[float, list[Operator]]:
    """Seconds of all operators a step, and the largest of them by their own time, without what they call."""

    def own(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    # On the GPU kernels have lines of their own beside the operators that started them: these count, not those.
    events = [event for event in found.key_averages() if event.key.startswith("aten::")]
    total = sum(own(event) for event in events)
    largest = sorted(events, key=own, reverse=True)[:TOP]
    lines = [Operator(event.key, own(event) / total, event.count / steps) for event in largest]
    return total / steps / 1e6, lines


def rows(quick: bool) -> Iterator[Result]:
    """Each module's step on the CPU, then on a GPU where there is one."""
    devices = ["cpu", "gpu"] if torch.cuda.is_available() else ["cpu"]
    for accelerator in devices:
        for name in MODULES:
            side = Side(profiled, (name, quick, accelerator), sees_gpus=accelerator == "gpu")
            try:
                with playing(side, apart=not quick) as player:
                    player.turn(2)
                    seconds, operators = player.turn(2 if accelerator == "cpu" else 10)
            except SideError as error:
                if not error.out_of_memory:
                    raise
                yield NotMeasured(f"profile of {name}, {accelerator.upper()}", f"too little free memory ({error})")
                continue
            yield Profile(name, f"{accelerator.upper()}, {PRECISION[accelerator]}", seconds, tuple(operators))
    if "gpu" not in devices:
        yield NotMeasured("profiles on a GPU", "no GPU")
