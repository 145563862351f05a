"""From a configuration to the student's job: for a run, and for each trial of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.config import Experiment, Student
from distill.data.alignment import TeacherBlocks, for_teacher
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.models.student import student_tokenizer
from distill.models.vocabulary import speak_alike
from distill.tasks import task_of
from distill.tasks.plan import Plan
from distill.training.job import Job, ModelSpec


def student_job(
    experiment: Experiment, corpus: Corpus, tokenizer: str, folder: Path, stop: Path
) -> Job:
    """The distilled student, still without its teachers; on train and transfer rows."""
    task = task_of(experiment)
    data = task.data(experiment, corpus, tokenizer)
    rows = task.rows(data)
    train, transfer = rows.rows("train"), rows.rows("transfer")
    return Job(
        name="student",
        folder=str(folder),
        seed=experiment.seed,
        model=task.student(experiment, corpus, tokenizer),
        data=data,
        train_rows=range(train.start, transfer.stop) if experiment.has_teachers else train,
        validation_rows=rows.rows("validation"),
        optimizer=experiment.optimizer,
        trainer=experiment.trainer,
        stop_file=str(stop),
    )


def with_student(model: ModelSpec, student: Student, tokenizer: str | None = None) -> ModelSpec:
    """The spec of another student; ``tokenizer``: the folder of its own, if it has one."""
    spec: Any = model
    return replace(spec, student=student, tokenizer=tokenizer or spec.tokenizer)


def shown_to(plan: Plan, teacher: str) -> Rows | TeacherBlocks:
    """The rows as the teacher in a folder is shown them; what its answers are about."""
    if plan.blocks is None or not plan.experiment.objective.crosses_tokenizers:
        return plan.rows
    if speak_alike(plan.tokenizer, teacher):
        return plan.rows
    return for_teacher(plan.blocks, teacher)


def write_tokenizer(student: Student, default: str, corpus: Corpus, folder: Path) -> str:
    """The folder of a student's tokenizer, made once; empty for features."""
    if corpus.features is not None:
        return ""

    def texts() -> Iterator[str]:
        for split in ("train", "transfer"):
            for text, pair in corpus.texts(split):
                yield text if pair is None else f"{text} {pair}"

    if not (folder / "tokenizer.json").exists():
        student_tokenizer(student, default, texts, folder)
    return str(folder)
