"""The text of --help for train.py and evaluate.py, from conf/ and from the signatures of the classes that it names."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fakegan.config.options import Option
from fakegan.system.places import worded

_WIDEST, _NARROWEST = 100, 60  # columns
_VALUE_WIDTH = 15  # of a value with its explanation beside it
_TARGET = "._target_"
_KEY = re.compile(r"( *)([\w.]+):(?: .*?)?(?:\s+# (.*))?")
_REMARK = re.compile(r"( *)# ?(.*)")
_INHERITED = re.compile(r"^defaults: \[(.*)\]|^ +- (\w+)$", re.MULTILINE)
_SENTENCE = re.compile(r"(.+?[.?])(?= [A-Z(]|$)")
_HYDRAS = ("hydra/launcher", "hydra/sweeper")
_ADDED = ("experiment", "sweep", "debug")  # groups that train.py takes with a +
_ALSO = (
    "Also: -q or --quiet shows only warnings, errors and the result. --cfg job shows the config, --info how it was "
    "composed, --hydra-help Hydra's own options, --version FakeGAN's version."
)


def usage(
    about: str,  # what the command does, a blank line, and examples: CALL    # EXPLANATION
    name: str,  # of its file in conf/
    conf: Sequence[Path],  # conf/, and a config folder of the user's own
    options: Sequence[Option],
    choices: Mapping[str, str | None],  # by group
    of_hydra: Mapping[str, Any],  # Hydra's own values, by full key: hydra.launcher.jobs
    sweeps: bool,  # whether it has sweeps, and groups to add
) -> str:
    """The text of --help, up to 100 columns wide: examples, choices, and every key with its value and explanation."""
    width = max(min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST), _NARROWEST)
    headline, _, examples = worded(about).strip().partition("\n\n")
    keys = list(dict.fromkeys(option.key.partition(".")[0] for option in options))
    groups = [group for group in choices if "/" not in group and group not in {"hydra", *_ADDED}]
    groups.sort(key=lambda group: keys.index(group) if group in keys else len(keys))
    parts = [
        [textwrap.fill(" ".join(headline.split()), width)],
        _examples(examples.splitlines(), width),
        ["GROUP=CHOICE (* is chosen):", *_choices(conf, {group: choices[group] for group in groups}, width)],
    ]
    if sweeps:
        added = {group: choices.get(group) for group in _ADDED}
        parts.append(["+GROUP=CHOICE:", *_choices(conf, added, width, "+", least=1)])
    chosen = {"": name, **{group: choice for group, choice in choices.items() if "/" not in group}}
    parts.append(["KEY=VALUE:", *_keys(options, _remarks(conf, chosen), width)])
    if sweeps:
        hydras = {group: choices.get(group) for group in _HYDRAS}
        found = _remarks(conf, {"hydra": choices.get("hydra"), **hydras})
        shown = [Option(key, value) for key, value in of_hydra.items() if key in found and "._" not in key]
        title = "Folders, and sweeps (-m and overrides with several values, such as seed=1,2,3):"
        parts.append([title, *_choices(conf, hydras, width, least=1), "", *_keys(shown, found, width)])
    parts.append([textwrap.fill(_ALSO, width)])
    return "\n\n".join("\n".join(part) for part in parts)


def _examples(lines: Sequence[str], width: int) -> list[str]:
    pairs = [re.split(r"\s+# ", line.strip(), maxsplit=1) for line in lines]
    column = min(max((len(call[0]) for call in pairs), default=0) + 4, width // 2 + 4)
    return [row for call, *remark in pairs for row in _row(f"  {call}", " ".join(remark), column, width)]


def _choices(
    conf: Sequence[Path], groups: Mapping[str, str | None], width: int, mark: str = "", least: int = 2
) -> Iterator[str]:
    """A row for each choice of the groups that have at least so many."""
    for group, chosen in groups.items():
        found = {path.stem: path for folder in reversed(conf) for path in (folder / group).glob("*.yaml")}
        texts = {name: path.read_text("utf-8") for name, path in sorted(found.items())}
        if group.startswith("hydra/"):  # the others are parts of these
            texts = {name: text for name, text in texts.items() if "_target_:" in text}
        for name, text in texts.items() if len(texts) >= least else ():
            star = "*" if name == chosen else " "
            yield from _row(f"{star} {mark}{group}={name}", headline(text), 32, width)


def _keys(options: Sequence[Option], remarks: Mapping[str, str], width: int) -> Iterator[str]:
    """A row for each option, without a group first; a remark in YAML goes before the comment in a signature."""
    groups: dict[str, list[Option]] = {"": []}
    for option in options:
        groups.setdefault(option.key.rpartition(".")[0].partition(".")[0], []).append(option)
    for i, group in enumerate(filter(None, groups.values())):
        if i:
            yield ""
        longest = max((len(o.key) for o in group if not o.key.endswith(_TARGET)), default=0)
        column = min(longest + 4, width // 2 - _VALUE_WIDTH // 2)
        for option in group:
            if option.names:  # which their library explains itself
                line = f"{option.key}=VALUE, NAME one of {', '.join(option.names)}"
                yield from textwrap.wrap(line, width, initial_indent="  ", subsequent_indent=" " * 6)
                continue
            shown = f"  {option.key:<{column - 4}}  {_shown(option.value)}"
            if len(shown) > width:
                key, shown = shown.split()
                yield f"  {key}"
                shown = f"      {shown}"
            remark = remarks.get(option.key, option.comment)
            yield from _row(shown, remark, min(column + _VALUE_WIDTH, width // 2), width)


def _shown(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return "must be given" if value == "???" else str(value)


def _row(left: str, right: str, column: int, width: int) -> Iterator[str]:
    """Two columns; the right one wraps, and begins on the next line where the left one is too wide."""
    lines = textwrap.wrap(right, width - column)
    if lines and len(left) < column - 1:
        left = f"{left:<{column}}{lines.pop(0)}"
    yield left.rstrip()
    yield from (" " * column + line for line in lines)


def _remarks(conf: Sequence[Path], choices: Mapping[str, str | None]) -> dict[str, str]:
    """The remarks of the chosen files, by full key."""
    found: dict[str, str] = {}
    for group, choice in choices.items():
        for key, remark in _inherited(conf, group, choice or "").items():
            found[f"{group.replace('/', '.')}.{key}".lstrip(".")] = remark
    return found


def _inherited(conf: Sequence[Path], group: str, choice: str) -> dict[str, str]:
    """The remarks of a choice, after the remarks of the choices that it builds on."""
    path = next((path for folder in conf if (path := folder / group / f"{choice}.yaml").is_file()), None)
    if path is None:  # another library's
        return {}
    text = path.read_text("utf-8")
    bases = [base for listed in _INHERITED.findall(text) for base in re.findall(r"\w+", " ".join(listed))]
    found: dict[str, str] = {}
    for base in bases:
        found |= _inherited(conf, group, base) if base not in {"_self_", choice} else {}
    return found | remarks(text)


def headline(text: str) -> str:
    """The first sentence of the comment at the top of a YAML file; empty where there is none."""
    comment = re.match(r"(?:#.*\n?)*", worded(text))
    assert comment is not None  # it matches the empty text
    lines = [line.lstrip("# ") for line in comment[0].splitlines() if not line.startswith("# @package")]
    sentence = _SENTENCE.match(" ".join(lines))
    return sentence.group(1) if sentence else " ".join(lines)


def remarks(text: str) -> dict[str, str]:
    """The comments beside the keys of a YAML file, by full key; each may go on in the lines below it."""
    found: dict[str, str] = {}
    open_keys: list[tuple[int, str]] = []  # with their indents
    last: str | None = None  # the key whose comment may go on
    for line in worded(text).splitlines():
        below = _REMARK.fullmatch(line)
        if below and last is not None and len(below[1]) > open_keys[-1][0]:
            found[last] += f" {below[2]}"
            continue
        key, last = _KEY.fullmatch(line), None
        if key is None:
            continue
        open_keys = [(indent, above) for indent, above in open_keys if indent < len(key[1])]
        open_keys.append((len(key[1]), key[2]))
        if key[3]:
            last = ".".join(above for _, above in open_keys)
            found[last] = key[3]
    return found
