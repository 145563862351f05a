"""Classification: a row is a text, a pair of texts or a vector of features, with one label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from transformers import PreTrainedModel

from distill.config import Experiment, Experts, Serving, Student
from distill.data.batches import Batches
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.data.tokens import tokenise
from distill.evaluation.efficiency import Efficiency, measure_on_cpu
from distill.evaluation.quality import Confusion
from distill.experts.partition import Parts, partition
from distill.models.load import load_classifier
from distill.records import UNLABELLED
from distill.tasks.base import IsStopped, Task
from distill.tasks.checks.preview import Preview
from distill.tasks.checks.sizes import FolderSize, ModelSize
from distill.tasks.classification import check, fingerprint, preview, sizes, validation
from distill.tasks.classification.comparison import Classifiers, fit_and_test, predictions_file
from distill.tasks.classification.inputs import space_of
from distill.tasks.classification.specs import DataSpec, EncoderSpec, StudentSpec
from distill.tasks.classification.split import majority_rates
from distill.tasks.plan import Plan
from distill.teachers.setup import Guidance
from distill.training.fit import is_saved, load_best
from distill.training.job import Data, Job, ModelSpec
from distill.training.loop import Engine, count_predictions
from distill.training.module import DistillModule
from distill.training.trainable import Trainable
from distill.wires import WireFormat

VALIDATION_BATCH = 256


class Classification(Task):
    name = "classification"
    metrics: ClassVar[Mapping[str, Literal["max", "min"]]] = {
        "eval.accuracy": "max",
        "eval.f1": "max",
    }

    def check_settings(self, experiment: Experiment) -> None:
        check.check_settings(experiment)

    def read(self, experiment: Experiment, say: Callable[[str], None]) -> check.ClassifierInputs:
        return check.read(experiment, say)

    def wire_of(self, serving: Serving) -> WireFormat:
        return check.wire_of(serving)

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

    def data(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> DataSpec:
        data = experiment.data
        return DataSpec(str(corpus.folder), tokenizer, data.max_length, data.cut)

    def rows(self, data: Data) -> Rows:
        return Corpus(Path(data.corpus))

    def student(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> StudentSpec:
        return StudentSpec(
            experiment.student,
            tokenizer,
            corpus.label_names,
            experiment.data.max_length,
            space_of(experiment.data, corpus),
        )

    def expert(self, experts: Experts, label_names: tuple[str, ...]) -> EncoderSpec:
        return EncoderSpec(experts.base, label_names, train_layers=experts.train_layers)

    def router(self, experts: Experts, names: tuple[str, ...]) -> EncoderSpec:
        assert experts.router is not None
        return EncoderSpec(experts.base, names, experts.router.layers, experts.router.train_layers)

    def parts(self, experiment: Experiment, data: Data, folder: Path) -> Parts:
        experts, corpus = experiment.experts, Corpus(Path(data.corpus))
        assert experts is not None
        tokens = tokenise(corpus, data.tokenizer, data.max_length, experiment.data.cut)
        return partition(experts.partition, corpus, tokens, experts.base, experiment.seed, folder)

    @staticmethod
    def fit_baseline(job: Job) -> None:
        fit_and_test(job)  # in one process

    def is_baseline_done(self, job: Job) -> bool:
        return is_saved(job) and predictions_file(job).exists()

    def has_labels(self, job: Job) -> bool:
        labels = job.train_labels
        if labels is None:
            labels = self.rows(job.data).labels_of(job.train_rows)
        return bool((labels != UNLABELLED).any())

    def module(self, job: Job, model: PreTrainedModel) -> DistillModule:
        guidance = job.guidance
        return DistillModule(
            model,
            job.objective,
            job.aggregation,
            [t.name for t in guidance.teachers] if guidance else (),
            len(job.model.label_names),
            job.homes,
        )

    def validation_batch(self, job: Job) -> tuple[int, int | None]:
        return VALIDATION_BATCH, None

    def validate(self, engine: Engine, rows: Batches, job: Job) -> dict[str, float]:
        counts = count_predictions(engine, rows, len(job.model.label_names))
        confusion = Confusion(counts)
        return {"eval.accuracy": confusion.accuracy, "eval.f1": confusion.f1}

    def comparison(
        self,
        plan: Plan,
        data: Data,
        guidance: Guidance | None,
        is_stopped: IsStopped,
        parts: Parts | None = None,
        taught: Trainable | None = None,
    ) -> Classifiers:
        return Classifiers(plan, data, guidance, is_stopped, parts, taught)

    def teachers_on_validation(
        self, plan: Plan, job: Job, module: Trainable, is_stopped: IsStopped
    ) -> dict[str, float]:
        return validation.of_teachers(job, module, "driver", is_stopped)

    def data_metrics(self, rows: Rows) -> dict[str, float | None]:
        return majority_rates(rows)

    def cost(self, model: PreTrainedModel, max_length: int) -> Efficiency:
        return measure_on_cpu(model, max_length)

    def load(self, folder: Path) -> PreTrainedModel:
        return load_classifier(folder)

    def rows_at_once(self, experiment: Experiment) -> tuple[int, int]:
        return 2048, 64

    def trial_metrics(self, job: Job, metrics: Mapping[str, float]) -> dict[str, float]:
        if job.guidance is None:
            return {}
        module = load_best(job)
        accuracy = validation.of_teachers(job, module, job.name)["eval.accuracy"]
        found = {"eval.teacher_accuracy": accuracy}
        if accuracy > 0:
            found["eval.retention"] = metrics["eval.accuracy"] / accuracy
        return found

    def memory_key(self, corpus: Corpus, guidance: Guidance | None) -> str:
        return fingerprint.task_of(corpus, guidance)

    def largest_teacher(self, guidance: Guidance) -> int | None:
        return fingerprint.largest_teacher(guidance)

    def meta_features(
        self,
        corpus: Corpus,
        guidance: Guidance | None,
        student: Student,
        metrics: Mapping[str, float],
        teacher_params: float | None,
    ) -> dict[str, float]:
        return fingerprint.meta_of(corpus, guidance, student, metrics, teacher_params)
