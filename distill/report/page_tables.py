"""Tables of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distill.config.search import Goal
from distill.metrics import SIZE
from distill.report.heat import Heatmap
from distill.report.keys import differing
from distill.report.markup import Markup, join, tag
from distill.report.names import label, shown, shown_value
from distill.report.terminal import EMPTY
from distill.search.choice import winners
from distill.search.trials import Trial, Value

NUM_SHADES = 6
MAX_PRINTED = 11


@dataclass(frozen=True)
class Cell:
    """The text shown, and the number by which the column sorts."""

    text: str
    number: float | None = None
    is_text: bool = False


def metric_cell(metric: str, value: float | None) -> Cell:
    return Cell(shown(metric, value), value)


def value_cell(value: Value | None) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(shown_value(value), float(value) if is_number else None, not is_number)  # type: ignore[arg-type]


def page_table(
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    caption: str,
    is_sortable: bool = False,
    trials: Sequence[tuple[str, bool]] = (),
) -> Markup:
    """A table that scrolls inside its own box. ``rows``: the name and the other cells.

    A column without any value is left out. ``trials``: for each row its trial ("": none), and
    whether that is on the frontier.
    """
    kept = [i for i in range(len(head) - 1) if any(c[i].text not in EMPTY for _, c in rows)]
    head = [head[0], *(head[i + 1] for i in kept)]
    rows = [(name, [cells[i] for i in kept]) for name, cells in rows]
    texts = [any(c[i].is_text for _, c in rows) for i in range(len(head) - 1)]
    heads = (
        tag(
            "th",
            tag("button", _breakable(name), type="button") if is_sortable else _breakable(name),
            scope="col",
            class_=_style(i == 0 or texts[i - 1], i),
        )
        for i, name in enumerate(head)
    )
    lines = []
    for index, (name, cells) in enumerate(rows):
        trial, is_member = trials[index] if trials else ("", False)
        shown_name = f"★ {name}" if is_member else name
        if trial:
            button = {
                "type": "button",
                "class_": "pick",
                "data_trial": trial,
                "aria_pressed": "false",
            }
            first = tag("th", tag("button", shown_name, **button), scope="row", data_value=name)
        else:
            first = tag("th", shown_name, scope="row")
        line = (
            tag("td", c.text, class_=_style(c.is_text, i), data_value=_sorting(c))
            for i, c in enumerate(cells, start=1)
        )
        member = "member" if is_member else None
        lines.append(tag("tr", first, line, class_=member, data_trial=trial or None))
    inner = tag(
        "table",
        tag("thead", tag("tr", heads)),
        tag("tbody", lines),
        class_="sortable" if is_sortable else None,
    )
    return scroll(inner, caption, is_tall=len(rows) > 18)


def _style(is_text: bool, column: int) -> str | None:
    """Columns that do not fit on A4 are not printed; frontier.csv has them."""
    names = (["text"] if is_text else []) + (["screen"] if column >= MAX_PRINTED else [])
    return " ".join(names) or None


def _breakable(name: str) -> Markup:
    """A dotted key may wrap after a dot or an underscore."""
    parts = re.split(r"(?<=[._])", name)
    return join([part if part == parts[-1] else join([part, Markup("<wbr/>")]) for part in parts])


def scroll(inner: Markup, name: str, is_tall: bool = False) -> Markup:
    """A box that scrolls. Where columns are hidden to the right, a hint and a shadow show it.

    The name is outside the box, where it does not scroll away.
    """
    style = "scroll tall" if is_tall else "scroll"
    box = tag("div", inner, class_=style, tabindex=0, role="region", aria_label=name)
    hint = tag("span", "More columns to the right: scroll →", class_="hint screen", hidden=True)
    return join([tag("p", name, hint, class_="soft caption"), tag("div", box, class_="scrollbox")])


def _sorting(cell: Cell) -> str | None:
    if cell.is_text:
        return None
    return "" if cell.number is None or cell.number != cell.number else repr(float(cell.number))


def winners_table(
    trials: Sequence[Trial], goals: Sequence[Goal], searched: Sequence[str]
) -> Markup | None:
    """The best trial under each limit of size; None where no size is known."""
    quality = goals[0].metric
    won_at = winners(trials, goals)
    keys = differing(trials, searched)
    rows, names = [], []
    for limit, won in won_at:
        cells = [Cell(won.name, is_text=True)]
        cells += [metric_cell(m, won.metrics.get(m)) for m in (quality, SIZE)]
        rows.append((f"{limit:g} MB", cells + [value_cell(won.values.get(k)) for k in keys]))
        names.append((won.name, False))
    if not rows:
        return None
    head = ["at most", "trial", label(quality), label(SIZE), *keys]
    return page_table(
        head, rows, "The best student under each limit of size, and its configuration", trials=names
    )


def heat_table(grid: Heatmap, goal: Goal) -> Markup:
    """Means as shades and numbers, the number of trials under each."""
    means = [float(v) for v in grid.mean_YX.ravel() if v == v]
    low, span = min(means), (max(means) - min(means)) or 1.0

    def cell(mean: float, trials: int) -> Markup:
        if not trials:
            return tag("td", "–")
        share = (mean - low) / span
        share = share if goal.mode == "max" else 1 - share
        shade = min(int(share * NUM_SHADES), NUM_SHADES - 1)
        return tag(
            "td", shown(goal.metric, mean), tag("small", f"n = {trials}"), class_=f"h{shade}"
        )

    heads = tag(
        "tr",
        tag("th", f"{grid.y} ↓", tag("br"), f"{grid.x} →", scope="col"),
        (tag("th", x, scope="col") for x in grid.x_labels),
    )
    lines = []
    for y in reversed(range(len(grid.y_labels))):
        cells = (
            cell(float(grid.mean_YX[y, x]), int(grid.count_YX[y, x]))
            for x in range(len(grid.x_labels))
        )
        lines.append(tag("tr", tag("th", grid.y_labels[y], scope="row"), cells))
    caption = f"Mean {label(goal.metric)} over all other keys"
    inner = join([tag("thead", heads), tag("tbody", lines)])
    return scroll(tag("table", inner, class_="heat"), caption)
