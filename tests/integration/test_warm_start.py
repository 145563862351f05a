"""``distill train`` with ``warm_start``, whole, and a later run that finds it in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.pipeline import train
from distill.report.progress import Progress
from distill.tracking.memory import experiences
from distill.tracking.store import import_mlflow
from tests.toys import toy_experiment, write_encoder

pytestmark = pytest.mark.slow
PAST = {
    "kd.temperature": 5.0,
    "kd.alpha": 0.2,
    "optimizer.lr": 4e-3,
    "optimizer.weight_decay": 1e-4,
}


def past_run(uri: str) -> None:
    """Of an older version, on another task."""
    from mlflow.entities import Metric, Param, RunTag

    client = import_mlflow().MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("past")).info.run_id
    client.log_batch(
        run_id,
        metrics=[Metric("meta.n", 300.0, 0, 0), Metric("eval.accuracy", 0.9, 0, 0)],
        params=[Param(key, str(value)) for key, value in PAST.items()],
        tags=[RunTag("distill.task", "another")],
    )
    client.set_terminated(run_id, "FINISHED")


def test_later_runs_read_the_values_that_were_used(tmp_path: Path, ray_cluster: None) -> None:
    raw: dict[str, Any] = toy_experiment(tmp_path, warm_start=True, baselines=[])
    del raw["experts"]
    write_encoder(tmp_path / "one", num_labels=2)
    raw |= {
        "teachers": [{"name": "one", "path": str(tmp_path / "one"), "num_cpus": 0.1}],
        "aggregation": {"type": "mean"},
    }
    raw["trainer"] |= {"epochs": 2, "engine": "torch"}
    past_run(raw["tracking"]["uri"])
    with Progress() as progress:
        outcome = train(parse(raw), progress)
    record = json.loads((tmp_path / "run/warm_start.json").read_text())
    assert record["proposed"] == pytest.approx(PAST)
    used = record["values"]
    assert outcome.metrics["kd.temperature"] == used["kd.temperature"]
    (run,) = (e for e in experiences(raw["tracking"]["uri"]) if e.task != "another")
    assert run.values == used and run.quality == outcome.metrics["eval.accuracy"]
    assert run.meta["meta.n_test"] == 78
    assert run.meta["meta.student_family.transformer"] == 1
    lines = (tmp_path / "run/fit/metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line)["metrics"] for line in lines]
    trained = {m["kd.temperature"] for m in logged if "kd.temperature" in m}
    assert trained == {used["kd.temperature"]}
