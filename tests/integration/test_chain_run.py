"""A chain on Ray: the link's exported folder is the only teacher of the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from distill.config import parse
from distill.driver import pipeline
from distill.report.progress import Progress
from tests.toys_language import language_experiment, write_llama


@pytest.mark.slow
def test_a_chain_of_language_models(tmp_path: Path, ray_cluster: None) -> None:
    write_llama(tmp_path / "deep", seed=1, num_hidden_layers=4)
    teacher = {"name": "deep", "path": str(tmp_path / "deep"), "num_cpus": 0.1}
    start = {"init_from": {"path": str(tmp_path / "deep"), "layers": 1}}
    raw: dict[str, Any] = language_experiment(
        tmp_path,
        teachers=[teacher | {"wire": {"type": "topk", "k": 8}}],
        aggregation={"type": "mean"},
        student=start,
        chain={"links": 2, "epsilon": 0.9},
        generation={"num_prompts": 0},
    )
    raw["trainer"] |= {"engine": "torch", "epochs": 1}
    with Progress() as progress:
        outcome = pipeline.train(parse(raw), progress)
    found = [(row.role, row.name) for row in outcome.rows]
    assert found == [
        *(("expert", "deep"), ("baseline", "student, untrained")),
        *(("link", "link 1"), ("student", "student")),
    ]
    teacher_row, _, link, student = outcome.rows
    assert outcome.metrics["chain.links"] == 2
    # Agreement and divergence are those from the teacher, of both: a mean JSD of random models.
    assert link.jsd and student.jsd and teacher_row.params and link.params and student.params
    assert teacher_row.params > link.params > student.params
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "run/links/1/model")
    assert exported.config.num_hidden_layers == 2
    log = (tmp_path / "run/fit/metrics.jsonl").read_text()
    assert '"teacher.link 1.' in log and '"teacher.deep.' not in log
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment: Any = client.get_experiment_by_name("toy-language")
    runs = client.search_runs([experiment.experiment_id])
    (child,) = [run for run in runs if run.data.tags.get("role") == "link"]
    assert child.info.run_name == "link 1"
    assert child.data.metrics["test.perplexity"] == pytest.approx(link.perplexity)
    assert "eval.perplexity" in child.data.metrics  # its learning curve
