"""The catalogue has every metric that is logged, and no other; reports choose by it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from distill import metrics
from distill.config import Experiment, Tracking
from distill.evaluation.assess import EvaluationTask
from distill.evaluation.names import metric_names
from distill.evaluation.settings import Evaluation
from distill.metrics import (
    CLASSIFICATION,
    GROUPS,
    LANGUAGE_MODEL,
    METRICS,
    Metric,
    fits,
    measured_by,
    metric,
    of_trials,
)
from distill.report.table import to_csv, to_json, to_markdown
from distill.tracking import Tracker
from docs.site.generate import walk
from tests.docs.pages import ROOT
from tests.report.rows import a_row
from tests.training.test_loop import run

PREFIXES = sorted({name.split(".")[0] for name in METRICS if "." in name})
SHIPPED = [one.name for group in GROUPS for one in group.metrics]
"""Without those that tests add."""
TEACHERS = ("teacher.test.", "teacher.robustness.", "teacher.interval.")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("eval.accuracy", "eval.accuracy"),
        ("test.accuracy.in_domain", "test.accuracy.in_domain"),
        ("test.accuracy.Home & Kitchen.\nC++", "test.accuracy.<domain>"),
        ("teacher.a.b.wait_s", "teacher.<name>.wait_s"),
        ("router.load.films", "router.load.<expert>"),
        ("router.load.films.news", "router.load.<expert>.<domain>"),
        ("fidelity.transformed.layout.any", "fidelity.transformed.<transformation>.<relation>"),
        ("robustness.greedy.accuracy", "robustness.<method>.accuracy"),
        ("teacher.test.f1.yes", "test.f1.<label>"),
        ("teacher.interval.ece.low", "interval.<measure>.low"),
    ],
)
def test_a_name_has_the_most_specific_entry(name: str, entry: str) -> None:
    assert metric(name) is METRICS[entry]


@pytest.mark.parametrize("name", ["eval.loss", "accuracy", "teacher.a.speed", "test.accuracy.", ""])
def test_another_name_has_none(name: str) -> None:
    assert metric(name) is None


def test_every_entry_is_complete_and_there_once() -> None:
    entries = [one for group in GROUPS for one in group.metrics]
    assert [one.name for one in entries] == list(METRICS)[: len(entries)]
    for one in entries:
        assert not one.meaning.endswith("."), one.name
        assert "|" not in one.meaning, "a cell of the reference's table"
        assert set(one.tasks) <= {"classification", "language_model"}
    with pytest.raises(ValueError, match=r"eval\.f1 is in the catalogue already"):
        metrics.add([METRICS["eval.f1"]])


def test_a_name_that_is_not_in_the_catalogue_is_not_logged(tmp_path: Path) -> None:
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", system_metrics=False)
    tracker = Tracker(tracking, tmp_path)
    with pytest.raises(AssertionError, match=r"'eval\.auc' is logged, but is not in distill/metr"):
        tracker.metrics({"eval.accuracy": 0.5, "eval.auc": 0.7}, 1)
    with pytest.raises(AssertionError, match=r"'eval\.auc'"):
        tracker.child("trial", {}, {"eval.auc": 0.7})


def test_metrics_of_an_evaluation_are_in_the_catalogue() -> None:
    task = EvaluationTask(
        samples=(), label_names=("label-a",), domain_names=("domain-a",), kind="c", sd_D=None
    )
    names = metric_names(task, Evaluation(), True)
    assert len(names) > 100
    assert {name for name in names if metric(name) is None} == set()


def test_metrics_of_a_fit_are_in_the_catalogue(tmp_path: Path) -> None:
    _, _, lines = run(tmp_path, num_steps=2)
    names = {name for _, logged in lines for name in logged}
    assert {"loss", "grad_norm", "teacher.a.kl"} <= names
    assert sorted(name for name in names if metric(name) is None) == []


# ---- what the tasks declare ----------------------------------------------------------------


@pytest.mark.parametrize("task", [CLASSIFICATION, LANGUAGE_MODEL])
def test_what_a_task_declares_is_its_own(task: metrics.TaskMetrics) -> None:
    named = (*task.validation, *task.test, *task.summary, *task.overview, task.per_domain)
    assert [name for name in named if not fits(name, task.task)] == []
    assert set(task.columns) <= set(task.test)
    assert task.test_quality.name in task.columns and task.per_domain in task.columns
    assert all(task.head(name) for name in (*task.columns, *task.validation))
    assert measured_by(task.test) is task
    assert measured_by(task.validation) is task


def test_goals_of_a_sweep_are_in_the_order_of_their_message() -> None:
    assert tuple(name for name in of_trials() if name in SHIPPED) == (
        *("eval.accuracy", "eval.f1", "eval.perplexity", "student.params", "student.size_mb"),
        *("student.latency_ms", "student.gflops", "compression", "eval.retention"),
        *("eval.teacher_accuracy", "time.total_s"),
    )


def test_a_task_of_another_kind_has_tables_of_its_own() -> None:
    """Two metrics and a record: no report knows the task."""
    own = [
        Metric(
            "eval.rmse",
            "",
            "lower",
            "root mean squared error on validation",
            ("regression",),
        ),
        Metric("test.rmse", "", "lower", "the same on test", ("regression",), head="RMSE"),
    ]
    regression = metrics.TaskMetrics(
        "regression",
        "regressor",
        validation=("eval.rmse",),
        test=("student.params", "test.rmse"),
        per_domain="test.rmse",
        columns=("test.rmse", "student.params"),
    )
    metrics.add(own)
    try:
        metrics.declare(regression)
        rows = [
            a_row("big", "expert", 2e6).having({"test.rmse": 0.5}),
            a_row("student", "student", 1e3).having({"test.rmse": 0.75}),
            a_row("other", "student", 1e3).having({"test.rmse": 0.8}),
        ]
        assert metrics.of_task("regression").quality.mode == "min"
        assert to_markdown(rows).splitlines()[0] == "| model | RMSE | parameters |"
        assert "| **student** | **0.750** | **1.00 k** |" in to_markdown(rows)
        assert '"test.rmse": 0.5' in to_json(rows) and '"f1"' not in to_json(rows)
        assert to_csv(rows).splitlines()[0] == "name,role,params,note,test.rmse"
        assert "eval.rmse" in metrics.of_trials()
    finally:
        for one in own:
            del METRICS[one.name]
        del metrics.TASKS["regression"]
        metric.cache_clear()
    assert metric("test.rmse") is None and "eval.rmse" not in of_trials()


def test_the_order_of_the_metrics_of_a_row_is_that_of_the_task() -> None:
    row = a_row("a", "student", accuracy=0.5).having({"student.params": 3.0, "test.f1": None})
    assert list(row.metrics) == ["student.params", "test.accuracy"]
    assert replace(row, name="b").metrics == row.metrics


# ---- the code ------------------------------------------------------------------------------


def test_metric_names_in_the_code_are_in_the_catalogue() -> None:
    """String literals that look like a metric and are no key of the configuration."""
    keys = {path for _, _, key in walk("", Experiment) for path in (key.path, f"{key.path}.type")}
    no_metric = re.compile(r".*(\.png|\.json|\.md|_)|(data|memory|chain)\..*")
    looks = re.compile(rf"({'|'.join(PREFIXES)})(\.(\w|<x>)+)+")
    found = {text for path in modules() for text in read(path)[0] if looks.fullmatch(text)} - keys
    found = {text for text in found if not no_metric.fullmatch(text)}
    assert len(found) > 50
    assert sorted(text for text in found if not is_in_catalogue(text)) == []


def is_in_catalogue(name: str) -> bool:
    """``name`` may have ``<x>`` where the code fills something in, and so may the catalogue."""
    name = name.removeprefix("teacher.") if name.startswith(TEACHERS) else name
    own = pattern(name)
    return any(
        own.fullmatch(m) or pattern(m).fullmatch(name) or m.startswith(f"{name}.") for m in METRICS
    )


READERS = ("metrics.py", "report/", "tracking/", "config/", "api/", "cli/", "evaluation/names.py")


def test_every_metric_in_the_catalogue_is_made_by_some_code() -> None:
    makers = {text for path in modules(READERS) for text in read(path)[0]}
    makers |= {f"{text}<x>" for text in makers if text.endswith(".")}
    words = {text for text in makers if re.fullmatch(r"\w+", text)}
    words |= {argument for path in modules(READERS) for argument in read(path)[1]}
    patterns = [pattern(t) for t in makers if t in METRICS or t.split(".")[0] in PREFIXES]
    assert [name for name in SHIPPED if not is_made(name, patterns, words)] == []


def is_made(name: str, patterns: list[re.Pattern[str]], words: set[str]) -> bool:
    """By a literal, of which the code fills in parts that it has as words, or that users give."""
    parts = (found.groups() for made in patterns if (found := made.fullmatch(name)))
    return any(all(part in words or re.fullmatch(r"<\w+>", part) for part in of) for of in parts)


@cache
def pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<\w+>", r"([^ ]+)", re.escape(name)))


NAMED = {k: v for k, v in vars(metrics).items() if isinstance(v, str) and v in METRICS}
"""Constants that are names of metrics."""


@cache
def read(path: Path) -> tuple[set[str], set[str]]:
    """The string literals of a module, <x> where the code fills something in, and the names of
    arguments in its calls."""
    texts, arguments = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            texts.add("".join(map(text_of, node.values)))
        elif isinstance(node, ast.Constant | ast.Name):
            texts.add(text_of(node))
        elif isinstance(node, ast.keyword) and node.arg:
            arguments.add(node.arg)
    return texts, arguments


def modules(but: tuple[str, ...] = ()) -> list[Path]:
    root = ROOT / "distill"
    return [p for p in sorted(root.rglob("*.py")) if not str(p.relative_to(root)).startswith(but)]


def text_of(node: ast.AST) -> str:
    """Of a part of a string: itself, or <x> for what is not known."""
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value)
    if isinstance(node, ast.Name):
        return NAMED.get(node.id, "<x>")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "<x>"
