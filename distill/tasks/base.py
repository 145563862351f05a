"""The contract of a task: all that a run, a sweep and their report need to know of it.

A task is registered in config/tasks.py under the value of the key ``task``. It has no state and
pickles by reference. Whatever is not here is the same for all tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from transformers import PreTrainedModel

from distill.config import Experiment, Experts, Serving, Student, Trainer
from distill.config.search import Goal
from distill.data.alignment import TeacherBlocks
from distill.data.batches import Batches
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.evaluation.efficiency import Efficiency
from distill.experts.partition import Parts
from distill.metrics import METRICS, TaskMetrics, declare
from distill.models.vocabulary import SharedTokens
from distill.tasks.checks.loaded import LoadedInputs
from distill.tasks.checks.preview import Preview
from distill.tasks.checks.sizes import FolderSize, ModelSize
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit_and_save, is_saved
from distill.training.job import Data, Job, ModelSpec
from distill.training.loop import Engine
from distill.training.trainable import Trainable
from distill.wires import WireFormat

if TYPE_CHECKING:
    from distill.tasks.comparison import Comparison
    from distill.tasks.plan import Plan

IsStopped = Callable[[], bool]


class Task(ABC):
    """One kind of teachers, students and rows."""

    name: ClassVar[str]
    measures: ClassVar[TaskMetrics]
    """What is measured of its models: tables, plots, sweeps and MLflow choose by it."""

    fingerprinted: ClassVar[str] = "the rows"
    """What ``data.fingerprint`` covers, in words."""

    def __init_subclass__(cls) -> None:
        declare(cls.measures)

    @property
    def metrics(self) -> Mapping[str, Literal["max", "min"]]:
        """Of the validation split, with the direction that is better. The first selects the weights
        where ``trainer.select_by`` names none."""
        return {name: METRICS[name].mode for name in self.measures.validation}

    @property
    def goal(self) -> Goal:
        """The quality that weights are selected by, and sweeps go by, where none is named."""
        return Goal(self.measures.quality.name, self.measures.quality.mode)

    # ---- checks and the plan -------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def check_settings(experiment: Experiment) -> None:
        """Checks that need no data and no model folder."""

    @staticmethod
    @abstractmethod
    def read(experiment: Experiment, say: Callable[[str], None]) -> LoadedInputs:
        """Reads model folders and data, and raises InputError where they do not fit together."""

    @staticmethod
    @abstractmethod
    def check_link(plan: Plan, key: str, student: Student) -> None:
        """Raise for a link of a chain that cannot be built for the student's data and tokenizer."""

    @staticmethod
    @abstractmethod
    def wire_of(serving: Serving) -> WireFormat:
        """With the defaults of this task."""

    @staticmethod
    @abstractmethod
    def preview_corpus(experiment: Experiment) -> Corpus:
        """The texts as the checks read them, without teachers that would run code."""

    @staticmethod
    @abstractmethod
    def preview_rows(experiment: Experiment, corpus: Corpus, split: str, num_rows: int) -> Preview:
        """The first ``num_rows`` rows of a split."""

    # ---- sizes, for estimates of time and memory -----------------------------------------------

    @staticmethod
    @abstractmethod
    def tokens_of_a_row(plan: Plan) -> float:
        """The mean, of a sample."""

    @staticmethod
    @abstractmethod
    def student_size(plan: Plan, student: Student) -> ModelSize:
        """Of a student that the checks have accepted."""

    @staticmethod
    @abstractmethod
    def folder_size(folder: str, allow_pickle: bool = False) -> FolderSize:
        """Of a teacher or base; 0 parameters where they are not known."""

    @staticmethod
    @abstractmethod
    def spec_size(
        plan: Plan, spec: ModelSpec, size_of_folder: Callable[[str], FolderSize]
    ) -> tuple[int, float]:
        """Of a job's model: parameters that multiply, and operations of training for each of them
        and each token."""

    @staticmethod
    def loss_mb(trainer: Trainer) -> float:
        """Memory in MB of the logits that the loss of one rank computes at once, with copies; 0
        where it does not count."""
        return 0.0

    # ---- rows and models -----------------------------------------------------------------------

    @abstractmethod
    def data(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> Data:
        """The rows as a model with the tokenizer in this folder takes them."""

    @abstractmethod
    def rows(self, data: Data) -> Rows:
        """The numbered rows, of which a job trains some."""

    def rows_for_teacher(self, plan: Plan, teacher: str) -> Rows | TeacherBlocks:
        """The rows as the teacher in a folder is shown them; what its answers are about."""
        return plan.rows

    @abstractmethod
    def student(self, experiment: Experiment, corpus: Corpus, tokenizer: str) -> ModelSpec:
        """A dataclass with the fields ``student`` and ``tokenizer``, which other students replace
        (baselines, links of a chain)."""

    @abstractmethod
    def expert(self, experts: Experts, label_names: tuple[str, ...]) -> ModelSpec:
        """An expert of one part of the data."""

    def router(self, experts: Experts, names: tuple[str, ...]) -> ModelSpec:
        """The router among experts of these names."""
        raise NotImplementedError(f"{self.name}: no aggregation of this task has a router")

    @abstractmethod
    def parts(self, experiment: Experiment, data: Data, folder: Path) -> Parts:
        """The part of every row of train, validation and test. ``data``: in the experts' tokens;
        ``folder``: of the experts."""

    def baseline_rows(self, student: Job) -> range:
        """Rows that a baseline without teachers is trained on: the labelled ones."""
        return self.rows(student.data).rows("train")

    @staticmethod
    def fit_baseline(job: Job) -> None:
        """All that is to be done for a baseline before the comparison; does what is missing."""
        fit_and_save(job)

    def is_baseline_done(self, job: Job) -> bool:
        """Whether :meth:`fit_baseline` has nothing to do."""
        return is_saved(job)

    # ---- training (see training/job.py) --------------------------------------------------------

    def has_labels(self, job: Job) -> bool:
        """Whether a row that the job is trained on has a label."""
        return True

    @abstractmethod
    def module(self, job: Job, model: PreTrainedModel) -> Trainable: ...

    def check_module(self, job: Job, module: Trainable) -> None:  # noqa: B027
        """Raise ModelError for a model that cannot be trained on the rows of the job."""

    @abstractmethod
    def validation_batch(self, job: Job) -> tuple[int, int | None]:
        """Rows of a global batch of validation, and of a micro-batch (None: a rank's share)."""

    @abstractmethod
    def validate(self, engine: Engine, rows: Batches, job: Job) -> dict[str, float]:
        """``metrics``; every rank calls it, with its own share of the rows."""

    # ---- evaluation ----------------------------------------------------------------------------

    @abstractmethod
    def comparison(
        self,
        plan: Plan,
        data: Data,
        teacher_setup: TeacherSetup | None,
        is_stopped: IsStopped,
        parts: Parts | None = None,
        distilled: Trainable | None = None,
    ) -> Comparison:
        """Of the models of a run on the test split. ``distilled``: the module that was distilled
        from the teachers of ``teacher_setup``, which has the weights that their aggregation
        trains."""

    @abstractmethod
    def teachers_on_validation(
        self, plan: Plan, job: Job, module: Trainable, is_stopped: IsStopped
    ) -> dict[str, float] | None:
        """``metrics`` of the aggregated teachers of ``job``, which are served; ``module``: of that
        job, with any weights of the aggregation. None where they cannot be compared with it."""

    # ---- teachers ------------------------------------------------------------------------------

    backend: ClassVar[str]
    """That serves its teachers; see teachers/backends/."""

    @abstractmethod
    def teacher_width(self, folder: str, num_outputs: int) -> int:
        """Outputs of a teacher about each position. ``num_outputs``: of one with classes."""

    def shared_tokens(self, plan: Plan, folders: Mapping[str, str]) -> dict[str, SharedTokens]:
        """The tokens that teachers, by name, share with the student; none where they are not
        compared token by token."""
        return {}

    def pooling(self, folder: str) -> str:
        """For the key of its outputs: how a teacher with a tokenizer pools its tokens, where an
        earlier version read them at another position."""
        return ""

    @staticmethod
    def data_metrics(rows: Rows) -> dict[str, float | None]:
        """``data.*``: known of the rows before anything is trained."""
        return {}

    def check_evaluated(self, path: Path) -> None:  # noqa: B027
        """Raise ConfigError for a model or run that ``distill evaluate`` does not measure."""

    @staticmethod
    @abstractmethod
    def cost(model: PreTrainedModel, seq_length: int) -> Efficiency:
        """Of a student, measured on one CPU thread."""

    @staticmethod
    @abstractmethod
    def load(folder: Path) -> PreTrainedModel:
        """An exported student."""

    # ---- sweeps and the memory of past runs ----------------------------------------------------

    @abstractmethod
    def rows_at_once(self, experiment: Experiment) -> tuple[int, int]:
        """With which a sweep fills the cache: between two looks at the progress, and of a
        request."""

    @abstractmethod
    def trial_metrics(self, job: Job, metrics: Mapping[str, float]) -> dict[str, float]:
        """What a trial's validation ``metrics`` are compared with: those of its teachers, whose
        outputs are in the cache."""

    @staticmethod
    def memory_key(corpus: Corpus, teacher_setup: TeacherSetup | None) -> str | None:
        """Equal for runs whose qualities can be compared; None: the memory of past runs does not
        hold runs of this task."""
        return None

    @staticmethod
    def largest_teacher(teacher_setup: TeacherSetup) -> int | None:
        """Its parameters; None where they are not known."""
        return None

    @staticmethod
    def meta_features(
        corpus: Corpus,
        teacher_setup: TeacherSetup | None,
        student: Student,
        metrics: Mapping[str, float],
        teacher_params: float | None,
    ) -> dict[str, float]:
        """``meta.*`` of a run with these ``student.params`` and ``eval.teacher_accuracy``."""
        return {}
