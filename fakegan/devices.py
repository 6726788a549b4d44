"""The device that a process computes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from fakegan import ranks
from fakegan.errors import UsageError


def use_device(accelerator: str) -> torch.device:
    """The device for networks, by the trainer's accelerator: this process's own.

    Raises:
        UsageError: there is no such device here.
    """
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank())
    if accelerator in {"auto", "gpu", "mps"} and torch.backends.mps.is_available():
        return torch.device("mps")
    if accelerator in {"gpu", "cuda", "mps"}:
        cure = "train with trainer=cpu, trainer=auto or trainer=ddp_cpu, score with device=auto"
        raise UsageError(f"there is no {accelerator} on this machine: {cure}")
    return torch.device("cpu")


def describe(device: torch.device, forms: Iterable[str]) -> str:
    """A device, and what is done otherwise there to be quick, in a few words; `forms` are from fakegan.nets.layers."""
    if device.type != "cpu":
        return str(device)
    threads = torch.get_num_threads()
    return ", ".join(["cpu", f"{threads} threads" if threads > 1 else "1 thread", *forms])


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """Convolutions with all of float32's digits, on a GPU too; also a decorator.

    There torch lets them round their inputs to TF32's 10 bits, so that a face would be reconstructed and scored
    otherwise than on a CPU.
    """
    cudnn = torch.backends.cudnn
    # torch 2.9 brought other names for it, and may warn of the old one or refuse to have them mixed.
    owner, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    before = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, before)
