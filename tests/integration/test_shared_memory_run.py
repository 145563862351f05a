"""The second of two equal runs finds what the first one trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import parse
from distill.pipeline import train
from distill.report.progress import Progress
from tests.toys import toy_experiment, write_encoder


@pytest.mark.slow
def test_a_second_experiment_finds_the_fits_of_the_first(
    tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = toy_experiment(tmp_path, memory={"path": str(tmp_path / "memory")})
    write_encoder(tmp_path / "teacher", num_labels=2)
    teacher = {"path": str(tmp_path / "teacher"), "num_cpus": 0.1}
    del raw["experts"], raw["aggregation"]
    raw["trainer"] = {"engine": "torch", "epochs": 2, "batch_size": 16}
    raw["tracking"] |= {"log_model": False}
    outcomes = []
    for name in ("first", "second"):
        raw |= {"output": str(tmp_path / name), "teachers": [{"name": "one", **teacher}]}
        outcomes.append(train(parse(raw), Progress()))
    first, second = (outcome.metrics for outcome in outcomes)
    assert (first["memory.students.hits"], first["memory.students.accesses"]) == (0, 2)
    assert (second["memory.students.hits"], second["memory.students.accesses"]) == (2, 2)
    assert first["memory.answers.hits"] == first["memory.answers.accesses"] / 2  # second epoch
    assert second["memory.answers.accesses"] == 0
    assert second["test.accuracy"] == first["test.accuracy"]
    assert list((tmp_path / "memory/answers").glob("*/segment-*.arrow"))
    assert not (tmp_path / "second/cache").exists()
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "alone: found in the shared memory, not trained again" in printed
    assert "shared memory: 2 of 2 fits found, 0 of 0 teacher outputs" in printed
