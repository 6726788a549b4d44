"""What the machine is, and what it can do at best: the rates that limits are worked out from."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from tests.benchmarks.harness import Turns

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy", "pillow")
COPIED = 2**27  # bytes: far more than any cache holds
PRODUCT = 2048  # rows and columns of the matrices
PRODUCT_FLOPS = 2 * PRODUCT**3


def describe() -> str:
    """Processor, threads, GPU and versions, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    waiting = os.environ.get("OMP_WAIT_POLICY", "as OpenMP likes")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads (waiting: {waiting})"
    gpu = f"GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "no GPU"
    return f"{_processor()}, {cores}, {gpu}; {platform.system()}, Python {platform.python_version()}, {packages}."


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def copy(turns: Turns, size: int = COPIED) -> None:
    """A side: a unit copies so many bytes in memory."""
    source = torch.ones(size, dtype=torch.uint8)
    target = torch.empty_like(source)

    def work(count: int) -> None:
        for _ in range(count):
            target.copy_(source)

    turns.serve(work)


def multiply(turns: Turns, size: int = PRODUCT, device: str = "cpu") -> None:
    """A side: a unit is one float32 product of two square matrices of that size."""
    a, b = torch.rand(2, size, size, device=device)
    out = torch.empty_like(a)

    def work(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=out)

    turns.serve(work, synchronizer(device))


def synchronizer(device: str) -> Callable[[], None]:
    """What waits until the device has done all that it was given."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None
