"""The words of a command: what those that a user types mean, and how one is written that works when it is pasted.

Hydra reads a value as its own language: 2024 is a number, null is nothing, and a `~`, an accent or a bracket is an
error. Where a key takes a path or a name, what is typed is that path or name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakegan.errors import UsageError
from fakegan.system.shell import CONFIG_DIR, WINDOWS_LINE_END, expanded, here, quoted


@dataclass(frozen=True)
class _Kind:
    """What a key takes."""

    paths: bool = True  # rather than names
    nothing: bool = False  # null means none
    swept: bool = False  # several values with commas between them are several jobs
    listed: bool = False  # a list


_KINDS = {
    **dict.fromkeys(("data.root", "model.checkpoint"), _Kind(nothing=True, swept=True)),
    **dict.fromkeys(("run", "out", "resume"), _Kind(nothing=True)),
    **dict.fromkeys(("hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.submitit_folder"), _Kind()),
    **dict.fromkeys(("data_dir", "paths.run_dir", "paths.data_dir", "paths.artifact_dir"), _Kind()),
    **dict.fromkeys(("data.name", "model.name", "classifier.name"), _Kind(paths=False, swept=True)),
    **dict.fromkeys(
        ("data.split.unseen", "data.split.autoencoder_sources"), _Kind(paths=False, swept=True, listed=True)
    ),
    "runs": _Kind(listed=True),
    "sources": _Kind(paths=False, listed=True),
}
_WORD = re.compile(r"(\+{0,2}([\w.]+)=)(.*)", re.DOTALL)
_A_GROUP = r"(?!hydra\.)[A-Za-z_]\w*\."
_WITHIN_A_GROUP = re.compile(rf"{_A_GROUP}[\w.]+=")
_NO_LOGGER = ("logger=null", "logger=[]")
_QUOTED = r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\""
_ELEMENT = re.compile(rf"\s*(?:{_QUOTED}|((?:\\.|[^,])*?))\s*(?:,|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\([()\[\]{}:=, \t\\])")  # what Hydra takes for the second character alone
_FUNCTION = re.compile(r"(choice|range|interval|glob|tag|sort|shuffle|str|int|float|bool)\s*\(.*\)", re.DOTALL)


def hydra_argv(words: Sequence[str]) -> list[str]:
    """A command's words as Hydra has to read them: paths and names are text, and a path's ~ is the home folder.

    A config folder of the user's own becomes one word, --config-dir=DIR.

    Raises:
        UsageError: a word that nobody can have meant; says how it is written.
    """
    for word in words:
        if word.endswith("\r"):
            raise UsageError(f"{word!r:.100} {WINDOWS_LINE_END}")
        if re.fullmatch(r"~[a-z]\w*(=.*)?", word):
            raise UsageError(f"{word} takes away what every run needs: leave it out; ~GROUP.NAME takes away one key")
    return [to_hydra(_rewritten(word, expanded)) for word in _joined(_with_config_dir(words))]


def _with_config_dir(words: Sequence[str]) -> list[str]:
    """The words with Hydra's --config-dir or -cd first, where Hydra takes it beside others, as --config-dir=DIR.

    Raises:
        UsageError: no such folder.
    """
    left, named, others = list(words), list[str](), list[str]()
    while left:
        first = left.pop(0)
        option, equals, folder = first.partition("=")
        if option not in {"--config-dir", "-cd"}:
            others.append(first)
            continue
        if not equals:
            folder = left.pop(0) if left else ""
        if not folder or not Path(expanded(folder)).is_dir():
            raise UsageError(f"--config-dir {folder}: there is no such folder")
        named.append(CONFIG_DIR + expanded(folder))
    return [*named, *others]


def to_hydra(word: str) -> str:
    """A word for a key within a group, which may be any option of what the group builds.

    Hydra by itself knows only the keys that a YAML file names, takes others with a plus, and no logger is [] to it.
    """
    if word == _NO_LOGGER[0]:
        return _NO_LOGGER[1]
    return f"++{word}" if _WITHIN_A_GROUP.match(word) else word


def from_hydra(word: str) -> str:
    """An opened word as it was typed."""
    if word == _NO_LOGGER[1]:
        return _NO_LOGGER[0]
    return word[2:] if word.startswith("++") and _WITHIN_A_GROUP.match(word[2:]) else word


def text_from_hydra(text: str) -> str:
    """A text of Hydra's with the opened words in it as they were typed."""
    return re.sub(rf"\+\+(?={_A_GROUP})", "", text)


def short_target(key: str, value: str) -> tuple[str, str]:
    """A key and its value for people: of a class that is built its own name, classifier.optimizer and SGD."""
    return (key.removesuffix("._target_"), value.rpartition(".")[2]) if key.endswith("._target_") else (key, value)


def with_absolute_paths(words: Sequence[str]) -> list[str]:
    """Hydra's words as one would type them, and as they mean the same in every folder: paths are absolute."""
    return [_rewritten(from_hydra(word), lambda path: str(Path(path).absolute())) for word in words]


def with_relative_paths(words: Sequence[str]) -> list[str]:
    """Words that were made lasting, as one would type them in this folder."""
    return [_rewritten(word, here) for word in words]


def unreadable(word: str) -> str:
    """A sentence for a word that Hydra cannot read, with the same word in quotes, ready to paste."""
    key, equals, value = word.partition("=")
    if not equals:
        return f"{key}: write KEY=VALUE"
    if not re.fullmatch(r"[+~]*[A-Za-z0-9_.@/$-]*", key):
        return f"{key} is not a config key"
    if value[:1] in {"[", "{", "'", '"'} or _FUNCTION.match(f"{value})"):
        return f"{word}: brackets or quotes do not match, or a text needs quotes of its own: {key}=['A B','C']"
    return f"{word}: a text with such characters needs quotes: {shlex.quote(f'{key}={quoted(value)}')}"


def one_value(key: str, values: str) -> str:
    """How a key is given several values at once, or one with commas in it."""
    kind = _KINDS.get(key)
    if kind is None or kind.listed:
        return f"{key}=[{values}] for a list"
    return f"{shlex.quote(f'{key}={quoted(values)}')} for one with commas in it"


def _joined(words: Sequence[str]) -> Iterator[str]:
    """`runs=[a, b]` without quotes arrives as two words: one list again."""
    left = list(words)
    while left:
        first = left.pop(0)
        found = _WORD.fullmatch(first)
        kind = _KINDS.get(found[2]) if found else None
        if found and kind and kind.listed and found[3].startswith("[") and not found[3].endswith("]"):
            end = next((i for i, word in enumerate(left) if word.endswith("]")), None)
            if end is None:
                raise UsageError(f"{first} begins a list that does not end: write '{found[1]}[A,B]', quotes around it")
            first = " ".join([first, *left[: end + 1]])
            del left[: end + 1]
        yield first


def _rewritten(word: str, change: Callable[[str], str]) -> str:
    """A word whose paths are changed, and whose texts are quoted; as it is where Hydra should read it by itself."""
    if word.startswith(CONFIG_DIR):
        return CONFIG_DIR + change(word.removeprefix(CONFIG_DIR))
    found = _WORD.fullmatch(word)
    kind = _KINDS.get(found[2]) if found else None
    if found is None or kind is None or "${" in found[3] or _FUNCTION.fullmatch(found[3]):
        return word
    start, key, value = found.groups()
    if value == "???" or (key == "resume" and value.lower() in {"true", "false"}):
        return word
    bracketed = kind.listed and value.startswith("[") and value.endswith("]")
    if kind.listed and (re.search(r"\]\s*,\s*\[", value) if bracketed else value.lower() == "null"):
        return word  # several lists; none
    texts = _texts(value, kind, bracketed)
    if kind.listed and kind.swept and not bracketed and len(texts) > 1:
        return word  # with -m a value for each job, else Hydra says how a list is written
    shown = []
    for text, is_quoted in texts:
        if text.lower() == "null" and kind.nothing and not is_quoted:
            shown.append(text)
            continue
        _refuse_control_characters(key, text)
        try:
            shown.append(quoted(change(text) if kind.paths else text))
        except UsageError as error:
            raise UsageError(f"{start} is followed by {error}") from None
    return f"{start}[{','.join(shown)}]" if kind.listed else f"{start}{','.join(shown)}"


def _texts(value: str, kind: _Kind, bracketed: bool) -> list[tuple[str, bool]]:
    """The texts of a value, and whether each was in Hydra's quotes."""
    several = bracketed or ((kind.swept or kind.listed) and not os.path.lexists(os.path.expanduser(value)))
    if not several:
        whole = re.fullmatch(_QUOTED, value, re.DOTALL)
        return [_text(whole)] if whole else [(_ESCAPED.sub(r"\1", value), False)]
    texts: list[tuple[str, bool]] = []
    inside, at = value[1:-1] if bracketed else value, 0
    while at < len(inside) or (not texts and not bracketed):
        found = _ELEMENT.match(inside, at)
        assert found is not None  # whatever stands there, up to the comma or the end
        texts.append(_text(found))
        at = max(found.end(), at + 1)
    return texts


def _text(found: re.Match[str]) -> tuple[str, bool]:
    for text, quote in zip(found.groups(), "'\"", strict=False):
        if text is not None and found[0].strip()[:1] == quote:
            return re.sub(rf"(\\+)({quote}|$)", lambda run: run[1][: len(run[1]) // 2] + run[2], text), True
    return _ESCAPED.sub(r"\1", found.groups()[2] or ""), False


def _refuse_control_characters(key: str, text: str) -> None:
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise UsageError(f"{key}={text!r:.100} holds a control character: rename what it names")
