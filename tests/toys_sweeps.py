"""Sweeps of tiny students under a ready teacher, and what MLflow has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.toys import toy_experiment, write_encoder


def sweep_config(root: Path, output: Path, search: dict[str, Any], **changes: Any) -> dict:
    """A ready teacher (that knows nothing), so that a sweep is about its trials."""
    raw = toy_experiment(root)
    if not (root / "one").exists():
        write_encoder(root / "one", num_labels=2)
    del raw["experts"]
    raw |= {
        "output": str(output),
        "teachers": [{"name": "one", "path": str(root / "one"), "num_cpus": 0.1}],
        "aggregation": {"type": "mean"},
        "kd": {"temperature": 2.0, "alpha": 0.3},
        "baselines": [],
        # Every trial at once is a process that imports for seconds.
        "search": {"max_concurrent": 1} | search,
    }
    raw["trainer"] |= {"epochs": 3, "engine": "torch"}
    raw["tracking"] |= {"experiment": output.name, "uri": f"sqlite:///{root}/{output.name}.db"}
    return raw | changes


def runs_of(root: Path, experiment: str) -> tuple[Any, dict[str, Any]]:
    """The parent, and its children by name."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root}/{experiment}.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    names = [r.info.run_name for r in runs if r is not parent]
    assert len(names) == len(set(names)), "a run for each, once"
    return parent, {r.info.run_name: r for r in runs if r is not parent}
