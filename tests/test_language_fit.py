"""A language-model student through the one loop, in one process, with real tiny teachers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.check import check
from distill.config import parse
from distill.fit import Guidance, Job, TeacherSpec, fit, load_best
from distill.jobs import language_job, write_tokenizer
from distill.run_folder import RunFolder
from distill.teachers.cache import TeacherKey
from distill.teachers.engine import TeacherEngine
from distill.teachers.local import LocalTeachers
from tests.toys_language import NUM_TOKENS, language_experiment


def job_of(root: Path, folder: str = "run", wire: Any = None, **changes: Any) -> Job:
    """The student's job of an experiment whose teachers stand in this process."""
    raw = language_experiment(root, **changes)
    for teacher in raw["teachers"]:
        teacher["wire"] = wire or {"type": "hidden"}
    raw["trainer"] |= {"engine": "torch"}
    raw["output"] = str(root / folder)
    experiment = parse(raw)
    plan = check(experiment)
    run = RunFolder(experiment.output)
    tokenizer = write_tokenizer(experiment.student, plan.tokenizer, plan.corpus, run.tokenizer)
    job = language_job(experiment, plan, tokenizer, run)
    specs, engines = [], {}
    for teacher in experiment.teachers:
        own = teacher.wire.resolved(True, teacher.dtype)
        serving = teacher.model_copy(update={"wire": own})
        key = TeacherKey(teacher.path, plan.rows.fingerprint, "t", own.name, 24)
        specs.append(TeacherSpec(teacher.name, teacher.path, serving, NUM_TOKENS, key, True))
        engines[teacher.name] = TeacherEngine(
            teacher.path, num_labels=NUM_TOKENS, wire=own, is_language_model=True
        )
    guidance = Guidance(
        LocalTeachers(engines),
        tuple(specs),
        None,
        experiment.aggregation,
        experiment.stream,
        experiment.cache,
        str(root / folder / "cache"),
    )
    return replace(job, guidance=guidance, objective=experiment.objective, kd=experiment.kd)


def test_a_student_learns_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    cursor = fit(job)
    history = [row["eval.perplexity"] for row in cursor.history]
    assert history[-1] < 0.7 * history[0]
    assert cursor.best_value == -min(history)
    student = load_best(job).student
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert student.config.vocab_size == NUM_TOKENS


def weights_after(job: Job) -> dict[str, torch.Tensor]:
    fit(job)
    return load_best(job).student.state_dict()


@pytest.mark.parametrize("wire", [{"type": "dense", "dtype": "float32"}, {"type": "topk", "k": 99}])
def test_another_exact_wire_gives_the_same_student(tmp_path: Path, wire: dict) -> None:
    hidden = weights_after(job_of(tmp_path, "hidden"))
    other = weights_after(job_of(tmp_path, "other", wire))
    tolerance = 1e-4 if wire["type"] == "dense" else 0.05  # float16 of the logits kept
    for name, tensor in hidden.items():
        torch.testing.assert_close(other[name], tensor, atol=tolerance, rtol=tolerance)
