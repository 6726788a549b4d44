"""A report as content, and the same content as one HTML file or as Markdown; knows no net and no number.

Texts are plain: whatever stands in them, a file's name too, is shown as it is and never read as markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fakegan.runs.folder import PICTURES_FOLDER


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    warning: bool = False  # it must not be overlooked


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as they are shown, in lines where they hold line breaks; the first of a row names it."""

    caption: str
    rows: Sequence[Mapping[str, str]]  # at least one; each has the same columns in the same order
    words: int = 1  # leading columns that hold words; the others hold numbers and are aligned right


@dataclass(frozen=True)
class Figure:
    """A picture with its description."""

    name: str  # its file's without .png, [a-z0-9_]: pictures of one name are one picture
    png: bytes
    alt: str
    caption: str  # in lines, where it holds line breaks

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, from the PNG's first block: the page keeps their place before they are drawn."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    @property
    def base64(self) -> str:
        """The picture as the page holds it."""
        return base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Gallery:
    """Figures side by side, as many as there is room for."""

    figures: Sequence[Figure]
    title: str = ""  # of a row of faces, 128 pixels wide each at most; two rows side by side where there is room


@dataclass(frozen=True)
class Answer:
    """A question, and the answer of these runs."""

    question: str
    verdict: str  # in a word or two
    tone: Literal["yes", "no", "open"]
    sentence: str
    details: Sequence[str] = ()  # one for each comparison, where there are several
    plain: str = ""  # the sentence without p-values and intervals: shown first where it is there


@dataclass(frozen=True)
class Section:
    """A titled part, which may hold sections."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False  # only its title is seen, until one opens it


Block: TypeAlias = Text | Items | Table | Figure | Gallery | Section


@dataclass(frozen=True)
class Report:
    """The whole: headline, warnings, overview and answers come before everything else."""

    title: str
    lead: str  # one line below the title: of what, how many, when
    answers: Sequence[Answer]
    sections: Sequence[Section]
    warnings: Sequence[str] = ()  # what must be known before the answers are read
    headline: Sequence[str] = ()  # what was found, in plain words
    overview: Sequence[Block] = ()  # the same as a picture


def figures(blocks: Sequence[Block]) -> Iterator[Figure]:
    """Every picture, in order; pictures of one name as often as they are shown."""
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Gallery):
            yield from block.figures
        elif isinstance(block, Section):
            yield from figures(block.blocks)


def visible(text: str) -> str:
    """The text with control characters and bytes that are no UTF-8 spelt as escapes: they cannot be shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def to_html(report: Report) -> str:
    """One file that loads nothing: style and pictures are inside, and a policy forbids the rest."""
    return _rendered("report.html.jinja", report, visible)


def to_markdown(report: Report) -> str:
    """The same for a page that shows Markdown; it takes the pictures from the folder PICTURES_FOLDER beside it."""
    from markupsafe import Markup

    return _rendered("report.md.jinja", report, lambda text: Markup(_mark(text)))


def _rendered(template: str, report: Report, escape: Callable[[str], str]) -> str:
    """A template of this folder, filled; `escape` is applied to every text, before HTML's own escapes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else escape(str(value))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["lines"] = lambda text: Markup("<br>").join(map(finalize, text.split("\n")))
    environment.filters["alt"] = lambda text: Markup(re.sub(r"(?<!\\)([\[\]])", r"\\\1", _mark(text)))
    return environment.get_template(template).render(report=report, pictures=PICTURES_FOLDER)


def _mark(text: str) -> str:
    """Plain text in Markdown; a sign that is no mark where it stands, as _ within a word, is left as it is."""
    escaped = re.sub(r"([\\`*|~]|\](?=[(\[:])|(?<!\w)_|_(?!\w))", r"\\\1", visible(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^([#+-]|\d+[.)])(?=\s)", r"\\\1", escaped)  # no heading, no list
