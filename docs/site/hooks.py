"""mkdocs hooks: files of the repository that a page links to become a part of the site.

A page may link to any file outside ``docs/`` by its relative path, as it works in the repository's
web view. In the site such a file lies under ``repository/``, Markdown as a page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(\]\(|src=\")(?!\w+:|#)([^)#\s\"]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds what the pages link to, and what that links to."""
    waiting = [file for file in files if file.src_uri.endswith(".md")]
    while waiting:
        file = waiting.pop()
        for path in _linked(Path(file.abs_src_path)):
            uri = _uri(path)
            if files.get_file_from_path(uri) is None and path.is_file():
                added = File.generated(config, uri, abs_src_path=str(path))
                files.append(added)
                if uri.endswith(".md"):
                    waiting.append(added)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the repository, turned into links between the files of the site."""
    source = Path(page.file.abs_src_path)
    depth = page.file.src_uri.count("/")

    def relinked(match: re.Match[str]) -> str:
        target = (source.parent / match[2]).resolve()
        if not target.is_relative_to(ROOT) or not target.is_file():
            return match[0]
        return f"{match[1]}{'../' * depth}{_uri(target)}"

    return LINK.sub(relinked, markdown)


def _linked(source: Path) -> list[Path]:
    found = LINK.findall(source.read_text(encoding="utf-8"))
    paths = [(source.parent / target).resolve() for _, target in found]
    return [path for path in paths if path.is_relative_to(ROOT)]


def _uri(path: Path) -> str:
    """Where a file of the repository lies in the site."""
    docs = ROOT / "docs"
    if path.is_relative_to(docs):
        return path.relative_to(docs).as_posix()
    return f"repository/{path.relative_to(ROOT).as_posix()}"
