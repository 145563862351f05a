"""Tables that fit the terminal: ``COLUMNS``, else the terminal's width, else 80 columns.

A column whose cells are all empty is left out. Names are never shortened: a table that is too wide
continues below itself, in blocks that each begin with its first column.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, Group

EMPTY = ("", "–")
"""Cells that hold nothing."""
GAP = 2
"""Blanks between two columns."""


def width() -> int:
    """Columns of the terminal; ``COLUMNS`` goes first, and without a terminal it is 80."""
    return max(shutil.get_terminal_size((80, 24)).columns, 20)


def console() -> Console:
    """Standard output. Names may look like markup or like an emoji: neither is read as such."""
    from rich.console import Console

    return Console(width=width(), markup=False, emoji=False, highlight=False)


def grid(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str,
    *,
    marked: int | None = None,
    left: Collection[int] = (),
    ends: Collection[int] = (),
    notes: Sequence[str] = (),
    columns: int | None = None,
) -> Group:
    """``rows`` of cells under ``heads``, one rich table or several below each other.

    The first column and those in ``left`` are aligned left, numbers right. ``marked``: index of the
    row in bold, with a star (not by colour alone). ``ends``: rows that a line follows. ``columns``:
    the width to fit, by default the terminal's. The widest cell of a block alone may be folded,
    where even the first column and one other do not fit.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    limit = width() if columns is None else columns
    shown = [list(row) for row in rows]
    if marked is not None:
        shown[marked][0] = f"★ {shown[marked][0]}"
    kept = [
        index
        for index in range(len(heads))
        if index == 0 or any(row[index] not in EMPTY for row in shown)
    ]
    parts: list[Table | Text] = []
    for block in _blocks(heads, shown, kept, limit):
        table = Table(box=box.SIMPLE_HEAD, title_justify="left", padding=(0, GAP, 0, 0))
        table.pad_edge = False
        if not parts:
            table.title = Text(title, style="italic")
        for index in block:
            is_left = index == 0 or index in left
            table.add_column(
                Text(heads[index]), justify="left" if is_left else "right", overflow="fold"
            )
        for number, row in enumerate(shown):
            cells = [Text(row[index]) for index in block]  # Text: a bracket is no style
            style = "bold green" if number == marked else None
            table.add_row(*cells, style=style, end_section=number in ends)
        parts.append(table)
    return Group(*parts, *(Text(note) for note in notes))


def _blocks(
    heads: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[int], limit: int
) -> list[list[int]]:
    """The columns of each table: as many as fit, each time after the first column."""
    from rich.cells import cell_len

    def wide(index: int) -> int:
        cells = [heads[index], *(row[index] for row in rows)]
        return max(cell_len(line) for cell in cells for line in cell.split("\n")) + GAP

    first, *others = kept
    blocks, used = [[first]], wide(first)
    for index in others:
        if used + wide(index) > limit + GAP and len(blocks[-1]) > 1:
            blocks.append([first])
            used = wide(first)
        blocks[-1].append(index)
        used += wide(index)
    return blocks
