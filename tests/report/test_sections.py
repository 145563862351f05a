"""Tables of the page: which students and columns they have, and what they mark."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pytest

from distill.config.search import Goal
from distill.data.corpus import Corpus
from distill.report import sections
from distill.report.charts import _baseline
from distill.report.page import page
from distill.report.page_tables import Cell, page_table
from distill.search.trials import Trial
from distill.tasks.classification.split import Split
from distill.tracking.read import Record

GOALS = (Goal("eval.accuracy", "max"), Goal("student.size_mb", "min"))


def trial(name: str, accuracy: float, size: float, tested: float | None = None, **values) -> Trial:
    metrics = {"eval.accuracy": accuracy, "student.size_mb": size}
    if tested is not None:
        metrics["test.accuracy"] = tested
    return Trial(name, "finished", values, metrics)


def record_of(*trials: Trial, is_sweep: bool = False, **totals: float) -> Record:
    return Record(
        is_sweep=is_sweep,
        is_partial=False,
        run_id="r",
        started="now",
        goals=GOALS,
        searched=("kd.alpha", "seed"),
        trials=list(trials),
        totals=totals,
        experiment="reviews",
    )


def text_of(markup: str) -> list[list[str]]:
    """Cells of each row of the only table."""
    rows = re.findall(r"<tr.*?</tr>", markup)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row) for row in rows]
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in cells]


def test_trainings_off_the_frontier_are_compared_too():
    record = record_of(trial("small", 0.8, 1.0, 0.79), trial("large", 0.7, 2.0, 0.69))
    shown = sections.comparison(record)
    assert shown is not None
    assert text_of(shown) == [
        ["model", "role", "accuracy", "size (MB)"],  # columns without a value are left out
        ["★ small", "student", "79.0 %", "1.00"],
        ["large", "student", "69.0 %", "2.00"],
    ]


def test_students_below_the_majority_class_are_marked():
    best, worse = trial("best", 0.8, 1.0, 0.79), trial("worse", 0.6, 2.0, 0.55)
    unknown = trial("untested", 0.5, 3.0)
    rates = {"data.majority_rate": 0.58, "data.majority_rate.validation": 0.6}
    record = record_of(best, worse, unknown, is_sweep=True, **rates)
    below = "below the majority class (58.0 %)"
    assert record.below_majority(best) == ""
    assert record.below_majority(worse) == below
    assert record.below_majority(unknown) == "below the majority class (60.0 %)"
    shown = sections.comparison(record)
    assert shown is not None
    assert [row[-1] for row in text_of(shown)] == ["note", "", below]
    assert {row[0]: row[-1] for row in text_of(sections.trials(record))[1:]}["worse"] == below
    assert page(record).count(below) == 3  # both tables, and its configuration
    # of a training the share is its own run's
    one = Trial("t", "finished", {}, {"test.accuracy": 0.5, "data.majority_rate": 0.7})
    assert record_of(one).below_majority(one) == "below the majority class (70.0 %)"
    assert record_of(best).below_majority(best) == ""  # an old run has none


def test_only_keys_that_differ_are_columns_and_the_others_a_line():
    values = ({"kd.alpha": 0.5, "seed": 3}, {"kd.alpha": 0.9, "seed": 3})
    trials = [trial(f"t{i}", 0.8, 1.0 + i, **v) for i, v in enumerate(values)]
    shown = sections.trials(record_of(*trials))
    head = text_of(shown)[0]
    assert head == ["trial", "status", "accuracy (validation)", "size (MB)", "kd.alpha"]
    assert "In all trials: seed 3." in unescape(shown)


@pytest.mark.parametrize(("x", "name"), [(20, "tfidf"), (300, "tfidf"), (160, "x" * 40)])
def test_the_name_of_a_baseline_lies_inside_the_chart(x, name):
    shown = _baseline(x, 50.0, name, 328.0)
    at, style = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="([a-z ]+)"', shown)[0]
    start = float(at) - (6.7 * len(name) if "end" in style else 0)
    assert 0 <= start <= start + 6.7 * len(name) <= 328


def test_an_empty_column_is_left_out():
    rows = [("a", [Cell("–"), Cell("1")]), ("b", [Cell(""), Cell("–")])]
    assert text_of(page_table(["name", "none", "some"], rows, "caption")) == [
        ["name", "some"],
        ["a", "1"],
        ["b", "–"],
    ]


class _Labels(Corpus):
    """A corpus that is nothing but labels."""

    def __init__(self, labels_R: list[int]) -> None:
        self.labels_R = np.array(labels_R)

    label_names = ("no", "yes")  # type: ignore[assignment]
    domain_names = ()  # type: ignore[assignment]

    def rows(self, split: str) -> np.ndarray:
        return np.arange(len(self.labels_R))

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        return self.labels_R[rows]

    def domains_of(self, rows: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows), np.int64)


def test_the_share_of_the_most_frequent_class_leaves_out_unlabelled_rows():
    assert Split(_Labels([1, 1, 0, 1, -1, -1]), "test").majority_rate() == 0.75
    assert Split(_Labels([-1]), "test").majority_rate() is None
