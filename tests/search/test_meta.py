"""Meta-features against hand-computed values and scipy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from distill.config import Data
from distill.data.corpus import build_corpus
from distill.records import UNLABELLED
from distill.search.meta import (
    DataSummary,
    Families,
    Moments,
    completed,
    describe,
    meta_features,
    moments,
    summarise_features,
)

NAMES = {
    "meta.n",
    "meta.n_test",
    "meta.d",
    "meta.classes",
    "meta.imbalance",
    "meta.mean",
    "meta.variance",
    "meta.skewness",
    "meta.kurtosis",
    "meta.class_entropy",
    "meta.log_teacher_params",
    "meta.log_student_params",
    "meta.compression",
    "meta.log_capacity_gap",
    "meta.teacher_accuracy",
}
"""Stable: runs of earlier versions are read by these."""
FAMILY_NAMES = {
    *(f"meta.teacher_family.{name}" for name in ("transformer", "mlp", "cnn", "other")),
    *(f"meta.student_family.{name}" for name in ("transformer", "mlp", "cnn")),
}


def test_moments_are_scipys_averaged_over_columns() -> None:
    table = np.random.default_rng(0).gamma(2.0, 3.0, (50, 150))
    found = moments(table)
    assert found.mean == pytest.approx(table.mean(0).mean())
    assert found.variance == pytest.approx(table.var(0).mean())
    assert found.skewness == pytest.approx(stats.skew(table).mean())
    assert found.kurtosis == pytest.approx(stats.kurtosis(table).mean())


def test_a_constant_column_has_a_mean_and_nothing_else() -> None:
    constant = np.full((7, 1), 0.1)
    varying = np.array([[0.0]] * 6 + [[7.0]])
    alone, both = moments(constant), moments(np.hstack([constant, varying]))
    assert (alone.mean, alone.skewness, alone.kurtosis) == (pytest.approx(0.1), 0, 0)
    assert both.skewness == pytest.approx(stats.skew(varying)[0] / 2)
    assert both.kurtosis == pytest.approx(stats.kurtosis(varying)[0] / 2)


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(0, 4), st.integers(1, 3)),
        elements=st.floats(-1e30, 1e30),
    ),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_every_table_has_finite_features(table: np.ndarray, counts: list[int]) -> None:
    data = DataSummary(len(table), 7, table.shape[1], moments(table), np.array(counts))
    found = describe(data, student_params=10, teacher_params=0, teacher_accuracy=0.0)
    assert found.keys() == NAMES
    assert all(map(math.isfinite, found.values()))


def test_features_of_a_table_by_hand() -> None:
    table = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    data = summarise_features(table, np.array([1, UNLABELLED, 1]), classes=3, num_test_rows=9)
    assert data.label_counts_C.tolist() == [0, 2, 0]
    found = describe(data, student_params=100, teacher_params=100_000, teacher_accuracy=0.75)
    expected = {
        "meta.n": 3,
        "meta.n_test": 9,
        "meta.d": 2,
        "meta.classes": 3,
        "meta.imbalance": 1,  # the only class that occurs
        "meta.mean": 1.5,
        "meta.variance": 4 / 3,  # (8/3 + 0) / 2
        "meta.skewness": 0,
        "meta.kurtosis": -0.75,  # (-1.5 + 0) / 2
        "meta.class_entropy": 0,
        "meta.log_teacher_params": 5,
        "meta.log_student_params": 2,
        "meta.compression": 1000,
        "meta.log_capacity_gap": math.log(1000),
        "meta.teacher_accuracy": 0.75,
    }
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_labels_give_imbalance_and_entropy() -> None:
    nothing = Moments(0, 0, 0, 0)
    counts = np.array([6, 2, 0])
    found = describe(DataSummary(8, 4, 1, nothing, counts), 1, 1, 1.0)
    assert found["meta.imbalance"] == 3
    assert found["meta.class_entropy"] == pytest.approx(stats.entropy([0.75, 0.25]))


def test_families_are_shares_of_the_teachers_and_the_students_own() -> None:
    data = DataSummary(8, 4, 1, Moments(0, 0, 0, 0), np.array([4, 4]))
    families = Families(("other", "mlp", "other"), "cnn")
    found = describe(data, 1, 1, 1.0, families)
    assert found.keys() == NAMES | FAMILY_NAMES
    assert {name: found[name] for name in FAMILY_NAMES if found[name]} == {
        "meta.teacher_family.other": pytest.approx(2 / 3),
        "meta.teacher_family.mlp": pytest.approx(1 / 3),
        "meta.student_family.cnn": 1,
    }


def test_what_an_older_version_recorded_gives_the_capacity_gap() -> None:
    assert completed({"meta.n": 3.0}) == {"meta.n": 3.0}
    found = completed({"meta.compression": 10.0})
    assert found == {"meta.compression": 10.0, "meta.log_capacity_gap": math.log(10)}


def test_features_of_texts_by_hand(tmp_path: Path) -> None:
    rows = [
        {"text": "ab cd", "label": "no", "split": "train"},
        {"text": "a", "label": "yes", "split": "train"},
        {"text": "a b c d e", "label": "yes", "split": "train"},
        {"text": "abc", "label": None, "split": "transfer"},
        {"text": "validation rows do not count", "label": "no", "split": "validation"},
        {"text": "nor do those of the test", "label": "no", "split": "test"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    data = {"path": str(tmp_path / "rows.parquet"), "columns": {"split": "split"}}
    corpus = build_corpus(Data.model_validate(data | {"cache_dir": str(tmp_path)}))
    found = meta_features(corpus, 10, 1000, 0.9)
    lengths = [5, 1, 9, 3]
    assert (found["meta.n"], found["meta.n_test"]) == (4, 1)
    assert found["meta.d"] == (2 + 1 + 5 + 1) / 4
    assert found["meta.classes"] == 2
    assert found["meta.imbalance"] == 2
    assert found["meta.mean"] == np.mean(lengths)
    assert found["meta.variance"] == np.var(lengths)
    assert found["meta.skewness"] == pytest.approx(stats.skew(lengths))
    assert found["meta.kurtosis"] == pytest.approx(stats.kurtosis(lengths))


def test_features_of_a_table_on_disk_are_those_of_its_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(40, 3)).astype(np.float32)
    splits = ["train", "transfer", "validation", "test"]
    rows = [
        {"x": x.tolist(), "label": i % 3 == 0, "split": splits[i % 4]} for i, x in enumerate(table)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    columns = {"split": "split", "features": "x"}
    data = {"path": str(tmp_path / "rows.parquet"), "columns": columns}
    corpus = build_corpus(Data.model_validate(data | {"cache_dir": str(tmp_path)}))
    seen = np.concatenate([table[0::4], table[1::4]])  # train, then transfer
    labels = np.concatenate([np.arange(0, 40, 4) % 3 == 0, np.full(10, UNLABELLED)])
    expected = describe(summarise_features(seen, labels, 2, num_test_rows=10), 10, 1000, 0.9)
    found = meta_features(corpus, 10, 1000, 0.9)
    assert found == expected
    assert (found["meta.n"], found["meta.d"]) == (20, 3)
