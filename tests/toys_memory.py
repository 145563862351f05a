"""Fits of milliseconds for the shared memory: a table of two features, teachers in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.aggregation import UniformMean
from distill.config import KD, Cache, Data, Optimizer, Serving, Stream, Student, Trainer
from distill.data.corpus import build_corpus
from distill.objectives import ForwardKL
from distill.tasks.classification.inputs import space_of
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.job import Job
from tests.toys_teachers import backend_of

SPLITS = ("train", "train", "transfer", "validation")


class Rule:
    """A teacher: the sign of the first feature."""

    classes_ = np.array(["no", "yes"])

    def predict_proba(self, features_BD: Any) -> np.ndarray:
        yes_B = np.where(np.asarray(features_BD)[:, 0] > 0, 0.9, 0.1)
        return np.stack([1 - yes_B, yes_B], 1)


def table_job(root: Path, folder: str = "fit", **changes: Any) -> Job:
    """Labels alone; 64 rows of two features, below ``root``."""
    data = Data.model_validate(
        {
            "path": str(_table(root)),
            "columns": {"features": "x", "split": "split"},
            "cache_dir": str(root / "data-cache"),
            "holdout": {"test": 0.1},
        }
    )
    corpus = build_corpus(data, 0)
    values: dict[str, Any] = {
        "name": "student",
        "folder": str(root / folder),
        "seed": 0,
        "model": StudentSpec(
            Student(hidden=8, dropout=0.0), "", corpus.label_names, 0, space_of(data, corpus)
        ),
        "data": DataSpec(str(corpus.folder), "", 0),
        "train_rows": corpus.rows("train"),
        "validation_rows": corpus.rows("validation"),
        "optimizer": Optimizer(lr=1e-2),
        "trainer": Trainer(engine="torch", epochs=2, batch_size=8),
    }
    return Job(**(values | changes))


def taught_job(root: Path, folder: str = "fit", answers: Path | None = None, **changes: Any) -> Job:
    """As :func:`table_job`, with a teacher; ``answers``: the folder of the shared memory."""
    name = changes.pop("teacher", "rule")
    key = TeacherKey("rule", "rows", "none", "dense/float32", 0)
    teacher_setup = TeacherSetup(
        LocalTeachers({name: backend_of(cast(Any, Rule()), num_labels=2)}),
        (ServedTeacher(name, "", Serving(), 2, key),),
        None,
        UniformMean(),
        Stream(),
        Cache(),
        str(answers or root / folder / "cache"),
        by_content=answers is not None,
    )
    distilled = {"teacher_setup": teacher_setup, "objective": ForwardKL(), "kd": KD(alpha=0.8)}
    return table_job(root, folder, **(distilled | changes))


def _table(root: Path) -> Path:
    path = root / "table.parquet"
    if not path.exists():
        x_RD = np.random.default_rng(0).normal(size=(80, 2))
        columns = {
            "x": list(x_RD),
            "label": np.where(x_RD[:, 0] > 0, "yes", "no"),
            "split": [*SPLITS, "test"] * 16,
        }
        pq.write_table(pa.table(columns), path)
    return path
