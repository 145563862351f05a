"""One HTML file without network: its script and style are named by their hashes, so that nothing
else runs, whatever a text in it holds."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from distill import __version__
from distill.report.markup import Markup, tag


def document(title: str, head: Markup, parts: Mapping[str, Markup | None]) -> str:
    """``head``, links to the sections, and ``parts`` by the titles of their sections; None: no
    section."""
    there = {name: part for name, part in parts.items() if part is not None}
    slugs = {name: name.lower().replace(" ", "-") for name in there}
    links = (tag("li", tag("a", name, href=f"#{slugs[name]}")) for name in there)
    body = [
        tag("header", head, tag("nav", tag("ul", links), aria_label="Sections")),
        tag(
            "main",
            (
                tag("section", tag("h2", name, id=f"{slugs[name]}-title"), part, id=slugs[name])
                for name, part in there.items()
            ),
        ),
        tag(
            "footer",
            tag("p", f"Written by distill {__version__}. This page loads nothing from a network."),
        ),
        tag("div", id="tip", hidden=True, aria_hidden="true"),
        tag("div", id="status", role="status", class_="screen unseen"),
    ]
    folder = Path(__file__).parent
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = (folder / "page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    metadata = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    ]
    root = tag(
        "html", tag("head", metadata), tag("body", body, tag("script", Markup(script))), lang="en"
    )
    return f"<!doctype html>\n{root}\n"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
