"""Numbers of the comparison table, the same in every format."""

import csv
import io
import json
import math

from rich.console import Console

from distill.report.table import (
    Row,
    best_student,
    count,
    render,
    three_digits,
    to_csv,
    to_json,
    to_markdown,
)

ROWS = [
    Row("expert books", "expert", 22_700_000, 90.9, 11.3, 0.79, 0.786, {"books": 0.84}, 0.84, 0.78),
    Row("routed mix", "mix", 95_800_000, 390, 47, 0.852, 0.851, retention=1.0),
    Row("tf-idf | LR", "baseline", accuracy=0.774, f1=math.nan, note="words"),
    Row("distilled", "student", 3_500_000, 14, 2.1, 0.8206, 0.82, retention=0.9636),
    Row("tiny", "student", 310_000, 1.25, 0.31, 0.797, 0.795, retention=0.935),
]


def test_counts_and_digits():
    values = (22_700_000, 310_000, 999_700, 96, 1_234_000_000, None, 0)
    shown = ["22.7 M", "310 k", "1.00 M", "96", "1.23 G", "–", "0"]
    assert [count(v) for v in values] == shown
    assert [three_digits(v) for v in (363, 90.9, 0.05, 9.996, None)] == [
        *("363", "90.9", "0.050", "10.0", "–"),
    ]


def test_the_table_fits_100_columns_and_marks_the_best_student():
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(render(ROWS, "Test split"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    expert = next(line for line in lines if "expert books" in line)
    assert " ".join(expert.split("expert books")[1].split()) == (
        "22.7 M 90.9 11.3 79.0 % 78.6 % 84.0 % 78.0 % –"
    )
    assert [line.split()[1] for line in lines if "★" in line] == ["distilled"]
    assert "tf-idf | LR: words" in text


def test_markdown_escapes_pipes_and_has_equal_columns():
    lines = to_markdown(ROWS).splitlines()[: len(ROWS) + 2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}
    assert "| **distilled** |" in lines[5]
    assert "77.4 % | – |" in lines[4]


def test_csv_and_json_are_unrounded_and_missing_stays_missing():
    first, *_, last = csv.DictReader(io.StringIO(to_csv(ROWS)))
    assert float(first["accuracy.books"]) == 0.84
    assert last["home"] == ""
    rows = json.loads(to_json(ROWS))
    assert rows[3]["accuracy"] == 0.8206
    assert rows[2]["f1"] is None
    assert "NaN" not in to_json(ROWS)


def test_of_two_equal_students_the_smaller_is_best():
    twins = [Row("big", "student", 2e6, accuracy=0.8), Row("small", "student", 1e6, accuracy=0.8)]
    best = best_student(twins)
    assert best is not None
    assert best.name == "small"
    assert best_student(ROWS[:3]) is None
