"""Sweeps and trainings written into MLflow as distill writes them, with made-up figures."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

PARENT = "mlflow.parentRunId"
DOMAINS = {"movies": -0.05, "news": 0.03, "products": 0.01, "tweets": 0.06}
SEARCHED = ("kd.temperature", "kd.alpha", "student.size_mb", "objective.type")
GOALS = [
    {"metric": "eval.accuracy", "mode": "max"},
    {"metric": "student.size_mb", "mode": "min"},
    {"metric": "student.latency_ms", "mode": "min"},
]
TEACHERS = 0.842
START = 1_790_000_000_000
"""Milliseconds: runs are ordered by their start."""


def new_experiment(client: Any, name: str) -> str:
    return client.create_experiment(name)


def log(
    client: Any,
    run_id: str,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
    curves: Mapping[str, Mapping[int, float]] | None = None,
) -> None:
    # What a run came to is written last, at its last step: the curve has that step too.
    points = [Metric(k, v, START + 1, step) for k, v in (metrics or {}).items()]
    points += [Metric(k, v, START, s) for k, c in (curves or {}).items() for s, v in c.items()]
    client.log_batch(
        run_id,
        metrics=points,
        params=[Param(k, str(v)) for k, v in (params or {}).items()],
        tags=[RunTag(k, v) for k, v in (tags or {}).items()],
    )


def start_sweep(
    client: Any,
    experiment_id: str,
    searched: tuple[str, ...] = SEARCHED,
    goals: list[dict[str, str]] = GOALS,
    at: int = START,
) -> str:
    """A sweep's parent run, still RUNNING."""
    tags = {
        "distill.kind": "sweep",
        "distill.goals": json.dumps(goals),
        "distill.searched": json.dumps(searched),
        "distill.output": "/data/runs/sentiment",
        "mlflow.source.git.commit": "0f3c9d2b7a51",
        "mlflow.user": "ada",
    }
    run = client.create_run(experiment_id, start_time=at, tags=tags, run_name="sentiment")
    params = {
        "data.path": "data/sentiment",
        "data.max_length": 40,
        "kd.temperature": 2.0,
        "kd.alpha": 0.5,
        "student.size_mb": 1.3,
        "objective.type": "forward_kl",
        "optimizer.lr": 0.001,
        "trainer.epochs": 8,
        "seed": 0,
    }
    log(client, run.info.run_id, params=params)
    profile = json.dumps({"num_rows": 2800, "fingerprint": "9a" * 32})
    inputs = [
        DatasetInput(
            Dataset(f"sentiment.{split}", "9a" * 18, "local", "{}", profile=profile),
            [InputTag("mlflow.data.context", split)],
        )
        for split in ("train", "validation", "test")
    ]
    client.log_inputs(run.info.run_id, inputs)
    return run.info.run_id


def add_trial(
    client: Any,
    experiment_id: str,
    parent: str,
    index: int,
    values: Mapping[str, object],
    metrics: Mapping[str, float],
    status: str | None = "finished",
    tags: Mapping[str, str] | None = None,
    curves: Mapping[str, Mapping[int, float]] | None = None,
) -> str:
    """``status`` None: a trial that still runs."""
    name = f"trial-{index:03}"
    base = {PARENT: parent, "distill.kind": "trial"} | dict(tags or {})
    if status is not None:
        base["distill.status"] = status
    run = client.create_run(experiment_id, start_time=START + index, tags=base, run_name=name)
    shape = {"student.layers": 2, "student.hidden": 96, "student.heads": 4, "student.ffn": 384}
    log(client, run.info.run_id, metrics, {**values, **shape}, step=96, curves=curves)
    if status is not None:
        ended = "FAILED" if status == "failed" else "FINISHED"
        client.set_terminated(run.info.run_id, ended)
    return run.info.run_id


def add_row(
    client: Any, experiment_id: str, parent: str, name: str, role: str, metrics: dict[str, float]
) -> None:
    tags = {PARENT: parent, "role": role}
    run = client.create_run(experiment_id, start_time=START, tags=tags, run_name=name)
    log(client, run.info.run_id, metrics, {"role": role})
    client.set_terminated(run.info.run_id, "FINISHED")


def end_sweep(client: Any, parent: str, status: str = "FINISHED", **totals: float) -> None:
    log(client, parent, {f"sweep.{k}": v for k, v in totals.items()})
    log(client, parent, {"teacher.passes": 1, "time.total_s": 3214.0})
    client.set_terminated(parent, status)


def write_demo(client: Any, name: str, num_trials: int = 30, students: Path | None = None) -> str:
    """A sweep that looks like one: accuracy rises with size, best near T = 4, α = 0.8."""
    rng = random.Random(3)
    experiment_id = new_experiment(client, name)
    parent = start_sweep(client, experiment_id)
    for index in range(num_trials):
        size = 0.25 * 40 ** rng.random() * (1 + rng.random() * 0.05)
        values = {
            "kd.temperature": rng.choice([1.0, 2.0, 4.0, 8.0]),
            "kd.alpha": rng.choice([0.3, 0.6, 0.9]),
            "student.size_mb": round(size, 3),
            "objective.type": rng.choice(["forward_kl", "jsd"]),
        }
        if index in (11, 23):
            reason = (
                "student.size_mb 0.26 needs at least 1 layer of 32: no student is that small"
                if index == 11
                else "TrainingError: the loss became nan at step 140: lower optimizer.lr"
            )
            tags = {"distill.reason": reason}
            add_trial(client, experiment_id, parent, index, values, {}, "failed", tags)
            continue
        is_stopped = index % 9 == 7
        accuracy, metrics = _figures(rng, size, values, is_stopped)
        tags = {} if is_stopped else {"distill.student": _student(students, index)}
        if not is_stopped:
            metrics |= {"test.accuracy": accuracy - 0.008, "test.f1": accuracy - 0.011}
            metrics |= {f"test.accuracy.{d}": accuracy - 0.008 + x for d, x in DOMAINS.items()}
            metrics["test.retention"] = metrics["test.accuracy"] / (TEACHERS - 0.005)
        status = "stopped" if is_stopped else "finished"
        curves = _curves(rng, accuracy, 3 if is_stopped else 8)
        add_trial(client, experiment_id, parent, index, values, metrics, status, tags, curves)
    _comparison(client, experiment_id, parent)
    end_sweep(client, parent, trials=num_trials, finished=25, stopped=3, failed=2)
    return parent


def _figures(
    rng: random.Random, size: float, values: Mapping[str, Any], is_stopped: bool
) -> tuple[float, dict[str, float]]:
    accuracy = 0.836 - 0.12 * math.exp(-0.75 * math.log2(size / 0.17))
    accuracy -= 0.008 * abs(math.log2(values["kd.temperature"] / 4))
    accuracy -= 0.04 * (values["kd.alpha"] - 0.8) ** 2 + rng.gauss(0, 0.003)
    accuracy -= 0.05 if is_stopped else 0.0
    return accuracy, {
        "eval.accuracy": accuracy,
        "eval.f1": accuracy - 0.004,
        "eval.retention": accuracy / TEACHERS,
        "eval.teacher_accuracy": TEACHERS,
        "student.params": size * 250_000,
        "student.size_mb": size,
        "student.latency_ms": 0.4 + 0.35 * size * (1 + 0.2 * rng.random()),
        "student.gflops": 0.012 * size,
        "compression": 22.7 / (size * 0.25),
        "kd.temperature": values["kd.temperature"],
        "kd.alpha": values["kd.alpha"],
        "time.total_s": 40 + 22 * size,
    }


def _curves(rng: random.Random, last: float, num: int) -> dict[str, dict[int, float]]:
    rise = {
        i: 0.5 + (last - 0.5) * (1 - math.exp(-i / 1.8)) / (1 - math.exp(-num / 1.8))
        for i in range(1, num + 1)
    }
    return {
        "eval.accuracy": {
            12 * i: v + (rng.gauss(0, 0.004) if i < num else 0) for i, v in rise.items()
        },
        "loss": {12 * i: 1.3 * math.exp(-i / 3) + 0.35 + rng.gauss(0, 0.01) for i in rise},
    }


def _student(students: Path | None, index: int) -> str:
    return str(students / f"trial-{index:03}" / "student") if students else f"/gone/{index:03}"


def _comparison(client: Any, experiment_id: str, parent: str) -> None:
    large = {"student.params": 22.7e6, "student.size_mb": 90.9, "student.latency_ms": 14.2}
    for index, domain in enumerate(DOMAINS):
        metrics = large | {"test.accuracy": 0.77 + 0.01 * index, "test.f1": 0.765 + 0.01 * index}
        metrics |= {
            f"test.accuracy.{d}": 0.76 + x + 0.06 * (d == domain) for d, x in DOMAINS.items()
        }
        metrics |= {"test.accuracy.home": 0.83, "test.accuracy.abroad": 0.76}
        add_row(client, experiment_id, parent, domain, "expert", metrics)
    mix = {
        "student.params": 105e6,
        "student.size_mb": 420.0,
        "test.accuracy": 0.837,
        "test.f1": 0.836,
    }
    mix |= {f"test.accuracy.{d}": 0.837 + x for d, x in DOMAINS.items()}
    add_row(client, experiment_id, parent, "routed ensemble, k=2", "mix", mix)
    plain = {"student.params": 330e3, "student.size_mb": 1.32, "student.latency_ms": 0.9}
    plain |= {"test.accuracy": 0.689, "test.f1": 0.68, "test.retention": 0.82, "compression": 69}
    plain |= {f"test.accuracy.{d}": 0.689 + x for d, x in DOMAINS.items()}
    add_row(client, experiment_id, parent, "labels only", "baseline", plain)
    tfidf = {"student.params": 40e3, "test.accuracy": 0.731, "test.f1": 0.73}
    add_row(client, experiment_id, parent, "tfidf", "baseline", tfidf)
