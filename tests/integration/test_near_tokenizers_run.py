"""A whole run of a student and a teacher whose tokenizers differ in added tokens."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from distill.config import parse
from distill.driver import pipeline
from distill.report.progress import Progress
from tests.training.test_near_tokenizers import WIRES, experiment_of

pytestmark = pytest.mark.slow


def test_it_trains_compares_and_tells_what_is_outside(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = {"name": "t", "path": str(tmp_path / "t"), "num_cpus": 0.1, "wire": WIRES[2]}
    raw = experiment_of(tmp_path, teachers=[teacher])
    raw["baselines"] = [{"type": "labels_only", "name": "alone"}]
    raw["trainer"] |= {"epochs": 1, "log_every": 1}
    with Progress() as progress:
        outcome = pipeline.train(parse(raw), progress)
    rows = {row.name: row for row in outcome.rows}
    assert list(rows) == ["t", "student, untrained", "alone", "student"]
    assert rows["student"].jsd is not None and rows["alone"].jsd is not None
    mlflow.set_tracking_uri(raw["tracking"]["uri"])
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    (run,) = [run for run in runs if "teacher.t.perplexity" in run.data.metrics]
    assert 0 < run.data.metrics["teacher.t.mass_outside"] < 0.01
    assert run.data.metrics["teacher.t.perplexity"] > 13
    text = capsys.readouterr()
    assert (text.out + text.err).count("teacher 't' has a perplexity of") == 1
