"""Whole runs with language models: teachers on Ray, a student under DeepSpeed, table and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from transformers import AutoModelForCausalLM

from distill.config import parse
from distill.driver import pipeline
from distill.models.load import load_tokenizer
from distill.report.progress import Progress
from distill.tasks.outcome import Outcome
from tests.toys_language import language_experiment

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


def run(raw: dict[str, Any]) -> Outcome:
    with Progress() as progress:
        return pipeline.train(parse(raw), progress)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def outcome(root: Path, ray_cluster: None) -> Outcome:
    """Experts tuned here from one base, one a domain; prompts and completions."""
    raw = language_experiment(root)
    del raw["teachers"]
    columns = {"prompt": "prompt", "completion": "completion"}
    raw["data"]["columns"] |= columns
    raw["experts"] = {
        "base": str(root / "films"),
        "epochs": 6,
        "batch_size": 4,
        "optimizer": {"lr": 5e-3},
        "serving": {"num_cpus": 0.1, "wire": {"type": "hidden"}},
    }
    raw["baselines"] = [{"type": "labels_only", "name": "alone"}]
    raw["generation"] = {"num_prompts": 40, "max_new_tokens": 3}
    return run(raw)


def test_the_table_has_experts_mix_baseline_and_student(outcome: Outcome) -> None:
    rows = {row.name: row for row in outcome.rows}
    assert list(rows) == [
        "films",
        "meals",
        "oracle ensemble",
        "student, untrained",
        "alone",
        "student",
    ]
    for name, domain_teacher in (("films", "films"), ("meals", "meals")):
        away = {"films": "meals", "meals": "films"}[domain_teacher]
        assert rows[name].per_domain[domain_teacher] < rows[name].per_domain[away]
    for domain in ("films", "meals"):  # the oracle asks the expert of the domain
        assert rows["oracle ensemble"].per_domain[domain] == pytest.approx(
            rows[domain].per_domain[domain], rel=1e-5
        )
    student = rows["student"]
    assert student.jsd is not None and rows["alone"].jsd is not None
    assert student.exact_match is not None and 0 < student.exact_match <= 1
    assert student.tokens_per_s and student.tokens_per_s > 0
    assert outcome.metrics["test.perplexity"] == student.perplexity


def test_mlflow_has_the_figures_and_a_model_that_writes(outcome: Outcome, root: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    try:
        runs: Any = mlflow.search_runs(experiment_names=["toy-language"], output_format="list")
        (run,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        logged = run.data.metrics
        assert logged["test.perplexity"] == outcome.metrics["test.perplexity"]
        for name in ("eval.perplexity", "test.perplexity.films", "fidelity.jsd", "kd.loss"):
            assert name in logged
        model: Any = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/student")
        assert model.predict(["the plot"])[0].startswith("the plot")
    finally:
        mlflow.set_tracking_uri(None)


def test_the_export_loads_and_generates_without_distill(outcome: Outcome) -> None:
    model = AutoModelForCausalLM.from_pretrained(outcome.student)
    tokenizer = load_tokenizer(outcome.student)
    ids = tokenizer("the plot", return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert written.shape[1] > ids.shape[1]
