"""A sweep whose driver is killed in the middle, and the same command again."""

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

from distill.search.ledger import Ledger
from tests.toys_sweeps import runs_of, sweep_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


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
    while process.poll() is None:
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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
    assert frontier == {text["name"] for text in killed["json"]["frontier"]}
    for name, run in trials.items():
        assert ("test.accuracy" in run.data.metrics) == (name in frontier)


def test_the_champion_is_registered(killed: dict[str, Any], root: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root}/killed.db")
    version = client.get_model_version_by_alias("killed", "champion")
    _, children = runs_of(root, "killed")
    champion = Path(killed["json"]["student"]).parent.name
    assert version.run_id == children[champion].info.run_id
