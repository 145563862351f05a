"""Compares the figures of a document with the committed result that they come from.

A comment names the file, on the line above a table or paragraph:
``<!-- figures: benchmarks/results/quickstart_seeds.md -->`` (several files: separated by blanks).
Of a table each row (but for its first column, the label) must agree with one *record* of the file:
a table row of Markdown or a line of CSV, in the same order, or an object of JSON. Of a paragraph
each decimal number and each percentage must be somewhere in the file. A figure agrees with one of
the file that rounds to it; a share of the file may be shown in per cent.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
MARK = re.compile(r"<!-- figures: ([^>]+?) -->\n+((?:[^\n]+\n?)+)")


@dataclass(frozen=True)
class Record:
    """Numbers that belong together; ``is_ordered``: as the columns of a table."""

    values: list[Decimal]
    is_ordered: bool


@dataclass(frozen=True)
class Claim:
    """A table or paragraph, and the files that it names."""

    sources: list[str]
    text: str

    @property
    def is_table(self) -> bool:
        return self.text.lstrip().startswith("|")


def claims(page: str) -> list[Claim]:
    return [Claim(match[1].split(), match[2]) for match in MARK.finditer(page)]


def unmatched(claim: Claim, root: Path) -> list[str]:
    """The rows, or figures, that no named file has."""
    records = [record for source in claim.sources for record in read(root / source)]
    if claim.is_table:
        wrong = []
        for row in rows(claim.text)[1:]:
            figures = numbers(" | ".join(row[1:]))
            if figures and not any(_agree(figures, record) for record in records):
                wrong.append(" | ".join(row))
        return wrong
    everything = Record([value for record in records for value in record.values], False)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", claim.text)
    shown = [m[0] for m in NUMBER.finditer(text) if "." in m[0] or text[m.end() :][:2] == " %"]
    return [figure for figure in shown if not _agree([figure], everything)]


def rows(table: str) -> list[list[str]]:
    """The cells of each row; the line below the heads left out."""
    lines = [line.strip() for line in table.splitlines() if line.strip().startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in split if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def numbers(text: str) -> list[str]:
    return [match[0] for match in NUMBER.finditer(re.sub(r"\]\([^)]*\)", "]", text))]


def read(path: Path) -> list[Record]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return list(_objects(json.loads(text)))
    if path.suffix == ".csv":
        lines = [" ".join(line.values()) for line in csv.DictReader(text.splitlines())]
    else:
        lines = text.splitlines()
    return [Record([_value(figure) for figure in numbers(line)], True) for line in lines]


def _objects(tree: Any) -> Iterator[Record]:
    """A record for each object: its numbers, those in lists, and those of the objects in it."""
    if isinstance(tree, dict):
        yield Record(list(_leaves(tree)), False)
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _objects(item)


def _leaves(item: Any) -> Iterator[Decimal]:
    if isinstance(item, dict):
        for value in item.values():
            yield from _leaves(value)
    elif isinstance(item, list):
        for value in item:
            if not isinstance(value, dict | list):
                yield from _leaves(value)
    elif isinstance(item, int | float) and not isinstance(item, bool):
        yield Decimal(repr(item))


def _value(figure: str) -> Decimal:
    return Decimal(figure.replace(",", "").replace("−", "-"))


def _agree(figures: list[str], record: Record) -> bool:
    if not record.is_ordered:
        return all(any(_rounds_to(figure, value) for value in record.values) for figure in figures)
    left = iter(record.values)  # what `any` has gone past is used up
    return all(any(_rounds_to(figure, value) for value in left) for figure in figures)


def _rounds_to(figure: str, value: Decimal) -> bool:
    """Within half a unit of the last digit that is shown, as it is or as a percentage."""
    shown = _value(figure)
    exponent = shown.as_tuple().exponent
    assert isinstance(exponent, int)
    half = Decimal(1).scaleb(min(exponent, 0)) / 2
    return any(abs(shown - scaled) <= half for scaled in (value, value * 100))
