"""Every relative link and anchor of the documents leads somewhere, here and on the site."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name, without_code

LINK = re.compile(r"\]\(([^()\s]+)\)|<(?:img|a)[^>]* (?:src|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_and_anchors_exist(page: Path):
    assert [link for link in links(page) if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_picture_is_loaded_from_the_network(page: Path):
    text = without_code(page.read_text(encoding="utf-8"))
    assert re.findall(r"!\[[^\]]*\]\(https?:[^)]*\)|<img[^>]*https?:", text) == []


def links(page: Path) -> list[str]:
    # Code as the text of a link is fine, a link inside of code is none.
    text = re.sub(r"\[`([^`\]]+)`\]", r"[\1]", page.read_text(encoding="utf-8"))
    found = [one or other for one, other in LINK.findall(without_code(text))]
    return [link for link in found if not re.match(r"\w+:", link)]


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, fragment = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not fragment or (target.suffix == ".md" and fragment in anchors(target))


def anchors(page: Path) -> set[str]:
    """Of headings only what the repository's web view and the site agree on."""
    text = page.read_text(encoding="utf-8")
    plain = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    given = set(re.findall(r"<a id=\"([^\"]+)\"", plain))
    heads = [re.sub(r"\[([^\]]+)\]\([^)]*\)|[`*]", r"\1", head) for head in HEADING.findall(plain)]
    return given | {_web_view(head) for head in heads} & {_site(head) for head in heads}


def _web_view(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _site(heading: str) -> str:
    """As Python-Markdown's slugify."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@pytest.mark.parametrize(
    ("link", "is_right"),
    [
        ("b.md", True),
        ("b.md#own", True),
        ("b.md#two-words", True),
        ("b.md#α-and-β", False),  # the site drops the Greek letters
        ("b.md#in-code", False),
        ("missing.md", False),
        ("#here", True),
        ("#there", False),
    ],
)
def test_what_leads_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, is_right: bool
):
    monkeypatch.setattr("tests.docs.test_links.ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# Here\n")
    (tmp_path / "b.md").write_text(
        '<a id="own"></a>\n\n## Two `words`\n\n## α and β\n\n```sh\n# in code\n```\n'
    )
    assert leads_somewhere(tmp_path / "a.md", link) == is_right
