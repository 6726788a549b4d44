"""A trained detector as one file to hand on: safetensors, whose arrays are numbers, with everything else as JSON.

Such a file holds no pickle and can run no code. Any reader of safetensors opens it: its metadata has the JSON of all
that is no array under `fakegan`, and a model card in Markdown under `card`. Nothing here needs torch.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from fakegan.errors import FakeganError
from fakegan.runs.folder import PORTABLE
from fakegan.runs.stamp import refuse_other_stamp, stamp
from fakegan.system.files import disk_errors, replacing

Arrays = dict[str, npt.NDArray[Any]]
_ARRAY = "array"  # the only key of what stands in the JSON for an array: its name
_DAMAGE = (SafetensorError, LookupError, ValueError, TypeError, RecursionError, AttributeError)


def save_portable(content: Mapping[str, Any], path: Path, card: str) -> None:
    """Write nested dicts of arrays, tensors and plain values, stamped; the file takes its place when it is on the disk.

    Raises:
        FakeganError: the disk is full or the folder cannot be written.
    """
    text, arrays = _parted(content)
    with disk_errors(path), replacing(path, durable=True) as building:
        building.write_bytes(save(arrays, {"fakegan": text, "card": card}))


def load_portable(path: Path) -> dict[str, Any]:
    """What `save_portable` wrote.

    Raises:
        FakeganError: no such file, damaged, of another kind, format or label convention.
    """
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {})["fakegan"]
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _joined(text, arrays, path)
    except OSError as error:
        raise FakeganError(f"{path} cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise FakeganError(f"{path} is damaged or no exported detector: export the run again") from error


def as_texts(content: Mapping[str, Any]) -> dict[str, str]:
    """The same content as texts, for the metadata of another format."""
    text, arrays = _parted(content)
    return {"fakegan": text, "arrays": base64.b64encode(save(arrays)).decode()}


def from_texts(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What `as_texts` gave, out of the file `path`; raises what `load_portable` does."""
    try:
        return _joined(texts["fakegan"], load(base64.b64decode(texts["arrays"])), path)
    except _DAMAGE as error:
        raise FakeganError(f"{path} is damaged or no exported detector: export the run again") from error


def texts_of(path: Path) -> dict[str, str]:
    """The metadata of such a file: `fakegan`, JSON, and `card`, Markdown."""
    with safe_open(path, "np") as file:
        return dict(file.metadata() or {})


def is_portable(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named as such a file."""
    return Path(path).suffix.lower() == PORTABLE


def _parted(content: Mapping[str, Any]) -> tuple[str, Arrays]:
    arrays: Arrays = {}
    return json.dumps({**_described(content, "", arrays), "fakegan": stamp()}), arrays


def _joined(text: str, arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> dict[str, Any]:
    content: dict[str, Any] = _restored(json.loads(text), arrays)
    refuse_other_stamp(content.pop("fakegan"), path)
    return content


def _described(value: Any, name: str, arrays: Arrays) -> Any:
    """A value for JSON; each array in it goes to `arrays`, and its name stands in its place."""
    if isinstance(value, Mapping):
        return {key: _described(inner, f"{name}.{key}" if name else str(key), arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_described(inner, f"{name}.{i}", arrays) for i, inner in enumerate(value)]
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        arrays[name] = np.array(value, order="C")
        return {_ARRAY: name}
    return value


def _restored(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _restored(inner, arrays) for key, inner in value.items()}
    return [_restored(inner, arrays) for inner in value] if isinstance(value, list) else value
