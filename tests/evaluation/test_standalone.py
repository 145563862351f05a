"""What an evaluation makes of files before a model answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.config import Data, parse
from distill.data.corpus import build_corpus
from distill.driver.evaluate.standalone import EvaluationSource, _task
from distill.driver.evaluate.subjects import Part, Subject, _models_of_run
from distill.evaluation.assess import variants_of
from distill.evaluation.settings import parse_settings
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
    task = _task(EvaluationSource(str(path)), data, corpus, student, Silent())
    (changed,) = variants_of(task, parse_settings(["transform.noise=0.1"])).values()
    moved = np.stack([sample.features_D for sample in changed.samples]) - rows  # type: ignore[arg-type]
    bounds = 0.1 * rows.std(0)
    assert (np.abs(moved) <= bounds * 1.001).all()
    assert (np.abs(moved).max(0) > 0.5 * bounds).all()


@pytest.mark.parametrize(
    ("partition", "names"),
    [
        ({"type": "column"}, ["CWE121", "CWE78", "other"]),
        ({"type": "kmeans", "num_clusters": 11}, [f"cluster-{c}" for c in range(11)]),
    ],
)
def test_a_runs_experts_come_in_the_order_of_its_weights(
    tmp_path: Path, partition: dict, names: list[str]
) -> None:
    for name in (*reversed(names), "router"):
        (tmp_path / "experts" / name / "model").mkdir(parents=True)
    raw = {
        "output": str(tmp_path),
        "data": {"path": "rows.parquet", "columns": {"domain": "cwe"}},
        "experts": {"base": "encoder", "partition": partition},
        "student": {"layers": 1, "hidden": 8},
    }
    found = _models_of_run(tmp_path, parse(raw))
    assert [name for name, _, _ in found] == names
