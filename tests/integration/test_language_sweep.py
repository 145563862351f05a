"""A sweep of language models: teachers on Ray are asked once, trials read what they said."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from distill.config import parse
from distill.driver.sweep.run import SweepOutcome, sweep
from distill.report.page import page
from distill.report.progress import Progress
from distill.tracking.read import read_experiment
from tests.toys_language import language_experiment

pytestmark = pytest.mark.slow
TEMPERATURES, LAYERS = [1.0, 2.0, 4.0], [1, 2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language-sweep")


@pytest.fixture(scope="module")
def outcome(root: Path, ray_cluster: None) -> SweepOutcome:
    """One teacher cuts its answers, the other sends hidden states; the oracle asks one of them."""
    search: dict[str, Any] = {
        "space": {
            "kd.temperature": {"type": "grid", "values": TEMPERATURES},
            "student.layers": {"type": "grid", "values": LAYERS},
        },
        "max_concurrent": 1,  # a process imports for seconds, and serves all trials
    }
    raw = language_experiment(root, search=search)
    cut, hidden = raw["teachers"]
    cut["wire"] = {"type": "topk", "k": 8, "temperatures": TEMPERATURES}
    hidden["wire"] = {"type": "hidden"}
    raw["trainer"] |= {"engine": "torch", "epochs": 2}
    raw["baselines"] = [{"type": "labels_only", "name": "alone"}]
    with Progress() as progress:
        return sweep(parse(raw), progress)


def test_the_teachers_are_asked_once_for_all_temperatures(outcome: SweepOutcome) -> None:
    assert [trial.status for trial in outcome.trials] == ["finished"] * 6
    assert outcome.metrics["teacher.passes"] == 1
    for name in ("films", "meals"):
        assert outcome.metrics[f"teacher.{name}.rows"] > 0
        assert outcome.metrics[f"teacher.{name}.cached_rows"] == 0
    # Of every trial's own training: nobody was asked, all rows came from the cache.
    for trial in outcome.trials:
        for name in ("films", "meals"):
            text = [line["metrics"] for line in trial.history]
            rows = [m[f"teacher.{name}.rows"] for m in text if f"teacher.{name}.rows" in m]
            assert rows and sum(rows) == 0


def test_the_frontier_is_of_low_perplexity_and_small_size(outcome: SweepOutcome) -> None:
    champion = outcome.champion
    assert champion is not None and champion in outcome.best
    lowest = min(trial.metrics["eval.perplexity"] for trial in outcome.trials)
    assert champion.metrics["eval.perplexity"] == lowest
    for trial in outcome.trials:
        text = [line["metrics"] for line in trial.history]
        seen = [metrics["eval.perplexity"] for metrics in text if "eval.perplexity" in metrics]
        assert trial.metrics["eval.perplexity"] == min(seen)
        assert ("test.perplexity" in trial.metrics) == (trial in outcome.best)
    assert {t.values["student.layers"] for t in outcome.best} >= {1}
    rows = {row.name: row for row in outcome.rows}
    assert list(rows) == ["films", "meals", "oracle ensemble", "alone"]
    assert all(row.perplexity is not None for row in rows.values())


def test_the_champion_loads_without_distill(outcome: SweepOutcome) -> None:
    assert outcome.champion is not None
    model = AutoModelForCausalLM.from_pretrained(outcome.champion.student)
    assert model.config.num_hidden_layers == outcome.champion.values["student.layers"]


def test_the_registered_champion_writes_text(outcome: SweepOutcome, root: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model("models:/toy-language@champion")
        (written,) = model.predict(["the plot"])
    finally:
        mlflow.set_tracking_uri(None)
    assert written.startswith("the plot")


def test_the_report_speaks_of_perplexity(outcome: SweepOutcome, root: Path) -> None:
    with (outcome.report / "frontier.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {float(line["metrics.eval.perplexity"]) for line in lines} == {
        trial.metrics["eval.perplexity"] for trial in outcome.trials
    }
    record = read_experiment(f"sqlite:///{root}/mlflow.db", "toy-language")
    assert (record.goals[0].metric, record.goals[0].mode) == ("eval.perplexity", "min")
    text = page(record)
    assert "perplexity (validation)" in text and "Perplexity (lower is better)" in text
