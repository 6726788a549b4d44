"""What the machine is, and what it can do at best: the rates that limits are worked out from."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from tests.benchmarks.harness import Turns, repeating
from tests.benchmarks.results import Share

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy", "pillow")
COPIED = 2**27  # bytes: far more than any cache holds
PRODUCT = 2048  # rows and columns of the matrices


def describe() -> str:
    """Processor, threads, GPU, versions and commit, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    waiting = os.environ.get("OMP_WAIT_POLICY", "as OpenMP likes")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads (waiting: {waiting})"
    gpu = f"GPU {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else "no GPU"
    system = f"{platform.system()}, Python {platform.python_version()}"
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(names, platform.processor() or platform.machine())
    return f"{processor}, {cores}, {gpu}; {system}, {packages}{_commit()}."


def _commit() -> str:
    """The commit measured, with a comma before it; empty where git knows of none."""
    # Nothing in docs/ is measured, and the page itself is there.
    commands = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", ".", ":(exclude)docs"])
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {commit}{' with changes' if changes else ''}"


def copy(turns: Turns, size: int = COPIED) -> None:
    """A side: a unit copies so many bytes in memory."""
    source = torch.ones(size, dtype=torch.uint8)
    target = torch.empty_like(source)
    turns.serve(repeating(lambda: target.copy_(source)))


def multiply(turns: Turns, size: int = PRODUCT) -> None:
    """A side: a unit is one float32 product of two square matrices of that size."""
    a, b = torch.rand(2, size, size)
    out = torch.empty_like(a)
    turns.serve(repeating(lambda: torch.mm(a, b, out=out)))


def arithmetic_share(
    what: str,
    unit: str,
    ours: tuple[float, ...],  # seconds a unit
    flops: float,  # a unit
    products: Sequence[float],  # seconds a matrix product, in the same rounds
    size: int,  # of those matrices
    bar: float | None = None,
) -> Share:
    """Our time beside that of its arithmetic at the rate of float32 matrix products."""
    limits = tuple(flops * seconds / (2 * size**3) for seconds in products)
    limit = f"its {flops / 1e9:.3g} GFLOP at the rate of float32 matrix products"
    return Share(what, limit, unit, ours, limits, bar)


def synchronizer(device: str) -> Callable[[], None]:
    """What waits until the device has done all that it was given."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None
