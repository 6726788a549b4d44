"""Which code a file may name: a dotted path in a file is data, and is imported only where it is trusted.

A detector.pt, autoencoder.pt, generator.pt or config.yaml may come from anybody. Every path in it is checked before
anything is imported, and again before anything is built: it must be of the kind that its place asks for.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from fakegan.config.building import TARGET, named, walk
from fakegan.config.signatures import library, signature
from fakegan.errors import FakeganError, UntrustedError, UsageError

NET_SOURCES = ("fakegan", "torch.nn", "torchvision.models")  # a file may name networks of these
RUN_SOURCES = (*NET_SOURCES, "torch.optim", "pytorch_lightning")  # a run's config.yaml may name parts of these
_SHARED = ("fakegan", "torch", "torchvision", "pytorch_lightning", "hydra", "omegaconf")  # trusted by module only
_BUILDERS = ("torchvision.models", "fakegan.nets", "fakegan.training.schedules")  # their functions may be called
_HARMLESS = ("datetime.timedelta",)  # of Python's library, for options of Lightning's
_WRITE_FILES = ("TensorBoardLogger", "CSVLogger")  # Lightning's loggers that send nothing anywhere
_MAX_DEPTH = 30
_MAX_LENGTH = 200  # of a dotted path
_MAX_VALUES = 10_000  # the largest node that a shipped config writes has some 20
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_KINDS = (  # the kind of object that each key of a run's config.yaml may name; the first that fits
    (r"(model|classifier)\._target_", "pytorch_lightning.LightningModule"),
    (r"(model|classifier)\.(\w+_)?optimizer\._target_", "torch.optim.Optimizer"),
    (r"(model|classifier)\.(\w+_)?schedule\._target_", "torch.optim.lr_scheduler.LRScheduler"),
    (r"callbacks\.\w+\._target_", "pytorch_lightning.Callback"),
    (r"logger\.\w+\._target_", "pytorch_lightning.loggers.Logger"),
    (r"trainer\._target_", "pytorch_lightning.Trainer"),
    (r"trainer\.strategy\._target_", "pytorch_lightning.strategies.Strategy"),
    (r"trainer\.profiler\._target_", "pytorch_lightning.profilers.Profiler"),
    (r"data\.modules\.\w+\._target_", "pytorch_lightning.LightningDataModule"),
    (r"pipeline\.view", "fakegan.views.View"),
    (r".*", "torch.nn.Module"),
)


def trust_names(trust: str | Collection[str]) -> tuple[str, ...]:
    """The packages that a user says to trust; a UsageError for no package, or one that runs anything."""
    names = (trust,) if isinstance(trust, str) else tuple(trust)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"trust={name!r:.100} must be the name of a package, as it is imported: my_package")
        if _top(name) in sys.stdlib_module_names or name in {"torch", "hydra", "omegaconf"}:
            raise UsageError(f"trust={name} would let a file run anything: name your own package, or a part of it")
    return names


def _top(path: str) -> str:
    return path.partition(".")[0]


def _package(path: str) -> str:
    return path.rpartition(".")[0] if _top(path) in _SHARED else _top(path)


def _is_in(path: str, packages: Collection[str]) -> bool:
    return any(path.startswith(f"{package}.") for package in packages)


def _paths_in(node: Any) -> Iterator[tuple[str, Any]]:
    """Every dotted path in a node, with its key: targets and, in a whole config, a view of the user's own."""
    for key, value in walk(node):
        own_view = key == "pipeline.view" and isinstance(value, str) and "." in value
        if key.rpartition(".")[2] == TARGET or own_view:
            yield key, value


def packages_to_trust(node: Any, sources: Collection[str] = RUN_SOURCES) -> tuple[str, ...]:
    """The packages that a user would have to trust where a file holds this node.

    Of a shared library it is the module, for a function of another installed library its full path.
    """
    found = set()
    for path in (str(path) for _, path in _paths_in(node)):
        if not _is_in(path, sources) and _top(path) not in sys.stdlib_module_names:
            is_function = path.rpartition(".")[2][:1].islower()
            found.add(path if is_function and _top(path) not in _SHARED and library(path) else _package(path))
    return tuple(sorted(found))


def refuse_untrusted(
    node: Any,  # out of a file
    where: str,  # the file, or the part of it
    trust: Collection[str] = (),  # packages that the user trusts
    sources: Collection[str] = NET_SOURCES,  # trusted in any case
    kinds: Callable[[str], type] | None = None,  # by key: the kind of object; None: nothing is imported
) -> None:
    """Check every path in a node out of a file before it is built; without `kinds`, before anything is imported.

    Raises:
        UsageError: a name in `trust` is not a package.
        UntrustedError: a path that is not trusted, or not of the kind that its place asks for.
    """
    names = trust_names(trust)
    _refuse_values(node, where)
    found = []
    for key, path in _paths_in(node):
        if path not in _HARMLESS:
            shown = ascii(key)[1:-1][:200]
            found.append((key, f"{where}: {shown}" if "/" in where else f"{where}.{shown}".strip("."), path))
    _refuse_paths([(place, path) for _, place, path in found], sources, names)
    if kinds is not None:
        for key, place, path in found:
            trusted_object(path, place, names, kinds(key), sources)


def _refuse_paths(paths: Sequence[tuple[str, Any]], sources: Collection[str], names: Collection[str]) -> None:
    """Raise an UntrustedError for a path, given with its place, that is misspelt on purpose or not trusted."""
    trusted, unknown = (*sources, *names), []
    for place, path in paths:
        if not isinstance(path, str):
            raise UntrustedError(f"{place}={_shown(path)} names no class")
        if len(path) > _MAX_LENGTH:
            raise UntrustedError(f"{place}={_shown(path)} is longer than any name")
        if _is_in(path, trusted) and all(part.isidentifier() for part in path.split(".")):
            continue
        if not _PATH.fullmatch(path):
            raise UntrustedError(f"{place}={_shown(path)} names no class")
        if _top(path) in sys.stdlib_module_names:
            raise UntrustedError(f"{place}={path:.100} is Python's own, which no file may call")
        if path not in names:
            unknown.append((place, path))
    if unknown:
        place, path = unknown[0]
        reason = f"{place}={path:.100} is code from elsewhere, which a file may not name by itself"
        raise UntrustedError(reason, sorted({_package(path) for _, path in unknown})[:5], names)


def _shown(value: Any) -> str:
    return ascii(value)[:100] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def refuse_unreadable(
    node: Any,  # composed by the user
    at: str,  # its full key
    trust: Collection[str],
    sources: Collection[str] = NET_SOURCES,
    kinds: Callable[[str], type] | None = None,
) -> None:
    """A UsageError where a run that is about to be written could not read its own files again."""
    try:
        refuse_untrusted(node, at, trust, sources, kinds)
    except UntrustedError as error:
        if isinstance(error.__cause__, FakeganError):  # it cannot be imported
            here = ": put it into the folder where you type the command, or install it"
            raise UsageError(error.reason + (here if " there is no module " in error.reason else "")) from error
        raise UsageError(f"{error.reason}: the run could not read it again from its own files") from error


def trusted_object(
    path: Any,  # dotted, out of a file
    at: str,  # the file and key that hold it
    trust: Collection[str],  # packages that the user trusts
    kind: type,  # a class of this kind, a function that returns such an object, or the object itself
    sources: Collection[str] = NET_SOURCES,  # trusted in any case
) -> Any:
    """The object that a dotted path in a file names, imported if it is trusted and defined in a trusted package.

    A path may lead through a trusted module to anything that this module has imported: that is refused. Of the user's
    own code anything that it defines and that can be called is taken, and so is a path that `trust` holds in full.

    Raises:
        UsageError: a name in `trust` is not a package.
        UntrustedError: it is not trusted, cannot be imported, is another package's, or of another kind.
    """
    names = trust_names(trust)
    _refuse_paths([(at, path)], sources, names)
    try:
        found = named(path)
    except FakeganError as error:
        users = "type the command in its folder, or put it where Python finds it"
        advice = users if _is_in(path, names) else "the file may be of another version"
        raise UntrustedError(f"{at}={path:.100} {error}", advice=advice) from error
    if isinstance(found, kind) or (path in names and callable(found)):
        return found
    home = f"{getattr(found, '__module__', None)}."
    if not isinstance(found, type | types.FunctionType) or not _is_in(home, (*sources, *names)):
        raise UntrustedError(f"{at}={path:.100} is no {kind.__name__} of {_top(path)}'s own")
    users_own = _is_in(home, names) and _top(home) not in _SHARED and not library(path)
    if not users_own and not (issubclass(found, kind) if isinstance(found, type) else _returns(found, kind)):
        raise UntrustedError(f"{at}={path:.100} is no {kind.__name__}")
    return found


def _returns(function: types.FunctionType, kind: type) -> bool:
    """Whether a function declares that it returns this kind; of shared libraries only builders are called at all."""
    home = f"{function.__module__}.{function.__name__}"
    if _top(home) in _SHARED and ("._" in home or not _is_in(home, _BUILDERS)):
        return False
    try:
        returned = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(returned, type) and issubclass(returned, kind)


def _refuse_values(node: Any, where: str) -> None:
    """Raise an UntrustedError for a value that no config holds, for too many values, or too deep a nesting."""
    ahead, count = [(node, 0)], 0
    while ahead:
        value, depth = ahead.pop()
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise UntrustedError(f"{where} names more than any network has")
        if isinstance(value, Mapping):
            ahead += [(inner, depth + 1) for pair in value.items() for inner in pair]
            if not all(isinstance(key, str) for key in value):
                raise UntrustedError(f"{where} has an option without a name")
        elif isinstance(value, list | tuple):
            ahead += [(inner, depth + 1) for inner in value]
        elif isinstance(value, str) and "${" in value:
            raise UntrustedError(f"{where} holds an interpolation, {_shown(value)}")
        elif not isinstance(value, str | bool | int | float | None):
            raise UntrustedError(f"{where} holds a {type(value).__name__}, which is no option")


# A run's config.yaml


def refuse_untrusted_run(
    values: Mapping[str, Any],  # of config.yaml
    path: Path,  # that file, in the run's folder
    trust: Collection[str],  # packages that the user trusts
) -> None:
    """Check everything that a run's config.yaml would have built, before anything is.

    Raises:
        UsageError: a name in `trust` is not a package.
        UntrustedError: a path that is not trusted or does not belong to its place; an option that would write outside
            the run's folder, or send the run to a server.
    """
    names = trust_names(trust)
    refuse_untrusted(values, str(path), names, RUN_SOURCES)
    for key, value, package in _reaching_out(values, path.parent):
        if package not in names:
            why = "would write elsewhere than in the run's folder, or send it somewhere"
            reason = f"{path}: {key}={_shown(value)} {why}, which a file may not ask for by itself"
            raise UntrustedError(reason, [package], names)

    def kind_at(key: str) -> type:
        module, _, name = next(kind for place, kind in _KINDS if re.fullmatch(place, key)).rpartition(".")
        return typing.cast("type", getattr(importlib.import_module(module), name))

    refuse_untrusted(values, str(path), names, RUN_SOURCES, kind_at)


def packages_to_resume(values: Mapping[str, Any], run_dir: Path) -> tuple[str, ...]:
    """The packages that a user has to trust to resume a run of such a config from its config.yaml."""
    reaching = [package for _, _, package in _reaching_out(values, run_dir)]
    return tuple(sorted({*packages_to_trust(values), *reaching}))


def _reaching_out(values: Mapping[str, Any], run_dir: Path) -> Iterator[tuple[str, str, str]]:
    """Key, value and package of each option that would write outside a run's folder, or send something somewhere."""
    for at, node in [found for group in ("callbacks", "logger", "trainer") for found in walk(values.get(group), group)]:
        target = node.get(TARGET) if isinstance(node, Mapping) else None
        if not isinstance(target, str):
            continue
        if re.fullmatch(r"logger\.[^.]+", at) and target.rpartition(".")[2] not in _WRITE_FILES:
            yield f"{at}.{TARGET}", target, _top(target)
        known = signature(target)
        for key, value in node.items():
            annotation = known.options[key].annotation if known is not None and key in known.options else ""
            is_path = "path" in annotation.lower() or key == "_args_"
            for text in [text for _, text in walk(value) if isinstance(text, str)]:
                if _leads_out(text, is_path, run_dir):
                    yield f"{at}.{key}", text, _top(target)


def _leads_out(text: str, is_path: bool, run_dir: Path) -> bool:
    """Whether a text is a path out of a folder, or the address of a server."""
    if "://" in text:
        return True
    absolute = text.startswith(("/", "~")) or PureWindowsPath(text).is_absolute()
    if not (is_path or absolute or ".." in re.split(r"[/\\]", text)):
        return False
    return not Path(text).expanduser().resolve().is_relative_to(run_dir.resolve())
