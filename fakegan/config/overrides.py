"""Overrides, KEY=VALUE: as a user types them, as Hydra has to read them, and as a command prints them.

Hydra's own reading makes 2024 a number and null nothing, and refuses a `~`, an accent or a bracket. Where a key takes
a path or a name, the typed text is that path or name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakegan.errors import UsageError
from fakegan.system.shell import CONFIG_DIR, WINDOWS_LINE_END, expanded, local_path, quoted


@dataclass(frozen=True)
class _Value:
    """The kind of value that a key takes."""

    paths: bool = True  # else names
    null: bool = False  # null means none
    swept: bool = False  # with -m, commas separate the values of several jobs
    listed: bool = False  # a list


_EACH = re.compile(r"(?<!['\"])each\((?:real|fake)\)")
_KEYS = {
    **dict.fromkeys(("data.root", "model.checkpoint", "classifier.weights_file"), _Value(null=True, swept=True)),
    **dict.fromkeys(("run", "out", "resume"), _Value(null=True)),
    **dict.fromkeys(("hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.submitit_folder"), _Value()),
    **dict.fromkeys(("data_dir", "paths.run_dir", "paths.data_dir", "paths.artifact_dir"), _Value()),
    **dict.fromkeys(("data.name", "model.name", "classifier.name"), _Value(paths=False, swept=True)),
    **dict.fromkeys(
        ("data.split.unseen", "data.split.learn_from", "data.split.autoencoder_sources"),
        _Value(paths=False, swept=True, listed=True),
    ),
    "runs": _Value(listed=True),
    "sources": _Value(paths=False, listed=True),
}
_OVERRIDE = re.compile(r"(\+{0,2}([\w.]+)=)(.*)", re.DOTALL)
_GROUP = r"(?!hydra\.)[A-Za-z_]\w*\."
_IN_A_GROUP = re.compile(rf"{_GROUP}[\w.]+=")
_NO_LOGGER = ("logger=null", "logger=[]")  # as typed, and for Hydra
_QUOTED = r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\""
_ELEMENT = re.compile(rf"\s*(?:{_QUOTED}|((?:\\.|[^,])*?))\s*(?:,|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\([()\[\]{}:=, \t\\])")  # Hydra takes these pairs for the second character alone
_FUNCTION = re.compile(r"(choice|range|interval|glob|tag|sort|shuffle|str|int|float|bool)\s*\(.*\)", re.DOTALL)


def hydra_argv(argv: Sequence[str]) -> list[str]:
    """The arguments of a command as Hydra has to read them: paths and names are quoted, ~ is the home folder.

    A config folder of the user's own, in any spelling, becomes one first argument, --config-dir=DIR. Raises a
    UsageError for a wrong argument, which shows how to write it.
    """
    left, folders, others = list(argv), list[str](), list[str]()
    while left:
        argument = left.pop(0)
        option, equals, folder = argument.partition("=")
        if argument.endswith("\r"):
            raise UsageError(f"{argument!r:.100} {WINDOWS_LINE_END}")
        if re.fullmatch(r"~[a-z]\w*(=.*)?", argument):
            raise UsageError(f"{argument} removes what every run needs: leave it out; ~GROUP.NAME removes one key")
        if option not in {"--config-dir", "-cd"}:
            others.append(_with_rest_of_list(argument, left))
            continue
        folder = folder if equals or not left else left.pop(0)
        if not folder or not Path(expanded(folder)).is_dir():
            raise UsageError(f"--config-dir {folder}: there is no such folder")
        folders.append(CONFIG_DIR + expanded(folder))
    return [*folders, *(to_hydra(_rewritten(argument, expanded)) for argument in others)]


def _with_rest_of_list(argument: str, left: list[str]) -> str:
    """An argument that begins a list, and its rest, which the shell made arguments of their own: runs=[a, b]."""
    found = _OVERRIDE.fullmatch(argument)
    listed = found is not None and found[2] in _KEYS and _KEYS[found[2]].listed
    begins_one = found is not None and found[3].startswith("[") and found[3].count("[") > found[3].count("]")
    if found is None or not listed or not begins_one:
        return argument
    end = next((i for i, other in enumerate(left) if other.endswith("]")), None)
    if end is None:
        raise UsageError(f"{argument} begins a list that does not end: write '{found[1]}[A,B]', quotes around it")
    rest, left[: end + 1] = left[: end + 1], []
    return " ".join([argument, *rest])


def to_hydra(override: str) -> str:
    """An override as Hydra accepts it: a key in a group gets ++, since it need not stand in a YAML file."""
    if override == _NO_LOGGER[0]:
        return _NO_LOGGER[1]
    return f"++{override}" if _IN_A_GROUP.match(override) else override


def from_hydra(override: str) -> str:
    """An override as it was typed: the inverse of `to_hydra`."""
    if override == _NO_LOGGER[1]:
        return _NO_LOGGER[0]
    return override[2:] if override.startswith("++") and _IN_A_GROUP.match(override[2:]) else override


def text_from_hydra(text: str) -> str:
    """A message of Hydra's with the overrides in it as they were typed."""
    return re.sub(rf"\+\+(?={_GROUP})", "", text)


def short_target(key: str, value: str) -> tuple[str, str]:
    """Key and value for a table: classifier.optimizer and SGD for classifier.optimizer._target_=torch.optim.SGD."""
    return (key.removesuffix("._target_"), value.rpartition(".")[2]) if key.endswith("._target_") else (key, value)


def with_absolute_paths(overrides: Sequence[str]) -> list[str]:
    """Overrides as typed, with absolute paths: they mean the same in every folder."""
    return [_rewritten(from_hydra(override), lambda path: str(Path(path).absolute())) for override in overrides]


def with_relative_paths(overrides: Sequence[str]) -> list[str]:
    """Overrides with absolute paths as a user would type them in this folder."""
    return [_rewritten(override, local_path) for override in overrides]


def unreadable(override: str) -> str:
    """A sentence for an override that Hydra cannot read, with quotes around it that can be pasted."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{key}: write KEY=VALUE"
    if not re.fullmatch(r"[+~]*[A-Za-z0-9_.@/$-]*", key):
        return f"{key} is not a config key"
    if value[:1] in {"[", "{", "'", '"'} or _FUNCTION.match(f"{value})"):
        return f"{override}: brackets or quotes do not match, or a text needs quotes of its own: {key}=['A B','C']"
    return f"{override}: a text with such characters needs quotes: {shlex.quote(f'{key}={quoted(value)}')}"


def one_value(key: str, values: str) -> str:
    """How to write a list, or one text with commas in it, as the value of a key."""
    if key in _KEYS and not _KEYS[key].listed:
        return f"{shlex.quote(f'{key}={quoted(values)}')} for one with commas in it"
    return f"{key}=[{values}] for a list"


def _rewritten(override: str, change: Callable[[str], str]) -> str:
    """An override with changed paths and quoted texts; unchanged where Hydra reads it right by itself."""
    if override.startswith(CONFIG_DIR):
        return CONFIG_DIR + change(override.removeprefix(CONFIG_DIR))
    found = _OVERRIDE.fullmatch(override)
    if found is None or found[2] not in _KEYS:
        return override
    start, key, value = found.groups()
    kind = _KEYS[key]
    if "${" in value or value == "???" or _FUNCTION.fullmatch(value):
        return override
    if kind.listed and _EACH.search(value):  # fakegan/sweep/each.py replaces it; Hydra would take it for a function
        return start + _EACH.sub(r"['\g<0>']", value)
    if key == "resume" and value.lower() in {"true", "false"}:
        return override
    bracketed = kind.listed and value.startswith("[") and value.endswith("]")
    if kind.listed and (re.search(r"\]\s*,\s*\[", value) if bracketed else value.lower() == "null"):
        return override  # a list for each job, or no list
    texts = _texts(value, kind, bracketed)
    if kind.listed and kind.swept and not bracketed and len(texts) > 1:
        return override  # with -m a value for each job, else Hydra's error explains how to write a list
    shown = []
    for text, is_quoted in texts:
        if text.lower() == "null" and kind.null and not is_quoted:
            shown.append(text)
            continue
        if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
            raise UsageError(f"{key}={text!r:.100} holds a control character: rename what it names")
        try:
            shown.append(quoted(change(text) if kind.paths else text))
        except UsageError as error:
            raise UsageError(f"{start} is followed by {error}") from None
    return f"{start}[{','.join(shown)}]" if kind.listed else f"{start}{','.join(shown)}"


def _texts(value: str, kind: _Value, bracketed: bool) -> list[tuple[str, bool]]:
    """The texts that a value holds, each with whether it stood in Hydra's quotes."""
    several = bracketed or ((kind.swept or kind.listed) and not os.path.lexists(os.path.expanduser(value)))
    if not several:
        whole = re.fullmatch(_QUOTED, value, re.DOTALL)
        return [_unquoted(whole)] if whole else [(_ESCAPED.sub(r"\1", value), False)]
    texts: list[tuple[str, bool]] = []
    inside, at = value[1:-1] if bracketed else value, 0
    while at < len(inside) or (not texts and not bracketed):
        found = _ELEMENT.match(inside, at)
        assert found is not None  # it matches any text up to the comma or the end
        texts.append(_unquoted(found))
        at = max(found.end(), at + 1)
    return texts


def _unquoted(found: re.Match[str]) -> tuple[str, bool]:
    for text, quote in zip(found.groups(), "'\"", strict=False):
        if text is not None and found[0].strip()[:1] == quote:
            return re.sub(rf"(\\+)({quote}|$)", lambda run: run[1][: len(run[1]) // 2] + run[2], text), True
    return _ESCAPED.sub(r"\1", found.groups()[2] or ""), False
