"""Numbers of the comparison table, the same in every format."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from distill.evaluation.rows import Row, in_domains, row_of
from distill.report.table import (
    best_student,
    from_json,
    render,
    to_csv,
    to_json,
    to_markdown,
)
from distill.wording import count, three_digits
from tests.report.rows import a_row

ROWS = [
    a_row(
        "expert books", "expert", 22_700_000, 90.9, 11.3, 0.79, 0.786, {"books": 0.84}, 0.84, 0.78
    ),
    a_row("routed ensemble", "mix", 95_800_000, 390, 47, 0.852, 0.851, retention=1.0),
    a_row("tf-idf | LR", "baseline", accuracy=0.774, f1=math.nan, note="words"),
    a_row("distilled", "student", 3_500_000, 14, 2.1, 0.8206, 0.82, retention=0.9636),
    a_row("tiny", "student", 310_000, 1.25, 0.31, 0.797, 0.795, retention=0.935),
]


def test_counts_and_digits():
    values = (22_700_000, 310_000, 999_700, 96, 1_234_000_000, None, 0)
    shown = ["22.7 M", "310 k", "1.00 M", "96", "1.23 G", "–", "0"]
    assert [count(v) for v in values] == shown
    assert [three_digits(v) for v in (363, 90.9, 0.05, 9.996, None)] == [
        *("363", "90.9", "0.050", "10.0", "–"),
    ]


def printed(rows: list[Row], columns: int) -> list[str]:
    console = Console(width=columns, file=io.StringIO(), color_system=None)
    console.print(render(rows, "Test split", columns=columns))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_fits_the_terminal_with_names_whole_and_marks_the_best_student(columns):
    lines = printed([*ROWS, a_row("student-without-teachers", "student", 1e3)], columns)
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("student-without-teachers ") for line in lines)
    cells = " ".join(x.removeprefix("expert books") for x in lines if "expert books" in x).split()
    values = ["22.7", "M", "90.9", "11.3", "79.0", "%", "78.6", "%", "84.0", "%", "78.0", "%", "–"]
    assert cells == values
    assert {line.split()[1] for line in lines if "★" in line} == {"distilled"}
    assert "tf-idf | LR: words" in lines


def test_without_domains_there_are_no_columns_of_domains():
    text = "\n".join(printed(ROWS[1:], 80))
    assert "domain" not in text
    assert "retention" in text
    assert "domain" in "\n".join(printed(ROWS, 80))


def test_markdown_escapes_pipes_and_has_equal_columns():
    lines = to_markdown(ROWS).splitlines()[: len(ROWS) + 2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}
    assert "| **distilled** |" in lines[5]
    assert "77.4 % | – |" in lines[4]


def test_csv_and_json_are_unrounded_and_missing_stays_missing():
    first, *_, last = csv.DictReader(io.StringIO(to_csv(ROWS)))
    assert float(first["accuracy.books"]) == 0.84
    assert last["in_domain"] == ""
    rows = json.loads(to_json(ROWS))
    assert rows[3]["accuracy"] == 0.8206
    assert rows[2]["f1"] is None
    assert "NaN" not in to_json(ROWS)


def test_of_two_equal_students_the_smaller_is_best():
    twins = [
        a_row("big", "student", 2e6, accuracy=0.8),
        a_row("small", "student", 1e6, accuracy=0.8),
    ]
    best = best_student(twins)
    assert best is not None
    assert best.name == "small"
    assert best_student(ROWS[:3]) is None


CODE = {"code": 4.2, "prose": 30.1}
FIVE = dict.fromkeys("abcde", 2.0)
LANGUAGE = [
    a_row("code", "expert", 134.5e6, 538, 120, 0.55, perplexity=9.8, per_domain=CODE),
    a_row("labels", "student", 21e6, 84, 30, 0.45, perplexity=22.8, agreement=0.5, jsd=0.2313),
    a_row("distilled", "student", 21e6, 84, 30, 0.44, perplexity=19.8, agreement=0.6, jsd=0.1),
]


def test_language_models_have_columns_of_their_own():
    head, _, expert, *_ = to_markdown(LANGUAGE).splitlines()
    assert head == (
        "| model | parameters | size (MB) | perplexity | perplexity code | perplexity prose "
        "| next-token accuracy | agreement | JSD |"
    )
    assert expert == "| code | 134 M | 538 | 9.80 | 4.20 | 30.1 | 55.0 % | – | – |"
    many = [
        a_row(
            "code", "expert", 134.5e6, 538, 120, 0.55, perplexity=9.8, per_domain=FIVE, rouge_l=0.25
        )
    ]
    head, _, row = to_markdown(many).splitlines()
    assert head == "| model | parameters | size (MB) | perplexity | next-token accuracy | ROUGE-L |"
    assert row.endswith("| 25.0 % |")


def test_of_language_models_the_lowest_perplexity_is_best():
    best = best_student(LANGUAGE)
    assert best is not None
    assert best.name == "distilled"  # though the other hits more tokens
    smaller = replace(LANGUAGE[2], name="smaller").having({"student.params": 1e6})
    assert best_student([*LANGUAGE, smaller]) is smaller


def test_a_full_language_table_continues_below_itself():
    full = in_domains("test.perplexity.", "student", CODE)
    full |= {"test.exact_match": 1.0, "test.rouge_l": 1.0}
    full |= {"student.tokens_per_s": 14.2, "student.peak_memory_mb": 560.0}
    lines = printed([row.having(full) for row in LANGUAGE], 80)
    assert max(map(len, lines)) <= 80
    starred = [line.split() for line in lines if "★" in line]
    assert len(starred) == 2
    assert starred[0][:4] == ["★", "distilled", "21.0", "M"]
    assert starred[1][-2:] == ["14.2", "560"]


def test_json_is_read_back_as_it_was_also_under_the_names_of_old_runs():
    for rows in (ROWS[:2], ROWS[3:], LANGUAGE):
        assert from_json(to_json(rows)) == rows
    old = to_json(ROWS).replace('"in_domain"', '"home"').replace('"out_of_domain"', '"abroad"')
    assert from_json(old)[0] == ROWS[0]


def test_an_expert_of_a_domain_called_home_does_not_overwrite_its_own():
    domain_teacher = a_row(
        "home", "expert", per_domain={"home": 0.5, "in_domain": 0.4}, in_domain=0.7
    )
    metrics = domain_teacher.metrics
    assert metrics["test.accuracy.in_domain"] == 0.7
    assert "test.accuracy.home" not in metrics  # which old runs mean their own domain by
    assert row_of("home", "expert", metrics) == domain_teacher


def test_files_and_metrics_of_language_models():
    first, *_ = csv.DictReader(io.StringIO(to_csv(LANGUAGE)))
    assert (first["perplexity"], first["perplexity.prose"]) == ("9.8", "30.1")
    assert not {"f1", "in_domain", "out_of_domain", "retention"} & first.keys()
    hopeless = json.loads(to_json([LANGUAGE[1].having({"test.perplexity": math.inf})]))
    assert hopeless[0]["perplexity"] is None
    metrics = LANGUAGE[0].metrics
    assert metrics["test.perplexity.prose"] == 30.1
    assert LANGUAGE[2].metrics["fidelity.token_agreement"] == 0.6
    assert "test.f1" not in metrics


def test_classifiers_have_no_fields_of_language_models():
    assert (
        not {"perplexity", "jsd", "exact_match", "tokens_per_s"}
        & json.loads(to_json(ROWS))[0].keys()
    )
    assert "perplexity" not in to_csv(ROWS)
    assert "test.perplexity" not in ROWS[0].metrics
