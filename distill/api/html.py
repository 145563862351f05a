"""How results are shown in a notebook: tables, plots inline, paths. Every text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from distill.evaluation.rows import Row
from distill.report.markup import Markup, join, tag
from distill.report.table import best_student, columns_of
from distill.wording import MISSING

LEFT = "text-align:left;padding:0.15em 0.6em"
RIGHT = "text-align:right;padding:0.15em 0.6em"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    marked: int | None = None,
    left: Sequence[int] = (0,),
) -> Markup:
    """Columns whose cells are all empty are left out; the row ``marked`` is bold with a star."""
    kept = [
        index
        for index in range(len(heads))
        if index == 0 or any(row[index] not in ("", MISSING) for row in rows)
    ]

    def style(index: int) -> str:
        return LEFT if index in left else RIGHT

    head = tag("tr", *(tag("th", heads[index], style=style(index)) for index in kept))
    body = []
    for number, row in enumerate(rows):
        cells = [row[index] for index in kept]
        if number == marked:
            cells[0] = f"★ {cells[0]}"
        weight = ";font-weight:bold" if number == marked else ""
        shown = (
            tag("td", cell, style=style(index) + weight)
            for index, cell in zip(kept, cells, strict=True)
        )
        body.append(tag("tr", *shown))
    return tag("table", tag("thead", head), tag("tbody", *body))


def comparison(rows: Sequence[Row]) -> Markup:
    """The models on the test split, the best student marked, notes below."""
    columns = columns_of(rows)
    best = best_student(rows)
    marked = next((i for i, row in enumerate(rows) if row is best), None)
    cells = [[column.cell(row) for column in columns] for row in rows]
    notes = (tag("div", f"{row.name}: {row.note}") for row in rows if row.note)
    return join([table([column.head for column in columns], cells, marked), *notes])


def plots(paths: Sequence[Path]) -> Markup:
    """Those of the PNG files that are there."""
    images = []
    for path in paths:
        if path.is_file():
            content = base64.b64encode(path.read_bytes()).decode()
            name = tag("figcaption", path.stem.replace("_", " "))
            image = Markup(
                f'<img src="data:image/png;base64,{content}" '
                'style="max-width:100%;max-height:26em" alt=""/>'
            )
            images.append(tag("figure", image, name, style="display:inline-block;margin:0.5em"))
    return tag("div", *images)


def paths(named: Mapping[str, Path | None]) -> Markup:
    rows = [[name, str(path)] for name, path in named.items() if path is not None]
    return table(["", "path"], rows, left=(0, 1)) if rows else Markup("")


def command(name: str, text: str) -> Markup | None:
    return tag("div", f"{name}: ", tag("code", text)) if text else None


def block(title: str, *parts: Markup | None) -> str:
    return str(tag("div", tag("h4", title), *parts))
