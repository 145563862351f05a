"""Pairs of texts, whole and in one process: what the second text alone tells can be learnt."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distill.aggregation import UniformMean
from distill.config import KD, Cache, Optimizer, Serving, Stream, Student, Trainer, parse
from distill.driver.checks.check import check
from distill.errors import ConfigError
from distill.export.folder import ModelCard, export
from distill.objectives import ForwardKL
from distill.tasks.classification.comparison import tfidf_row
from distill.tasks.classification.predict import predict
from distill.tasks.classification.specs import DataSpec, EncoderSpec, StudentSpec
from distill.tasks.classification.split import Split
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, fit_and_save, load_best
from distill.training.job import Job
from tests.toys import BAD, FILLERS, GOOD, measured, write_encoder
from tests.toys_teachers import answers_of_rows, backend_of

MAX_LENGTH = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose first text says nothing, an encoder, and a pickle that reads strings."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(360):
        label = int(rng.integers(2))
        telling = rng.choice(GOOD if label else BAD)
        rows.append(
            {
                "text": " ".join(rng.choice(FILLERS, 4)),
                "other": f"{telling} {rng.choice(FILLERS)}",
                "label": ("no", "yes")[label],
                "split": ("train", "train", "transfer", "transfer", "validation", "test")[i % 6],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), root / "pairs.parquet")
    write_encoder(root / "encoder")
    strings = make_pipeline(CountVectorizer(), LogisticRegression())
    train = [row for row in rows if row["split"] == "train"]
    strings.fit([f"{r['text']}\n{r['other']}" for r in train], [r["label"] for r in train])
    (root / "strings.pkl").write_bytes(pickle.dumps(strings))
    return root


def experiment(root: Path) -> dict:
    return {
        "data": {
            "path": str(root / "pairs.parquet"),
            "columns": {"text_pair": "other", "split": "split"},
            "max_length": MAX_LENGTH,
            "cut": "tail",
            "cache_dir": str(root / "cache"),
        },
        "output": str(root / "run"),
        "teachers": [
            {
                "name": "strings",
                "path": str(root / "strings.pkl"),
                "allow_pickle": True,
                "num_cpus": 0.1,
            }
        ],
        "student": {"tokenizer": str(root / "encoder"), "layers": 1, "hidden": 32, "heads": 2},
        "baselines": [{"type": "tfidf"}],
    }


def test_both_texts_reach_experts_teachers_student_baseline_and_evaluation(root: Path) -> None:
    plan = check(parse(experiment(root)))  # tries the pickle on two pairs
    corpus = plan.corpus
    data = DataSpec(str(corpus.folder), str(root / "encoder"), MAX_LENGTH, "tail")
    expert = Job(
        name="expert",
        folder=str(root / "expert"),
        seed=0,
        model=EncoderSpec(str(root / "encoder"), corpus.label_names),
        data=data,
        train_rows=corpus.rows("train"),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=1e-2),
        trainer=Trainer(engine="torch", epochs=15, batch_size=16),
    )
    fit_and_save(expert)
    text = json.loads((expert.model_folder / "config.json").read_text())
    assert text["distill"] == {"max_length": MAX_LENGTH, "cut": "tail", "is_pair": True}
    folders = {"expert": str(expert.model_folder), "strings": str(root / "strings.pkl")}
    engines = {n: backend_of(f, num_labels=2, allow_pickle=True) for n, f in folders.items()}
    key = TeacherKey("w", corpus.fingerprint, "t", "dense/float32", MAX_LENGTH, "tail")
    specs = tuple(ServedTeacher(n, f, Serving(), 2, key) for n, f in folders.items())
    where = str(root / "teacher-cache")
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    student = replace(
        expert,
        name="student",
        folder=str(root / "student"),
        model=StudentSpec(plan.experiment.student, data.tokenizer, corpus.label_names, MAX_LENGTH),
        train_rows=range(train.start, transfer.stop),
        objective=ForwardKL(),
        kd=KD(alpha=0.8),
        trainer=Trainer(engine="torch", epochs=12, batch_size=16),
        teacher_setup=TeacherSetup(
            LocalTeachers(engines), specs, None, UniformMean(), Stream(), Cache(), where
        ),
    )
    fit(student)
    test, module = Split(corpus, "test"), load_best(student)
    assert student.teacher_setup is not None
    with student.teacher_setup.open(data, "test") as stream:
        answers_KBV = answers_of_rows(stream, test.rows).logits_KBV
        seen = predict(module, test.batches(data.open()), stream)
    for answers_BV in answers_KBV:
        assert test.accuracy(answers_BV.argmax(-1).numpy()) > 0.95
    accuracy = test.accuracy(seen.student_R)
    assert accuracy > 0.9
    row = tfidf_row("tf-idf", plan, test)
    assert row.accuracy is not None and row.accuracy > 0.95

    export(module.student, data.tokenizer, root / "exported", ModelCard("s"), data.reading)
    tested = [r for r in pq.read_table(root / "pairs.parquet").to_pylist() if r["split"] == "test"]
    pq.write_table(pa.Table.from_pylist(tested), root / "test.parquet")
    found = measured(root / "exported", root / "test.parquet", pair_column="other")
    assert found["test.accuracy"] == pytest.approx(accuracy)
    with pytest.raises(ConfigError, match=r"trained on pairs of texts: give the column .*--pair-"):
        measured(root / "exported", root / "test.parquet")


def test_an_export_is_asked_as_it_was_trained(root: Path, tmp_path: Path) -> None:
    """Of 4 tokens, tail sees the one that tells; the head of these rows is fillers."""
    rows = pq.read_table(root / "pairs.parquet").to_pylist()
    rows = [row | {"text": f"{row['text']} {row['other'].split()[0]}"} for row in rows]
    table = pa.Table.from_pylist(rows).drop_columns(["other"])
    pq.write_table(table, tmp_path / "singles.parquet")
    raw = experiment(root) | {"teachers": [], "output": str(tmp_path / "run")}
    raw["data"] = raw["data"] | {
        "path": str(tmp_path / "singles.parquet"),
        "columns": {"split": "split"},
        "max_length": 4,
    }
    corpus = check(parse(raw)).corpus
    data = DataSpec(str(corpus.folder), str(root / "encoder"), 4, "tail")
    job = Job(
        name="student",
        folder=str(tmp_path / "fit"),
        seed=0,
        model=StudentSpec(
            Student(layers=1, hidden=32, heads=2), data.tokenizer, corpus.label_names, 8
        ),
        data=data,
        train_rows=corpus.rows("train"),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=1e-2),
        trainer=Trainer(engine="torch", epochs=4, batch_size=16),
    )
    fit_and_save(job)
    found = measured(job.model_folder, tmp_path / "singles.parquet")
    assert found["test.accuracy"] is not None and found["test.accuracy"] > 0.95
    assert found["test.truncated_rows"] == found["test.rows"] == len(rows)
    with pytest.raises(ConfigError, match=r"--pair-column text: .* was trained on single texts"):
        measured(job.model_folder, tmp_path / "singles.parquet", pair_column="text")
