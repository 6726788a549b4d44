"""The options of a class or function, as its signature states them: read from the source, nothing is imported.

So `--help` shows them, and a wrong key is refused, without the seconds that torch takes. The comment beside a
parameter is what it means.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

REQUIRED: Any = object()  # in place of a default: there is none
COMPUTED: Any = object()  # a default that is no plain value
_WITHOUT_OPTIONS = {"Module", "LightningModule", "LightningDataModule", "Callback"}  # of torch and Lightning
_COMMENT = re.compile(r"\s#\s(.*)$")
_COMMENT_ALONE = re.compile(r"\s+# (.*)")


@dataclass(frozen=True)
class Option:
    """One parameter."""

    annotation: str  # as written; empty where there is none
    default: Any  # a plain value, REQUIRED or COMPUTED
    said: str  # the comment beside it


@dataclass(frozen=True)
class Signature:
    """What a class or function takes by name."""

    options: dict[str, Option]
    takes_others: bool  # **kwargs
    said: str = ""  # the first line of its docstring


@cache
def signature(target: str) -> Signature | None:
    """The signature of "package.module.Name"; None where no source says it."""
    module, _, name = target.rpartition(".")
    return _signature(module, name)


def library(target: str) -> bool:
    """Whether a target is of an installed library rather than this package's or the user's own."""
    top = target.partition(".")[0]
    path = _path(top)
    return top != "fakegan" and path is not None and bool({"site-packages", "dist-packages"} & set(path.parts))


def _signature(module: str, name: str) -> Signature | None:
    found = _definition(module, name)
    if found is None:
        return None
    source, node = found
    stated = _stated(source, node)
    said = (ast.get_docstring(node) or "").partition("\n")[0]
    return None if stated is None else replace(stated, said=said)


def _stated(source: _Source, node: ast.ClassDef | ast.FunctionDef) -> Signature | None:
    if isinstance(node, ast.FunctionDef):
        return _of_arguments(source, node, of_class=False)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            own = _of_arguments(source, part, of_class=True)
            above = _of_base(source, node) if _passes_on(part) else None
            if above is None:
                return own
            return Signature({**above.options, **own.options}, above.takes_others)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        own = _of_fields(source, node)
        above = _of_base(source, node) if node.bases else Signature({}, takes_others=False)
        return None if above is None else Signature({**above.options, **own.options}, above.takes_others)
    return _of_base(source, node)


def _passes_on(init: ast.FunctionDef) -> bool:
    """Whether a constructor's **kwargs are those of its base class: super().__init__(**kwargs)."""
    others = init.args.kwarg
    calls = [node for node in ast.walk(init) if isinstance(node, ast.Call)]
    return others is not None and any(
        ast.unparse(call.func).endswith(".__init__")
        and any(word.arg is None and ast.unparse(word.value) == others.arg for word in call.keywords)
        for call in calls
    )


def _of_base(source: _Source, node: ast.ClassDef) -> Signature | None:
    if any(ast.unparse(base).rpartition(".")[2] in _WITHOUT_OPTIONS for base in node.bases):
        return Signature({}, takes_others=False)
    base = next((base.id for base in node.bases if isinstance(base, ast.Name)), None)
    return None if base is None else _signature(source.name, base)


def _of_arguments(source: _Source, node: ast.FunctionDef, of_class: bool) -> Signature:
    arguments = node.args
    names = [*arguments.posonlyargs, *arguments.args][of_class:]
    defaults = [None] * (len(names) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(names, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    options = {name.arg: source.option(name.lineno, name.annotation, default) for name, default in pairs}
    return Signature(options, arguments.kwarg is not None)


def _of_fields(source: _Source, node: ast.ClassDef) -> Signature:
    parts = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
    fields = [part for part in parts if "ClassVar" not in ast.unparse(part.annotation)]
    options = {f.target.id: source.option(f.lineno, f.annotation, f.value) for f in fields}  # type: ignore[union-attr]
    return Signature(options, takes_others=False)


@dataclass(frozen=True)
class _Source:
    """A module's text."""

    name: str
    lines: tuple[str, ...]
    tree: ast.Module
    is_package: bool

    def option(self, line: int, annotation: ast.expr | None, default: ast.expr | None) -> Option:
        written = "" if annotation is None else ast.unparse(annotation)
        return Option(written, _value(default), self.said(line))

    def said(self, line: int) -> str:
        """The comment beside a line, with the lines of nothing else that go on with it."""
        begun = _COMMENT.search(self.lines[line - 1])
        below = itertools.takewhile(bool, map(_COMMENT_ALONE.fullmatch, self.lines[line:]))
        return " ".join([begun[1], *(more[1] for more in below if more)]) if begun else ""

    def absolute(self, node: ast.ImportFrom) -> str:
        """The module that a `from ... import` names."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parts, *([node.module] if node.module else [])])


def _value(node: ast.expr | None) -> Any:
    if node is None:
        return REQUIRED
    try:
        value = ast.literal_eval(node)
        json.dumps(value)
    except (ValueError, TypeError):  # a call; a set or bytes, which no config holds
        return COMPUTED
    return value


def _definition(module: str, name: str, depth: int = 0) -> tuple[_Source, ast.ClassDef | ast.FunctionDef] | None:
    """Where a name is defined that a module has: there, or where it is imported from."""
    source = _source(module)
    if source is None or depth > 8:
        return None
    stars = []
    for node in _statements(source.tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return source, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(source.absolute(node), alias.name, depth + 1)
                if alias.name == "*":
                    stars.append(source.absolute(node))
    return next((found for star in stars if (found := _definition(star, name, depth + 1))), None)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Those of a module's top level, within `if` and `try` too."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If | ast.Try):
            yield from _statements(child)


@cache
def _source(module: str) -> _Source | None:
    path = _path(module)
    try:
        text = "" if path is None else path.read_text("utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return None
    if path is None:
        return None
    return _Source(module, tuple(text.splitlines()), tree, path.name == "__init__.py")


def _path(module: str) -> Path | None:
    """The file of a module; only the folders of its package are looked at."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest and spec.origin is not None:
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest)
        for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None
