"""A run on several nodes: who lands where, by Ray's state API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.search.ledger import Ledger

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_teachers_and_student_land_on_their_nodes(tmp_path: Path) -> None:
    """Experts are trained and served on role: teacher; students and trials run on student. The one
    trial's student has two ranks: a worker group inside the trial."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.processes.three_nodes", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ran = json.loads(done.stdout.splitlines()[-1])
    assert ran["TeacherActor"] == ["teacher"]
    assert [ran[f"fit:{name}"] for name in ("cluster-0", "cluster-1")] == [["teacher"]] * 2
    assert ran["RayTrainWorker"] == ran["fit:alone"] == ["student"]
    assert ran["ImplicitFunc"] == ["student"]  # Ray Tune's name for what runs a trial
    (trial,) = [entry.trial() for entry in Ledger(tmp_path / "sweep/trials").entries()]
    assert trial.status == "finished"
    assert Path(trial.student, "model.safetensors").exists()
    seen = [line["metrics"].get("eval.accuracy", 0) for line in trial.history]
    assert trial.metrics["eval.accuracy"] == max(seen)
