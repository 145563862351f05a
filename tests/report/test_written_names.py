"""Names that MLflow, Markdown, matplotlib or rich would read as something else, in a report."""

from __future__ import annotations

import warnings
from html import escape
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from distill.config import Tracking
from distill.config.values import safe_name
from distill.report import plots
from distill.report.page import page
from distill.report.table import render, to_csv, to_markdown
from distill.tracking.read import Record, read_experiment
from distill.tracking.tracker import Tracker
from tests.report.rows import a_row

DOMAINS = {
    **{"电影": 0.9, "新闻": 0.8, "C++": 0.7, "C##": 0.6, "Home & Kitchen": 0.5},
    **{"home": 0.4, "in_domain": 0.3},
}
ROWS = [
    a_row(
        "C++", "expert", 1e6, accuracy=0.7, per_domain=DOMAINS, in_domain=0.75, out_of_domain=0.65
    ),
    a_row("$x^{$", "mix", 2e6, accuracy=0.7, per_domain=DOMAINS),
    a_row("_电影 [/b]", "baseline", accuracy=0.6, per_domain=DOMAINS),
]


@pytest.fixture(scope="module")
def record(store_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Record:
    tracking = Tracking(uri=store_uri, experiment="names", system_metrics=False)
    folder = tmp_path_factory.mktemp("named")
    for _ in range(2):  # the second resumes the first
        with Tracker(tracking, folder) as tracker:
            tracker.params({"node": {"gpu+": 1}})
            of_student = {f"test.accuracy.{d}": v for d, v in DOMAINS.items()}
            costs = {"eval.accuracy": 0.7, "student.size_mb": 1.0, "test.accuracy": 0.7}
            tracker.metrics(of_student | costs, 1)
            for row in ROWS:
                role = {"role": row.role}
                tracker.child(row.name, role, row.metrics, role)
    return read_experiment(store_uri, "names")


def test_every_domain_and_model_comes_back_as_it_was_written(record: Record) -> None:
    assert [(row.name, row.role) for row in record.rows] == [(r.name, r.role) for r in ROWS]
    for row in record.rows:
        assert row.per_domain == DOMAINS
    assert (record.rows[0].in_domain, record.rows[0].out_of_domain) == (0.75, 0.65)
    (trial,) = record.trials
    assert {d: trial.metrics[f"test.accuracy.{d}"] for d in DOMAINS} == DOMAINS
    assert record.params["node.gpu+"] == "1"


def test_mlflow_keeps_a_metric_a_domain(record: Record, client: Any) -> None:
    metrics = client.get_run(record.run_id).data.metrics
    kept = {key.removeprefix("test.accuracy.") for key in metrics} & {
        safe_name(f"test.accuracy.{d}").removeprefix("test.accuracy.") for d in DOMAINS
    }
    assert len(kept) == len(DOMAINS)
    assert {"电影", "新闻", "home"} < kept


def test_the_page_shows_them(record: Record) -> None:
    shown = page(record)
    for name in (*DOMAINS, *(row.name for row in ROWS)):
        assert escape(name) in shown
    for name in ("C++", "C##", "Home & Kitchen"):
        assert safe_name(f"test.accuracy.{name}") not in shown


def test_a_table_on_the_terminal_and_in_files_shows_them() -> None:
    console = Console(width=140, record=True, markup=False, emoji=False)
    console.print(render(ROWS, "names", columns=140))
    text = console.export_text()
    for name in (row.name for row in ROWS):
        assert name in text
        assert name in to_markdown(ROWS)
    assert to_csv(ROWS).splitlines()[0].count("accuracy.") == len(DOMAINS)


def test_an_expert_and_a_mixture_of_one_name_are_two_runs(store_uri: str, tmp_path: Path) -> None:
    tracking = Tracking(uri=store_uri, experiment="roles", system_metrics=False)
    with Tracker(tracking, tmp_path) as tracker:
        ids = {tracker.child("a", {}, {"loss": 1.0}, {"role": r}) for r in ("expert", "mix")}
        assert len(ids) == 2
        assert tracker.child("a", {}, {"loss": 2.0}, {"role": "mix"}) in ids


def test_plots_write_them_and_do_not_complain(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        plots.trade_off(ROWS, tmp_path / "a.png")
        plots.per_domain(ROWS, tmp_path / "b.png")
        plots.learning_curves({row.name: [] for row in ROWS}, tmp_path / "c.png")
    assert [str(w.message) for w in found] == []
