"""Config nodes that name what they build: `_target_` is a class or function, the other keys are its options.

Hydra's `instantiate` builds them; here is what it lacks. A wrong key or value gets one sentence with its full name;
and what a signature gives by itself is filled in, so that a run's config.yaml says it. What comes out of a file is
looked at by `fakegan.config.trust` before it is built.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from fakegan.config.signatures import COMPUTED, REQUIRED, library, signature
from fakegan.config.typed import checked, unknown
from fakegan.errors import FakeganError, UsageError

TARGET = "_target_"
HYDRA_KEYS = frozenset(
    {TARGET, "_partial_", "_recursive_", "_convert_", "_args_"}
)  # keys of a node that are no options
_DOWNLOADED = (
    "weights",
    "weights_backbone",
    "pretrained",
    "pretrained_backbone",
    "_args_",
)  # of torchvision
T = TypeVar("T")
Node = dict[str, Any]


def completed(
    node: Any,
    at: str,  # its full key
    beside: Collection[str] = (),  # keys that are said of it and are no options of its target
) -> Any:
    """A config with what the signatures of its targets give by themselves filled in.

    Raises:
        UsageError: a key that a target does not take, or a value of another type; it is named in full.
    """
    if isinstance(node, list):
        return [completed(value, f"{at}[{i}]") for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    inner = {key: completed(value, f"{at}.{key}" if at else str(key)) for key, value in node.items()}
    target = node.get(TARGET)
    if target is None:
        return inner
    said = {key: value for key, value in inner.items() if key in beside}
    options = {key: value for key, value in inner.items() if key not in beside}
    return said | _completed(options, target, at, [f"{at}.{key}" for key in beside])


def _completed(node: Node, target: Any, at: str, others: Sequence[str]) -> Node:
    if not isinstance(target, str) or "." not in target:
        raise UsageError(f"{at}.{TARGET}={target!r:.100} must name a class or function: package.module.Name")
    known = signature(target)
    if known is None:
        return node
    given = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    for key, value in given.items():
        if key in known.options:
            checked(known.options[key].annotation, value, f"{at}.{key}")
        elif not known.takes_others:
            raise unknown(f"{at}.{key}", value, [*others, *(f"{at}.{name}" for name in known.options)])
    if not library(target):
        defaults = {name: option.default for name, option in known.options.items()}
        plain = {name: value for name, value in defaults.items() if value is not REQUIRED and _is_of_a_config(value)}
        order = [name for name in known.options if name in plain or name in given]
        given = {name: given[name] if name in given else plain[name] for name in order} | given
    return {key: value for key, value in node.items() if key in HYDRA_KEYS} | given


def _is_of_a_config(default: Any) -> bool:
    """Whether a config gives a default back as it is: not one that is computed, nor a tuple, which would be a list."""
    return default is not COMPUTED and not isinstance(default, tuple)


def build(
    node: Mapping[str, Any],
    at: str,  # its full key, for what is wrong
    kind: type[T],  # what must come of it
    **given: Any,  # options that no config can hold: networks, folders
) -> T:
    """What a node names, made with its options and those given here.

    Raises:
        UsageError: no such class or function, an option it does not have, or a value that it refuses.
        FakeganError: what it raises itself.
    """
    try:
        make = instantiate({**node, "_partial_": True, "_convert_": "all"})
        if not node.get("_partial_"):
            _check_kind(make, node, at, kind)
        _check_keys(make, node, at, given)
        made = make if node.get("_partial_") else make(**given)
    except InstantiationException as error:
        _refuse(node, at, error)
    except FakeganError:
        raise
    except Exception as error:  # whatever a constructor says of its options
        _refuse_download(node, at, error)
        raise UsageError(_sentence(at, error)) from error
    if not node.get("_partial_") and not isinstance(made, kind):
        raise UsageError(f"{at}.{TARGET}={node[TARGET]} makes no {kind.__name__}, but {_a(type(made).__name__)}")
    return made  # type: ignore[no-any-return]


def takes(node: Mapping[str, Any], option: str) -> bool:
    """Whether what a node names has an option of that name."""
    known = signature(str(node[TARGET]))
    if known is not None:
        return option in known.options
    try:
        return option in inspect.signature(_object(str(node[TARGET]))).parameters
    except (TypeError, ValueError, ImportError, AttributeError, InstantiationException):
        return False


def retargeted(
    node: Any,
    at: str,  # its full key
    said: Collection[str],  # full keys that the words of the command name
    beside: Collection[str] = (),  # keys that are said of it and are no options of its target
) -> Any:
    """A config whose targets a word may have replaced: options that YAML has for the one before go, if it has none."""
    if not isinstance(node, Mapping):
        return node
    node = {key: retargeted(value, f"{at}.{key}", said) for key, value in node.items()}
    known = signature(str(node.get(TARGET))) if f"{at}.{TARGET}" in said else None
    if known is None or known.takes_others:
        return node
    kept = {*HYDRA_KEYS, *beside, *known.options}
    return {k: v for k, v in node.items() if k in kept or any(f"{key}.".startswith(f"{at}.{k}.") for key in said)}


def untrained(node: Any) -> Any:
    """A network's node, at any depth, that downloads no weights: those that it has learnt are kept beside it."""
    if isinstance(node, list | tuple):
        return [untrained(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    inner = {key: untrained(value) for key, value in node.items()}
    if not str(node.get(TARGET)).startswith("torchvision.models."):
        return inner
    given = {key: value for key, value in inner.items() if key not in _DOWNLOADED}
    return given | {option: None for option in _DOWNLOADED if takes(node, option)}  # one may download if not given


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def _check_kind(make: Callable[..., Any], node: Mapping[str, Any], at: str, kind: type) -> None:
    """A class of another kind is said as such, before its options are looked at."""
    named_class = getattr(make, "func", None)
    if isinstance(named_class, type) and "__new__" not in vars(named_class) and not issubclass(named_class, kind):
        raise UsageError(f"{at}.{TARGET}={node[TARGET]} makes no {kind.__name__}, but {_a(named_class.__name__)}")


def _check_keys(make: Callable[..., Any], node: Mapping[str, Any], at: str, given: Mapping[str, Any]) -> None:
    """Options by the living signature, where no source has said them before."""
    try:
        parameters = inspect.signature(make.func).parameters  # type: ignore[attr-defined]
    except (TypeError, ValueError, AttributeError):
        return
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in node:
        if key not in HYDRA_KEYS and key not in parameters:
            raise unknown(f"{at}.{key}", node[key], [f"{at}.{name}" for name in parameters])


def _refuse(node: Mapping[str, Any], at: str, error: InstantiationException) -> NoReturn:
    """What Hydra's error says, as one sentence."""
    inner = re.search(r"full_key: ([\w.]+)", str(error))
    place = f"{at}.{inner[1]}" if inner else at
    cause = error.__cause__
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, FakeganError):
        raise cause
    made = inner_node(node, inner[1] if inner else "")
    _refuse_download(made, place, cause)
    if cause is None or re.search("locating|load|import", str(error).split("\n")[0], re.IGNORECASE):
        target = made.get(TARGET)
        raise UsageError(
            f"{place}.{TARGET}={target} cannot be imported: {_not_imported(str(target), error)}"
        ) from error
    raise UsageError(_sentence(place, cause)) from error


def _refuse_download(node: Mapping[str, Any], at: str, cause: BaseException | None) -> None:
    """Raise a FakeganError where it was weights that could not be had: no network, or others than were expected."""
    if isinstance(cause, OSError | RuntimeError) and node.get("weights") is not None:
        why = f"cannot be downloaded ({' '.join(str(cause).split())[:200]})"
        raise FakeganError(f"{at}.weights={node['weights']} {why}: null trains from scratch") from cause


def inner_node(node: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The node at a dotted path within another; that itself where there is none."""
    for key in filter(None, path.split(".")):
        inner = node.get(key)
        if not isinstance(inner, Mapping):
            return node
        node = inner
    return node


def _sentence(at: str, error: BaseException) -> str:
    if isinstance(error, KeyError):  # which says the key alone
        return f"{at}: {error} is no name that it knows"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{at}.{said}" if re.match(r"\w+=", said) else f"{at}: {said}"


def named(target: str) -> Any:
    """What a dotted path names, found as `build` finds it.

    Raises:
        FakeganError: it cannot be imported; whatever the module that it names raises is told.
    """
    try:
        return _object(target)
    except Exception as error:
        raise FakeganError(f"cannot be imported: {_not_imported(target, error)}") from error


def _object(target: str) -> Any:
    """What a dotted path names; Hydra's own lines on one that is not there are left out, an error says it."""
    log = logging.getLogger("hydra.utils")
    disabled, log.disabled = log.disabled, True
    try:
        return get_object(target)
    finally:
        log.disabled = disabled


def _not_imported(target: str, error: BaseException) -> str:
    """Why what a dotted path names is not to be had: the first cause, in words."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
    if missing and f"{target}.".startswith(f"{missing}."):
        above, _, name = missing.rpartition(".")
        return f"{above} has no {name}" if above in sys.modules else f"there is no module {missing}"
    why = str(cause) if isinstance(cause, ImportError | AttributeError) else f"{type(cause).__name__}: {cause}"
    return " ".join(why.split())[:300]


def targets(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a node, with its full key, at any depth."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = f"{at}.{key}".lstrip(".")
            if key == TARGET:
                yield place, value
            else:
                yield from targets(value, place)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from targets(value, f"{at}[{i}]")
