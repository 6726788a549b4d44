"""What --help says of train.py and evaluate.py: read from conf/, and from the signatures of what it names."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakegan.config.options import Option
from fakegan.system.places import worded

_WIDEST, _NARROWEST = 100, 60  # columns
_VALUE_WIDTH = 15  # of a value that its explanation stands beside
_TARGET = "._target_"
_KEY = re.compile(r"( *)([\w.]+):(?: .*?)?(?:\s+# (.*))?")
_REMARK = re.compile(r"( *)# ?(.*)")
_INHERITED = re.compile(r"^defaults: \[(.*)\]|^ +- (\w+)$", re.MULTILINE)
_SENTENCE = re.compile(r"(.+?[.?])(?= [A-Z(]|$)")
_HYDRAS = ("hydra/launcher", "hydra/sweeper")
_ADDED = ("experiment", "sweep", "debug")  # groups that a command with sweeps takes with a +


@dataclass(frozen=True)
class Composed:
    """A command's config, as words have made it."""

    options: Sequence[Option]
    choices: Mapping[str, str | None]  # by group
    hydras: Mapping[str, Any]  # Hydra's own values, by key, flat; hydra.launcher.jobs


def usage(
    about: str,  # what the command does, a blank line, and examples: CALL    # EXPLANATION
    name: str,  # of its file in conf/
    conf: Sequence[Path],  # conf/, and a config folder of the user's own
    composed: Composed,
    sweeps: bool,  # whether it has sweeps, and groups to add
) -> str:
    """The text of --help, up to 100 columns wide: examples, choices, and every key with its value and explanation."""
    width = max(min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST), _NARROWEST)
    said, _, examples = worded(about).strip().partition("\n\n")
    parts = [
        textwrap.fill(" ".join(said.split()), width),
        "\n".join(_examples(examples.splitlines(), width)),
        "GROUP=CHOICE (* is chosen):\n" + "\n".join(_choices(conf, _own_groups(composed), "", width)),
    ]
    if sweeps:
        added = {group: composed.choices.get(group) for group in _ADDED}
        parts.append("+GROUP=CHOICE:\n" + "\n".join(_choices(conf, added, "+", width, least=1)))
    remarks = _explanations(conf, name, composed.choices)
    parts.append("KEY=VALUE:\n" + "\n".join(_keys(composed.options, remarks, width)))
    if sweeps:
        hydras = _hydras_explanations(conf, composed.choices)
        shown = [Option(key, value, "") for key, value in composed.hydras.items() if key in hydras]
        chosen = {group: composed.choices.get(group) for group in _HYDRAS}
        rows = [*_choices(conf, chosen, "", width, least=1), "", *_keys(shown, hydras, width)]
        parts.append("Folders, and sweeps (-m and words with several values, as seed=1,2,3):\n" + "\n".join(rows))
    also = (
        "Also: --cfg job shows the config, --info how it was composed, --hydra-help what else Hydra takes, "
        "--version prints FakeGAN's."
    )
    parts.append(textwrap.fill(also, width))
    return "\n\n".join(parts)


def _own_groups(composed: Composed) -> dict[str, str | None]:
    """The groups that a command always has a choice of, in the order of its keys."""
    order = list(dict.fromkeys(option.key.partition(".")[0] for option in composed.options))
    own = [group for group in composed.choices if "/" not in group and group not in {"hydra", *_ADDED}]
    own.sort(key=lambda group: order.index(group) if group in order else len(order))
    return {group: composed.choices[group] for group in own}


def _examples(lines: Sequence[str], width: int) -> Iterator[str]:
    pairs = [re.split(r"\s+# ", line.strip(), maxsplit=1) for line in lines]
    column = max((len(call[0]) for call in pairs), default=0) + 4
    for call, *remark in pairs:  # a call is one line, to be copied
        yield from _row(f"  {call}", " ".join(remark), min(column, width // 2 + 4), width)


def _choices(
    conf: Sequence[Path], groups: Mapping[str, str | None], mark: str, width: int, least: int = 2
) -> Iterator[str]:
    """A row for each choice of the groups that leave one."""
    for group, chosen in groups.items():
        found = {path.stem: path for folder in reversed(conf) for path in (folder / group).glob("*.yaml")}
        files = [path for _, path in sorted(found.items()) if _can_be_chosen(group, path)]
        if len(files) < least:
            continue
        for path in files:
            star = "*" if path.stem == chosen else " "
            yield from _row(f"{star} {mark}{group}={path.stem}", headline(path.read_text("utf-8")), 32, width)


def _can_be_chosen(group: str, path: Path) -> bool:
    return not group.startswith("hydra/") or "_target_:" in path.read_text("utf-8")


def _keys(options: Sequence[Option], remarks: Mapping[str, str], width: int) -> Iterator[str]:
    """A row for each option, those of no group first; what the YAML says beside one goes before its signature."""
    groups: dict[str, list[Option]] = {"": []}
    for option in options:
        groups.setdefault(option.key.rpartition(".")[0].partition(".")[0], []).append(option)
    for group in filter(None, groups.values()):
        if group is not next(filter(None, groups.values())):
            yield ""
        longest = max((len(o.key) for o in group if not o.key.endswith(_TARGET)), default=0)
        column = min(longest + 4, width // 2 - _VALUE_WIDTH // 2)
        for option in group:
            if option.others:  # which their library explains itself
                line = f"{option.key}=VALUE, NAME one of {', '.join(option.others)}"
                yield from textwrap.wrap(line, width, initial_indent="  ", subsequent_indent=" " * 6)
                continue
            shown = f"  {option.key:<{column - 4}}  {_shown(option.value)}"
            if len(shown) > width:
                key, shown = shown.split()
                yield f"  {key}"
                shown = f"      {shown}"
            said = remarks.get(option.key, option.said)
            yield from _row(shown, said, min(column + _VALUE_WIDTH, width // 2), width)


def _shown(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    words = {None: "null", True: "true", False: "false", "???": "must be given"}
    return words[value] if value is None or isinstance(value, bool) or value == "???" else str(value)


def _row(left: str, right: str, column: int, width: int) -> Iterator[str]:
    """Two columns; the right one wraps, and begins a line of its own where the left one is too wide for it."""
    lines = textwrap.wrap(right, width - column)
    if lines and len(left) < column - 1:
        left = f"{left:<{column}}{lines.pop(0)}"
    yield left.rstrip()
    yield from (" " * column + line for line in lines)


def _explanations(conf: Sequence[Path], name: str, choices: Mapping[str, str | None]) -> dict[str, str]:
    """Of the keys of all groups, as chosen."""
    found = _inherited(conf, "", name)
    for group, choice in choices.items():
        if choice is not None and "/" not in group:
            found |= {f"{group}.{key}": said for key, said in _inherited(conf, group, choice).items()}
    return found


def _hydras_explanations(conf: Sequence[Path], choices: Mapping[str, str | None]) -> dict[str, str]:
    found = {f"hydra.{key}": said for key, said in _inherited(conf, "hydra", str(choices.get("hydra"))).items()}
    for group in _HYDRAS:
        inherited = _inherited(conf, group, str(choices.get(group)))
        found |= {f"{group.replace('/', '.')}.{key}": said for key, said in inherited.items()}
    return {key: said for key, said in found.items() if not key.rpartition(".")[2].startswith("_")}


def _inherited(conf: Sequence[Path], group: str, choice: str) -> dict[str, str]:
    """The remarks of a choice, and of those of its group that it builds on where it has none."""
    path = next((path for folder in conf if (path := folder / group / f"{choice}.yaml").is_file()), None)
    if path is None:  # another library's
        return {}
    text = path.read_text("utf-8")
    found: dict[str, str] = {}
    for listed in _INHERITED.findall(text):
        for base in re.findall(r"\w+", " ".join(listed)):
            found |= _inherited(conf, group, base) if base not in {"_self_", choice} else {}
    return found | remarks(text)


def headline(text: str) -> str:
    """The first sentence of the comment at the top of a YAML file; empty where there is none."""
    lines = []
    for line in worded(text).splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# "))
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
        key = _KEY.fullmatch(line)
        last = None
        if key is None:
            continue
        open_keys = [(indent, above) for indent, above in open_keys if indent < len(key[1])]
        open_keys.append((len(key[1]), key[2]))
        if key[3]:
            last = ".".join(above for _, above in open_keys)
            found[last] = key[3]
    return found
