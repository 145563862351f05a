"""Experiments that come back from MLflow as they were written, or one clear message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sweep_runs import (
    SEARCHED,
    TEACHERS,
    add_row,
    add_trial,
    end_sweep,
    log,
    new_experiment,
    start_sweep,
)

from distill.errors import RecordError
from distill.tracking.read import read_experiment, value_of

VALUES = {"kd.temperature": 2.0, "kd.alpha": 0.5, "student.size_mb": 1, "objective.type": "jsd"}


def test_a_sweep_comes_back_whole(record):
    by_name = {trial.name: trial for trial in record.trials}
    assert [t.name for t in record.trials] == [f"trial-{i:03}" for i in range(30)]
    statuses = [trial.status for trial in record.trials]
    assert [statuses.count(s) for s in ("finished", "stopped", "failed")] == [25, 3, 2]
    assert (record.is_sweep, record.is_partial, record.searched) == (True, False, SEARCHED)
    assert [(g.metric, g.mode) for g in record.goals][:2] == [
        ("eval.accuracy", "max"),
        ("student.size_mb", "min"),
    ]
    first = by_name["trial-000"]
    assert isinstance(first.values["kd.temperature"], float)
    assert first.values["objective.type"] in ("forward_kl", "jsd")
    assert "no student is that small" in by_name["trial-011"].reason
    assert record.shapes["trial-000"]["student.layers"] == 2
    assert record.teacher_accuracy == TEACHERS
    assert record.totals["teacher.passes"] == 1
    assert {d.context: d.num_rows for d in record.datasets}["train"] == 2800
    assert record.environment["git commit"] == "0f3c9d2b7a51"
    assert record.params["trainer.epochs"] == "8"


def test_a_curve_is_what_was_evaluated_in_order(record):
    steps = [line["step"] for line in record.trials[0].history if "loss" in line["metrics"]]
    assert steps == sorted(steps) == [12 * i for i in range(1, 9)]


def test_rows_have_their_role_and_domains_under_the_names_of_old_runs(record):
    rows = {row.name: row for row in record.rows}
    assert [row.role for row in record.rows] == ["expert"] * 4 + ["mix"] + ["baseline"] * 2
    assert (rows["news"].in_domain, rows["news"].out_of_domain) == (0.83, 0.76)
    assert set(rows["news"].per_domain) == {"movies", "news", "products", "tweets"}
    assert rows["labels only"].size_mb == 1.32


def test_the_newest_sweep_is_read(client, store_uri):
    experiment = new_experiment(client, "two sweeps")
    for at, accuracy in ((1_000, 0.7), (2_000, 0.8)):
        sweep = start_sweep(client, experiment, at=at)
        add_trial(client, experiment, sweep, 0, VALUES, {"eval.accuracy": accuracy})
        end_sweep(client, sweep, trials=1)
    record = read_experiment(store_uri, "two sweeps")
    assert [trial.metrics["eval.accuracy"] for trial in record.trials] == [0.8]


def test_trainings_are_points_that_differ_in_their_parameters(client, store_uri):
    experiment = new_experiment(client, "trainings")
    for at, temperature in ((1_000, 1.0), (2_000, 4.0)):
        run = client.create_run(experiment, start_time=at, run_name="quick").info.run_id
        params = {"kd.temperature": temperature, "seed": 0, "output": f"runs/{at}"}
        log(client, run, {"eval.accuracy": 0.7, "student.size_mb": temperature}, params)
        add_row(client, experiment, run, "books", "expert", {"test.accuracy": 0.8})
        client.set_terminated(run, "FINISHED")
    record = read_experiment(store_uri, "trainings")
    assert not record.is_sweep
    assert record.searched == ("kd.temperature",)
    assert {t.name: t.values["kd.temperature"] for t in record.trials} == {
        "quick": 1.0,
        "quick (2)": 4.0,
    }
    assert record.trials[1].student == str(Path("runs/2000/student"))
    assert [row.name for row in record.rows] == ["books"]


def test_an_unfinished_sweep_is_refused_with_what_is_there(client, store_uri):
    experiment = new_experiment(client, "unfinished")
    sweep = start_sweep(client, experiment)
    add_trial(client, experiment, sweep, 0, VALUES, {"eval.accuracy": 0.7})
    tags = {"distill.reason": "the loss became nan"}
    add_trial(client, experiment, sweep, 1, VALUES, {}, "failed", tags)
    add_trial(client, experiment, sweep, 2, VALUES, {}, status=None)
    with pytest.raises(RecordError, match=r"1 finished, 1 failed, 1 not finished.*--partial"):
        read_experiment(store_uri, "unfinished")
    record = read_experiment(store_uri, "unfinished", allow_partial=True)
    assert record.is_partial
    assert [t.name for t in record.trials] == ["trial-000", "trial-001"]


def test_a_killed_sweep_is_shown_and_says_so(client, store_uri):
    experiment = new_experiment(client, "killed")
    sweep = start_sweep(client, experiment)
    add_trial(client, experiment, sweep, 0, VALUES, {"eval.accuracy": 0.7})
    log(client, sweep, tags={"distill.ended": "stopped by the user"})
    end_sweep(client, sweep, "KILLED", trials=1)
    record = read_experiment(store_uri, "killed")
    assert record.notes == ["the sweep ended early: stopped by the user"]


def test_what_cannot_be_shown_is_one_message(client, store_uri, demo, tmp_path):
    new_experiment(client, "empty")
    failed = new_experiment(client, "all failed")
    sweep = start_sweep(client, failed)
    tags = {"distill.reason": "out of memory"}
    add_trial(client, failed, sweep, 0, VALUES, {}, "failed", tags)
    end_sweep(client, sweep, trials=1)
    cases = {
        "sentimant": f"did you mean {demo}",
        "empty": "has no runs",
        "all failed": "no finished trial (1 failed); first reason: out of memory",
    }
    for name, message in cases.items():
        with pytest.raises(RecordError, match=re.escape(message)):
            read_experiment(store_uri, name)
    with pytest.raises(RecordError, match="does not exist"):
        read_experiment(f"sqlite:///{tmp_path}/typo.db", "empty")
    assert not list(tmp_path.iterdir())  # MLflow would have created it


def test_parameters_get_their_types_back():
    texts = ("3", "0.5", "1e-05", "true", "forward_kl", "null")
    assert [value_of(t) for t in texts] == [3, 0.5, 1e-05, True, "forward_kl", "null"]
