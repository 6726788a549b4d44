"""Config nodes that name what they build: `_target_` is a class or function, the other keys are its options.

Hydra's `instantiate` builds them; here is what it lacks. A wrong key or value gets one sentence with its full name;
what a signature gives by itself is filled in, so that a run's config.yaml says it; and a node that comes out of a file
is built only where its target is one of those that are trusted.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from fakegan.errors import FakeganError, UntrustedError, UsageError
from fakegan.signatures import COMPUTED, REQUIRED, library, signature
from fakegan.typed import checked, nearest

TARGET = "_target_"
HYDRAS = frozenset({TARGET, "_partial_", "_recursive_", "_convert_", "_args_"})  # keys of a node that are no options
NET_SOURCES = ("fakegan", "torch.nn", "torchvision.models")  # whose networks a file may name
RUN_SOURCES = (*NET_SOURCES, "torch.optim", "pytorch_lightning")  # whose parts a run's config.yaml may name
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
    given = {key: value for key, value in node.items() if key not in HYDRAS}
    for key, value in given.items():
        if key in known.options:
            checked(known.options[key].annotation, value, f"{at}.{key}")
        elif not known.takes_others:
            names = [*others, *_keys(node, at, known)]
            raise UsageError(f"{at}.{key} is not a config key: {nearest(f'{at}.{key}', names)}")
    if not library(target):
        defaults = {name: option.default for name, option in known.options.items()}
        plain = {name: value for name, value in defaults.items() if value is not REQUIRED and value is not COMPUTED}
        order = [name for name in known.options if name in plain or name in given]
        given = {name: given[name] if name in given else _plain(plain[name]) for name in order} | given
    return {key: value for key, value in node.items() if key in HYDRAS} | given


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _keys(node: Any, at: str, known: Any = None) -> Iterator[str]:
    """Full names of the options of a node and of those in it."""
    if not isinstance(node, Mapping):
        return
    names = dict.fromkeys([*(known.options if known is not None else ()), *(key for key in node if key not in HYDRAS)])
    for name in names:
        inner = node.get(name)
        of_inner = signature(inner[TARGET]) if isinstance(inner, Mapping) and TARGET in inner else None
        if known is None or name in known.options:
            yield f"{at}.{name}"
        yield from _keys(inner, f"{at}.{name}", of_inner)


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
        _check_keys(make, node, at, given)
        made = make if node.get("_partial_") else make(**given)
    except InstantiationException as error:
        _refuse(node, at, error)
    except FakeganError:
        raise
    except Exception as error:  # whatever a constructor says of its options
        raise UsageError(_sentence(at, error)) from error
    if not node.get("_partial_") and not isinstance(made, kind):
        raise UsageError(f"{at}.{TARGET}={node[TARGET]} makes no {kind.__name__}, but a {type(made).__name__}")
    return made  # type: ignore[no-any-return]


def takes(node: Mapping[str, Any], option: str) -> bool:
    """Whether what a node names has an option of that name."""
    known = signature(str(node[TARGET]))
    if known is not None:
        return option in known.options
    try:
        return option in inspect.signature(_named(str(node[TARGET]))).parameters
    except (TypeError, ValueError, ImportError, AttributeError):
        return False


def _check_keys(make: Callable[..., Any], node: Mapping[str, Any], at: str, given: Mapping[str, Any]) -> None:
    """Options by the living signature, where no source has said them before."""
    try:
        parameters = inspect.signature(make.func).parameters  # type: ignore[attr-defined]
    except (TypeError, ValueError, AttributeError):
        return
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in node:
        if key not in HYDRAS and key not in parameters:
            raise UsageError(f"{at}.{key} is not a config key: {nearest(str(key), list(parameters))}")


def _refuse(node: Mapping[str, Any], at: str, error: InstantiationException) -> NoReturn:
    """What Hydra's error says, as one sentence."""
    inner = re.search(r"full_key: ([\w.]+)", str(error))
    place = f"{at}.{inner[1]}" if inner else at
    cause = error.__cause__
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, FakeganError):
        raise cause
    if cause is None or re.search("locating|load|import", str(error).split("\n")[0], re.IGNORECASE):
        target = inner_node(node, inner[1] if inner else "").get(TARGET)
        why = cause or " ".join(str(error).split())
        raise UsageError(f"{place}.{TARGET}={target} cannot be imported: {' '.join(str(why).split())[:300]}") from error
    raise UsageError(_sentence(place, cause)) from error


def inner_node(node: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The node at a dotted path within another; that itself where there is none."""
    for key in filter(None, path.split(".")):
        inner = node.get(key)
        if not isinstance(inner, Mapping):
            return node
        node = inner
    return node


def _sentence(at: str, error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{at}.{said}" if re.match(r"\w+=", said) else f"{at}: {said}"


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


def own_packages(node: Any) -> tuple[str, ...]:
    """The top-level packages of targets that are neither FakeGAN's nor of the libraries it trusts."""
    named = {str(target) for _, target in targets(node) if not _is_among(str(target), RUN_SOURCES)}
    return tuple(sorted({target.partition(".")[0] for target in named}))


def refuse_foreign(
    node: Any,  # that came out of a file
    where: str,  # that file
    trust: Collection[str],  # packages that the user trusts
    sources: Collection[str] = NET_SOURCES,  # what is trusted in any case
    kinds: tuple[type, ...] | None = None,  # what its classes must be; None: not looked at
) -> None:
    """Raise an UntrustedError for a target in a file that nobody trusts, before anything of it is imported or built."""
    for key, target in targets(node):
        if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
            raise UntrustedError(f"{where}: {key}={target!r:.100} names no class: do not trust this file")
        if not _is_among(target, (*sources, *trust)):
            raise UntrustedError(
                f"{where}: {key}={target:.100} is code from elsewhere, which a file may not name by itself: "
                f"if you trust it, add trust=[{target.partition('.')[0]}]"
            )
        if kinds is not None:
            _refuse_other_kinds(key, target, where, (*sources, *trust), kinds)
    for text in _texts(node):
        if "${" in text:
            raise UntrustedError(f"{where} holds an interpolation, {text!r:.100}: do not trust this file")


def _refuse_other_kinds(key: str, target: str, where: str, sources: Collection[str], kinds: tuple[type, ...]) -> None:
    """A trusted path may lead through a module to anything that this imports: only its own classes count."""
    try:
        found = _named(target)
    except (ImportError, AttributeError) as error:
        raise UntrustedError(f"{where}: {key}={target} cannot be imported: {error}") from error
    own = _is_among(f"{getattr(found, '__module__', '')}.", tuple(f"{source}." for source in sources))
    fits = (isinstance(found, type) and issubclass(found, kinds)) or (
        isinstance(found, types.FunctionType) and not found.__module__.startswith(("fakegan.", "torch.nn."))
    )
    if not (own and fits):
        raise UntrustedError(f"{where}: {key}={target} is no network: do not trust this file")


def _named(target: str) -> Any:
    """The object that MODULE.NAME names: of MODULE itself, not of what it has imported under another name."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _is_among(target: str, sources: Collection[str]) -> bool:
    return any(target.startswith(f"{source.rstrip('.')}.") for source in sources)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)
