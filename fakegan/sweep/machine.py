"""What this machine has for jobs side by side: GPUs, handed out one by one and never shared; threads, divided."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fakegan.commands import cores
from fakegan.errors import UsageError

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Machine:
    """What a sweep may use."""

    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them
    threads: int


def this_machine(environment: Mapping[str, str]) -> Machine:
    """What this process may use; no CUDA context is made."""
    import torch  # takes seconds, and most who import this module only ask for help

    count = torch.cuda.device_count()
    named = environment.get(_VISIBLE)
    names = [str(i) for i in range(count)] if named is None else [name.strip() for name in named.split(",")]
    return Machine(tuple(names[:count]), int(environment.get(_THREADS) or cores()))


def check_room(
    machine: Machine,
    needed: Sequence[int],  # GPUs of each job; 0: it computes on the CPU
    side_by_side: int,
) -> None:
    """Check that jobs can have GPUs of their own.

    Raises:
        UsageError: there are too few; says how many jobs can run side by side.
    """
    most, there = max(needed, default=0), len(machine.gpus)
    if most > there:
        raise UsageError(f"a job needs {_gpus(most)}, but there {_are(there)}: lower trainer.devices")
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
    from fakegan.ranks import without_ranks

    return without_ranks(os.environ)
