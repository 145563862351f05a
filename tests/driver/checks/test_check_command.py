"""``distill check`` on a terminal and as JSON: what it prints of the plan, at 80 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from distill.cli import app
from tests.toys import DOMAINS, toy_experiment


def output(path: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["check", str(path), *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    raw = toy_experiment(tmp_path)
    del raw["output"]
    raw["search"] = {"space": {"kd.temperature": {"type": "grid", "values": [1, 2]}}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_no_line_is_wider_than_the_terminal(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = output(config)
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("steps", "trained", "duration", "memory", "output"):
        assert part in shown


def test_json_has_the_estimate_and_the_folders(config: Path, tmp_path: Path) -> None:
    found = json.loads(output(config, "--json").splitlines()[-1])
    assert found["output"] == str(tmp_path / "runs/mine") and found["is_resuming"] is False
    estimate = found["estimate"]
    assert estimate["num_steps"] == 168 and estimate["steps_per_epoch"] == 21
    assert estimate["num_trained_params"] == estimate["num_params"] > 0
    assert 0 < estimate["min_seconds"] < estimate["max_seconds"]
    parts = {line["part"]: line["plan"] for line in found["plan"]}
    assert parts["output"] == str(tmp_path / "runs/mine")
    assert parts["output of a sweep"] == str(tmp_path / "runs/mine-sweep")
    student = next(one for one in found["stages"] if one["stage"] == "student")
    assert student["teachers"] == list(DOMAINS) and "fit:router" in student["needs"]


def test_a_chain_has_no_sweep(config: Path) -> None:
    lines = json.loads(output(config, "chain.links=1", "--json").splitlines()[-1])["plan"]
    (swept,) = [line for line in lines if line["part"] == "output of a sweep"]
    assert swept["plan"] == "none" and "distill sweep has no chain: remove it" in swept["size"]
