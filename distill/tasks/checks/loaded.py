"""What a task knows of an experiment once its data and its model folders are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from distill.config import Experiment
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.models.features import FeatureSpace
from distill.records import Line


class Folder(Protocol):
    """Of a model, without its weights."""

    @property
    def num_params(self) -> int:
        """0: not known, an object with predict_proba."""
        ...

    @property
    def num_layers(self) -> int: ...


class LoadedInputs(Protocol):
    """Data and model folders that fit together; and what the plan shows of them."""

    @property
    def corpus(self) -> Corpus: ...
    @property
    def rows(self) -> Rows:
        """What is numbered and batched."""
        ...

    @property
    def expert_rows(self) -> Rows:
        """The same as experts that are trained here read them."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the teachers."""
        ...

    @property
    def tokenizer(self) -> str:
        """Folder of the tokenizer that the student starts from; empty for features."""
        ...

    @property
    def features(self) -> FeatureSpace | None: ...
    @property
    def columns(self) -> Mapping[str, tuple[int, ...]]:
        """See :class:`distill.tasks.plan.Plan`."""
        ...

    @property
    def teachers(self) -> Mapping[str, Folder]:
        """Existing ones by name; of one that is an adapter, its base."""
        ...

    @property
    def adapters(self) -> Mapping[str, int]:
        """Parameters of those teachers that are adapters."""
        ...

    @property
    def base(self) -> Folder | None:
        """Of experts that are trained here."""
        ...

    @property
    def expert_updates(self) -> int | None:
        """Parameters of each expert that is trained as an adapter; None of whole ones."""
        ...

    def data_lines(self) -> list[Line]: ...
    def cost_lines(self, experiment: Experiment) -> list[Line]:
        """How a step's time is divided. ``experiment``: with numbers for ``num_cpus: auto``."""
        ...

    def teacher_lines(self) -> list[Line]: ...
    def student_lines(self) -> list[Line]:
        """Raises InputError for a student that cannot be built."""
        ...

    def trial_check(self) -> Callable[[Experiment], None]:
        """Raises InputError for an experiment that no trial of a sweep could be."""
        ...
