"""The task of a run, for the configuration memory: an identifier, and its meta-features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from distill.config import Student
from distill.data.corpus import Corpus
from distill.models.features import FeatureConfig
from distill.models.load import check_folder, read_config
from distill.search.meta import DataSummary, Families, describe, summarise
from distill.teachers.probability import is_pickle
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup


def task_of(corpus: Corpus, teacher_setup: TeacherSetup | None) -> str:
    """Equal for runs whose qualities can be compared: the same data under the same teachers."""
    teachers = [] if teacher_setup is None else [_identity(spec) for spec in teacher_setup.teachers]
    text = json.dumps([corpus.fingerprint, teachers])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _identity(teacher: ServedTeacher) -> str:
    """Its weights, and which output is which class where that is not their order."""
    weights = teacher.key.weights
    return weights if teacher.columns is None else f"{weights}/{teacher.columns}"


def meta_of(
    corpus: Corpus,
    teacher_setup: TeacherSetup | None,
    student: Student,
    metrics: Mapping[str, float],
    teacher_params: float | None,
) -> dict[str, float]:
    """``meta.*`` of a run with these ``student.params`` and ``eval.teacher_accuracy``."""
    return describe(
        _summary(corpus.folder),
        int(metrics["student.params"]),
        int(teacher_params or 0),
        metrics.get("eval.teacher_accuracy", 0.0),
        families(teacher_setup, student, corpus),
    )


def families(teacher_setup: TeacherSetup | None, student: Student, corpus: Corpus) -> Families:
    """Architecture families, by the teachers' folders and the student's configuration."""
    teachers = teacher_setup.teachers if teacher_setup is not None else ()
    default = "transformer" if corpus.features is None else "mlp"
    own = student.family or (_family(student.path) if student.path else default)
    return Families(tuple(_family(t.folder) for t in teachers), own)


def _family(folder: str) -> str:
    if is_pickle(folder):
        return "other"
    config = read_config(folder)
    return config.family if isinstance(config, FeatureConfig) else "transformer"


def largest_teacher(teacher_setup: TeacherSetup) -> int | None:
    """Parameters of the largest teacher; None if one is an object without parameters to count."""
    if any(is_pickle(teacher.folder) for teacher in teacher_setup.teachers):
        return None
    folders = {t.folder: t.serving.allow_pickle for t in teacher_setup.teachers}
    return max(check_folder(folder, allowed).num_params for folder, allowed in folders.items())


@lru_cache(maxsize=4)
def _summary(folder: Path) -> DataSummary:
    """Reads all inputs, once."""
    return summarise(Corpus(folder))
