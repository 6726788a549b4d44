"""What this machine has for jobs side by side: GPUs, handed out one by one and never shared; threads, divided."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakegan.errors import UsageError
from fakegan.runs.trainer_settings import TrainerSettings
from fakegan.system.processes import cores
from fakegan.system.ranks import without_ranks

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"
_DRIVERS = ("/dev/nvidia*", "/dev/nvhost*", "/dev/nvmap", "/dev/dxg", "/dev/kfd")  # NVIDIA's files, WSL's and AMD's
_PCI_VENDORS = "/sys/bus/pci/devices/*/vendor"
_MAKERS = {"0x10de", "0x1002"}  # NVIDIA and AMD, whose driver may make its device files only when it is first asked


@dataclass(frozen=True)
class Machine:
    """What a sweep may use."""

    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them
    threads: int


def this_machine(environment: Mapping[str, str]) -> Machine:
    """What this process may use; no CUDA context is made."""
    count = _gpu_count()
    named = environment.get(_VISIBLE)
    threads = environment.get(_THREADS, "").split(",")[0]  # of nested levels the first
    names = [str(i) for i in range(count)] if named is None else [name.strip() for name in named.split(",")]
    return Machine(tuple(names[:count]), int(threads) if threads.isdigit() else cores())


def _gpu_count() -> int:
    """How many GPUs torch sees; it is loaded, which takes seconds, only where there may be one."""
    if "torch" not in sys.modules and sys.platform == "linux" and not _may_have_gpus():
        return 0
    import torch

    return torch.cuda.device_count()


def _may_have_gpus() -> bool:
    return any(map(glob.glob, _DRIVERS)) or any(_read(path) in _MAKERS for path in glob.glob(_PCI_VENDORS))


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    return ""


def gpus_of_one(
    machine: Machine,
    trainer: TrainerSettings,  # the job's
    devices_per_job: int | None,  # that it is to have with trainer.devices=auto; None: an equal share
    side_by_side: int,
) -> int:
    """The GPUs that a job needs for itself; 0: it computes on the CPU.

    Raises:
        UsageError: more than there are, or another number than it is to have.
    """
    there, asked = len(machine.gpus), trainer.devices
    if trainer.accelerator == "cpu" or not there:
        return 0
    if isinstance(asked, int) and devices_per_job not in {None, asked}:
        raise UsageError(
            f"hydra.launcher.devices_per_job={devices_per_job}, but trainer.devices={asked}: leave the first out, or "
            "say trainer.devices=auto"
        )
    needed = asked if isinstance(asked, int) else devices_per_job or max(there // side_by_side, 1)
    if needed > there:
        key = "trainer.devices" if isinstance(asked, int) else "hydra.launcher.devices_per_job"
        raise UsageError(f"a job needs {_gpus(needed)}, but there {_are(there)}: lower {key}")
    return needed


def check_room(
    machine: Machine,
    needed: Sequence[int],  # GPUs of each job, up to all; 0: it computes on the CPU
    side_by_side: int,
) -> None:
    """Check that jobs can have GPUs of their own while others have theirs.

    Raises:
        UsageError: there are too few; says how many jobs can run side by side.
    """
    most, there = max(needed, default=0), len(machine.gpus)
    together = sum(sorted(needed, reverse=True)[:side_by_side])
    if together > there:
        raise UsageError(
            f"hydra.launcher.jobs={side_by_side} needs {_gpus(together)}, up to {most} a job, but there {_are(there)}: "
            f"at most hydra.launcher.jobs={there // most}, or trainer=cpu"
        )


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return f"{'is' if count == 1 else 'are'} {_gpus(count)}"


def threads_of_one(machine: Machine, side_by_side: int) -> int:
    """The threads of each of several jobs."""
    return max(machine.threads // side_by_side, 1)


def environment_of(
    environment: Mapping[str, str],
    gpus: Sequence[str],  # the job's own; empty: it sees none
    threads: int | None,  # None: as many as it likes
) -> dict[str, str]:
    """An environment in which a process finds its own devices and no others."""
    given = {**environment, _VISIBLE: ",".join(gpus)}
    return given if threads is None else {**given, _THREADS: str(threads)}


def own_environment() -> dict[str, str]:
    """This process's environment, without its place among others."""
    return without_ranks(os.environ)
