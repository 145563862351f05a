"""Causal language models: a row is a block of packed texts, or one prompt with its answer, or one
chat; its positions are what is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from distill.config import Experiment, Experts, Trainer
from distill.data.alignment import TeacherBlocks, for_teacher
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.data.chat_template import chat_template_of
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.errors import ConfigError
from distill.experts.partition import Parts, by_column
from distill.metrics import LANGUAGE_MODEL
from distill.models.language import load_language_model
from distill.models.load import load_tokenizer
from distill.models.packed import check_keeps_apart
from distill.models.tokenizer import num_ids
from distill.models.vocabulary import SharedTokens, same_tokenizer, shared_tokens
from distill.tasks.base import IsStopped, Task
from distill.tasks.language_model import check, folders, preview, sizes, validation
from distill.tasks.language_model.comparison import LanguageModels
from distill.tasks.language_model.scores import cost_of
from distill.tasks.language_model.specs import BlocksSpec, LanguageExpertSpec, LanguageStudentSpec
from distill.tasks.plan import Plan
from distill.teachers.setup import TeacherSetup
from distill.training.job import Data, Job
from distill.training.loop import Engine, mean_metrics
from distill.training.token_module import TokenModule
from distill.training.trainable import Trainable


class LanguageModel(Task):
    name = "language_model"
    measures = LANGUAGE_MODEL
    backend = "language_model"
    fingerprinted = "the rows or the tokenizer"

    check_settings = staticmethod(check.check_settings)
    read = staticmethod(check.read)
    check_link = staticmethod(check.check_link)
    wire_of = staticmethod(folders.wire_of)
    preview_corpus = staticmethod(preview.preview_corpus)
    preview_rows = staticmethod(preview.preview_rows)
    tokens_of_a_row = staticmethod(sizes.tokens_of_a_row)
    student_size = staticmethod(sizes.student_size)
    folder_size = staticmethod(sizes.folder_size)
    spec_size = staticmethod(sizes.spec_size)
    cost = staticmethod(cost_of)
    load = staticmethod(load_language_model)

    @staticmethod
    def loss_mb(trainer: Trainer) -> float:
        return 3 * trainer.loss_chunk_mb

    def data(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> BlocksSpec:
        data = experiment.data
        return BlocksSpec(
            str(corpus.folder),
            tokenizer,
            data.max_length,
            data.cut,
            data.packing,
            data.max_unlearnable,
            chat_template_of(data),
        )

    def rows(self, data: Data) -> Rows:
        blocks: Blocks = data.open()
        return blocks

    def rows_for_teacher(self, plan: Plan, teacher: str) -> Rows | TeacherBlocks:
        crosses = plan.experiment.objective.crosses_tokenizers
        if not crosses or same_tokenizer(plan.tokenizer, teacher):
            return plan.rows
        assert isinstance(plan.rows, Blocks)
        return for_teacher(plan.rows, teacher)

    def teacher_width(self, folder: str, num_outputs: int) -> int:
        return num_ids(load_tokenizer(folder))

    def shared_tokens(self, plan: Plan, folders: Mapping[str, str]) -> dict[str, SharedTokens]:
        if plan.experiment.objective.crosses_tokenizers:
            return {}
        return shared_tokens(plan.tokenizer, folders)

    def student(
        self, experiment: Experiment, corpus: Corpus, tokenizer: str
    ) -> LanguageStudentSpec:
        return LanguageStudentSpec(
            experiment.student,
            tokenizer,
            experiment.data.max_length,
            experiment.trainer.gradient_checkpointing,
        )

    def expert(self, experts: Experts, label_names: tuple[str, ...]) -> LanguageExpertSpec:
        return LanguageExpertSpec(experts.base, experts.lora, experts.train_layers)

    def parts(self, experiment: Experiment, data: Data, folder: Path) -> Parts:
        return by_column(self.rows(data), ("train", "validation", "test"))

    def baseline_rows(self, student: Job) -> range:
        """Those of the student: the text is the label."""
        assert isinstance(student.train_rows, range)
        return student.train_rows

    def module(self, job: Job, model: PreTrainedModel) -> TokenModule:
        teacher_setup, data = job.teacher_setup, job.data
        assert isinstance(data, BlocksSpec)
        shared = teacher_setup.shared if teacher_setup else None
        teachers = teacher_setup.teachers if teacher_setup else ()
        return TokenModule(
            model,
            shared.width if shared else data.num_ids,
            job.objective,
            job.aggregation,
            teachers,
            job.trainer.loss_chunk_mb,
            job.domain_teachers,
            shared.left_out if shared else (),
            "tokens" if job.kd is None else job.kd.normalise,
        )

    def check_module(self, job: Job, module: Trainable) -> None:
        assert isinstance(job.data, BlocksSpec)
        if job.data.packing:
            check_keeps_apart(job.name, module.student)

    def validation_batch(self, job: Job) -> tuple[int, int | None]:
        # A whole batch of blocks may be more than there is memory for.
        return job.trainer.batch_size, job.trainer.micro_batch_size

    def validate(self, engine: Engine, rows: Batches, job: Job) -> dict[str, float]:
        return validation.metrics_of(mean_metrics(engine, rows))

    def comparison(
        self,
        plan: Plan,
        data: Data,
        teacher_setup: TeacherSetup | None,
        is_stopped: IsStopped,
        parts: Parts | None = None,
        distilled: Trainable | None = None,
    ) -> LanguageModels:
        return LanguageModels(plan, data, teacher_setup, is_stopped, distilled)

    def teachers_on_validation(
        self, plan: Plan, job: Job, module: Trainable, is_stopped: IsStopped
    ) -> dict[str, float] | None:
        return validation.of_teachers(plan, job, module, is_stopped)

    def check_evaluated(self, path: Path) -> None:
        raise ConfigError(
            f"{path} is a language model, and distill evaluate measures classifiers only. "
            "Perplexity, agreement with the teachers and exact match on the test split are in "
            "the run's table (report/ in the run's folder, and MLflow); for other texts, make "
            "them the test split of a new run with this folder as student.path"
        )

    def rows_at_once(self, experiment: Experiment) -> tuple[int, int]:
        size = experiment.trainer.batch_size
        return 8 * size, size  # whose rows are a thousand times larger

    def trial_metrics(self, job: Job, metrics: Mapping[str, float]) -> dict[str, float]:
        return {}
