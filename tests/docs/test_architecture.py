"""The architecture page is what the code is: signatures, paths, names in parentheses."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT, Block, blocks

PAGE = ROOT / "docs/architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
SHOWN = [b for b in blocks(PAGE, "python") if b.mark.startswith("signatures: ")]
CLASS = re.compile(r"`([A-Z][a-z]\w+)`")
QUESTIONS = re.findall(r"^\| (.+?) \| (`.+) \|$", TEXT.partition("## Where is")[2], re.MULTILINE)


@pytest.mark.parametrize("block", SHOWN, ids=lambda b: b.mark.rpartition("/")[2])
def test_every_signature_is_that_of_the_code(block: Block):
    path = ROOT / block.mark.removeprefix("signatures: ")
    real = signatures(ast.parse(path.read_text(encoding="utf-8")))
    shown = signatures(ast.parse(block.text))
    assert shown and {name: real.get(name) for name in shown} == shown


def test_the_five_contracts_have_signatures():
    contracts = TEXT.partition("## The five contracts")[2].partition("\n## ")[0]
    parts = contracts.split("\n### ")[1:]
    assert len(parts) == 5
    assert [part.partition("\n")[0] for part in parts if "<!-- signatures: " not in part] == []


def test_every_answer_is_a_file_that_has_the_named_function_or_class():
    assert len(QUESTIONS) >= 25
    for question, answer in QUESTIONS:
        for path, name in re.findall(r"`([\w/.-]+)`(?: \(`(\w+)`\))?", answer):
            assert (ROOT / path).exists(), (question, path)
            if name:
                text = (ROOT / path).read_text(encoding="utf-8")
                assert re.search(rf"\b(def|class) {name}\b", text, re.M), (question, name)


def test_the_picture_names_files_that_exist():
    picture = (ROOT / "docs/assets/data-flow.svg").read_text(encoding="utf-8")
    named = re.findall(r'class="where"[^>]*>([^<]+)<', picture)
    assert len(named) > 8
    assert [path for path in named if not (ROOT / "distill" / path).exists()] == []


def signatures(tree: ast.AST, prefix: str = "") -> dict[str, str]:
    """Of classes, functions and annotated fields: arguments, types, bases and decorators."""
    found = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            found[prefix + node.name] = f"class({', '.join(map(ast.unparse, node.bases))})"
            found |= signatures(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
            returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
            found[prefix + node.name] = f"{marks}({ast.unparse(node.args)}){returns}"
        elif isinstance(node, ast.AnnAssign):
            found[prefix + ast.unparse(node.target)] = ast.unparse(node.annotation)
    return found


def test_the_glossary_names_classes_of_the_code():
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    table = glossary.partition("## Names in the code")[2]
    named = [
        name for row in re.findall(r"^\| ([^|]+) \|", table, re.M) for name in CLASS.findall(row)
    ]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "distill").rglob("*.py")]
    defined = {name for text in sources for name in re.findall(r"^class (\w+)", text, re.M)}
    assert len(named) >= 7 and sorted(set(named) - defined) == []
