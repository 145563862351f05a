"""The result of the checks: the experiment, its data, and what will run where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.config import Experiment, Student
from distill.data.blocks import Blocks
from distill.data.corpus import Corpus
from distill.data.rows import Rows
from distill.models.features import FeatureSpace
from distill.records import Line
from distill.tasks import task_of
from distill.tasks.base import Task


@dataclass(frozen=True)
class Plan:
    """A validated experiment, its data, and what will run where."""

    experiment: Experiment
    corpus: Corpus
    rows: Rows
    """The numbered rows: of a classifier the corpus's own, of a language model blocks."""
    teacher_names: tuple[str, ...]
    tokenizer: str
    """Folder of the tokenizer that the student starts from; empty for features."""
    features: FeatureSpace | None
    """The features of the data as the student needs them; None for text."""
    is_resuming: bool
    identity: dict[str, Any]
    num_cpus: float
    """CPUs that teachers and student reserve at once."""
    num_gpus: float
    lines: tuple[Line, ...]
    columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of classifiers whose outputs are in another order than the classes (of the router: than the
    teachers), by name: the output of each."""
    links: tuple[Student, ...] = ()
    """Of a chain: its intermediate links, from large to small; see driver/checks/chain.py."""

    @property
    def task(self) -> Task:
        return task_of(self.experiment)

    @property
    def blocks(self) -> Blocks | None:
        return self.rows if isinstance(self.rows, Blocks) else None
