"""Ctrl-C on `distill train`, and the same command again, each a process with a Ray of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.toys import toy_experiment, write_encoder

pytestmark = pytest.mark.slow


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_resumes(tmp_path: Path) -> None:
    teacher = write_encoder(tmp_path / "one", num_labels=2)
    raw = toy_experiment(tmp_path) | {
        "teachers": [{"name": "one", "path": str(teacher), "num_cpus": 0.1}],
        "aggregation": {"type": "mean"},
        "baselines": [],
        "cluster": {"num_cpus": 2},
    }
    del raw["experts"]
    raw["trainer"] |= {"engine": "torch", "epochs": 30, "log_every": 1}
    config = tmp_path / "stop.yaml"
    config.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "distill.cli", "train", str(config), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "run/fit/metrics.jsonl"
    while not log.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    stopped = json.loads(out.splitlines()[-1])
    assert stopped["kind"] == "Interrupted"
    assert stopped["resume"] == f"distill train {config}"
    assert "error" not in err
    (checkpoint,) = sorted((tmp_path / "run/fit/checkpoints").iterdir())[-1:]
    step = json.loads((checkpoint / "cursor.json").read_text())["cursor"]["step"]
    assert 0 < step < 30 * 21
    assert stopped["stopped"].endswith(f"keeps student (step {step})")
    left = subprocess.run(["ps", "-eo", "pid,sid,args"], capture_output=True, text=True).stdout
    alive = [x for x in left.splitlines() if "defunct" not in x]
    assert not [x for x in alive if x.split()[1] == str(process.pid)], "actors are left"
    import mlflow

    run_id = (tmp_path / "run/mlflow_run_id").read_text()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_run(run_id).info.status == "KILLED"

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"student: resuming at step {step} of 630" in done.stderr
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert np.isfinite(metrics["eval.retention"]) and Path(metrics["student"]).is_dir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line["metrics"]]
    assert steps == list(range(1, 30 * 21 + 1)), "every step once, as if never interrupted"
    assert client.get_run(run_id).info.status == "FINISHED"

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "is finished; nothing to do" in again.stderr
    assert "starting" not in again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == metrics
