"""A trained detector as one file to hand on: safetensors, whose arrays are numbers, with everything else as JSON.

Such a file holds no pickle and can run no code. Any reader of safetensors opens it: its metadata has the JSON of all
that is no array under `fakegan`, and a model card in Markdown under `card`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fakegan.errors import FakeganError
from fakegan.runs.checkpoints import refuse_other_stamp, stamp
from fakegan.system.files import disk_errors, replacing

PORTABLE = ".fakegan"  # how such a file's name ends
_ARRAY = "array"  # the only key of what stands in the JSON for an array: its name
_MAX_JSON = 64 * 2**20  # characters


def save_portable(content: Mapping[str, Any], path: Path, card: str) -> None:
    """Write nested dicts of arrays, tensors and plain values, stamped; the file takes its place when it is on the disk.

    Raises:
        FakeganError: the disk is full or the folder cannot be written.
    """
    arrays: dict[str, torch.Tensor] = {}
    described = _described(content, "", arrays)
    metadata = {"format": "pt", "fakegan": json.dumps({**described, "fakegan": stamp()}), "card": card}
    with disk_errors(path), replacing(path, durable=True) as building:
        save_file(arrays, building, metadata)


def load_portable(path: Path) -> dict[str, Any]:
    """What `save_portable` wrote, its arrays as tensors on the CPU.

    Raises:
        FakeganError: no such file, damaged, of another kind, format or label convention.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {})["fakegan"]
            if len(text) > _MAX_JSON:
                raise ValueError("its JSON is larger than any detector's")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content: dict[str, Any] = _restored(json.loads(text), arrays)
        own = content.pop("fakegan")
    except OSError as error:
        raise FakeganError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise FakeganError(f"{path} is damaged or no exported detector: export the run again") from error
    refuse_other_stamp(own, path)
    return content


def card_of(path: Path) -> str:
    """The model card in such a file; empty where there is none."""
    with safe_open(path, "pt") as file:
        return str((file.metadata() or {}).get("card", ""))


def is_portable(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named as such a file."""
    return Path(path).suffix == PORTABLE


def _described(value: Any, name: str, arrays: dict[str, torch.Tensor]) -> Any:
    """A value for JSON; each array in it goes to `arrays`, and its name stands in its place."""
    if isinstance(value, Mapping):
        return {key: _described(inner, f"{name}.{key}" if name else str(key), arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_described(inner, f"{name}.{i}", arrays) for i, inner in enumerate(value)]
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        arrays[name] = value.detach().cpu().contiguous().clone()  # safetensors takes no two that share memory
        return {_ARRAY: name}
    return value


def _restored(value: Any, arrays: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _restored(inner, arrays) for key, inner in value.items()}
    return [_restored(inner, arrays) for inner in value] if isinstance(value, list) else value
