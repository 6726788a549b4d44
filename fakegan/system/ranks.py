"""The processes of one run, its ranks: which one this is, what they agree on, how they share work and noise.

A run of one process is the ordinary case, and everything here then costs nothing, not even the import of torch. The
processes of other runs are started from outside (by torchrun, SLURM, submitit, or `processes.run_ranks`) before the
first stage. All of them walk through the same stages: networks train together, and rank 0 writes the files.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fakegan.errors import AlreadyReportedError, FakeganError, PeerLostError, UsageError, one_line

if TYPE_CHECKING:  # a command that is refused does not wait for torch
    from torch import Tensor

T = TypeVar("T")

# What torchrun, Lightning and SLURM tell a process of its rank; a fresh run must not inherit it.
_PREFIXES = ("TORCHELASTIC_", "SUBMITIT_", "SLURM_")
_NAMES = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
)
_WAIT = timedelta(days=30)  # a run may wait for another run that trains for long

_dist: Any = None  # torch.distributed, once `connect` has loaded it
_control: Any = None  # the group for agreements, on the CPU; None: one process
_alone = False  # within `on_rank_zero`: the others wait
_common: dict[str, Any] = {}  # by kind of device: the state of the noise that all processes draw alike


def launched() -> int:
    """How many processes torchrun, submitit or SLURM started this one among; 1 where it was started by hand.

    The environment holds afterwards what torch.distributed needs to know.
    """
    if "RANK" not in os.environ and "SUBMITIT_EXECUTOR" in os.environ:
        from submitit.helpers import TorchDistributedEnvironment

        place = TorchDistributedEnvironment()
        if place.world_size > 1:
            place.export(set_cuda_visible_devices=False)
    elif "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        # Only srun sets that variable: sbatch starts one process.
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        own_rank, nodes = slurm.global_rank(), int(os.environ.get("SLURM_NNODES", "1"))
        os.environ |= {
            "MASTER_ADDR": slurm.main_address,
            "MASTER_PORT": str(slurm.main_port),
            "RANK": str(own_rank),
            "LOCAL_RANK": str(slurm.local_rank()),
            "WORLD_SIZE": str(slurm.world_size()),
            "LOCAL_WORLD_SIZE": str(slurm.world_size() // nodes),
        }
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a fresh run: nothing of this process's rank."""
    return {k: v for k, v in environment.items() if k not in _NAMES and not k.startswith(_PREFIXES)}


def connect() -> None:
    """Meet the other processes, where there are some; they stay connected until they end.

    Every process but rank 0 prints nothing to stdout from then on.
    """
    global _dist, _control
    if launched() == 1:
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
        raise FakeganError(f"the run's processes did not meet at {where}: {one_line(error, 150)}") from error
    _dist, _control = dist, dist.new_group(backend="gloo", timeout=_WAIT)
    if backend == "gloo":  # gloo's threads, left alone, may abort a process that ends without `disconnect`
        atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
    if dist.get_rank():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def disconnect() -> None:
    """Leave the others, at the end of a run that went well."""
    global _control  # noqa: PLW0603
    if _control is not None:
        wait()
        _dist.destroy_process_group()
    _control = None


def rank() -> int:
    """This process's number, from 0; 0 where it works alone."""
    return 0 if count() == 1 else int(_dist.get_rank())


def count() -> int:
    """How many processes work together here and now."""
    return 1 if _control is None or _alone else int(_dist.get_world_size())


def is_rank_zero() -> bool:
    """Whether this is the process that writes files and speaks."""
    return _control is None or bool(_dist.get_rank() == 0)


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _control is not None else 0


def local_count() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _control is not None else 1


def on_rank_zero(task: Callable[[], T]) -> T:
    """What `task` returns, done by rank 0 alone while the others wait.

    Raises:
        FakeganError: what it raised there; in the other processes an AlreadyReportedError.
    """
    global _alone  # noqa: PLW0603
    if count() == 1:
        return task()
    outcome: list[Any] = [None, None]  # what it returned, what it raised
    if is_rank_zero():
        _alone = True
        try:
            outcome = [task(), None]
        except FakeganError as error:
            outcome = [None, error]
        finally:
            _alone = False
    _dist.broadcast_object_list(outcome, src=0, group=_control)
    if outcome[1] is not None:
        raise outcome[1] if is_rank_zero() else AlreadyReportedError(outcome[1].exit_code)
    result: T = outcome[0]
    return result


@contextlib.contextmanager
def rank_zero_context(context: Callable[[], contextlib.AbstractContextManager[object]]) -> Iterator[None]:
    """Rank 0 enters the context before any process goes on, and leaves it when all are done."""
    with contextlib.ExitStack() as stack:
        if is_rank_zero():
            stack.enter_context(context())
        wait()
        yield
        wait()


@contextlib.contextmanager
def peer_failure_as_error() -> Iterator[None]:
    """Within the block, raise a PeerLostError where a library's error says that another process is gone."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's
        if count() > 1 and (isinstance(error, _dist.DistBackendError) or "by peer" in str(error)):
            lost = f"process {rank()} of {count()} has lost another, which was killed or failed"
            raise PeerLostError(lost) from error
        raise


def wait() -> None:
    """Wait until every process is here."""
    if count() > 1:
        _dist.barrier(group=_control)


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    if count() == 1:
        return number
    import torch

    numbers = torch.tensor(number)
    _dist.all_reduce(numbers, op=_dist.ReduceOp.MAX, group=_control)
    return int(numbers)


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over the processes, in a new tensor."""
    summed = value.detach().clone()
    if count() > 1:
        _dist.all_reduce(summed)
    return summed


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes; of one process, the tensor itself, detached."""
    return value.detach() if count() == 1 else total(value) / count()


def average_gradients(weights: Iterable[Tensor]) -> None:
    """Make each gradient its mean over the processes, by one collective for all weights of a dtype.

    Where only some processes have a gradient, it counts as zeros in the others; where none has, there stays none.
    """
    import torch

    alike: dict[torch.dtype, list[Tensor]] = {}
    for weight in weights if count() > 1 else ():
        alike.setdefault(weight.dtype, []).append(weight)
    for group in alike.values():
        absent = [i for i, weight in enumerate(group) if weight.grad is None]
        grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in group]
        present = torch.ones(len(group), dtype=group[0].dtype, device=group[0].device)
        for i in absent:
            present[i] = 0
        # As they lie in memory, which is alike in all processes: a copy in another order takes a kernel for each.
        rows = [grad.as_strided((grad.numel(),), (1,)) for grad in grads]
        together = torch.cat([*rows, present]) / count()
        _dist.all_reduce(together)
        *means, present = torch.split(together, [*map(len, rows), len(group)])
        torch._foreach_copy_(rows, means)
        for i in absent:  # to look is to wait for the device
            group[i].grad = grads[i] if present[i] else None


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of work that is shared out: a piece without gaps."""
    size, own, everyone = len(items), rank(), count()
    return items[size * own // everyone : size * (own + 1) // everyone]


def dealt(items: T) -> T:
    """This process's faces of a training batch: every count-th item of an array or tensor, from its own number."""
    return items[rank() :: count()]  # type: ignore[index,no-any-return]


def seed_noise(seed: int, device: str) -> None:
    """Begin the noise of a training step, a function of the seed; `device` is the kind of device that computes.

    With several processes there are two kinds. The noise of `draw` is the whole batch's, the same as one process draws.
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
    generators = {kind: _generators(kind)[kind] for kind in _common}
    own = {kind: generator.get_state() for kind, generator in generators.items()}
    for kind, generator in generators.items():
        generator.set_state(_common[kind])
    drawn = noise(faces * count())
    for kind, generator in generators.items():
        _common[kind] = generator.get_state()
        generator.set_state(own[kind])
    return dealt(drawn)


def _generators(device: str) -> dict[str, Any]:
    """Torch's generators that a training step draws from: the CPU's and the device's."""
    import torch

    found = {"cpu": torch.default_generator}
    if device == "cuda":
        found["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
    elif device == "mps":
        found["mps"] = torch.mps._get_default_mps_generator()
    return found


def check_divisible(batch_size: int, key: str, everyone: int) -> None:
    """Raise a UsageError, with the nearest sizes, where a batch cannot be dealt evenly to so many processes."""
    if batch_size % everyone:
        below = batch_size // everyone * everyone
        nearest = f"{below} or {below + everyone}" if below else f"{everyone}"
        raise UsageError(f"{key}={batch_size} cannot be dealt evenly to {everyone} processes: choose {nearest}")
