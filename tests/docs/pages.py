"""The documents of the repository, and what is read out of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")),
    ]
)
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the comment right above it, and where it begins."""

    language: str
    text: str
    mark: str
    where: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        if match[2] in languages:
            above = text[: match.start()].rstrip().rsplit("\n", 1)[-1]
            mark = COMMENT.fullmatch(above.strip())
            body = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
            line = text.count("\n", 0, match.start()) + 1
            found.append(
                Block(match[2], body, mark[1].strip() if mark else "", f"{name(page)}:{line}")
            )
    return found


def without_code(text: str) -> str:
    """The text with its code and comments blanked, line by line, so that positions stay."""
    for pattern in (FENCE, COMMENT, re.compile(r"`[^`\n]+`")):
        text = pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    return text
