"""Weights that a classifier starts from: what the config says of them, read without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fakegan.errors import UsageError
from fakegan.system.shell import expanded

FILE = "classifier.weights_file"
_FOLLOWS = ("net.pretrained", "weights_sha256")  # keys of conf/classifier that `with_weights` sets


def names_weights(net: Mapping[str, Any]) -> bool:
    """Whether the net that a network's node wraps has weights of its library's: net.net.weights=DEFAULT."""
    return isinstance(net.get("net"), Mapping) and net["net"].get("weights") is not None


def with_weights(
    classifier: Any,  # conf/classifier, complete
    said: Collection[str],  # full keys that the words of the command name
) -> Any:
    """conf/classifier with the digest of its weights_file; a net with an option `pretrained` is told whether it is.

    Raises:
        UsageError: there is no such file; it and other weights; an override for what follows from the others.
    """
    if not isinstance(classifier, Mapping) or not isinstance(classifier.get("net"), Mapping):
        return classifier
    typed = next((key for key in _FOLLOWS if f"classifier.{key}" in said), None)
    if typed is not None:
        raise UsageError(
            f"classifier.{typed} is no choice: it follows from classifier.net.net.weights and {FILE}; leave it out"
        )
    file, net = classifier.get("weights_file"), dict(classifier["net"])
    if file is not None and (names_weights(net) or net.get("imagenet")):
        raise UsageError(f"{FILE} and weights of ImageNet's at once: a net starts from one of them, so leave one out")
    if "pretrained" in net:
        net["pretrained"] = file is not None or names_weights(net)
    digest = digest_of_weights(Path(expanded(file))) if isinstance(file, str) else None
    return {**classifier, "weights_sha256": digest, "net": net}


def digest_of_weights(
    path: Path,
    wanted: str | None = None,  # what it was before; None: it may be anything
) -> str:
    """sha256 of a file of weights, in hex; a UsageError where it cannot be read, or is not the file that it was."""
    if path.exists() and not path.is_file():  # a pipe would wait, a device never end
        raise UsageError(f"{FILE}={path} is no file: name a file of weights")
    try:
        found = _digest(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"{FILE}={path} cannot be read ({error.strerror}): name a file of weights") from error
    if wanted is not None and found != wanted:
        raise UsageError(f"{FILE}={path} is not the file that the run was composed with: put that file back")
    return found


@cache
def _digest(path: Path, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
