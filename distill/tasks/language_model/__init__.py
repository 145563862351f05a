"""Causal language models: a row is a block of packed texts, or one prompt with its answer, or one
chat; its positions are what is predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from transformers import PreTrainedModel

from distill.config import Experiment, Experts, Serving, Student, Trainer
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.data.chat_template import chat_template_of
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.evaluation.efficiency import Efficiency
from distill.experts.partition import Parts, by_column
from distill.models.language import load_language_model
from distill.models.packed import check_keeps_apart
from distill.tasks.base import IsStopped, Task
from distill.tasks.checks.preview import Preview
from distill.tasks.checks.sizes import FolderSize, ModelSize
from distill.tasks.language_model import check, folders, preview, sizes, validation
from distill.tasks.language_model.comparison import LanguageModels
from distill.tasks.language_model.scores import cost_of
from distill.tasks.language_model.specs import BlocksSpec, LanguageExpertSpec, LanguageStudentSpec
from distill.tasks.plan import Plan
from distill.teachers.setup import Guidance
from distill.training.job import Data, Job, ModelSpec
from distill.training.loop import Engine, mean_metrics
from distill.training.token_module import TokenModule
from distill.training.trainable import Trainable
from distill.wires import WireFormat


class LanguageModel(Task):
    name = "language_model"
    metrics: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "eval.perplexity": "min",
        "eval.accuracy": "max",
    }

    def check_settings(self, experiment: Experiment) -> None:
        check.check_settings(experiment)

    def read(self, experiment: Experiment, say: Callable[[str], None]) -> check.LanguageInputs:
        return check.read(experiment, say)

    def wire_of(self, serving: Serving) -> WireFormat:
        return folders.wire_of(serving)

    def check_link(self, plan: Plan, key: str, student: Student) -> None:
        check.check_link(plan, key, student)

    def preview_corpus(self, experiment: Experiment) -> Corpus:
        return preview.preview_corpus(experiment)

    def preview_rows(
        self, experiment: Experiment, corpus: Corpus, split: str, num_rows: int
    ) -> Preview:
        return preview.preview_rows(experiment, corpus, split, num_rows)

    def student_size(self, plan: Plan, student: Student) -> ModelSize:
        return sizes.student_size(plan, student)

    def folder_size(self, folder: str, allow_pickle: bool = False) -> FolderSize:
        return sizes.folder_size(folder, allow_pickle)

    def spec_size(
        self, plan: Plan, spec: ModelSpec, size_of_folder: Callable[[str], FolderSize]
    ) -> tuple[int, float]:
        return sizes.spec_size(plan, spec, size_of_folder)

    def tokens_of_a_row(self, plan: Plan) -> float:
        return sizes.tokens_of_a_row(plan)

    def loss_mb(self, trainer: Trainer) -> float:
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
        guidance, data = job.guidance, job.data
        assert isinstance(data, BlocksSpec)
        shared = guidance.shared if guidance else None
        teachers = guidance.teachers if guidance else ()
        return TokenModule(
            model,
            shared.width if shared else data.num_ids,
            job.objective,
            job.aggregation,
            teachers,
            job.trainer.loss_chunk_mb,
            job.homes,
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
        guidance: Guidance | None,
        is_stopped: IsStopped,
        parts: Parts | None = None,
        taught: Trainable | None = None,
    ) -> LanguageModels:
        return LanguageModels(plan, data, guidance, is_stopped, taught)

    def teachers_on_validation(
        self, plan: Plan, job: Job, module: Trainable, is_stopped: IsStopped
    ) -> dict[str, float] | None:
        return validation.of_teachers(plan, job, module, is_stopped)

    def cost(self, model: PreTrainedModel, max_length: int) -> Efficiency:
        return cost_of(model, max_length)

    def load(self, folder: Path) -> PreTrainedModel:
        return load_language_model(folder)

    def rows_at_once(self, experiment: Experiment) -> tuple[int, int]:
        size = experiment.trainer.batch_size
        return 8 * size, size  # whose rows are a thousand times larger

    def trial_metrics(self, job: Job, metrics: Mapping[str, float]) -> dict[str, float]:
        return {}
