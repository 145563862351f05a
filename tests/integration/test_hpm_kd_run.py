"""All components of HPM-KD in one run on Ray, and a second experiment that finds its fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver.pipeline import train
from distill.report.progress import Progress
from distill.tracking.past_runs import experiences
from distill.tracking.store import import_mlflow
from tests.toys import toy_experiment, write_encoder

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


def hpm_kd(folder: Path) -> dict[str, Any]:
    teachers = []
    for seed, name in enumerate(("one", "two")):
        write_encoder(folder / name, num_labels=2, seed=seed)
        teachers.append({"name": name, "path": str(folder / name), "num_cpus": 0.1})
    raw: dict[str, Any] = toy_experiment(
        folder,
        teachers=teachers,
        aggregation={"type": "attention"},
        kd={"temperature": 2.0, "alpha": 0.5, "schedule": {"type": "cosine"}},
        chain={"links": 2, "epsilon": 0.9},
        warm_start=True,
        baselines=[],
        memory={"path": str(folder / "memory")},
    )
    del raw["experts"]
    raw["trainer"] |= {"epochs": 2, "engine": "torch"}
    raw["tracking"] |= {"log_model": False}
    return raw


@pytest.mark.slow
def test_all_components_together(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = hpm_kd(tmp_path)
    past_run(raw["tracking"]["uri"])
    first = train(parse(raw), Progress())
    roles = [(row.role, row.name) for row in first.rows if row.role in ("link", "student")]
    assert roles == [("link", "link 1"), ("student", "student")]
    assert first.metrics["chain.links"] == 2

    # The values that past runs proposed, or the configuration's: those that are recorded were used.
    record = json.loads((tmp_path / "run/warm_start.json").read_text())
    used = record["values"]
    assert {key: record["proposed"][key] for key in PAST} == pytest.approx(PAST)
    (run,) = (e for e in experiences(raw["tracking"]["uri"]) if e.task != "another")
    assert run.values == used
    for folder in ("links/1", "fit"):
        lines = (tmp_path / "run" / folder / "metrics.jsonl").read_text().splitlines()
        logged = [json.loads(line)["metrics"] for line in lines]
        trained = [m["kd.temperature"] for m in logged if "kd.temperature" in m]
        low, high = used["kd.temperature"] / 2, 1.5 * used["kd.temperature"]
        assert low <= trained[-1] < trained[0] <= high  # a falling cosine
    assert (tmp_path / "run/report/weights.md").exists()
    assert "teacher.one." in (tmp_path / "run/links/1/metrics.jsonl").read_text()
    assert "teacher.one." not in (tmp_path / "run/fit/metrics.jsonl").read_text()

    again: dict[str, Any] = raw | {"output": str(tmp_path / "again"), "warm_start": False}
    again["kd"] = raw["kd"] | {key: used[f"kd.{key}"] for key in ("temperature", "alpha")}
    rates = {key: used[f"optimizer.{key}"] for key in ("lr", "weight_decay")}
    again |= {"optimizer": raw["optimizer"] | rates}
    capsys.readouterr()
    second = train(parse(again), Progress())
    found = (second.metrics["memory.students.hits"], second.metrics["memory.students.accesses"])
    assert found == (2, 2)
    assert second.metrics["test.accuracy"] == first.metrics["test.accuracy"]
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "link 1: found in the shared memory, not trained again" in printed
    assert "student: found in the shared memory, not trained again" in printed
