"""Compares the figures of a document with the committed result that they come from.

A comment names the file, on the line above a table or paragraph:
``<!-- figures: benchmarks/results/quickstart_seeds.md -->`` (several files: separated by blanks).
Of a table each row (but for its first column, the label) must agree with one *record* of the file:
a table row of Markdown or a line of CSV, in the same order, or an object of JSON. Of a paragraph
each decimal number and each percentage must be somewhere in the file. A figure agrees with one of
the file that rounds to it; a share of the file may be shown in per cent.

Prose without a comment is compared with the tables of its section and with the results that the
section links or names. Values that are settings, not measurements, are listed in a comment of the
section: ``<!-- settings: 0.9 1.6.1 -->``.
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
SETTINGS = re.compile(r"<!-- settings: ([^>]+?) -->")
LINK = re.compile(r"\]\([./]*(benchmarks/results/[\w/]+\.(?:md|json|csv|txt))\)")
HEADING = re.compile(r"^#+ ", re.MULTILINE)
UNIT = r"(?: ?(?:%|pp|MB|GB|k|M|s|ms|×|million))?"
CELL = re.compile(rf"\**[-+−~]?\d[\d,.]*{UNIT}(?: ± \d[\d,.]*)?{UNIT}\**(?: \(.*\)\**)?")


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
            shown = numbers(" | ".join(row[1:]))
            if shown and not any(_agree(shown, record) for record in records):
                wrong.append(" | ".join(row))
        return wrong
    return [figure for figure in figures(claim.text) if not _agree([figure], _joined(records))]


def figures(prose: str) -> list[str]:
    """Its decimal numbers and percentages, code and addresses left out."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", prose)
    return [m[0] for m in NUMBER.finditer(text) if "." in m[0] or text[m.end() :][:2] == " %"]


@dataclass(frozen=True)
class Section:
    """From one heading to the next."""

    text: str

    @property
    def sources(self) -> list[str]:
        """The results that it links, or names in comments."""
        named = [source for claim in claims(self.text) for source in claim.sources]
        return sorted({*named, *LINK.findall(self.text)})

    @property
    def settings(self) -> list[str]:
        return [value for match in SETTINGS.finditer(self.text) for value in match[1].split()]

    @property
    def tables(self) -> list[str]:
        return [part for part in self._parts if part.startswith("|")]

    @property
    def prose(self) -> list[str]:
        """Paragraphs and lists without a comment of their own."""
        named = {claim.text.strip() for claim in claims(self.text)}
        return [part for part in self._parts if not part.startswith("|") and part not in named]

    @property
    def _parts(self) -> list[str]:
        text = re.sub(r"^```.*?^```", "", self.text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"<!--.*?-->|^#+ .*$", "", text, flags=re.MULTILINE)
        return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def sections(page: str) -> list[Section]:
    """Headings in fenced blocks are none."""
    starts = [m.start() for m in HEADING.finditer(re.sub(r"(?ms)^```.*?^```", _blank, page))]
    return [Section(page[a:b]) for a, b in zip([0, *starts], [*starts, len(page)], strict=True)]


def unsupported(section: Section, root: Path) -> list[str]:
    """Figures of the prose that are neither a setting, nor in a table, nor in a linked result."""
    records = [record for source in section.sources for record in read(root / source)]
    shown = [_value(figure) for table in section.tables for figure in numbers(table)]
    known = Record([*shown, *_joined(records).values], False)
    found = [figure for part in section.prose for figure in figures(part)]
    return [f for f in found if f not in section.settings and not _agree([f], known)]


def unmatched_output(section: Section, root: Path) -> list[str]:
    """Lines of the section's output (fenced ``text`` with percentages) that no result has."""
    records = [record for source in section.sources for record in read(root / source)]
    blocks = re.findall(r"^```text\n(.*?)^```", section.text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks if re.search(r"\d %", block) for line in block.splitlines()]
    return [
        line
        for line in lines
        if (shown := figures(line)) and not any(_agree(shown, record) for record in records)
    ]


def is_measured(table: str) -> bool:
    """Whether a column has only figures. Defaults of keys are no measurements."""
    head, *body = rows(table)
    if "default" in head:
        return False
    columns = zip(*(row for row in body if len(row) == len(head)), strict=True)
    return any(_is_measured(cells) for cells in list(columns)[1:])


def _is_measured(cells: tuple[str, ...]) -> bool:
    filled = [cell for cell in cells if cell not in ("", "–")]
    return bool(filled) and all(CELL.fullmatch(cell) for cell in filled)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _joined(records: list[Record]) -> Record:
    return Record([value for record in records for value in record.values], False)


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
