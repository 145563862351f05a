"""A third task: texts with an ordered label, a rating. What counts is how far a prediction is off.

Its rows are those of classification; loss, metric and table are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from distill.config import Experiment
from distill.data.batches import Batches
from distill.data.corpus import Corpus
from distill.evaluation.efficiency import Efficiency, measure_on_cpu
from distill.evaluation.rows import Role, Row
from distill.metrics import SIZE, Metric, TaskMetrics, add
from distill.records import Batch, LossOutput, Mean, ScheduleValues, TeacherAnswers
from distill.tasks.base import IsStopped
from distill.tasks.classification import Classification
from distill.tasks.classification.specs import DataSpec
from distill.tasks.comparison import Comparison, Say
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit_and_save, is_saved, load_best
from distill.training.fitted import best_evaluation
from distill.training.job import Data, Job
from distill.training.loop import Engine, NoTeachers, count_predictions
from distill.training.trainable import Trainable

add(
    Metric(name, "", "lower", "mean distance", ("ratings",), f"{split} error", "error")
    for name, split in (("eval.mae", "validation"), ("test.mae", "test"))
)
MEASURES = TaskMetrics(
    "ratings",
    "rating model",
    validation=("eval.mae",),
    test=("student.params", "student.size_mb", "test.mae"),
    per_domain="test.mae",
    columns=("student.params", "student.size_mb", "test.mae"),
    summary=("eval.mae", "test.mae"),
)


@dataclass(frozen=True)
class RatedTexts(DataSpec):
    @property
    def task(self) -> Ratings:
        return Ratings()


class RatingModule(Trainable):
    """L = α · mean (E_T[c] − E_S[c])² + (1 − α) · mean CE(y, z_S), E[c]: the expected rating."""

    def __init__(self, student: PreTrainedModel) -> None:
        super().__init__()
        self.student = student
        self.router = None

    def forward(
        self, batch: Batch, answers: TeacherAnswers | None, schedule_values: ScheduleValues
    ) -> LossOutput:
        logits_BV = self.student(**batch.inputs()).logits.float()
        valid_B = batch.valid_B
        labelled_B = valid_B & (batch.labels_B >= 0)
        hard = cross_entropy(logits_BV[labelled_B], batch.labels_B[labelled_B], reduction="sum")
        loss = hard / max(1, batch.num_labelled)
        if answers is not None:
            ratings = torch.arange(logits_BV.shape[1], dtype=torch.float32)
            expected_B = logits_BV.softmax(-1) @ ratings
            wanted_B = answers.logits_KBV.softmax(-1).mean(0) @ ratings
            soft = (expected_B - wanted_B)[valid_B].square().sum() / batch.num_valid
            loss = schedule_values.alpha * soft + (1 - schedule_values.alpha) * loss
        share = valid_B.sum() / batch.num_valid
        return LossOutput(loss, logits_BV, {"loss": Mean(loss.detach(), share)})


class Ratings(Classification):
    name = "ratings"
    measures = MEASURES
    fit_baseline = staticmethod(fit_and_save)

    def is_baseline_done(self, job: Job) -> bool:
        return is_saved(job)

    def data(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> RatedTexts:
        return RatedTexts(str(corpus.folder), tokenizer, experiment.data.max_length)

    def module(self, job: Job, model: PreTrainedModel) -> RatingModule:  # type: ignore[override]
        return RatingModule(model)

    def validate(self, engine: Engine, rows: Batches, job: Job) -> dict[str, float]:
        counts_CC = count_predictions(engine, rows, len(job.model.label_names)).double()
        ratings = torch.arange(len(counts_CC))
        off_CC = (ratings[:, None] - ratings).abs()
        return {"eval.mae": float((counts_CC * off_CC).sum() / counts_CC.sum())}

    def comparison(  # type: ignore[override]
        self,
        plan: Any,
        data: Data,
        teacher_setup: TeacherSetup | None,
        is_stopped: IsStopped,
        *_: Any,
    ) -> RatedModels:
        return RatedModels(plan.rows, data, teacher_setup)

    def trial_metrics(self, job: Job, metrics: Mapping[str, float]) -> dict[str, float]:
        return {}

    @staticmethod
    def memory_key(corpus: Corpus, teacher_setup: TeacherSetup | None) -> str | None:  # type: ignore[override]
        return None


class RatedModels(Comparison):
    def __init__(self, rows: Any, data: Data, teacher_setup: TeacherSetup | None) -> None:
        self._data = data
        self._teacher_setup = teacher_setup
        self._batches = Batches(data.open(), rows.rows("test"), 64, 0, shuffle=False)
        self._labels_R = rows.labels_of(rows.rows("test"))

    def teachers(self) -> list[Row]:
        if self._teacher_setup is None:
            return []
        found: dict[str, list[np.ndarray]] = {t.name: [] for t in self._teacher_setup.teachers}
        with self._teacher_setup.open(self._data, "test") as stream:
            for step in stream.feed(self._batches, 0, self._batches.steps_per_epoch):
                for _, answers in step.parts:
                    assert isinstance(answers, TeacherAnswers)
                    for name, logits_BV in zip(found, answers.logits_KBV, strict=True):
                        found[name].append(logits_BV.argmax(-1).numpy())
        return [self._row(name, "expert", np.concatenate(of)) for name, of in found.items()]

    def measure(self, student: Job, module: Trainable, say: Say) -> list[Row]:
        say("evaluating teachers and student")
        self._student, self._module = student, module
        return self.teachers()

    def baselines(self, jobs: Sequence[Job]) -> list[Row]:
        return [self._trained(job, "baseline") for job in jobs]

    def link(self, job: Job) -> Row:
        return self._trained(job, "link")

    def student(self, say: Say) -> tuple[Row, Efficiency]:
        cost = measure_on_cpu(self._module.student, self._data.max_length)
        row = self._trained(self._student, "student")
        return row.having({"student.params": cost.params, SIZE: cost.size_mb}), cost

    def related(self, rows: list[Row]) -> list[Row]:
        return rows

    def metrics(self, row: Row, cost: Efficiency) -> dict[str, float]:
        found = best_evaluation(self._student) | self.tested(self._student, self._module)
        return found | {"student.params": float(cost.params)}

    def tested(self, job: Job, module: Trainable) -> dict[str, float]:
        predicted_R = self._predicted(module)
        return {"test.mae": float(np.abs(predicted_R - self._labels_R).mean())}

    def _trained(self, job: Job, role: Role) -> Row:
        return self._row(job.name, role, self._predicted(load_best(job)))

    def _row(self, name: str, role: Role, predicted_R: np.ndarray) -> Row:
        off = float(np.abs(predicted_R - self._labels_R).mean())
        accuracy = float((predicted_R == self._labels_R).mean())
        return Row(name, role, {"test.mae": off, "test.accuracy": accuracy})

    @torch.inference_mode()
    def _predicted(self, module: Trainable) -> np.ndarray:
        steps = NoTeachers().feed(self._batches, 0, self._batches.steps_per_epoch)
        parts = [batch for step in steps for batch, _ in step.parts]
        classes = [module(batch, None, ScheduleValues()).logits_BV.argmax(-1) for batch in parts]
        return torch.cat(classes).numpy()
