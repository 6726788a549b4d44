"""A report's content as HTML and Markdown: parsed again, not looked at as text."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fakegan.data.sheets import png
from fakegan.reports.render import (
    Answer,
    Figure,
    Gallery,
    Items,
    Report,
    Section,
    Table,
    Text,
    figures,
    to_html,
    to_markdown,
    visible,
)
from tests.pages import parse_html

NASTY = 'a<b>&"c"|*d*_e_\udcff\x00'


def picture(name: str = "roc", width: int = 8) -> Figure:
    content = png(np.full((4, width, 3), 200, dtype=np.uint8))
    return Figure(name, content, f"alt {NASTY}", f"caption {NASTY}")


@pytest.fixture
def report() -> Report:
    table = Table(f"caption {NASTY}", [{"name": NASTY, NASTY: "word", "value": "0.5\n[0.4, 0.6]"}], words=2)
    inner = Section("inner", [Items([NASTY, "two"]), Gallery([picture("a"), picture("b")]), table])
    faces = Gallery([picture("face_1")], f"row {NASTY}")
    return Report(
        f"title {NASTY}",
        f"lead {NASTY}",
        [
            Answer(f"does {NASTY}?", "Yes", "yes", f"because {NASTY}", (NASTY,)),
            Answer("and?", "Not asked", "open", "-"),
        ],
        [Section(f"one {NASTY}", [Text(NASTY), Text(NASTY, warning=True), picture()]), Section("two", [inner, faces])],
    )


def test_tags_are_balanced_and_nothing_is_loaded(report: Report) -> None:
    content = to_html(report)
    page = parse_html(content)
    assert content.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|@import|url\(|<script|<link", content)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert page.all("html") == [{"lang": "en"}]
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    content.encode("utf-8")  # no surrogate is left


def test_every_picture_is_inside_with_its_size_and_alt(report: Report) -> None:
    images = parse_html(to_html(report)).all("img")
    assert len(images) == len(list(figures(report.sections))) == 4
    for image in images:
        start, _, data = (image["src"] or "").partition(",")
        assert start == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as opened:
            assert opened.format == "PNG"
            assert opened.size == (int(image["width"] or 0), int(image["height"] or 0)) == (8, 4)
        assert image["alt"] == f"alt {visible(NASTY)}"


def test_texts_are_shown_as_they_are(report: Report) -> None:
    page = parse_html(to_html(report))
    shown = 'a<b>&"c"|*d*_e_\\udcff\\x00'
    assert visible(NASTY) == shown
    assert not page.all("b")
    for words in ("title", "lead", "does", "because", "one", "caption", "row"):
        assert f"{words} {shown}" in page.text


def test_tables_say_what_their_cells_belong_to(report: Report) -> None:
    page = parse_html(to_html(report))
    scopes = [th["scope"] for th in page.all("th")]
    assert scopes == ["col", "col", "col", "row"]
    assert [td.get("class") for td in page.all("td")] == [None, "n"]
    assert len(page.all("caption")) == len(page.all("table")) == 1
    assert "0.5[0.4, 0.6]" in page.text  # two lines: there is a <br>
    assert len(page.all("br")) == 1


def test_contents_lead_to_every_section(report: Report) -> None:
    page = parse_html(to_html(report))
    targets = [(a["href"] or "").removeprefix("#") for a in page.all("a")]
    assert targets == ["s0", "s1"]
    assert set(targets) <= {s.get("id") for s in page.all("section")}
    assert page.text.index("does") < page.text.index(f"one {visible(NASTY)}", page.text.index("does"))


def test_markdown_tables_are_whole_and_pictures_relative(report: Report) -> None:
    content = to_markdown(report)
    content.encode("utf-8")
    rows = [re.split(r"(?<!\\)\|", line) for line in content.splitlines() if line.startswith("|")]
    table = [row for row in rows if len(row) == 5]  # three cells between four marks
    assert len(table) == 3
    assert table[1] == [""] + [" --- ", " --- ", " ---: "] + [""]
    assert table[2][3].strip() == "0.5<br>[0.4, 0.6]"
    found = re.findall(r"\]\((report_pictures/\w+\.png)\)", content)
    assert [f.name for f in figures(report.sections)] == [name[16:-4] for name in found]
    assert "<b>" not in content
    assert r"\*d\*" in content


def test_markdown_leaves_names_readable() -> None:
    report = Report(
        "simple_cnn", "+0.1 up", [], [Section("s", [Text("- no list"), Text("1. none"), Text("no [link](x)")])]
    )
    content = to_markdown(report)
    assert "# simple_cnn\n\n+0.1 up" in content
    assert "\\- no list\n\n\\1. none\n\nno [link\\](x)" in content
