"""One fit as a value: a model, its rows, an optimizer, perhaps teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from transformers import PreTrainedModel

from distill.aggregation import Aggregation, TrainedWeights
from distill.config import KD, Experts, Optimizer, Trainer
from distill.data.batches import Batches
from distill.data.chat_template import ChatFormat
from distill.models.reading import Reading
from distill.objectives import Objective
from distill.sampling import DatasetSampling, Generated, Sampling
from distill.training.loop import Engine, Selection
from distill.training.threads import Threads, threads_of
from distill.training.trainable import Trainable

if TYPE_CHECKING:
    from distill.teachers.setup import TeacherSetup

RowIds = range | np.ndarray


class TrainedTask(Protocol):
    """What training needs of a task; ``distill.tasks.base.Task`` is one."""

    @property
    def metrics(self) -> Mapping[str, Literal["max", "min"]]:
        """Of :meth:`validate`, with the direction that is better. The first selects weights."""
        ...

    def has_labels(self, job: Job) -> bool:
        """Whether a row that the job is trained on has a label."""
        ...

    def module(self, job: Job, model: PreTrainedModel) -> Trainable: ...

    def check_module(self, job: Job, module: Trainable) -> None:
        """Raise ModelError for a model that cannot be trained on the rows of the job."""
        ...

    def validation_batch(self, job: Job) -> tuple[int, int | None]:
        """Rows of a global batch of validation, and of a micro-batch (None: a rank's share)."""
        ...

    def validate(self, engine: Engine, rows: Batches, job: Job) -> dict[str, float]:
        """``eval.*``; every rank calls it, with its own share of the rows."""
        ...

    def expert(self, experts: Experts, label_names: tuple[str, ...]) -> ModelSpec:
        """An expert of one part of the data."""
        ...

    def router(self, experts: Experts, names: tuple[str, ...]) -> ModelSpec:
        """The router among experts of these names."""
        ...


Folder = Literal["model", "tokenizer", "corpus"]


class InFolders:
    """A spec that consists, besides its values, of the content of folders, wherever they are."""

    folders: ClassVar[Mapping[str, Folder]]
    """The fields that name one."""

    def fingerprints(self) -> dict[str, str | None]:
        """Of what is made from the content of the folders by rules that may change."""
        return {}


class ModelSpec(Protocol):
    """How to build the model on any rank: the same spec and seed give the same bits."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """() of a model without classes."""
        ...

    @property
    def is_adapter(self) -> bool:
        """Whether what is trained are updates of a base that others share."""
        ...

    def build(self, seed: int) -> PreTrainedModel: ...

    def in_folder(self, folder: Path) -> ModelSpec:
        """The spec with what the fit in ``folder`` was started with; see models/shape.py."""
        ...


class Data(Protocol):
    """Rows as the model takes them, found again in any process by their folders."""

    @property
    def task(self) -> TrainedTask: ...
    @property
    def corpus(self) -> str:
        """A folder."""
        ...

    @property
    def tokenizer(self) -> str:
        """A folder; empty for features."""
        ...

    @property
    def max_length(self) -> int: ...
    @property
    def reading(self) -> Reading | None:
        """What an exported model should remember of how it was shown rows."""
        ...

    @property
    def chat(self) -> ChatFormat | None:
        """What an exported model should remember of how it was shown chats."""
        ...

    def open(self, tokenizer: str | None = None) -> Any:
        """The rows in the model's tokens, or in those of ``tokenizer`` (a teacher's folder)."""
        ...


@dataclass(frozen=True)
class Job:
    """Everything one fit needs; pickles into any process."""

    name: str
    folder: str
    seed: int
    model: ModelSpec
    data: Data
    train_rows: RowIds
    validation_rows: RowIds
    optimizer: Optimizer
    trainer: Trainer
    num_steps: int | None = None
    """null: ``trainer.epochs`` over ``train_rows``."""
    train_labels: np.ndarray | None = field(default=None, repr=False)
    validation_labels: np.ndarray | None = field(default=None, repr=False)
    objective: Objective | None = None
    kd: KD | None = None
    teacher_setup: TeacherSetup | None = None
    sampling: Sampling = field(default_factory=DatasetSampling)
    stop_file: str | None = None
    """Once it exists, the fit writes a checkpoint and raises Interrupted."""

    @property
    def may_fail(self) -> bool:
        """Whether a fit that fails leaves ``failed.txt`` and does not end the run."""
        return False

    @property
    def task(self) -> TrainedTask:
        return self.data.task

    @property
    def has_labels(self) -> bool:
        """Whether a row that it is trained on has a label."""
        return self.task.has_labels(self)

    @property
    def aggregation(self) -> Aggregation | None:
        """The teachers' own, or what it is replaced by where no row has a label."""
        if self.teacher_setup is None:
            return None
        given: Any = self.teacher_setup.aggregation
        other = given.without_labels()
        return given if other is given or self.has_labels else other

    @property
    def replaced_aggregation(self) -> str | None:
        """A message where :attr:`aggregation` is not the teachers' own."""
        used = self.aggregation
        if self.teacher_setup is None or used is None or used is self.teacher_setup.aggregation:
            return None
        return (
            f"{self.name}: no row that it is trained on has a label, which aggregation.type "
            f"{self.teacher_setup.aggregation.type} needs: aggregation.type {used.type} is used"
        )

    @property
    def domain_teachers(self) -> list[int]:
        """Of each domain, the teacher that is named like it, or -1; [] without trained weights."""
        teacher_setup = self.teacher_setup
        if teacher_setup is None or not isinstance(self.aggregation, TrainedWeights):
            return []
        names = [t.name for t in teacher_setup.teachers]
        domains = self.data.open().corpus.domain_names
        return [names.index(d) if d in names else -1 for d in domains]

    @property
    def selection(self) -> Selection:
        metrics = self.task.metrics
        metric = self.trainer.select_by or next(iter(metrics))
        return Selection(metric, prefers_low=metrics[metric] == "min")

    @property
    def recovery_s(self) -> float:
        """The longest time that it waits for a teacher that is away."""
        return self.teacher_setup.stream.recovery_s if self.teacher_setup else 0.0

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_rows) / self.trainer.batch_size)

    @property
    def total_steps(self) -> int:
        return self.num_steps or math.ceil(self.trainer.epochs * self.steps_per_epoch)

    @property
    def are_outputs_cached(self) -> bool:
        """Whether no teacher is queried after the first epoch: every output is in the cache."""
        teacher_setup = self.teacher_setup
        return (
            teacher_setup is not None
            and teacher_setup.cache.type != "none"
            and not isinstance(self.sampling, Generated)
            and not any(spec.serving.moe.changes for spec in teacher_setup.served)
        )

    @property
    def threads(self) -> Threads:
        """Of each rank."""
        return threads_of(self.trainer, self.steps_per_epoch, self.are_outputs_cached)

    @property
    def is_adapter(self) -> bool:
        """Whether what is fitted are updates of a base that others share."""
        return self.model.is_adapter

    @property
    def model_folder(self) -> Path:
        """Where :func:`fit_and_save` leaves the fitted model as a Hugging Face folder, or its
        adapter as peft's."""
        return Path(self.folder) / ("adapter" if self.is_adapter else "model")
