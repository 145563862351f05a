"""Classification: a row is a text, a pair of texts or a vector of features, with one label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from distill.config import Experiment, Experts
from distill.data.batches import Batches
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.data.tokens import tokenise
from distill.evaluation.efficiency import measure_on_cpu
from distill.evaluation.quality import Confusion
from distill.experts.partition import Parts, partition
from distill.metrics import CLASSIFICATION
from distill.models.load import load_classifier, was_read_at_padding
from distill.records import UNLABELLED
from distill.tasks.base import IsStopped, Task
from distill.tasks.classification import check, fingerprint, preview, sizes, validation
from distill.tasks.classification.comparison import Classifiers, fit_and_test, predictions_file
from distill.tasks.classification.inputs import space_of
from distill.tasks.classification.specs import DataSpec, EncoderSpec, StudentSpec
from distill.tasks.classification.split import majority_rates
from distill.tasks.plan import Plan
from distill.teachers.setup import TeacherSetup
from distill.training.class_module import DistillModule
from distill.training.fit import is_saved, load_best
from distill.training.job import Data, Job
from distill.training.loop import Engine, count_predictions
from distill.training.trainable import Trainable

VALIDATION_BATCH = 256


class Classification(Task):
    name = "classification"
    measures = CLASSIFICATION
    backend = "classifier"

    check_settings = staticmethod(check.check_settings)
    read = staticmethod(check.read)
    check_link = staticmethod(check.check_link)
    wire_of = staticmethod(check.wire_of)
    preview_corpus = staticmethod(preview.preview_corpus)
    preview_rows = staticmethod(preview.preview_rows)
    tokens_of_a_row = staticmethod(sizes.tokens_of_a_row)
    student_size = staticmethod(sizes.student_size)
    folder_size = staticmethod(sizes.folder_size)
    spec_size = staticmethod(sizes.spec_size)
    fit_baseline = staticmethod(fit_and_test)  # in one process
    data_metrics = staticmethod(majority_rates)
    cost = staticmethod(measure_on_cpu)
    load = staticmethod(load_classifier)
    memory_key = staticmethod(fingerprint.task_of)
    largest_teacher = staticmethod(fingerprint.largest_teacher)
    meta_features = staticmethod(fingerprint.meta_of)

    def data(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> DataSpec:
        data = experiment.data
        return DataSpec(str(corpus.folder), tokenizer, data.max_length, data.cut)

    def rows(self, data: Data) -> Rows:
        return Corpus(Path(data.corpus))

    def teacher_width(self, folder: str, num_outputs: int) -> int:
        return num_outputs

    def pooling(self, folder: str) -> str:
        return "mask" if was_read_at_padding(folder) else ""

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

    def is_baseline_done(self, job: Job) -> bool:
        return is_saved(job) and predictions_file(job).exists()

    def has_labels(self, job: Job) -> bool:
        labels = job.train_labels
        if labels is None:
            labels = self.rows(job.data).labels_of(job.train_rows)
        return bool((labels != UNLABELLED).any())

    def module(self, job: Job, model: PreTrainedModel) -> DistillModule:
        teacher_setup = job.teacher_setup
        return DistillModule(
            model,
            job.objective,
            job.aggregation,
            [t.name for t in teacher_setup.teachers] if teacher_setup else (),
            len(job.model.label_names),
            job.domain_teachers,
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
        teacher_setup: TeacherSetup | None,
        is_stopped: IsStopped,
        parts: Parts | None = None,
        distilled: Trainable | None = None,
    ) -> Classifiers:
        return Classifiers(plan, data, teacher_setup, is_stopped, parts, distilled)

    def teachers_on_validation(
        self, plan: Plan, job: Job, module: Trainable, is_stopped: IsStopped
    ) -> dict[str, float]:
        return validation.of_teachers(job, module, "driver", is_stopped)

    def rows_at_once(self, experiment: Experiment) -> tuple[int, int]:
        return 2048, 64

    def trial_metrics(self, job: Job, metrics: Mapping[str, float]) -> dict[str, float]:
        if job.teacher_setup is None:
            return {}
        module = load_best(job)
        accuracy = validation.of_teachers(job, module, job.name)["eval.accuracy"]
        found = {"eval.teacher_accuracy": accuracy}
        if accuracy > 0:
            found["eval.retention"] = metrics["eval.accuracy"] / accuracy
        return found
