"""A language-model student through the one loop, in one process, with real tiny teachers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from distill.config import parse
from distill.data.batches import Batches
from distill.driver.checks.check import check
from distill.errors import Interrupted
from distill.export.folder import ModelCard, export
from distill.models.tokenizer import load_tokenizer, num_ids
from distill.records import ScheduleValues
from distill.run_folder import RunFolder
from distill.tasks.jobs import student_job, write_tokenizer
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import build_module, fit, load_best
from distill.training.job import Job
from distill.training.token_module import TokenModule
from tests.toys_language import NUM_TOKENS, language_experiment, llama, write_spelling


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
    job = student_job(experiment, plan.corpus, tokenizer, run.fit, run.stop)
    specs = []
    for teacher in experiment.teachers:
        own = teacher.wire.resolved(True, teacher.dtype)
        serving = teacher.model_copy(update={"wire": own})
        data, width = (
            plan.task.rows_for_teacher(plan, teacher.path).fingerprint,
            num_ids(load_tokenizer(teacher.path)),
        )
        weights = f"{teacher.path} {teacher.adapter}"
        key = TeacherKey(weights, data, "t", own.name, 24)
        specs.append(
            ServedTeacher(
                teacher.name, teacher.path, serving, width, key, "language_model", teacher.adapter
            )
        )
    teacher_setup = TeacherSetup(
        LocalTeachers(open_backends(specs)),
        tuple(specs),
        None,
        experiment.aggregation,
        experiment.stream,
        experiment.cache,
        str(root / folder / "cache"),
    )
    return replace(
        job, teacher_setup=teacher_setup, objective=experiment.objective, kd=experiment.kd
    )


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


def test_a_teacher_may_be_asked_about_nothing_in_a_micro_batch(tmp_path: Path) -> None:
    """Under an oracle a block is one teacher's alone: micro-batches of one change nothing."""
    intervals = {"epochs": 1, "batch_size": 8}
    whole = weights_after(job_of(tmp_path, "whole", trainer=intervals))
    alone = weights_after(job_of(tmp_path, "alone", trainer=intervals | {"micro_batch_size": 1}))
    for name, tensor in whole.items():
        torch.testing.assert_close(alone[name], tensor, atol=1e-5, rtol=1e-4)


def test_every_rank_reports_the_same_metrics(tmp_path: Path) -> None:
    """Ranks add their sums up place by place: also one that has no row left, and no answer."""
    job = job_of(tmp_path)
    assert job.teacher_setup is not None
    module = build_module(job).train()
    assert isinstance(module, TokenModule)
    found = []
    for rank in range(2):
        batches = Batches(job.data.open(), range(1), 1, 0, rank, world_size=2, shuffle=False)
        with job.teacher_setup.open(job.data, f"rank{rank}") as stream:
            module.take_heads(stream.heads(), "cpu")
            ((batch, answers),) = next(stream.feed(batches, 0, 1)).parts
            assert batch.valid_B.tolist() == [rank == 0]
            found.append(module(batch, answers, ScheduleValues(1.0, 0.5)).metrics)
    assert found[0].keys() == found[1].keys()
    assert float(found[1]["kd.loss"].count) == 0


def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Also its dropout, and what the teachers have drawn."""
    intervals = {"epochs": 1, "batch_size": 8, "log_every": 1, "eval_every": 2}
    student = {"path": str(tmp_path / "films"), "lora": {"rank": 2, "dropout": 0.2}}
    changes: dict[str, Any] = {"trainer": intervals, "student": student}
    whole = weights_after(job_of(tmp_path, "whole", {"type": "sampled"}, **changes))
    stop = tmp_path / "stop"
    job = job_of(tmp_path, "stopped", {"type": "sampled"}, **changes)
    with pytest.raises(Interrupted, match="stopped at step 3 of"):
        fit(replace(job, stop_file=str(stop)), report=lambda cursor: stop.touch())
    resumed = weights_after(job)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_low_rank_updates_are_all_that_is_trained_and_are_exported(tmp_path: Path) -> None:
    student = {"path": str(tmp_path / "films"), "lora": {"rank": 4}}
    job = job_of(tmp_path, student=student, trainer={"epochs": 1, "batch_size": 8})
    fit(job)
    in_loss, start = load_best(job).student, llama(1)
    named = dict(in_loss.named_parameters())
    moved = [name for name, tensor in named.items() if tensor.requires_grad]
    assert moved and all(".lora_" in name for name in moved)
    for name, tensor in named.items():
        if ".lora_" not in name:
            own = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert torch.equal(tensor, start.get_parameter(own)), name
    export(in_loss, job.data.tokenizer, tmp_path / "out", ModelCard(name="student"))
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(alone(ids).logits, in_loss(ids).logits, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(alone(ids).logits, start(ids).logits, atol=0.1)


def test_a_teacher_of_other_tokens_teaches_beside_one_of_the_students(tmp_path: Path) -> None:
    """Each in its own tokens, in both epochs; it is asked in the first alone."""
    language_experiment(tmp_path)
    write_spelling(tmp_path / "letters")
    teachers = [
        {"name": name, "path": str(tmp_path / name), "num_cpus": 0.1}
        for name in ("films", "letters")
    ]
    job = job_of(
        tmp_path,
        teachers=teachers,
        aggregation={"type": "mean"},
        objective={"type": "uld"},
        trainer={"epochs": 2, "batch_size": 8, "log_every": 1},
    )
    history = [row["eval.perplexity"] for row in fit(job).history]
    assert history[-1] < 0.9 * history[0]
    lines = (Path(job.folder) / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line)["metrics"] for line in lines]
    for name in ("films", "letters"):
        asked = sum(metrics.get(f"teacher.{name}.rows", 0) for metrics in logged)
        assert asked == len(job.train_rows), name
