"""The processes of one run: who this one is, what they agree on, how they share work and noise.

A run of one process is the ordinary case, and everything here then costs nothing. Where a run has several, they are
started from outside (by torchrun, SLURM, submitit, or `system.processes`), before the first stage, and all of them
walk through the same stages: networks train together, files are written by the first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fakegan.errors import AlreadyReportedError, FakeganError, PeerLostError, UsageError

if TYPE_CHECKING:  # a command that is refused does not wait for torch
    from torch import Tensor

T = TypeVar("T")

# What torchrun, Lightning and SLURM tell a process about its place among others; a fresh run must not inherit it.
_PREFIXES = ("TORCHELASTIC_", "SUBMITIT_", "SLURM_")
_NAMES = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
)
_WAIT = timedelta(days=30)  # another run may train for long what this one waits for

_control: Any = None  # the group for agreements, on the CPU; None: one process
_alone = False  # within `on_first`: the others wait
_common: dict[str, Any] = {}  # by kind of device: the state of the noise that all processes draw alike


def started() -> int:
    """How many processes this one was started among: by torchrun, submitit or SLURM; 1 where by hand.

    What torch.distributed needs to know is in the environment afterwards.
    """
    if "RANK" not in os.environ:
        _from_submitit() if "SUBMITIT_EXECUTOR" in os.environ else _from_slurm()
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def _from_submitit() -> None:
    from submitit.helpers import TorchDistributedEnvironment

    place = TorchDistributedEnvironment()
    if place.world_size > 1:
        place.export(set_cuda_visible_devices=False)


def _from_slurm() -> None:
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:  # only srun sets it: sbatch starts one process
        return
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    slurm = SLURMEnvironment(auto_requeue=False)
    here, nodes = slurm.global_rank(), int(os.environ.get("SLURM_NNODES", "1"))
    os.environ |= {
        "MASTER_ADDR": slurm.main_address,
        "MASTER_PORT": str(slurm.main_port),
        "RANK": str(here),
        "LOCAL_RANK": str(slurm.local_rank()),
        "WORLD_SIZE": str(slurm.world_size()),
        "LOCAL_WORLD_SIZE": str(slurm.world_size() // nodes),
    }


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a fresh run: nothing of this process's place among others."""
    return {k: v for k, v in environment.items() if k not in _NAMES and not k.startswith(_PREFIXES)}


def connect() -> None:
    """Meet the other processes, where there are some; they stay connected until they end.

    Every process but the first is silent from then on, but for its errors.
    """
    global _control  # noqa: PLW0603
    if started() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, init_method="env://")
    except (dist.DistError, RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise FakeganError(
            f"the run's processes did not meet at {where}: {' '.join(str(error).split())[:150]}"
        ) from error
    _control = dist.new_group(backend="gloo", timeout=_WAIT)
    if backend == "gloo":
        atexit.register(_leave)
    if dist.get_rank():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def disconnect() -> None:
    """Leave the others, at the end of a run that went well."""
    import torch.distributed as dist

    global _control  # noqa: PLW0603
    if dist.is_initialized():
        wait()
        dist.destroy_process_group()
    _control = None


def _leave() -> None:
    """At the end of a process that has not disconnected: gloo's threads, left alone, may abort it on its way out."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0; 0 where it works alone."""
    if count() == 1:
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def count() -> int:
    """How many processes work together here and now."""
    if _control is None or _alone:
        return 1
    import torch.distributed as dist

    return dist.get_world_size()


def is_rank_zero() -> bool:
    """Whether this is the process that writes files and speaks."""
    import torch.distributed as dist

    return not dist.is_initialized() or dist.get_rank() == 0


def local_rank() -> int:
    """This process's number on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _control is not None else 0


def local_count() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _control is not None else 1


def on_rank_zero(task: Callable[[], T]) -> T:
    """What `task` returns, done by the first process alone while the others wait.

    Raises:
        FakeganError: what it raised there; in the other processes an AlreadyReportedError.
    """
    global _alone  # noqa: PLW0603
    if count() == 1:
        return task()
    import torch.distributed as dist

    said: list[Any] = [None, None]
    if is_rank_zero():
        _alone = True
        try:
            said = [task(), None]
        except FakeganError as error:
            said = [None, error]
        finally:
            _alone = False
    dist.broadcast_object_list(said, src=0, group=_control)
    if said[1] is not None:
        raise said[1] if is_rank_zero() else AlreadyReportedError(said[1].exit_code)
    result: T = said[0]
    return result


@contextlib.contextmanager
def rank_zero_context(context: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    """The first process enters the context before any goes on, and leaves it when all are done."""
    with contextlib.ExitStack() as stack:
        if is_rank_zero():
            stack.enter_context(context())
        wait()
        yield
        wait()


@contextlib.contextmanager
def peer_failure_as_error() -> Iterator[None]:
    """Within: a library's error that another process is gone becomes a sentence.

    Raises:
        LostError: another process is gone.
    """
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's
        if count() > 1 and (isinstance(error, dist.DistBackendError) or "by peer" in str(error)):
            raise PeerLostError(
                f"process {rank()} of {count()} has lost another, which was killed or failed"
            ) from error
        raise


def wait() -> None:
    """Until every process is here."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier(group=_control)


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    if count() == 1:
        return number
    import torch
    import torch.distributed as dist

    numbers = torch.tensor(number)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=_control)
    return int(numbers)


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over the processes, in a new tensor."""
    summed = value.detach().clone()
    if count() > 1:
        import torch.distributed as dist

        dist.all_reduce(summed)
    return summed


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes, in a new tensor."""
    return total(value) / count()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of some items, one after another of them: what it is to do of common work."""
    size, here, everyone = len(items), rank(), count()
    return items[size * here // everyone : size * (here + 1) // everyone]


def dealt(items: T) -> T:
    """Every count-th item of an array or tensor, from this process's number: its faces of a training batch."""
    return items[rank() :: count()]  # type: ignore[index,no-any-return]


def seed_noise(seed: int, device: str) -> None:
    """Begin the noise of a training step, a function of the seed; `device` is the kind of device that computes.

    With several processes there are two kinds. That of `draw` is the whole batch's, the same as one process draws.
    Whatever else draws, such as torch's Dropout2d, gets noise that differs between the processes.
    """
    import torch

    generators = _generators(device)
    for kind, generator in generators.items():
        generator.manual_seed(seed)
        _common[kind] = generator.get_state()
    if count() > 1:
        own = torch.Generator().manual_seed(seed)
        numbers = torch.randint(2**62, (count(),), generator=own)
        for generator in generators.values():
            generator.manual_seed(int(numbers[rank()]))


def draw(noise: Callable[[int], Tensor], faces: int) -> Tensor:
    """Noise for the `faces` that this process has of a training batch, one row a face.

    It is drawn for the whole batch and dealt as the faces are. So every face meets the same noise however many
    processes there are, and no two meet the same.
    """
    if count() == 1:
        return noise(faces)
    generators = {kind: generator for kind in _common for generator in [_generators(kind)[kind]]}
    own = {kind: generator.get_state() for kind, generator in generators.items()}
    for kind, generator in generators.items():
        generator.set_state(_common[kind])
    drawn = noise(faces * count())
    for kind, generator in generators.items():
        _common[kind] = generator.get_state()
        generator.set_state(own[kind])
    return dealt(drawn)


def _generators(device: str) -> dict[str, Any]:
    """Torch's generators that a training step draws from: the CPU's, and that of the device."""
    import torch

    found = {"cpu": torch.default_generator}
    if device == "cuda":
        found["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
    elif device == "mps":
        found["mps"] = torch.mps._get_default_mps_generator()
    return found


def divisible(batch_size: int, key: str, everyone: int) -> None:
    """Check that a training batch can be dealt evenly to so many processes.

    Raises:
        UsageError: it cannot; names the nearest sizes that can.
    """
    if batch_size % everyone:
        below = batch_size // everyone * everyone
        nearest = f"{below} or {below + everyone}" if below else f"{everyone}"
        raise UsageError(f"{key}={batch_size} cannot be dealt evenly to {everyone} processes: choose {nearest}")
