"""The site builds without a warning, shows every page, and loads nothing from the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import PAGES, ROOT


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose Python names (``!!python/name``) are no matter here."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SETTINGS: dict[str, Any] = yaml.load(
    (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8"), Loader
)


def test_every_page_is_in_the_navigation():
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in PAGES if ROOT / "docs" in p.parents}
    shown = {page for page in named(SETTINGS["nav"]) if not page.startswith("repository/")}
    assert shown == pages


def test_the_site_builds_and_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "docs/site/mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    html = {p: p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.html")}
    assert len(html) > len(PAGES)
    loads = r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+stylesheet[^>]+https?:"
    assert [p.name for p, text in html.items() if re.search(loads, text)] == []


def named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [page for item in items for page in named(item)]
