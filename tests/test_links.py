"""The pages' links."""

import re

from fakegan.system.places import PROJECT


def test_every_link_of_the_pages_leads_somewhere() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text())]
    assert len(links) > 5
    for page, link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), (page, link)
