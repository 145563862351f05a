"""Sweeps, whole, with real Ray Tune, DeepSpeed and MLflow on tiny models."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.config import parse
from distill.report.progress import Progress
from distill.search.ledger import Ledger
from distill.search.sweep import SweepOutcome, sweep
from tests.toys import toy_experiment, write_encoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # machines may be busy


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    for seed, name in enumerate(("one", "two")):
        write_encoder(root / name, num_labels=2, seed=seed)
    return root


def sweep_config(root: Path, output: Path, search: dict[str, Any], **changes: Any) -> dict:
    """Two ready teachers (that know nothing), so that a sweep is about its trials."""
    raw = toy_experiment(root)
    del raw["experts"]
    raw |= {
        "output": str(output),
        "teachers": [{"name": n, "path": str(root / n), "num_cpus": 0.1} for n in ("one", "two")],
        "aggregation": {"type": "mean"},
        "kd": {"temperature": 2.0, "alpha": 0.3},
        "baselines": [],
        # Every trial at once is a process that imports for seconds.
        "search": {"max_concurrent": 2} | search,
    }
    raw["trainer"] |= {"epochs": 3, "engine": "torch"}
    raw["tracking"] |= {"experiment": output.name, "uri": f"sqlite:///{root}/{output.name}.db"}
    return raw | changes


def run(raw: dict[str, Any]) -> SweepOutcome:
    with Progress() as progress:
        return sweep(parse(raw), progress)


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


GRID = {
    "kd.temperature": {"type": "grid", "values": [1.0, 4.0]},
    "student.hidden": {"type": "grid", "values": [16, 32]},
}


@pytest.fixture(scope="module")
def killed(root: Path) -> dict[str, Any]:
    """A sweep on its own Ray whose driver is killed in the middle, and the same command again."""
    raw = sweep_config(root, root / "killed", {"space": GRID}, cluster={"num_cpus": 2})
    raw["trainer"] |= {"engine": "deepspeed", "epochs": 12, "checkpoint_every": 5}
    config = root / "killed.yaml"
    config.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "distill.cli", "sweep", str(config), "--json"]
    log = (root / "killed.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    ledger = Ledger(root / "killed/trials")
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        states = [entry.status for entry in ledger.entries()]
        if states.count("finished") >= 2 and "running" in states:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {e.name: e.status for e in ledger.entries()}
    written = {
        e.name: (e.fit / "best.safetensors").stat().st_mtime_ns
        for e in ledger.entries()
        if e.status == "finished"
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return {
        "before": before,
        "written": written,
        "ledger": ledger,
        "json": json.loads(done.stdout.splitlines()[-1]),
    }


def test_no_finished_trial_is_run_again_and_none_is_lost(killed: dict[str, Any]) -> None:
    assert sum(s == "finished" for s in killed["before"].values()) >= 2, killed["before"]
    assert "running" in killed["before"].values()
    entries = killed["ledger"].entries()
    assert len(entries) == 4
    assert all(entry.status == "finished" for entry in entries)
    for entry in entries:
        if entry.name in killed["written"]:
            best = entry.fit / "best.safetensors"
            assert best.stat().st_mtime_ns == killed["written"][entry.name]
    combinations = {(e.values["kd.temperature"], e.values["student.hidden"]) for e in entries}
    assert len(combinations) == 4


def test_the_resumed_sweep_asks_no_teacher(killed: dict[str, Any]) -> None:
    assert killed["json"]["teacher.passes"] == 0
    assert killed["json"]["teacher.one.cached_rows"] == 480
    assert killed["json"]["teacher.one.rows"] == 0


def test_mlflow_has_one_parent_and_a_run_a_trial(killed: dict[str, Any], root: Path) -> None:
    parent, children = runs_of(root, "killed")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["distill.kind"] == "sweep"
    trials = {n: r for n, r in children.items() if r.data.tags.get("distill.kind") == "trial"}
    assert set(trials) == {entry.name for entry in killed["ledger"].entries()}
    for run in trials.values():
        assert run.info.status == "FINISHED"
        assert {"eval.accuracy", "student.size_mb", "eval.retention"} <= set(run.data.metrics)
        assert {"kd.temperature", "student.hidden"} <= set(run.data.params)
    frontier = {n for n, r in trials.items() if r.data.tags.get("distill.frontier") == "true"}
    assert frontier == {told["name"] for told in killed["json"]["frontier"]}
    for name, run in trials.items():
        assert ("test.accuracy" in run.data.metrics) == (name in frontier)


def test_the_champion_is_registered(killed: dict[str, Any], root: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root}/killed.db")
    version = client.get_model_version_by_alias("killed", "champion")
    _, children = runs_of(root, "killed")
    champion = Path(killed["json"]["student"]).parent.name
    assert version.run_id == children[champion].info.run_id


# ---- on the session's Ray ----------------------------------------------------------------------


def test_nsga2_goes_on_past_a_failed_trial(root: Path, ray_cluster: None) -> None:
    search = {
        "space": {
            "student.hidden": {"type": "quantised", "low": 16, "high": 48, "step": 16},
            "optimizer.lr": {"type": "choice", "values": [1e30, 5e-3]},
            "objective.type": {"type": "choice", "values": ["forward_kl", "jsd"]},
        },
        "num_trials": 8,
        "sampler": {"type": "nsga2", "population": 4},
    }
    outcome = run(sweep_config(root, root / "nsga", search))
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


def test_asha_ends_a_trial_that_lags(root: Path, ray_cluster: None) -> None:
    rates = {"type": "grid", "values": [5e-3, 1e-6]}
    search = {
        "space": {"optimizer.lr": rates},
        "scheduler": {"type": "asha", "reduction": 2},
        "max_concurrent": 1,  # the strong one first: the other has a rung to fall from
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
    }
    outcome = run(sweep_config(root, root / "pbt", search))
    assert [trial.status for trial in outcome.trials] == ["finished"] * 2
    assert sorted(trial.values["member"] for trial in outcome.trials) == [0, 1]


def test_a_student_of_two_ranks_has_a_group_inside_its_trial(root: Path, ray_cluster: None) -> None:
    search = {"space": {"kd.temperature": {"type": "grid", "values": [3.0]}}}
    raw = sweep_config(root, root / "nested", search)
    raw["trainer"] |= {"num_workers": 2, "epochs": 2}
    raw["cluster"] = {"num_cpus": 8}
    outcome = run(raw)
    assert [trial.status for trial in outcome.trials] == ["finished"]
    for trial in outcome.trials:
        assert Path(trial.student, "model.safetensors").exists()
        assert trial.metrics["eval.accuracy"] == max(
            line["metrics"].get("eval.accuracy", 0) for line in trial.history
        )


def test_past_runs_propose_the_first_trial(
    killed: dict[str, Any], root: Path, ray_cluster: None
) -> None:
    search = {
        "space": {"kd.temperature": {"type": "uniform", "low": 1.0, "high": 6.0}},
        "num_trials": 2,
        "sampler": {"type": "random"},
        "warm_start": True,
    }
    raw = sweep_config(root, root / "warm", search)
    raw["tracking"] |= {"uri": f"sqlite:///{root}/killed.db"}
    outcome = run(raw)
    told = json.loads((root / "warm/warm_start.json").read_text())
    (neighbour,) = told["neighbours"]  # the trials of the killed sweep are one past experiment
    assert neighbour["experience"]["values"] == told["proposed"]
    # Trials run side by side are numbered as their processes come up.
    tried = [trial.values["kd.temperature"] for trial in outcome.trials]
    assert told["first"][0]["kd.temperature"] in tried
    assert "brief run" in told["brief"]
