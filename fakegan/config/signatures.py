"""The options of a class or function, read from its source text: nothing is imported.

So `--help` shows them, and a wrong key is refused, without the seconds that torch takes. The comment beside a
parameter is its explanation.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

REQUIRED: Any = object()  # the default of an option that has none
COMPUTED: Any = object()  # a default that is not a plain value
_WITHOUT_OPTIONS = {"Module", "LightningModule", "LightningDataModule", "Callback"}  # bases, of torch and Lightning
_COMMENT = re.compile(r"\s#\s(.*)$")
_COMMENT_ALONE = re.compile(r"\s+# (.*)")
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Option:
    """One parameter."""

    annotation: str  # as written; empty where there is none
    default: Any  # a plain value, REQUIRED or COMPUTED
    comment: str


@dataclass(frozen=True)
class Signature:
    """The options that a class or function takes by name."""

    options: Mapping[str, Option]
    takes_others: bool = False  # **kwargs
    headline: str = ""  # the first line of its docstring

    def after(self, base: Signature | None) -> Signature:
        """With the options of a base class before its own; without a base, unchanged."""
        return self if base is None else Signature({**base.options, **self.options}, base.takes_others)


@dataclass(frozen=True)
class _Source:
    """A module's text."""

    name: str
    package: str  # that relative imports start from
    lines: tuple[str, ...]
    tree: ast.Module

    def option(self, line: int, annotation: ast.expr | None, default: ast.expr | None) -> Option:
        """The option on a line, with the comment that begins there and may go on in the lines below."""
        begun = _COMMENT.search(self.lines[line - 1])
        below = itertools.takewhile(bool, map(_COMMENT_ALONE.fullmatch, self.lines[line:]))
        comment = " ".join([begun[1], *(more[1] for more in below if more)]) if begun else ""
        return Option("" if annotation is None else ast.unparse(annotation), _default(default), comment)


def _default(node: ast.expr | None) -> Any:
    if node is None:
        return REQUIRED
    try:
        value = ast.literal_eval(node)
        json.dumps(value)
    except (ValueError, TypeError):  # a call; a set or bytes, which no config holds
        return COMPUTED
    return value


@cache
def signature(target: str) -> Signature | None:
    """The signature of "package.module.Name"; None where its source does not say it."""
    module, _, name = target.rpartition(".")
    found = _definition(module, name)
    if found is None:
        return None
    source, node = found
    stated = _of_function(source, node) if isinstance(node, ast.FunctionDef) else _of_class(source, node)
    return None if stated is None else replace(stated, headline=(ast.get_docstring(node) or "").partition("\n")[0])


def library(target: str) -> bool:
    """Whether a target is of an installed library rather than FakeGAN's or the user's own."""
    top = target.partition(".")[0]
    path = _path(top)
    return top != "fakegan" and path is not None and bool({"site-packages", "dist-packages"} & set(path.parts))


def _of_class(source: _Source, node: ast.ClassDef) -> Signature | None:
    init = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    if init is not None:
        own = _of_function(source, init, skipped=1)
        return own.after(_of_base(source, node)) if _passes_on(init) else own
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        parts = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
        fields = [part for part in parts if "ClassVar" not in ast.unparse(part.annotation)]
        own = Signature({ast.unparse(f.target): source.option(f.lineno, f.annotation, f.value) for f in fields})
        above = _of_base(source, node)
        return own.after(above) if above is not None or not node.bases else None
    return _of_base(source, node)


def _passes_on(init: ast.FunctionDef) -> bool:
    """Whether a constructor passes its **kwargs on to its base class: super().__init__(**kwargs)."""
    others = init.args.kwarg
    calls = [node for node in ast.walk(init) if isinstance(node, ast.Call)]
    return others is not None and any(
        ast.unparse(call.func).endswith(".__init__")
        and any(keyword.arg is None and ast.unparse(keyword.value) == others.arg for keyword in call.keywords)
        for call in calls
    )


def _of_base(source: _Source, node: ast.ClassDef) -> Signature | None:
    if any(ast.unparse(base).rpartition(".")[2] in _WITHOUT_OPTIONS for base in node.bases):
        return Signature({})
    base = next((base.id for base in node.bases if isinstance(base, ast.Name)), None)
    return None if base is None else signature(f"{source.name}.{base}")


def _of_function(source: _Source, node: ast.FunctionDef, skipped: int = 0) -> Signature:
    arguments = node.args
    names = [*arguments.posonlyargs, *arguments.args][skipped:]
    defaults = [None] * (len(names) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(names, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    options = {name.arg: source.option(name.lineno, name.annotation, default) for name, default in pairs}
    return Signature(options, arguments.kwarg is not None)


def _definition(module: str, name: str, depth: int = 0) -> tuple[_Source, Definition] | None:
    """Where a name of a module is defined: there, or where it is imported from."""
    source = _source(module)
    if source is None or depth > 8:
        return None
    stars = []
    for node in _statements(source.tree):
        if isinstance(node, Definition) and node.name == name:
            return source, node
        if isinstance(node, ast.ImportFrom):
            imported = importlib.util.resolve_name("." * node.level + (node.module or ""), source.package)
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(imported, alias.name, depth + 1)
            stars += [imported for alias in node.names if alias.name == "*"]
    return next((found for star in stars if (found := _definition(star, name, depth + 1))), None)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements of a module's top level, within `if` and `try` too."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If | ast.Try):
            yield from _statements(child)


@cache
def _source(module: str) -> _Source | None:
    path = _path(module)
    if path is None:
        return None
    try:
        text = path.read_text("utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _Source(module, package, tuple(text.splitlines()), tree)


def _path(module: str) -> Path | None:
    """The file of a module, found in the folders of its top package, of which nothing is imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest and spec.origin is not None:
        return Path(spec.origin)
    places = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
    files = [path for place in places for path in (place.with_name(f"{place.name}.py"), place / "__init__.py")]
    return next((path for path in files if path.is_file()), None)
