"""Every Python file that a document, docstring or comment names by its folder exists.

A path may begin at the repository, at ``distill/`` or at the folder of the file that names it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name

NAMED = re.compile(r"(?<![\w/.<>*{}-])((?:[\w-]+/)+[\w-]+\.py)\b")
SOURCES = sorted((ROOT / "distill").rglob("*.py"))
DOCUMENTS = [*PAGES, ROOT / "benchmarks/README.md"]


@pytest.mark.parametrize("package", sorted({p.relative_to(ROOT).parts[1] for p in SOURCES}))
def test_files_named_in_a_package_exist(package: str):
    files = [p for p in SOURCES if p.relative_to(ROOT).parts[1] == package]
    assert [absent for path in files for absent in absent_in(path)] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_files_named_in_a_document_exist(page: Path):
    assert absent_in(page) == []


def absent_in(path: Path) -> list[str]:
    bases = (ROOT, ROOT / "distill", path.parent)
    named = NAMED.findall(path.read_text(encoding="utf-8"))
    return [
        f"{name(path)}: {one}" for one in named if not any((base / one).exists() for base in bases)
    ]


def test_only_paths_with_a_folder_are_searched():
    text = "see `training/loop.py`, distill/nowhere/x.py, x.py, runs/<name>/y.py"
    assert NAMED.findall(text) == ["training/loop.py", "distill/nowhere/x.py"]
