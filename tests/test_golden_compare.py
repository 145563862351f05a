"""The comparison of golden runs: what differs is named, and times are not compared."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from benchmarks.golden_compare import Results, differences, read_results


def write_run(root: Path, **changes: float) -> Results:
    """A run folder and a store with one weight, one record and a few metrics."""
    run = root / "run"
    values = {"weight": 1.0, "state": 2.0, "loss": 0.5, "wait": 3.0, "rows": 4.0, "lr": 0.1}
    values |= changes
    run.mkdir(parents=True)
    metadata = {"written": str(root)}
    weights = {"w": np.float32([values["weight"]])}
    save_file(weights, run / "model.safetensors", metadata=metadata)
    state = {"exp_avg": torch.tensor([values["state"]], dtype=torch.bfloat16), "step": 7}
    torch.save(state, run / "engine.pt")
    record = {"lr": values["lr"], "latency_ms": values["wait"], "output": str(root / "run")}
    (run / "finished.json").write_text(json.dumps(record))
    rows = values["rows"]
    with sqlite3.connect(root / "run.db") as store:
        store.execute("create table runs (run_uuid, name, lifecycle_stage, start_time)")
        store.execute("create table metrics (run_uuid, key, step, value, timestamp)")
        store.execute("create table params (run_uuid, key, value)")
        store.execute("create table tags (run_uuid, key, value)")
        store.execute("insert into runs values ('a', 'run', 'active', 0)")
        store.executemany(
            "insert into metrics values ('a', ?, ?, ?, 0)",
            [
                ("loss", 1, 0.9),
                ("loss", 2, values["loss"]),
                ("stream.wait_s", 2, values["wait"]),
                ("teacher.t.rows", 1, rows),
                ("teacher.t.rows", 2, 10 - rows),
            ],
        )
    return read_results([run], root / "run.db", {str(root): "ROOT"})


def names(tmp_path: Path, **changes: float) -> list[tuple[str, str]]:
    base, head = write_run(tmp_path / "base"), write_run(tmp_path / "head", **changes)
    return [(found.kind, found.name) for found in differences(base, head)]


def test_paths_times_and_the_steps_of_counts_are_not_compared(tmp_path: Path) -> None:
    assert names(tmp_path, wait=9.0, rows=6.0) == []


def test_every_difference_is_named(tmp_path: Path) -> None:
    # 2.0 and the next bfloat16.
    assert names(tmp_path, weight=1.0000001, state=2.015625, loss=0.51, lr=0.2) == [
        ("tensors", "run/engine.pt#exp_avg"),
        ("tensors", "run/model.safetensors#w"),
        ("metrics", "mlflow run#loss"),
        ("records", "run/finished.json#lr"),
    ]


def test_a_missing_file_and_a_missing_metric_are_differences(tmp_path: Path) -> None:
    base, head = write_run(tmp_path / "base"), write_run(tmp_path / "head")
    del head.files["run/engine.pt"], head.metrics["mlflow run#stream.wait_s"]
    found = [(d.name, d.base != "missing", d.head) for d in differences(base, head)]
    assert found == [
        ("run/engine.pt", True, "missing"),
        ("mlflow run#stream.wait_s", True, "missing"),
    ]
    assert len(differences(base, head, ignored=r"wait_s$")) == 1
