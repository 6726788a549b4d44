"""What a file may name: a dotted path in a file is data, and is followed only to what is trusted.

A detector.pt, autoencoder.pt, generator.pt or config.yaml may come from anybody. What it names is looked at before
anything of it is imported, again before anything is built, and must be of the kind that its place asks for.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from fakegan.config.building import TARGET, named, targets
from fakegan.config.signatures import library, signature
from fakegan.errors import FakeganError, UntrustedError, UsageError

NET_SOURCES = ("fakegan", "torch.nn", "torchvision.models")  # whose networks a file may name
RUN_SOURCES = (*NET_SOURCES, "torch.optim", "pytorch_lightning")  # whose parts a run's config.yaml may name
_SHARED = ("fakegan", "torch", "torchvision", "pytorch_lightning", "hydra", "omegaconf")  # trusted by parts alone
_BUILDERS = ("torchvision.models", "fakegan.nets", "fakegan.training.schedules")  # whose functions may be called
_HARMLESS = ("datetime.timedelta",)  # of Python's own, what Lightning's options are made of
_WRITE_FILES = ("TensorBoardLogger", "CSVLogger")  # Lightning's loggers that send nothing anywhere
_MAX_DEPTH = 30
_MAX_LENGTH = 200  # of a dotted path
_MAX_VALUES = 10_000  # the largest node that a shipped config writes has some 20
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_KINDS = (  # what may be named where in a run's config.yaml; the first that fits
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
    """The packages that a user says to trust.

    Raises:
        UsageError: no package's name, or one of which a file could run anything.
    """
    names = (trust,) if isinstance(trust, str) else tuple(trust)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"trust={name!r:.100} must be the name of a package, as it is imported: my_package")
        if name.partition(".")[0] in _pythons() or name in {"torch", "hydra", "omegaconf"}:
            raise UsageError(f"trust={name} would let a file run anything: name your own package, or a part of it")
    return names


def _pythons() -> frozenset[str]:
    return sys.stdlib_module_names


def packages_to_trust(node: Any, sources: Collection[str] = RUN_SOURCES) -> tuple[str, ...]:
    """What would have to be trusted for a file to name what a node names: packages, of shared libraries modules."""
    found = {str(target) for _, target in _named_in(node) if not _is_among(str(target), sources)}
    return tuple(sorted({_word(target) for target in found if _top(target) not in _pythons()}))


def _word(path: str) -> str:
    """What to trust for what a user composes: a function of an installed library by its own name."""
    function = path.rpartition(".")[2][:1].islower() and _top(path) not in _SHARED and library(path)
    return path if function else _package(path)


def _top(path: str) -> str:
    return path.partition(".")[0]


def _package(path: str) -> str:
    return path.rpartition(".")[0] if _top(path) in _SHARED else _top(path)


def _is_among(path: str, sources: Collection[str]) -> bool:
    return any(path.startswith(f"{source}.") for source in sources)


def refuse_untrusted(
    node: Any,  # that came out of a file
    where: str,  # that file, or what of it
    trust: Collection[str] = (),  # packages that the user trusts
    sources: Collection[str] = NET_SOURCES,  # what is trusted in any case
    kinds: Callable[[str], type] | None = None,  # by key: what its classes must be; None: nothing is imported
) -> None:
    """Look at all that a node out of a file names, before anything is built; without `kinds`, before any import.

    Raises:
        UsageError: a word of `trust` that is no package.
        UntrustedError: it names what nobody trusts, or what is not of the kind that its place asks for.
    """
    names = trust_names(trust)
    _refuse_values(node, where)
    found = [(key, target) for key, target in _named_in(node) if target not in _HARMLESS]
    for key, target in found:
        _refuse_unwritten(target, _at(where, key), (*sources, *names))
    unknown = [(key, target) for key, target in found if not (_is_among(target, (*sources, *names)) or target in names)]
    if unknown:
        key, target = unknown[0]
        raise _untrusted(_at(where, key), target, sorted({_package(target) for _, target in unknown}), names)
    if kinds is not None:
        for key, target in found:
            trusted_object(target, _at(where, key), names, kinds(key), sources)


def _named_in(node: Any) -> Iterator[tuple[str, Any]]:
    """Every dotted path in a node, with its key: targets and, in a whole config, a view of the user's own."""
    yield from targets(node)
    pipeline = node.get("pipeline") if isinstance(node, Mapping) else None
    view = pipeline.get("view") if isinstance(pipeline, Mapping) else None
    if isinstance(view, str) and "." in view:
        yield "pipeline.view", view


def refuse_unreadable(
    node: Any,  # that the user composed
    at: str,  # its full key
    trust: Collection[str],
    sources: Collection[str] = NET_SOURCES,
    kinds: Callable[[str], type] | None = None,
) -> None:
    """As `refuse_untrusted`, for what a run is about to write: it must be able to read it again.

    Raises:
        UsageError: it could not.
    """
    try:
        refuse_untrusted(node, at, trust, sources, kinds)
    except UntrustedError as error:
        if isinstance(error.__cause__, FakeganError):  # it cannot be imported
            here = ": put it into the folder where you type the command, or install it"
            raise UsageError(error.said + (here if " there is no module " in error.said else "")) from error
        raise UsageError(f"{error.said}: the run could not read it again from its own files") from error


def _at(where: str, key: str) -> str:
    shown = ascii(key)[1:-1][:200]
    return f"{where}: {shown}" if "/" in where else f"{where}.{shown}".strip(".")


def _refuse_unwritten(path: Any, at: str, trusted: Collection[str]) -> None:
    """Raise an UntrustedError for what is no dotted path, or looks like one and is another."""
    if isinstance(path, str) and len(path) > _MAX_LENGTH:
        raise UntrustedError(f"{at}={_shown(path)} is longer than any name")
    if isinstance(path, str) and _is_among(path, trusted) and all(part.isidentifier() for part in path.split(".")):
        return
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise UntrustedError(f"{at}={_shown(path)} names no class")
    if _top(path) in _pythons():
        raise UntrustedError(f"{at}={path:.100} is Python's own, which no file may call")


def _untrusted(at: str, path: str, packages: Collection[str], names: Collection[str]) -> UntrustedError:
    return UntrustedError(
        f"{at}={path:.100} is code from elsewhere, which a file may not name by itself", list(packages)[:5], names
    )


def _shown(value: Any) -> str:
    return ascii(value)[:100] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def trusted_object(
    path: Any,  # dotted, out of a file
    at: str,  # the file and key that say it
    trust: Collection[str],  # packages that the user trusts
    kind: type,  # what it must be: a class of this kind, a function that returns one, or one itself
    sources: Collection[str] = NET_SOURCES,  # what is trusted in any case
) -> Any:
    """What a dotted path in a file names: imported where it is trusted, and a trusted module's own.

    A path may lead through a trusted module to whatever that has imported: only what the module's package itself
    defines counts. Of the user's own code, anything that it defines and that can be called is taken, and so is what
    `trust` names in full.

    Raises:
        UsageError: a word of `trust` that is no package.
        UntrustedError: nobody trusts it, it cannot be imported, it is another package's, or of another kind.
    """
    names = trust_names(trust)
    _refuse_unwritten(path, at, (*sources, *names))
    if not _is_among(path, (*sources, *names)) and path not in names:
        raise _untrusted(at, path, [_package(path)], names)
    try:
        found = named(path)
    except FakeganError as error:
        advice = (
            "type the command in its folder, or put it where Python finds it"
            if _is_among(path, names)
            else "the file may be of another version"
        )
        raise UntrustedError(f"{at}={path:.100} {error}", advice=advice) from error
    if isinstance(found, kind) or (path in names and callable(found)):
        return found
    home = f"{getattr(found, '__module__', None)}."
    if not isinstance(found, type | types.FunctionType) or not _is_among(home, (*sources, *names)):
        raise UntrustedError(f"{at}={path:.100} is no {kind.__name__} of {_top(path)}'s own")
    users_own = _is_among(home, names) and _top(home) not in _SHARED and not library(path)
    if not users_own and not (issubclass(found, kind) if isinstance(found, type) else _returns(found, kind)):
        raise UntrustedError(f"{at}={path:.100} is no {kind.__name__}")
    return found


def _returns(function: types.FunctionType, kind: type) -> bool:
    """Whether a function says that it returns an object of this kind, and does nothing else that is known of."""
    home = f"{function.__module__}.{function.__name__}"
    if _top(home) in _SHARED and ("._" in home or not _is_among(home, _BUILDERS)):
        return False
    try:
        said = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(said, type) and issubclass(said, kind)


def _refuse_values(node: Any, where: str) -> None:
    """Raise an UntrustedError for what no config holds, or is too much or too deep of it."""
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
        elif isinstance(value, str):
            if "${" in value:
                raise UntrustedError(f"{where} holds an interpolation, {_shown(value)}")
        elif not isinstance(value, bool | int | float | None):
            raise UntrustedError(f"{where} holds a {type(value).__name__}, which is no option")


# A run's config.yaml


def refuse_untrusted_run(
    values: Mapping[str, Any],  # of config.yaml
    path: Path,  # that file, in the run's folder
    trust: Collection[str],  # packages that the user trusts
) -> None:
    """Look at all that a run's config.yaml would have built, before anything is.

    Raises:
        UsageError: a word of `trust` that is no package.
        UntrustedError: something that nobody trusts, that does not belong to its place, or that would write elsewhere
            than in the run's folder, or send the run to some server.
    """
    names = trust_names(trust)
    refuse_untrusted(values, str(path), names, RUN_SOURCES)
    for key, value, package in _reaching_out(values, path.parent):
        if package not in names:
            why = "would write elsewhere than in the run's folder, or send it somewhere"
            said = f"{path}: {key}={_shown(value)} {why}, which a file may not ask for by itself"
            raise UntrustedError(said, [package], names)
    refuse_untrusted(values, str(path), names, RUN_SOURCES, _kind_at)


def _kind_at(key: str) -> type:
    """What may be built at a place of config.yaml."""
    module, _, name = next(kind for place, kind in _KINDS if re.fullmatch(place, key)).rpartition(".")
    return typing.cast("type", getattr(importlib.import_module(module), name))


def packages_to_resume(values: Mapping[str, Any], run_dir: Path) -> tuple[str, ...]:
    """The packages that have to be trusted where a run of such a config goes on from its config.yaml."""
    reaching = [package for _, _, package in _reaching_out(values, run_dir)]
    return tuple(sorted({*packages_to_trust(values), *reaching}))


def _reaching_out(values: Mapping[str, Any], run_dir: Path) -> Iterator[tuple[str, str, str]]:
    """Key, value and package of what would write outside a run's folder, or send it somewhere."""
    for group in ("callbacks", "logger", "trainer"):
        for at, node in _nodes(values.get(group), group):
            target = node[TARGET]
            if re.fullmatch(r"logger\.[^.]+", at) and target.rpartition(".")[2] not in _WRITE_FILES:
                yield f"{at}.{TARGET}", target, _top(target)
            known = signature(target)
            for key, value in node.items():
                annotation = known.options[key].annotation if known is not None and key in known.options else ""
                for text in _texts(value):
                    if _leads_out(text, "path" in annotation.lower() or key == "_args_", run_dir):
                        yield f"{at}.{key}", text, _top(target)


def _nodes(value: Any, at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every group with a target, with its key, at any depth."""
    if isinstance(value, Mapping):
        if isinstance(value.get(TARGET), str):
            yield at, value
        for key, inner in value.items():
            yield from _nodes(inner, f"{at}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _nodes(inner, f"{at}[{i}]")


def _leads_out(text: str, is_path: bool, run_dir: Path) -> bool:
    """Whether a text is a path out of a folder, or the address of a server."""
    parts = re.split(r"[/\\]", text)
    absolute = text.startswith(("/", "~")) or PureWindowsPath(text).is_absolute()
    if not (is_path or absolute or ".." in parts or "://" in text):
        return False
    return "://" in text or not Path(text).expanduser().resolve().is_relative_to(run_dir.resolve())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
