"""Sweeps, whole, with real Ray Tune and MLflow on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver.sweep.run import SweepOutcome, sweep
from distill.report.progress import Progress
from tests.toys_sweeps import runs_of, sweep_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


def run(raw: dict[str, Any]) -> SweepOutcome:
    with Progress() as progress:
        return sweep(parse(raw), progress)


@pytest.fixture(scope="module")
def evolved(root: Path, ray_cluster: None) -> SweepOutcome:
    search = {
        "space": {
            "student.hidden": {"type": "quantised", "low": 16, "high": 48, "step": 16},
            "optimizer.lr": {"type": "choice", "values": [1e30, 5e-3]},
            "objective.type": {"type": "choice", "values": ["forward_kl", "jsd"]},
            "kd.temperature": {"type": "uniform", "low": 1.0, "high": 6.0},
        },
        "num_trials": 5,  # a failed one takes its process with it
        "sampler": {"type": "nsga2", "population": 3},
    }
    return run(sweep_config(root, root / "nsga", search))


def test_nsga2_goes_on_past_a_failed_trial(evolved: SweepOutcome, root: Path) -> None:
    outcome = evolved
    failed = [t for t in outcome.trials if t.values["optimizer.lr"] == 1e30]
    others = [t for t in outcome.trials if t not in failed]
    assert failed and others
    assert all(t.status == "failed" and "lower optimizer.lr" in t.reason for t in failed)
    assert all(t.status == "finished" for t in others)
    for trial in outcome.trials:
        hidden = trial.values["student.hidden"]
        assert isinstance(hidden, int) and hidden in (16, 32, 48)
    assert outcome.champion is not None and outcome.champion in outcome.best
    assert outcome.metrics["sweep.failed"] == len(failed)
    assert outcome.metrics["teacher.passes"] == 1
    _, children = runs_of(root, "nsga")
    run_ = children[failed[0].name]
    assert run_.info.status == "FAILED"
    assert run_.data.tags["distill.reason"] == failed[0].reason


@pytest.mark.e2e
def test_asha_ends_a_trial_that_lags(root: Path, ray_cluster: None) -> None:
    rates = {"type": "grid", "values": [5e-3, 1e-6]}
    search = {
        "space": {"optimizer.lr": rates},
        # One at a time, the strong one first: the other has a rung to fall from.
        "scheduler": {"type": "asha", "reduction": 2},
    }
    raw = sweep_config(root, root / "asha", search)
    raw["trainer"] |= {"epochs": 8}
    outcome = run(raw)
    strong, weak = outcome.trials
    assert (strong.status, weak.status) == ("finished", "stopped")
    assert 0 < weak.metrics["step"] < 8 * 21
    assert not weak.student and outcome.best == [strong]
    _, children = runs_of(root, "asha")
    assert children[weak.name].data.tags["distill.status"] == "stopped"


def test_a_population_takes_over_its_best(root: Path, ray_cluster: None) -> None:
    search = {
        "space": {"optimizer.lr": {"type": "loguniform", "low": 1e-6, "high": 1e-2}},
        "num_trials": 2,
        "sampler": {"type": "random"},
        "scheduler": {"type": "pbt", "quantile": 0.5},
        "max_concurrent": 2,
    }
    outcome = run(sweep_config(root, root / "pbt", search))
    assert [trial.status for trial in outcome.trials] == ["finished"] * 2
    assert sorted(trial.values["member"] for trial in outcome.trials) == [0, 1]


def test_past_runs_propose_the_first_trial(evolved: SweepOutcome, root: Path) -> None:
    search = {
        "space": {"kd.temperature": {"type": "uniform", "low": 1.0, "high": 6.0}},
        "num_trials": 2,
        "sampler": {"type": "random"},
        "warm_start": True,
    }
    raw = sweep_config(root, root / "warm", search)
    raw["tracking"] |= {"uri": f"sqlite:///{root}/nsga.db"}
    outcome = run(raw)
    record = json.loads((root / "warm/warm_start.json").read_text())
    (neighbour,) = record["neighbours"]  # the trials of the first sweep are one past task
    assert neighbour["experience"]["values"] == record["proposed"] == record["mean_of_all"]
    meta = neighbour["experience"]["meta"]
    assert meta["meta.teacher_family.transformer"] == meta["meta.student_family.transformer"] == 1
    names = [run["name"] for run in record["runs"]]
    assert names[:2] == ["proposal", "configuration"]
    assert set(names[2:]) <= {"kd.temperature-up", "kd.temperature-down"}
    best = max(record["runs"], key=lambda run: run["quality"])  # of equals the first
    assert record["chosen"] == best["name"] and record["first"] == [best["values"]]
    tried = [trial.values["kd.temperature"] for trial in outcome.trials]
    assert best["values"]["kd.temperature"] in tried
    assert "brief run" in record["brief"] and not (root / "warm/brief").exists()
