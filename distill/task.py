"""What a run is about, for the memory of past runs: a name that runs share, and its features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from distill.data.corpus import Corpus
from distill.fit import Guidance, TeacherSpec
from distill.search.meta import DataSummary, describe, summarise


def task_of(corpus: Corpus, guidance: Guidance | None) -> str:
    """Equal for runs whose qualities can be compared: the same data under the same teachers."""
    teachers = [] if guidance is None else [_identity(spec) for spec in guidance.teachers]
    told = json.dumps([corpus.fingerprint, teachers])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _identity(teacher: TeacherSpec) -> str:
    """Its weights, and which output is which class where that is not their order."""
    weights = teacher.key.weights
    return weights if teacher.columns is None else f"{weights}/{teacher.columns}"


def meta_of(
    corpus: Corpus, metrics: Mapping[str, float], teacher_params: float | None
) -> dict[str, float]:
    """``meta.*`` of a run with these ``student.params`` and ``eval.teacher_accuracy``."""
    return describe(
        _summary(corpus.folder),
        int(metrics["student.params"]),
        int(teacher_params or 0),
        metrics.get("eval.teacher_accuracy", 0.0),
    )


@lru_cache(maxsize=4)
def _summary(folder: Path) -> DataSummary:
    """Reads all inputs, once."""
    return summarise(Corpus(folder))
