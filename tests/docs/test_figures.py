"""Every figure in a document comes from a committed result."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.docs.figures import (
    Claim,
    Section,
    claims,
    figures,
    is_measured,
    rows,
    sections,
    unmatched,
    unmatched_output,
    unsupported,
)
from tests.docs.pages import PAGES, ROOT, name, without_code

RESULTS = [page for page in PAGES if (ROOT / "docs/results") in page.parents]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_figures_are_those_of_the_named_result(page: Path):
    for claim in claims(page.read_text(encoding="utf-8")):
        assert unmatched(claim, ROOT) == [], f"not in {claim.sources}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tables_of_measurements_name_their_result(page: Path):
    """On the pages of results all tables with figures; elsewhere those with a column of figures."""
    text = page.read_text(encoding="utf-8")
    named = [claim.text.strip() for claim in claims(text)]
    tables = [t.strip() for t in without_comments(text) if t.lstrip().startswith("|")]
    for table in tables:
        if table not in named and ("±" in without_code(table) or is_measured(table)):
            raise AssertionError(f"no <!-- figures: … --> above: {table.splitlines()[0]}")
        if page in RESULTS and page.stem != "index" and table not in named:
            has_figures = any(c.isdigit() for row in rows(table)[1:] for c in "".join(row[1:]))
            assert not has_figures, f"no <!-- figures: … --> above: {table.splitlines()[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shown_output_is_that_of_a_linked_result(page: Path):
    for section in sections(page.read_text(encoding="utf-8")):
        assert unmatched_output(section, ROOT) == [], section.text.splitlines()[0]


@pytest.mark.parametrize("page", RESULTS, ids=name)
def test_figures_in_prose_are_in_a_table_or_a_linked_result(page: Path):
    for section in sections(page.read_text(encoding="utf-8")):
        assert unsupported(section, ROOT) == [], section.text.splitlines()[0]
        shown = {figure for part in section.prose for figure in figures(part)}
        assert set(section.settings) <= shown, "a setting that the section does not have"


def test_the_example_of_the_entropy_term_follows_from_its_equation():
    page = (ROOT / "docs/methods/attention.md").read_text(encoding="utf-8")
    found = re.search(r"good one is ([\d.]+), ([\d.]+) and ([\d.]+)\.", page)
    assert found
    good_N = np.linspace(1e-6, 1 - 1e-6, 100_001)
    other_N = (1 - good_N) / 2
    entropy_N = -(good_N * np.log(good_N) + 2 * other_N * np.log(other_N))
    likelihood_N = np.log(0.95 * good_N + 2 * 0.1 * other_N)
    for shown, (temperature, alpha) in zip(
        found.groups(), [(2, 0.5), (4, 0.9), (10, 1)], strict=True
    ):
        loss_N = -likelihood_N - alpha * temperature**2 * 0.01 * entropy_N
        assert shown == f"{good_N[loss_N.argmin()]:.2f}"


def without_comments(text: str) -> list[str]:
    lines = [line if not line.startswith("<!--") else "" for line in text.splitlines()]
    return "\n".join(lines).split("\n\n")


def table(row: str) -> str:
    return f"| model | accuracy |\n|---|---:|\n{row}\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("| x | 75.43 ± 1.10 % | 2.7 |\n| y | 60.0 ± 2.0 % | 9.9 |\n")
    (tmp_path / "b.json").write_text('{"runs": [{"loss": 0.8437, "s": {"p": 12}}, {"loss": 3}]}')
    (tmp_path / "c.csv").write_text("trial,acc\none,0.6875\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "row", "is_right"),
    [
        ("a.md", "| x | 75.4 ± 1.1 % |", True),
        ("a.md", "| x | 75.5 ± 1.1 % |", False),
        ("a.md", "| x | 75.4 ± 2.0 % |", False),  # the deviation of another row
        ("a.md", "| x | 75.4 % |", True),
        ("b.json", "| first | 84.4 % | 12 |", True),
        ("b.json", "| first | 84.4 % | 3 |", False),  # of another object
        ("b.json", "| first | 0.85 |", False),
        ("c.csv", "| one | 68.8 % |", True),
        ("c.csv", "| one | 68.6 % |", False),
    ],
)
def test_a_row_agrees_with_one_record(source: Path, file: str, row: str, is_right: bool):
    assert (unmatched(Claim([file], table(row)), source) == []) == is_right


def test_a_paragraph_agrees_with_the_file(source: Path):
    assert unmatched(Claim(["a.md"], "From 60.0 % to 75.4 % in 2 of 3 seeds.\n"), source) == []
    assert unmatched(Claim(["a.md"], "It gains 15.5 pp.\n"), source) == ["15.5"]


@pytest.mark.parametrize(
    ("prose", "wrong"),
    [
        ("It gains 15.4 pp.", ["15.4"]),
        ("It reaches 75.4 %.", []),  # of the linked result
        ("It reaches 12.5 %.", []),  # of the section's table
        ("It reaches 75 %, from 12.6 %.", ["12.6"]),
        ("α is 0.9.", ["0.9"]),
        ("<!-- settings: 0.9 -->\nα is 0.9, τ 0.2.", ["0.2"]),
        ("In 12 of 24 runs, `0.9` ([x](y/0.9)).", []),
        ("```text\n0.9\n```", []),
    ],
)
def test_prose_agrees_with_its_section(source: Path, prose: str, wrong: list[str]):
    (source / "benchmarks/results").mkdir(parents=True)
    (source / "a.md").rename(source / "benchmarks/results/a.md")
    text = (
        f"# Title\n\nSee [all](../benchmarks/results/a.md).\n\n{table('| x | 12.5 % |')}\n{prose}\n"
    )
    assert unsupported(Section(text), source) == wrong


def test_a_section_does_not_use_the_figures_of_another():
    page = f"# One\n\n{table('| x | 12.5 % |')}\n## Two\n\nIt is 12.5 %.\n\n```\n# no\n```\n"
    found = sections(page)
    assert [unsupported(section, ROOT) for section in found] == [[], [], ["12.5"]]


def test_a_line_of_output_agrees_with_one_line_of_the_result(source: Path):
    text = "```text\nstudent  68.8 %  1\nteacher  71.0 %\n```\n<!-- figures: c.csv -->\nText.\n"
    assert unmatched_output(Section(text), source) == ["teacher  71.0 %"]


@pytest.mark.parametrize(
    ("text", "measured"),
    [
        ("| model | accuracy |\n|---|---:|\n| x | 75.4 % |\n| y | – |", True),
        ("| model | parameters |\n|---|---:|\n| x | **330 k (1.3 MB)** |", True),
        ("| wire | bytes |\n|---|---:|\n| x | 303,872 |", True),
        ("| x | gain |\n|---|---:|\n| x | +0.1 ± 0.5 pp |", True),
        ("| key | default | meaning |\n|---|---|---|\n| `k` | 2 | experts |", False),
        ("| D | c(T) |\n|---|---|\n| `kl` | T² |\n| `cosine` | 1 |", False),
    ],
)
def test_a_table_of_measurements_has_a_column_of_figures(text: str, measured: bool):
    assert is_measured(text) == measured


def test_a_mark_is_found_above_a_table():
    page = f"Text.\n\n<!-- figures: a.md b.md -->\n{table('| x | 1.0 |')}\nMore.\n"
    assert [(c.sources, c.is_table) for c in claims(page)] == [(["a.md", "b.md"], True)]
