"""Tables on a terminal: within its columns, names whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from distill.report.terminal import grid


def lines_of(table: object, columns: int) -> list[str]:
    console = Console(width=columns, file=io.StringIO(), color_system=None, markup=False)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


PLAN = [
    ["data", "train 1,000, validation 200, test 200", "rows"],
    ["labels", ", ".join(f"class-{i}" for i in range(30)), "30 classes"],
    ["baseline student-without-teachers", "1 layer, hidden 16", "1,210 parameters, 0.005 MB"],
]


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_running_text_wraps_between_words_within_the_terminal(columns: int) -> None:
    lines = lines_of(
        grid(["part", "plan", "size"], PLAN, "ready", wrap=(1, 2), columns=columns),
        columns,
    )
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert "baseline student-without-teachers" in text
    words = {word.rstrip(",") for word in text.split()}
    assert {f"class-{i}" for i in range(30)} <= words
    assert sum("part" in line for line in lines) == (2 if columns == 60 else 1)


def test_what_fits_is_not_wrapped() -> None:
    lines = lines_of(grid(["part", "plan"], PLAN[:1], "", wrap=(1,), columns=80), 80)
    assert any(line.endswith("train 1,000, validation 200, test 200") for line in lines)


def test_columns_that_do_not_fit_continue_below_after_the_first() -> None:
    heads = ["trial", *(f"key.number.{i}" for i in range(12)), "empty"]
    rows = [[f"trial-{n:03d}", *(str(n * i) for i in range(12)), "–"] for n in range(1, 3)]
    lines = lines_of(grid(heads, rows, "frontier", marked=1, columns=80), 80)
    assert max(map(len, lines)) <= 80
    assert "empty" not in "\n".join(lines)
    for head in heads[1:-1]:
        assert sum(head in line.split() for line in lines) == 1
    blocks = sum(line.split()[:1] == ["trial"] for line in lines)
    assert blocks == sum("trial-001" in line for line in lines) == 3
    assert sum("★ trial-002" in line for line in lines) == blocks


def test_rows_without_a_value_below_are_left_out() -> None:
    heads = ["model", "a-long-head-1", "a-long-head-2", "last"]
    lines = lines_of(
        grid(heads, [["one", "1", "2", "–"], ["two", "1", "2", "7"]], "", columns=36), 36
    )
    (below,) = (n for n, line in enumerate(lines) if line.split() == ["model", "last"])
    assert [line.split() for line in lines[below + 2 :]] == [["two", "7"]]
