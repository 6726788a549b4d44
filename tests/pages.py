"""Pages as tests read them: code blocks and commands of README and docs/, and the HTML of a report."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page that are in this language ("" for none), without their fences."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for own, block in found if own == language]


def commands(page: Path) -> list[str]:
    """The shell commands of a page, each on one line and without its comment."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


@dataclass
class Page(HTMLParser):
    """A page as a browser reads it: elements with attributes, the text, and a stack that must end empty."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "link", "hr", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def parse_html(content: str) -> Page:
    page = Page()
    page.feed(content)
    page.close()
    assert page.open == []
    return page
