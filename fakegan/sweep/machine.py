"""The GPUs of this machine: which there are, how many a job needs, and how many jobs may share one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fakegan.errors import UsageError
from fakegan.runs.trainer_settings import TrainerSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    A process of its own asks torch: the sweep's process, which waits for hours, stays small and has no CUDA context.
    """
    # Without the working directory in sys.path, where a user's random.py would take the place of Python's.
    asking = "import sys; sys.path = list(filter(None, sys.path)); import torch; print(torch.cuda.device_count())"
    command = [sys.executable, "-c", asking]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    count = int(answer) if answer.strip().isdecimal() else 0
    named = os.environ.get(VISIBLE)
    names = map(str, range(count)) if named is None else (name.strip() for name in named.split(","))
    return tuple(names)[:count]


def gpus_of_one(
    there: int,  # GPUs of this machine
    trainer: TrainerSettings,  # the job's
    devices_per_job: int | None,  # GPUs that it has with trainer.devices=auto; None: an equal share
    side_by_side: int,
    jobs_per_gpu: int = 1,  # that share one
) -> int:
    """The GPUs that a job needs, for itself unless jobs share them; 0: it computes on the CPU.

    Raises:
        UsageError: more than there are, or another number than `devices_per_job`, or none or several where jobs share.
    """
    asked = trainer.devices
    if jobs_per_gpu > 1:
        _refuse_sharing(there, trainer, f"hydra.launcher.jobs_per_gpu={jobs_per_gpu}")
        return 1
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
        raise UsageError(f"a job needs {needed} GPUs, but there {_are(there)}: lower {key}")
    return needed


def _refuse_sharing(there: int, trainer: TrainerSettings, asked: str) -> None:
    """Raise a UsageError for a job that cannot share a GPU with others."""
    if trainer.accelerator == "cpu":
        raise UsageError(f"{asked} is for jobs on a GPU, but trainer.accelerator=cpu: leave one out")
    if not there:
        raise UsageError(f"{asked} is for jobs on a GPU, but this machine has none that CUDA can use: leave it out")
    if trainer.devices not in {1, "auto"}:
        raise UsageError(f"{asked} is for jobs of one GPU, but trainer.devices={trainer.devices}: leave one out")


def mps_runs() -> bool:
    """Whether NVIDIA's MPS daemon is there: CUDA then runs kernels of several processes at once, without being asked.

    Where it is not, processes that share a GPU take turns.
    """
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"
    try:
        os.kill(int((Path(folder) / "nvidia-cuda-mps-control.pid").read_text()), 0)  # 0: is it there?
    except PermissionError:
        return True  # another user's
    except (OSError, ValueError, OverflowError):
        return False
    return True


def check_room(
    there: int,  # GPUs of this machine
    needed: Sequence[int],  # GPUs of each job, up to all; 0: it computes on the CPU
    side_by_side: int,
    jobs_per_gpu: int,
) -> None:
    """Raise a UsageError where jobs side by side need more GPUs than there are; it says how many jobs can run."""
    most, together = max(needed), -(-sum(sorted(needed, reverse=True)[:side_by_side]) // jobs_per_gpu)
    if together > there:
        shared = f", {jobs_per_gpu} jobs on each" if jobs_per_gpu > 1 else f", up to {most} a job"
        raise UsageError(
            f"hydra.launcher.jobs={side_by_side} needs {together} GPUs{shared}, but there {_are(there)}: "
            f"at most hydra.launcher.jobs={there * jobs_per_gpu // most}, or trainer=cpu"
        )


def _are(count: int) -> str:
    return "is 1 GPU" if count == 1 else f"are {count} GPUs"
