"""A report as content, and the same content as one HTML file or as Markdown; knows no net and no number.

Texts are plain: whatever stands in them, a file's name too, is shown as it is and never read as markup.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fakegan.runs.folder import PICTURES_FOLDER


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Caution:
    """A paragraph that must not be overlooked."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as they are shown, in lines where they hold line breaks; the first of a row names it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1  # leading columns that hold words; the others hold numbers and stand right


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows."""

    name: str  # its file's without .png, [a-z0-9_]: pictures of one name are one picture
    png: bytes
    alt: str
    caption: str  # in lines, where it holds line breaks


@dataclass(frozen=True)
class Gallery:
    """Figures side by side, as many as there is room for."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class FaceRow:
    """A row of faces, 64 pixels wide each, with what they have in common; two rows side by side where there is room."""

    title: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Answer:
    """What was asked, and what these runs say to it."""

    question: str
    verdict: str  # in a word or two
    tone: Literal["yes", "no", "open"]
    sentence: str
    details: Sequence[str] = ()  # one for each comparison, where there are several


@dataclass(frozen=True)
class Section:
    """A titled part; sections may stand in sections, once."""

    title: str
    blocks: Sequence[Block]


Block: TypeAlias = Text | Caution | Items | Table | Figure | Gallery | FaceRow | Section


@dataclass(frozen=True)
class Report:
    """The whole; answers come before everything else."""

    title: str
    lead: str  # one line below the title: of what, how many, when
    answers: Sequence[Answer]
    sections: Sequence[Section]


def figures(blocks: Sequence[Block]) -> Iterator[Figure]:
    """Every picture, in order, those of one name as often as they are shown."""
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Gallery | FaceRow):
            yield from block.figures
        elif isinstance(block, Section):
            yield from figures(block.blocks)


def visible(text: str) -> str:
    """The text with what cannot be shown, control characters and bytes that are no UTF-8, spelt as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


# HTML


def to_html(report: Report) -> str:
    """One file that loads nothing: style and pictures are inside, and a policy forbids the rest."""
    links = [("answers", "Answers")] + [(f"s{i}", section.title) for i, section in enumerate(report.sections)]
    if any(answer.details for answer in report.answers):
        links.insert(1, ("details", "One by one"))
    contents = "".join(f'<li><a href="#{anchor}">{_escape(title)}</a></li>' for anchor, title in links)
    answers = "\n".join(_html_answer(answer) for answer in report.answers)
    sections = "\n".join(_html_section(section, f"s{i}", level=2) for i, section in enumerate(report.sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_escape(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{_escape(report.title)}</h1>
<p class="lead">{_escape(report.lead)}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main>
<section id="answers">
<h2>Answers</h2>
<div class="answers">
{answers}
</div>
</section>
{_html_details(report.answers)}
{sections}
</main>
</body>
</html>
"""


def _escape(text: str) -> str:
    return html.escape(visible(text), quote=True)


def _lines(text: str) -> str:
    return "<br>".join(_escape(line) for line in text.split("\n"))


def _html_section(section: Section, anchor: str, level: int) -> str:
    blocks = "\n".join(_html_block(block, level) for block in section.blocks)
    return f'<section id="{anchor}">\n<h{level}>{_escape(section.title)}</h{level}>\n{blocks}\n</section>'


def _html_block(block: Block, level: int) -> str:
    match block:
        case Text(text):
            return f"<p>{_escape(text)}</p>"
        case Caution(text):
            return f'<p class="warning"><strong>Warning:</strong> {_escape(text)}</p>'
        case Items(items):
            return "<ul>" + "".join(f"<li>{_escape(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _html_table(block)
        case Figure():
            return _html_figure(block)
        case Gallery(shown):
            return f'<div class="gallery">{_html_figures(shown)}</div>'
        case FaceRow(title, shown):
            return f'<div class="row"><p>{_escape(title)}</p><div class="faces">{_html_figures(shown)}</div></div>'
        case Section(title, blocks):
            inner = "\n".join(_html_block(b, level + 1) for b in blocks)
            return f"<section>\n<h{level + 1}>{_escape(title)}</h{level + 1}>\n{inner}\n</section>"


def _html_table(table: Table) -> str:
    kinds = ["" if i < table.words else ' class="n"' for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{kind}>{_escape(name)}</th>' for kind, name in zip(kinds, table.columns, strict=True)
    )
    rows = "\n".join(_html_row(row, kinds) for row in table.rows)
    # tabindex: a box that scrolls is reached by keyboard too
    kind = "table short" if len(table.rows) <= 20 else "table"  # a short one is printed on one page
    return f"""<div class="{kind}" tabindex="0" role="region" aria-label="{_escape(table.caption)}">
<table>
<caption>{_escape(table.caption)}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def _html_row(row: Sequence[str], kinds: Sequence[str]) -> str:
    name, *cells = [_lines(cell) for cell in row]
    rest = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], cells, strict=True))
    return f'<tr><th scope="row">{name}</th>{rest}</tr>'


def _html_figure(figure: Figure) -> str:
    width, height = _size(figure.png)
    data = base64.b64encode(figure.png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{_escape(figure.alt)}"><figcaption>{_lines(figure.caption)}</figcaption></figure>'
    )


def _html_figures(shown: Sequence[Figure]) -> str:
    return "\n".join(_html_figure(figure) for figure in shown)


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, from a PNG's first block: the page keeps their place before they are drawn."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _html_answer(answer: Answer) -> str:
    verdict = f'<strong class="verdict">{_escape(answer.verdict)}</strong>'
    return (
        f'<article class="answer {answer.tone}"><h3>{_escape(answer.question)}</h3>'
        f"<p>{verdict} {_escape(answer.sentence)}</p></article>"
    )


def _html_details(answers: Sequence[Answer]) -> str:
    """Apart from the answers, so that all of these are seen at once."""
    parts = [f"<h3>{_escape(a.question)}</h3>\n{_html_block(Items(a.details), 3)}" for a in answers if a.details]
    return "\n".join(['<section id="details">\n<h2>The answers one by one</h2>', *parts, "</section>"]) if parts else ""


# Colours: WCAG AA on their grounds; pictures keep a white ground in the dark, since plots are drawn for one.
_STYLE = """
:root { --ink: #1c2430; --soft: #566072; --ground: #ffffff; --card: #f5f7fa; --line: #d5dbe3; --link: #1f5f96;
  --yes: #1d6b45; --no: #a23a22; --open: #4b5568; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a6b0bf; --ground: #14181e; --card: #1e242d;
  --line: #38414e; --link: #86bdf0; --yes: #1d6b45; --no: #a23a22; --open: #4b5568; --warn: #453812; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; padding: 1rem clamp(0.8rem, 3vw, 2rem) 4rem; max-width: 78rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.4rem 0 0.2rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 0.6rem; padding-bottom: 0.2rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0.4rem; }
p, ul { margin: 0.5rem 0; }
p, li { max-width: 75ch; }
a { color: var(--link); }
.lead { color: var(--soft); max-width: none; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.15rem 1.1rem; padding: 0; margin: 0.4rem 0 0; list-style: none; }
#answers h2 { margin-top: 1rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 0.8rem; }
.answer { background: var(--card); border: 1px solid var(--line); border-left: 5px solid var(--open);
  border-radius: 6px; padding: 0.7rem 0.9rem; }
.answer.yes { border-left-color: var(--yes); } .answer.no { border-left-color: var(--no); }
.answer h3 { margin: 0 0 0.3rem; }
.answer p { margin: 0.2rem 0; }
#details li { max-width: 100ch; margin: 0.2rem 0; }
.verdict { display: inline-block; background: var(--open); color: #ffffff; border-radius: 4px; padding: 0 0.5em;
  margin-right: 0.25em; font-size: 0.92em; }
.answer.yes .verdict { background: var(--yes); } .answer.no .verdict { background: var(--no); }
.warning { background: var(--warn); border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 0.8rem;
  max-width: none; }
.table { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; line-height: 1.35; }
caption { text-align: left; padding: 0.5rem 0.7rem; font-weight: 600; color: var(--ink); }
th, td { padding: 0.35rem 0.7rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { background: var(--card); vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 9rem; }
@media (min-width: 50rem) { tbody th { min-width: 13rem; } }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: pre; }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { color: var(--soft); font-size: 0.85rem; line-height: 1.35; margin-top: 0.3rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.gallery { margin: 1rem 0 1.5rem; }
.gallery figure { margin: 0; }
.row { display: inline-block; vertical-align: top; width: 100%; padding-right: 1rem; }
@media (min-width: 64rem) { .row { width: 49.5%; } }
.row p { margin: 0.5rem 0 0; font-weight: 500; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)); gap: 0.6rem; margin: 0.4rem 0; }
.faces figure { margin: 0; min-width: 0; }
.faces img { width: 100%; max-width: 8rem; image-rendering: pixelated; }
.faces figcaption { font-size: 0.75rem; overflow-wrap: anywhere; }
@page { size: A4; margin: 14mm; }
@media print {
  :root { --ink: #000000; --soft: #444444; --ground: #ffffff; --card: #ffffff; --line: #bbbbbb; --link: #000000;
    --warn: #ffffff; }
  body { padding: 0; max-width: none; font-size: 9.5pt; }
  nav { display: none; }
  .table { overflow: visible; border: 0; } table { font-size: 6.4pt; } th, td { padding: 0.12rem 0.2rem; }
  p, li { max-width: none; }
  tbody th { min-width: 0; } td.n { white-space: pre-wrap; }
  h2, h3, caption { break-after: avoid; }
  figure, .answer, .row, .short, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  img { max-height: 21cm; width: auto; }
  .gallery { grid-template-columns: 1fr 1fr; } .row { width: 49%; }
  .faces { grid-template-columns: repeat(6, 1fr); gap: 0.2rem; } .faces figcaption { font-size: 5.5pt; }
  .verdict { color: #000000 !important; background: none !important; border: 1px solid #000000; }
}
"""


# Markdown


def to_markdown(report: Report) -> str:
    """The same for a page that shows Markdown; pictures by their place under PICTURES_FOLDER."""
    parts = [f"# {_mark(report.title)}", _mark(report.lead), "## Answers"]
    parts += [_md_answer(answer, "###") for answer in report.answers]
    parts += [_md_section(section, "##") for section in report.sections]
    return "\n\n".join(parts) + "\n"


def _mark(text: str) -> str:
    """Plain text in Markdown; what is no mark where it stands, as _ within a word, is left as it is."""
    escaped = re.sub(r"([\\`*|~]|\](?=[(\[:])|(?<!\w)_|_(?!\w))", r"\\\1", visible(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^([#+-]|\d+[.)])(?=\s)", r"\\\1", escaped)  # no heading, no list


def _md_section(section: Section, heading: str) -> str:
    blocks = [_md_block(block, heading) for block in section.blocks]
    return "\n\n".join([f"{heading} {_mark(section.title)}", *blocks])


def _md_block(block: Block, heading: str) -> str:
    match block:
        case Text(text):
            return _mark(text)
        case Caution(text):
            return f"> **Warning:** {_mark(text)}"
        case Items(items):
            return "\n".join(f"- {_mark(item)}" for item in items)
        case Table():
            return _md_table(block)
        case Figure():
            return f"{_md_picture(block)}\n\n{_mark_lines(block.caption)}"
        case FaceRow(title, shown):
            rows = [f"| {_md_picture(figure)} | {_mark_lines(figure.caption)} |" for figure in shown]
            return "\n".join([_mark(title), "", "| face | score, source, file |", "| --- | --- |", *rows])
        case Gallery(shown):
            return "\n\n".join(_md_block(figure, heading) for figure in shown)
        case Section():
            return _md_section(block, f"{heading}#")


def _md_table(table: Table) -> str:
    head = [" | ".join(_mark(name) for name in table.columns)]
    head.append(" | ".join("---" if i < table.words else "---:" for i in range(len(table.columns))))
    rows = [" | ".join(_mark_lines(cell) for cell in row) for row in table.rows]
    return "\n".join([f"**{_mark(table.caption)}**", "", *(f"| {line} |" for line in [*head, *rows])])


def _mark_lines(text: str) -> str:
    return "<br>".join(_mark(line) for line in text.split("\n"))


def _md_picture(figure: Figure) -> str:
    alt = re.sub(r"(?<!\\)([\[\]])", r"\\\1", _mark(figure.alt))
    return f"![{alt}]({PICTURES_FOLDER}/{figure.name}.png)"


def _md_answer(answer: Answer, heading: str) -> str:
    details = "\n".join(f"- {_mark(detail)}" for detail in answer.details)
    sentence = f"**{_mark(answer.verdict)}.** {_mark(answer.sentence)}"
    return "\n\n".join([f"{heading} {_mark(answer.question)}", sentence, *([details] if details else [])])
