"""What an evaluation makes of files before a model answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.config import Data
from distill.data.corpus import build_corpus
from distill.evaluation.assess import variants_of
from distill.evaluation.settings import parse_settings
from distill.evaluation.standalone import Source, _task
from distill.evaluation.subjects import Part, Subject
from tests.evaluation.toy_classifiers import Silent

NAMES = ("no", "yes")


def test_noise_on_features_is_in_the_standard_deviations_of_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal([0.0, 5.0], [1.0, 10.0], (50, 2)).astype(np.float32)
    labels = pa.array(["yes" if row[0] > 0 else "no" for row in rows])
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": pa.array(rows[:, 0]), "y": rows[:, 1], "label": labels}), path)
    data = Data.model_validate(
        {
            "path": str(path),
            "columns": {"features": ["x", "y"]},
            "cache_dir": str(tmp_path / "cache"),
        }
    )
    corpus = build_corpus(data, labels=NAMES, only="test")
    student = Subject("student", (Part("student", "nowhere", NAMES, 0, num_features=2),))
    task = _task(Source(str(path)), corpus, student, Silent())
    (changed,) = variants_of(task, parse_settings(["transform.noise=0.1"])).values()
    moved = np.stack([sample.features_D for sample in changed.samples]) - rows  # type: ignore[arg-type]
    bounds = 0.1 * rows.std(0)
    assert (np.abs(moved) <= bounds * 1.001).all()
    assert (np.abs(moved).max(0) > 0.5 * bounds).all()
