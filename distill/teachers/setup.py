"""The teachers of a fit: how they are queried, and how their outputs are aggregated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill.aggregation import Aggregation
from distill.config import Cache, Stream
from distill.models.vocabulary import SharedTokens
from distill.records import Batch
from distill.teachers.cache import open_cache
from distill.teachers.client import TeacherClient
from distill.teachers.served import ServedTeacher
from distill.teachers.stream import TeacherStream


class RowsInFolders(Protocol):
    """How a process finds the rows of a fit by its folders; see training/job.py."""

    def open(self, tokenizer: str | None = None) -> Any:
        """As the student takes them, or as a teacher with the ``tokenizer`` of this folder does."""
        ...


@dataclass(frozen=True)
class TeacherSetup:
    """The teachers of a fit: how they are queried, and how their outputs are aggregated."""

    client: TeacherClient
    teachers: tuple[ServedTeacher, ...]
    router: ServedTeacher | None
    aggregation: Aggregation
    stream: Stream
    cache: Cache
    cache_folder: str
    by_content: bool = False
    """Of the folders in ``cache_folder``: named without the teachers' names; see cache.py."""

    @property
    def shared(self) -> SharedTokens | None:
        """The columns that all teachers and the student are compared in; None: no such."""
        return self.teachers[0].shared

    @property
    def served(self) -> tuple[ServedTeacher, ...]:
        """The teachers, and the router if there is one."""
        return (*self.teachers, self.router) if self.router else self.teachers

    def open(
        self,
        data: RowsInFolders,
        writer: str,
        *,
        boundary: Callable[[], None] | None = None,
        steps_ahead: int | None = None,
        num_ranks: int = 1,
        seed: int = 0,
    ) -> TeacherStream:
        """The stream of one process; ``writer`` names its cache segments. ``boundary``: a barrier
        over all ranks. ``steps_ahead``: of
        batches that are written while training, which are shown instead of the data set's rows,
        and whose outputs are not cached (output layers are): how many are requested ahead of the
        current one. ``num_ranks``: who share the teachers' replicas. ``seed``: of what teachers
        draw."""
        served, names = self.served, [teacher.name for teacher in self.teachers]
        is_generated = steps_ahead is not None
        keys = {s.name: s.key for s in served if is_generated or s.are_outputs_fixed}
        inputs: Any = data.open()
        positions_of: Callable[[Batch], np.ndarray] | None = None
        if steps_ahead is not None:
            cache = self.cache.model_copy(update={"type": "none"})
            tokens, in_flight = None, steps_ahead
            positions_of = _positions
        else:
            tokens = {s.name: data.open(s.tokenizer) for s in served}
            cache, in_flight = self.cache, self.stream.in_flight
            if self.teachers[0].positions == "tokens":
                positions_of = lambda part: inputs.num_targets(part.rows_B)  # noqa: E731
        return TeacherStream(
            self.client,
            self.teachers,
            tokens,
            router=self.router,
            cache=open_cache(cache, Path(self.cache_folder), keys, writer, self.by_content),
            aggregation=self.aggregation,
            in_flight=in_flight,
            boundary=boundary,
            domain_teachers_of=lambda rows: inputs.corpus.domain_teachers_of(rows, names),
            positions_of=positions_of,
            num_ranks=num_ranks,
            seed=seed,
        )


def _positions(part: Batch) -> np.ndarray:
    """int64[B]: of generated rows, the tokens trained on in each; 0 of a filler."""
    assert part.targets_BT is not None
    return part.targets_BT.numpy().sum(1)
