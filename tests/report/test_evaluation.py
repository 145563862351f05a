"""The tables, the page and the files of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import DOMAINS, evaluated
from rich.console import Console

from distill.evaluation.evaluated import Evaluated
from distill.report.evaluation import PLOTS, render, to_markdown, write
from distill.report.evaluation_blocks import Block, Measure, fidelity, shortened
from distill.report.evaluation_page import _number

FEW = ("attack.budget=4", "attack.num_samples=6")


def printed(found: Evaluated, columns: int = 80) -> list[str]:
    console = Console(width=columns, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(render(found, columns))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_terminal_shows_every_table_in_80_columns() -> None:
    lines = printed(evaluated(*FEW, warnings=("the teacher " + "knows " * 30,)))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for title in ("Quality", "Accuracy by domain", "Precision, recall and F1", "Fidelity"):
        assert title in text
    for shown in (
        "Transformations",
        "Attacks",
        "Latency and memory",
        "12.0×",
        "warning: the teacher",
        *DOMAINS,
    ):
        assert shown in text
    assert "--attacks" not in text


def test_without_attacks_a_line_says_how_to_add_them() -> None:
    lines = printed(evaluated())
    (line,) = [line for line in lines if "--attacks" in line]
    assert line == "· attacks: not run: add --attacks (they take most of the time of an evaluation)"
    assert not any(line.startswith("Attacks") for line in lines)


def test_a_student_alone_has_no_empty_columns() -> None:
    text = "\n".join(printed(evaluated(has_teacher=False)))
    assert "teacher" not in text and "Fidelity" not in text and "retention" not in text
    assert "accuracy" in text and "typos" in text


def test_relations_are_named_with_their_thresholds() -> None:
    found = fidelity(evaluated("relations.tau=0.8", "relations.divergence=tv"))
    assert found is not None
    names = [row.name for row in found.rows]
    assert names[1] == "other probabilities (TV > 0.1)"
    assert names[2] == "only the teacher is confident (≥ 0.8)"
    assert all(row.gloss for row in found.rows)


def test_of_many_classes_the_terminal_shows_the_lowest() -> None:
    rows = tuple(Measure(f"class {i}", ("5", "–", "–", f"{90 - i}.0 %")) for i in range(30))
    block = Block("Classes", ("class", "rows", "precision", "recall", "F1"), rows, (), "classes")
    kept = shortened(block)
    assert [row.name for row in kept.rows] == [f"class {i}" for i in range(29, 19, -1)]
    assert kept.notes == ("the 10 lowest of 30; all are in evaluation.html",)


def test_files(tmp_path: Path) -> None:
    paths = write(evaluated(*FEW), tmp_path)
    assert [path.name for path in paths] == [
        *("evaluation.html", "evaluation.json", "evaluation.md"),
        *PLOTS,
    ]
    values = json.loads(paths[1].read_text("utf-8"))
    assert values["columns"] == {"text": "text", "label": "label", "domain": "domain"}
    assert values["majority"] == {"label": "negative", "share": 0.5}
    again = write(evaluated(has_teacher=False), tmp_path)
    assert [path.name for path in again][3:] == ["reliability.png"]
    assert not (tmp_path / "attacks.png").exists()  # of the earlier evaluation


def test_the_page_has_all_sections_and_escapes_every_text(tmp_path: Path) -> None:
    found = evaluated(*FEW, warnings=("the student is below the majority class (58.2 %)",))
    page = write(found, tmp_path)[0].read_text("utf-8")
    for name in ("Quality", "Domains", "Classes", "Fidelity", "Transformations", "Attacks"):
        assert f">{name}</h2>" in page
    for name in ("Latency and memory", "Differing samples", "Settings and environment"):
        assert f">{name}</h2>" in page
    assert "below the majority class (58.2 %)" in page
    assert page.count("<script") == 1 and "&lt;script&gt;" in page
    assert "<b>with</b>" not in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    alone = write(evaluated(has_teacher=False), tmp_path)[0].read_text("utf-8")
    assert ">Fidelity</h2>" not in alone and "add --attacks" in alone


def test_markdown_has_the_meaning_of_every_measure() -> None:
    text = to_markdown(evaluated(warnings=("doubtful",)))
    assert "**Warning:** doubtful" in text
    assert "| meaning |" in text and "share of rows whose prediction is the label" in text


@pytest.mark.parametrize(
    ("text", "number"),
    [("62.4 % [60.9, 64.0]", 62.4), ("2.03 M", 2.03e6), ("1,204", 1204.0), ("–", None), ("", None)],
)
def test_columns_sort_by_their_numbers(text: str, number: float | None) -> None:
    assert _number(text) == pytest.approx(number)
