"""Every configuration, command and program that a document shows is one that works as written.

Commands are parsed by the program's own parser and not run. A ```yaml block is a configuration, or
a part of one, unless ``<!-- not a configuration -->`` is on the line above it.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import distill
from distill.cli import app
from distill.config import Experiment, parse
from distill.evaluation.settings import Evaluation
from docs.site.generate import path_below, walk
from tests.docs.pages import PAGES, ROOT, Block, blocks, name

YAML = [b for page in PAGES for b in blocks(page, "yaml") if b.mark != "not a configuration"]
PYTHON = [b for page in PAGES for b in blocks(page, "python") if b.mark != "a part of a program"]
SHELL = [b for page in PAGES for b in blocks(page, "sh", "bash")]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def where(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("block", YAML, ids=where)
def test_configurations_are_valid(block: Block):
    read_configuration(block.text)


@pytest.mark.parametrize("block", PYTHON, ids=where)
def test_programs_compile_and_call_what_exists(block: Block):
    compile(block.text, block.where, "exec")
    for called in re.findall(r"\bdistill\.(\w+)", block.text):
        assert hasattr(distill, called) or importlib.util.find_spec(f"distill.{called}"), called


@pytest.mark.parametrize("block", SHELL, ids=where)
def test_shown_commands_exist(block: Block):
    for words in command_lines(block.text):
        check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page: Path):
    """`distill train …` within a sentence: the command, its options; `make x`: the target."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for words in map(str.split, re.findall(r"`((?:distill|make) [^`]+)`", text)):
        if words[0] == "make":
            assert words[1] in TARGETS or "=" in words[1], words
        elif re.fullmatch("[a-z]+", words[1]):
            known = {option for p in COMMANDS[words[1]].params for option in p.opts} | {"--help"}
            assert [w for w in words if w.startswith("--") and w not in known] == [], words


def read_configuration(text: str) -> Experiment:
    """A whole file or some of its sections: what only every file needs is filled in."""
    raw = yaml.safe_load(text)
    assert isinstance(raw, dict), "a mapping of keys"
    data = {"path": "data.parquet"} | raw.get("data", {})
    return parse({"output": "runs/mine"} | raw | {"data": data})


def command_lines(text: str) -> list[list[str]]:
    """The commands of a shell block, without comments and variables that are set for one."""
    plain = re.sub(r"<[^<>\n]+>|…", "PLACEHOLDER", text)
    lines = re.sub(r"\\\n\s*", " ", plain).splitlines()
    found = []
    for line in lines:
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        parts = itertools.groupby(lexer, key=lambda word: bool(re.fullmatch("[&|;<>]+", word)))
        for words in (list(group) for is_operator, group in parts if not is_operator):
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found


def check_command(words: list[str]) -> None:
    """AssertionError, or the parser's own error, for one that is not there."""
    program = words[0].rsplit("/", 1)[-1]
    if program == "distill":
        _check_distill(words[1:])
    elif program == "make":
        named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert set(named) <= TARGETS, words
    elif program.startswith("python") and words[1:2] == ["-m"]:
        module = words[2]
        assert module in ("venv", "pip") or importlib.util.find_spec(module), words
        if module == "distill":
            _check_distill(words[3:])
    elif program.startswith("python") and words[1:] and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file() or "/" not in words[1], words


def _check_distill(words: list[str]) -> None:
    if words[0] in ("--version", "--help", "-h", "--install-completion", "--show-completion"):
        return
    assert words[0] in COMMANDS, words
    context = COMMANDS[words[0]].make_context(words[0], list(words[1:]))
    overrides = context.params.get("overrides") or context.params.get("settings") or ()
    known = _keys(Evaluation if words[0] == "evaluate" else Experiment)
    for override in overrides:
        key, given, _ = override.partition("=")
        path = _as_path(key)
        in_a_map = f"{path.rpartition('.')[0]}.<key>"
        assert given and (path in known or in_a_map in known), f"{override}: no such key"


def _keys(root: type) -> set[str]:
    found = set()
    for _, _, key in walk("", root):
        found |= {key.path, path_below(key), f"{key.path}.type"}
    return found


def _as_path(key: str) -> str:
    """``teachers.0.wire.type`` and ``teachers.books.wire.type`` as ``teachers[].wire.type``."""
    return re.sub(r"^(teachers|baselines)\.[^.]+", r"\1[]", key)


@pytest.mark.parametrize(
    "text",
    ["kd: {temprature: 2}", "data: {labels: [a]}", "objective: {type: nothing}", "- a\n- b\n"],
)
def test_a_wrong_configuration_is_noticed(text: str):
    with pytest.raises((AssertionError, ValueError)):
        read_configuration(text)


@pytest.mark.parametrize(
    "line",
    [
        "distill trian mine.yaml",
        "distill train",
        "distill train mine.yaml --adress auto",
        "distill train mine.yaml kd.temprature=2",
        "distill evaluate runs/mine --data a.csv attack.budgets=3",
        "make quickstrat",
        "cd x && distill frontier mine --max-gb 3",
        "python -m distill.samples.sentimental --out x",
    ],
)
def test_a_wrong_command_is_noticed(line: str):
    with pytest.raises(Exception):  # noqa: B017 (the parser's own errors are of several classes)
        for words in command_lines(line):
            check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "distill train mine.yaml kd.temperature=2 teachers.books.num_cpus=2  # a comment",
        "A=1 .venv/bin/distill evaluate runs/mine --data a.csv attack.budget=3 | tee log",
        "make test PYTEST_ARGS='-m \"not slow\"'",
        "distill sweep mine.yaml \\\n  search.num_trials=4",
    ],
)
def test_a_right_command_passes(line: str):
    for words in command_lines(line):
        check_command(words)
