"""Tables that fit the terminal: ``COLUMNS``, else the terminal's width, else 80 columns.

A column whose cells are all empty is left out. Names are never shortened: a table that is too wide
continues below itself, in blocks that each begin with its first column. Columns of running text may
wrap instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

EMPTY = ("", "–")
"""Cells that hold nothing."""
GAP = 2
"""Spaces between two columns."""
MIN_WRAPPED = 16
"""A column that wraps is at least so wide, if its text is."""


def width() -> int:
    """Columns of the terminal; ``COLUMNS`` goes first, and without a terminal it is 80."""
    return max(shutil.get_terminal_size((80, 24)).columns, 20)


def console() -> Console:
    """Standard output. Names may look like markup or like an emoji: neither is read as such."""
    from rich.console import Console

    return Console(width=width(), markup=False, emoji=False, highlight=False)


def as_text(write: Callable[[Console], object]) -> str:
    """What ``write`` shows on a terminal without colours."""
    from rich.console import Console

    stream = StringIO()
    write(Console(file=stream, width=width(), markup=False, emoji=False, highlight=False))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def grid(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str,
    *,
    marked: int | None = None,
    wrap: Collection[int] = (),
    ends: Collection[int] = (),
    notes: Sequence[str] = (),
    columns: int | None = None,
) -> Group:
    """``rows`` of cells under ``heads``, one rich table or several below each other.

    The first column is aligned left, numbers right. ``marked``: index of the row in bold, with a
    star (not by colour alone). ``wrap``: columns of running text, aligned left, whose lines are
    broken between words where the table would be too wide. ``ends``: rows that a line follows.
    ``columns``: the width to fit, by default the terminal's. The widest cell of a block alone may
    be folded, where even the first column and one other do not fit.
    """
    from rich.console import Group
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
    parts: list[Table | Text] = [Text(title, style="italic")] if title else []
    wide = {
        index: max(map(_width, (heads[index], *(row[index] for row in shown)))) for index in kept
    }
    for part, block in enumerate(_blocks(wide, wrap, limit)):
        table = _empty_table(heads, {i: wide[i] for i in block}, wrap, limit)
        if part > 0:
            parts.append(Text(""))
        for number, row in enumerate(shown):
            if part > 0 and all(row[index] in EMPTY for index in block[1:]):
                continue  # nothing to continue
            cells = [Text(row[index]) for index in block]  # Text: a bracket is no style
            style = "bold green" if number == marked else None
            table.add_row(*cells, style=style, end_section=number in ends)
        parts.append(table)
    return Group(*parts, *(Text(note) for note in notes))


def _empty_table(
    heads: Sequence[str], wide: Mapping[int, int], wrap: Collection[int], limit: int
) -> Table:
    """The columns ``wide`` of one block, without rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    used = sum(w for i, w in wide.items() if i not in wrap) + GAP * (len(wide) - 1)
    shares = _shares({i: w for i, w in wide.items() if i in wrap}, limit - used)
    # The box draws one blank between two columns, the padding the others.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0))
    table.pad_edge = table.show_edge = False
    for index in wide:
        table.add_column(
            Text(heads[index]),
            justify="left" if index == 0 or index in wrap else "right",
            overflow="fold",
            no_wrap=index not in wrap and used <= limit,
            max_width=shares.get(index),
        )
    return table


def _width(cell: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.split("\n")))


def _blocks(wide: Mapping[int, int], wrap: Collection[int], limit: int) -> list[list[int]]:
    """The columns of each table: as many as fit, each time after the first column."""
    first, *others = wide
    least = {i: min(w, MIN_WRAPPED) if i in wrap else w for i, w in wide.items()}
    blocks, used = [[first]], least[first]
    for index in others:
        if used + GAP + least[index] > limit and len(blocks[-1]) > 1:
            blocks.append([first])
            used = least[first]
        blocks[-1].append(index)
        used += GAP + least[index]
    return blocks


def _shares(wide: Mapping[int, int], room: int) -> dict[int, int]:
    """Of ``room``, what each wrapping column gets: the narrow ones all that they need."""
    shares: dict[int, int] = {}
    for index in sorted(wide, key=lambda i: wide[i]):
        fair = max(room - sum(shares.values()), 0) // (len(wide) - len(shares))
        shares[index] = max(min(wide[index], fair), 1)
    return shares
