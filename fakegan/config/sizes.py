"""The size limit of a network that a file names, measured by the weights in that file.

A few characters of a file can ask for a network that takes all memory. So the network is first made and tried on
torch's "meta" device, where tensors are shapes without memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PARTS, _FREE_PARTS = 50, 10_000  # modules, parameters and buffers: for each in the file, and besides
_NUMBERS, _FREE_NUMBERS = 10, 2**28  # numbers in them; torchvision's AlexNet has 61 million that ours throws away
_OUTPUT_NUMBERS = 2**26  # of any layer for one face: 7 times the widest of the shipped networks


def refuse_larger(
    make: Callable[[], nn.Module],
    weights: Mapping[str, Tensor],  # of the network, in the file
    shape: Callable[[nn.Module], Sequence[int]],  # of one input
) -> None:
    """Raise a ValueError, RuntimeError or UsageError for a network that is too large, or whose weights do not fit."""
    with torch.device("meta"), _no_larger_than(weights):
        net = make()
    if net.state_dict().keys() != weights.keys():
        raise ValueError("its weights are of another network")
    net.load_state_dict({name: tensor.to("meta") for name, tensor in weights.items()})
    with torch.inference_mode(), _SmallOutputs():  # type: ignore[no-untyped-call]
        net.eval()(torch.zeros(*shape(net), device="meta"))


@contextmanager
def _no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, a ValueError for a network with far more parts or numbers than these weights."""
    parts = _PARTS * len(weights) + _FREE_PARTS
    numbers = _NUMBERS * sum(tensor.numel() for tensor in weights.values()) + _FREE_NUMBERS

    def count(_module: nn.Module, _name: str, part: Any) -> None:
        nonlocal parts, numbers
        parts -= 1
        numbers -= part.numel() if isinstance(part, Tensor) and not is_lazy(part) else 0
        if parts < 0 or numbers < 0:
            raise ValueError("the network is far larger than its weights")

    kinds = ("module", "parameter", "buffer")
    handles = [getattr(hooks, f"register_module_{kind}_registration_hook")(count) for kind in kinds]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SmallOutputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, a ValueError for a step whose output has far more numbers than a face needs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) and leaf.numel() > _OUTPUT_NUMBERS for leaf in tree_leaves(made)):
            raise ValueError("the network makes far more of a face than any network should")
        return made
