"""Config nodes: `_target_` names the class or function that a node builds, its other keys are the options.

Hydra's `instantiate` builds a node. This module adds that a wrong key or value is one sentence with the full key, and
that the defaults of signatures are filled in, so that a run's config.yaml holds them. `fakegan.config.trust` checks a
node that comes out of a file before it is built.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from fakegan.config.signatures import COMPUTED, REQUIRED, Signature, library, signature
from fakegan.config.typed import checked, unknown
from fakegan.errors import FakeganError, UsageError, one_line

TARGET = "_target_"
HYDRA_KEYS = frozenset({TARGET, "_partial_", "_recursive_", "_convert_", "_args_"})  # of a node, that are no options
_DOWNLOADED = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "_args_")  # of torchvision
T = TypeVar("T")
Node = dict[str, Any]


def walk(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a node at any depth, the node itself first, each with its full key."""
    yield at, node
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from walk(value, f"{at}.{key}".lstrip("."))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from walk(value, f"{at}[{i}]")


def completed(
    node: Any,
    at: str,  # its full key
    beside: Collection[str] = (),  # keys in it that are no options of its target
) -> Any:
    """A config with the plain defaults from its targets' signatures; a UsageError for a wrong key or type, in full."""
    if isinstance(node, list):
        return [completed(value, f"{at}[{i}]") for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    node = {key: completed(value, f"{at}.{key}" if at else str(key)) for key, value in node.items()}
    target = node.get(TARGET)
    if target is None:
        return node
    if not isinstance(target, str) or "." not in target:
        raise UsageError(f"{at}.{TARGET}={target!r:.100} must name a class or function: package.module.Name")
    known = signature(target)
    if known is None:
        return node
    no_options = {key: value for key, value in node.items() if key in beside or key in HYDRA_KEYS}
    given = {key: value for key, value in node.items() if key not in no_options}
    for key, value in given.items():
        if key in known.options:
            checked(known.options[key].annotation, value, f"{at}.{key}")
        elif not known.takes_others:
            raise unknown(f"{at}.{key}", value, [f"{at}.{name}" for name in (*beside, *known.options)])
    if library(target):
        return no_options | given
    plain = _plain_defaults(known)
    in_order = {name: given.get(name, plain.get(name)) for name in known.options if name in given or name in plain}
    return no_options | in_order | given


def _plain_defaults(known: Signature) -> Node:
    """The defaults that are plain values; a tuple would come back from config.yaml as a list."""
    defaults = {name: option.default for name, option in known.options.items()}
    return {name: v for name, v in defaults.items() if v not in (REQUIRED, COMPUTED) and not isinstance(v, tuple)}


def with_own_defaults(node: Any) -> Any:
    """A node out of a file, at any depth, with the defaults of FakeGAN's own classes: they may have new options."""
    if isinstance(node, list):
        return [with_own_defaults(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    inner, target = {key: with_own_defaults(value) for key, value in node.items()}, node.get(TARGET)
    known = signature(target) if isinstance(target, str) and target.startswith("fakegan.") else None
    return inner if known is None else _plain_defaults(known) | inner


def retargeted(
    node: Any,
    at: str,  # its full key
    typed: Collection[str],  # full keys of the command's overrides
    beside: Collection[str] = (),  # keys in it that are no options of its target
) -> Any:
    """A config whose targets an override may have replaced: options of YAML that the new target lacks are left out."""
    if not isinstance(node, Mapping):
        return node
    node = {key: retargeted(value, f"{at}.{key}", typed) for key, value in node.items()}
    known = signature(str(node.get(TARGET))) if f"{at}.{TARGET}" in typed else None
    if known is None or known.takes_others:
        return node
    kept = {*HYDRA_KEYS, *beside, *known.options}
    return {k: v for k, v in node.items() if k in kept or any(f"{key}.".startswith(f"{at}.{k}.") for key in typed)}


def untrained(node: Any) -> Any:
    """A network's node, at any depth, that downloads no weights: the file beside it holds the weights."""
    if isinstance(node, list | tuple):
        return [untrained(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    inner = {key: untrained(value) for key, value in node.items()}
    if not str(node.get(TARGET)).startswith("torchvision.models."):
        return inner
    given = {key: value for key, value in inner.items() if key not in _DOWNLOADED}
    return given | {key: None for key in _DOWNLOADED if takes(node, key)}  # some download where nothing is given


def takes(node: Mapping[str, Any], option: str) -> bool:
    """Whether the target of a node has an option of that name."""
    known = signature(str(node[TARGET]))
    if known is not None:
        return option in known.options
    try:
        return option in inspect.signature(named(str(node[TARGET]))).parameters
    except (TypeError, ValueError, FakeganError):
        return False


def named(target: str) -> Any:
    """The object that a dotted path names, found as `build` finds it; a FakeganError where it cannot be imported."""
    log = logging.getLogger("hydra.utils")
    disabled, log.disabled = log.disabled, True  # Hydra would log the error as well
    try:
        return get_object(target)
    except Exception as error:
        raise FakeganError(f"cannot be imported: {_import_failure(target, error)}") from error
    finally:
        log.disabled = disabled


def build(
    node: Mapping[str, Any],
    at: str,  # its full key, for the message of an error
    kind: type[T],  # of the object that it must make
    **given: Any,  # options that no config can hold: networks, folders
) -> T:
    """The object that a node names, made with the node's options and the given ones.

    Raises:
        UsageError: no such class or function, an option that it does not have, or a value that it refuses.
        FakeganError: raised by the object itself; weights that cannot be downloaded.
    """
    partial = bool(node.get("_partial_"))
    try:
        make = instantiate({**node, "_partial_": True, "_convert_": "all"})
        _check_signature(make, node, at, None if partial else kind)
        made = make if partial else make(**given)
    except InstantiationException as error:
        _refuse(node, at, error)
    except FakeganError:
        raise
    except Exception as error:  # of any kind: a constructor raises what it likes about its options
        _refuse_download(node, at, error)
        raise UsageError(_sentence(at, error, node)) from error
    if not partial and not isinstance(made, kind):
        raise _of_another_kind(node, at, kind, type(made))
    return made  # type: ignore[no-any-return]


def _check_signature(make: Callable[..., Any], node: Mapping[str, Any], at: str, kind: type | None) -> None:
    """Refuse a class of another kind, then an option that it does not have, before the object is made."""
    function = getattr(make, "func", None)
    if kind and isinstance(function, type) and "__new__" not in vars(function) and not issubclass(function, kind):
        raise _of_another_kind(node, at, kind, function)
    try:
        parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in node:
        if key not in HYDRA_KEYS and key not in parameters:
            raise unknown(f"{at}.{key}", node[key], [f"{at}.{name}" for name in parameters])


def _of_another_kind(node: Mapping[str, Any], at: str, kind: type, made: type) -> UsageError:
    article = "an" if made.__name__[:1] in "aeiouAEIOU" else "a"
    return UsageError(f"{at}.{TARGET}={node[TARGET]} makes no {kind.__name__}, but {article} {made.__name__}")


def _refuse(node: Mapping[str, Any], at: str, error: InstantiationException) -> NoReturn:
    """Raise Hydra's error as one sentence about the inner node that could not be built."""
    found = re.search(r"full_key: ([\w.]+)", str(error))
    inner, place = node, f"{at}.{found[1]}" if found else at
    for key in found[1].split(".") if found else ():
        inner = inner[key] if isinstance(inner.get(key), Mapping) else inner
    cause = error.__cause__
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, FakeganError):
        raise cause
    _refuse_download(inner, place, cause)
    if cause is None or re.search("locating|load|import", str(error).split("\n")[0], re.IGNORECASE):
        target = str(inner.get(TARGET))
        raise UsageError(f"{place}.{TARGET}={target} cannot be imported: {_import_failure(target, error)}") from error
    raise UsageError(_sentence(place, cause, inner)) from error


def _refuse_download(node: Mapping[str, Any], at: str, cause: BaseException | None) -> None:
    """Raise a FakeganError if the cause may be a download of weights: no network, or other content than expected."""
    if isinstance(cause, OSError | RuntimeError) and node.get("weights") is not None:
        why = f"cannot be downloaded ({one_line(cause, 200)})"
        advice = "null trains from scratch, classifier.weights_file=PATH takes weights from a file"
        raise FakeganError(f"{at}.weights={node['weights']} {why}: {advice}") from cause


def text_of(error: BaseException, options: Mapping[str, Any]) -> str:
    """What a constructor says of its options, on one line; of a TypeError, with the options that are texts: lr=fast."""
    text = one_line(error, None)
    texts = [f"{key}={value}" for key, value in options.items() if isinstance(value, str) and key not in HYDRA_KEYS]
    return f"{text}: is {' or '.join(texts)} of the right type?" if isinstance(error, TypeError) and texts else text


def _sentence(at: str, error: BaseException, node: Mapping[str, Any]) -> str:
    if isinstance(error, KeyError):  # its text is the key alone
        if isinstance(node.get("weights"), str):
            return f"{at}.weights={node['weights']} is no name that torchvision knows: DEFAULT names its best weights"
        return f"{at}: {error} is no name that it knows"
    text = text_of(error, node)
    return f"{at}.{text}" if re.match(r"\w+=", text) else f"{at}: {text}"


def _import_failure(target: str, error: BaseException) -> str:
    """Why a dotted path cannot be imported, by the first cause of an error."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
    if missing and f"{target}.".startswith(f"{missing}."):
        above, _, name = missing.rpartition(".")
        return f"{above} has no {name}" if above in sys.modules else f"there is no module {missing}"
    why = str(cause) if isinstance(cause, ImportError | AttributeError) else f"{type(cause).__name__}: {cause}"
    return " ".join(why.split())[:300]
