"""The device that a process computes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fakegan.errors import UsageError
from fakegan.system import ranks
from fakegan.system.processes import jobs_per_gpu


def use_device(accelerator: str) -> torch.device:
    """This process's device, by the trainer's accelerator; of a GPU that jobs share, its part of the memory.

    Raises a UsageError: this machine has no such device.
    """
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        device = torch.device("cuda", ranks.local_rank())
        if jobs_per_gpu() > 1:
            torch.cuda.set_per_process_memory_fraction(1 / jobs_per_gpu(), device)
        return device
    if accelerator in {"auto", "gpu", "mps"} and torch.backends.mps.is_available():
        return torch.device("mps")
    if accelerator in {"gpu", "cuda", "mps"}:
        cure = "train with trainer=cpu, trainer=auto or trainer=ddp_cpu, score with device=auto (--device auto)"
        raise UsageError(f"there is no {accelerator.replace('gpu', 'GPU')} on this machine: {cure}")
    return torch.device("cpu")


def room(device: torch.device) -> int:
    """Bytes that a process may take of a GPU's memory for what only saves time: a quarter of what is free to it.

    None elsewhere. Other processes may share the GPU, and ask at the same time.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    own, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0)(device)  # torch 2.8
    return int(min(free + kept - own, share * total - own) / 4)


def describe(
    device: torch.device,
    forms: Iterable[str],  # from fakegan.nets.cpu
    precision: str = "",  # that networks train in, Lightning's name
) -> str:
    """A device, the precision, and what is done otherwise there to be quick, in a few words."""
    words = [str(device)]
    if device.type == "cpu":
        threads = torch.get_num_threads()
        words.append(f"{threads} threads" if threads > 1 else "1 thread")
    words += [precision] if precision else []
    if device.type == "cuda" and precision.startswith("32"):
        # Where training rounds float32 to TF32's 10 bits: torch's default is convolutions, on GPUs that have it.
        products = _has_tf32() and torch.get_float32_matmul_precision() != "highest"
        used = [*["convolutions"] * convolves_in_tf32(), *["matrix products"] * products]
        words.append(f"TF32 in {' and '.join(used)}" if used else "no TF32")
    return ", ".join([*words, *forms])


def uses_tensor_cores(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a GPU's tensor cores compute the convolutions of such numbers, as torch is set now: bf16, half or TF32.

    They take channels last; other memory layouts are copied into it, and back, around each convolution.
    """
    if device.type != "cuda":
        return False
    if dtype in {torch.bfloat16, torch.float16} or torch.is_autocast_enabled("cuda"):
        return True
    return dtype == torch.float32 and convolves_in_tf32()


def _has_tf32() -> bool:
    return torch.cuda.get_device_capability()[0] >= 8


def convolves_in_tf32() -> bool:
    """Whether a GPU's convolutions may round float32 to TF32, as torch is set now."""
    owner, name, exact = _convolutions()
    return getattr(owner, name) not in {exact, False} and _has_tf32()


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """Convolutions with all of float32's digits, on a GPU too; also a decorator.

    There torch lets them round their inputs to TF32's 10 bits, so that a face would be reconstructed and scored
    otherwise than on a CPU.
    """
    owner, name, exact = _convolutions()
    before = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _convolutions() -> tuple[Any, str, Any]:
    """Where torch keeps whether convolutions may round to TF32, and the value that says no.

    torch 2.9 brought other names for it, and may warn of the old one or refuse to have them mixed.
    """
    cudnn = torch.backends.cudnn
    return (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
