"""From a configuration to the student's job: for a run, and for each trial of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distill.config import Experiment, Student
from distill.data.alignment import TeacherBlocks, for_teacher
from distill.data.blocks import Blocks
from distill.data.chat_template import chat_template_of
from distill.data.corpus import Corpus
from distill.models.student import student_tokenizer
from distill.models.vocabulary import speak_alike
from distill.run_folder import RunFolder
from distill.tasks.classification.inputs import space_of
from distill.tasks.plan import Plan
from distill.training.fit import Job
from distill.training.specs import BlocksSpec, DataSpec, LanguageStudentSpec, StudentSpec


def student_job(
    experiment: Experiment, corpus: Corpus, tokenizer: str, folder: Path, stop: Path
) -> Job:
    """The distilled student, still without its teachers; on train and transfer rows."""
    max_length = experiment.data.max_length
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    rows = range(train.start, transfer.stop) if experiment.has_teachers else train
    return Job(
        name="student",
        folder=str(folder),
        seed=experiment.seed,
        model=StudentSpec(
            experiment.student,
            tokenizer,
            corpus.label_names,
            max_length,
            space_of(experiment.data, corpus),
        ),
        data=DataSpec(str(corpus.folder), tokenizer, max_length, experiment.data.cut),
        train_rows=rows,
        validation_rows=corpus.rows("validation"),
        optimizer=experiment.optimizer,
        trainer=experiment.trainer,
        stop_file=str(stop),
    )


def language_job(experiment: Experiment, plan: Plan, tokenizer: str, run: RunFolder) -> Job:
    """As :func:`student_job`, of language models."""
    return job_of_blocks(experiment, plan.corpus, tokenizer, run.fit, run.stop)


def job_of_blocks(
    experiment: Experiment, corpus: Corpus, tokenizer: str, folder: Path, stop: Path
) -> Job:
    """As :func:`student_job`, of a corpus of documents, which ``tokenizer`` packs into blocks."""
    data = experiment.data
    spec = BlocksSpec(
        str(corpus.folder),
        tokenizer,
        data.max_length,
        data.cut,
        data.packing,
        data.max_unlearnable,
        template=chat_template_of(data),
    )
    blocks = spec.open()
    train, transfer = blocks.rows("train"), blocks.rows("transfer")
    rows = range(train.start, transfer.stop) if experiment.has_teachers else train
    return Job(
        name="student",
        folder=str(folder),
        seed=experiment.seed,
        model=LanguageStudentSpec(
            experiment.student,
            tokenizer,
            data.max_length,
            experiment.trainer.gradient_checkpointing,
        ),
        data=spec,
        train_rows=rows,
        validation_rows=blocks.rows("validation"),
        optimizer=experiment.optimizer,
        trainer=experiment.trainer,
        stop_file=str(stop),
    )


def shown_to(plan: Plan, teacher: str) -> Corpus | Blocks | TeacherBlocks:
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
