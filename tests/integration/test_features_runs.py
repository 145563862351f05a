"""Students of features under scikit-learn's models: the real loop, and the whole pipeline."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import distill
from distill.aggregation import UniformMean
from distill.api import experiment_of
from distill.config import KD, Cache, Optimizer, Serving, Stream, Student, Trainer, parse
from distill.driver.checks.check import check
from distill.driver.evaluate.standalone import EvaluationSource, evaluate
from distill.errors import ConfigError, DistillError, ModelError
from distill.evaluation.evaluated import EvaluationRequest
from distill.evaluation.settings import parse_settings
from distill.objectives import ForwardKL
from distill.report.progress import Progress
from distill.run_folder import RunFolder, identity
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.probability import label_names
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, load_best
from distill.training.job import Job
from tests.toys import measured, toy_experiment
from tests.toys_teachers import backend_of

NUM_ROWS = 400


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rings of points, and which split each is in."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(NUM_ROWS, 2)) * [30, 0.1] + [500, 2]
    radius = np.hypot(*((points - [500, 2]) / [30, 0.1]).T)
    split = np.array(["train", "transfer", "validation", "test"])[np.arange(NUM_ROWS) % 4]
    return points, np.where(radius < 1.18, "in", "out"), split


def settings(root: Path, **changes: Any) -> dict[str, Any]:
    points, label, split = rows()
    path = root / "rings.parquet"
    if not path.exists():
        columns = {"width": points[:, 0], "height": points[:, 1], "label": label, "split": split}
        pq.write_table(pa.table(columns), path)
    return {
        "data": {
            "path": str(path),
            "columns": {"features": ["width", "height"], "split": "split"},
            "cache_dir": str(root / "data-cache"),
        },
        "output": str(root / "run"),
        "student": {"layers": 2, "hidden": 16, "dropout": 0.0},
        "kd": {"alpha": 0.8},
        "optimizer": {"lr": 1e-2},
        "trainer": {"engine": "torch", "epochs": 15, "batch_size": 16},
        "baselines": [{"type": "labels_only", "name": "alone"}],
        "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "system_metrics": False},
    } | changes


def fitted(model: Any) -> Any:
    points, label, split = rows()
    return model.fit(points[split == "train"].astype(np.float32), label[split == "train"])


@pytest.fixture(scope="module")
def forests() -> dict[str, Any]:
    return {
        "forest": fitted(RandomForestClassifier(20, random_state=0)),
        "extra": fitted(ExtraTreesClassifier(20, random_state=0)),
    }


def test_the_loop_trains_under_local_teachers(tmp_path: Path, forests: dict[str, Any]) -> None:
    """Learns, asks each row once, counts what was clamped, and repeats itself bit for bit."""
    experiment = parse(settings(tmp_path))
    plan = check(experiment)
    corpus = plan.corpus
    engines = {n: backend_of(m, num_labels=2) for n, m in forests.items()}
    key = TeacherKey("w", corpus.fingerprint, "none", "dense/float32", 0)
    specs = tuple(ServedTeacher(n, "", Serving(), 2, replace(key, weights=n)) for n in forests)
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    job = Job(
        name="student",
        folder="",
        seed=0,
        model=StudentSpec(Student(hidden=16, dropout=0), "", corpus.label_names, 0, plan.features),
        data=DataSpec(str(corpus.folder), "", 0),
        train_rows=range(train.start, transfer.stop),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=1e-2),
        trainer=Trainer(engine="torch", epochs=15, batch_size=16),
        objective=ForwardKL(),
        kd=KD(alpha=0.8),
    )
    weights = []
    for name in ("first", "second"):
        (folder := tmp_path / name).mkdir()
        client = LocalTeachers(engines)
        where = str(folder / "cache")
        teacher_setup = TeacherSetup(client, specs, None, UniformMean(), Stream(), Cache(), where)
        cursor = fit(replace(job, folder=str(folder), teacher_setup=teacher_setup))
        assert cursor.best_value > 0.85
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for teacher, model in forests.items():
            text = {
                kind: sum(x["metrics"].get(f"teacher.{teacher}.{kind}", 0) for x in lines)
                for kind in ("rows", "clamped")
            }
            points_ND = corpus.features_of(job.train_rows)
            zeros = int((model.predict_proba(points_ND) == 0).sum())
            assert text == {"rows": len(job.train_rows), "clamped": zeros} and zeros > 0
        weights.append(
            load_best(replace(job, folder=str(folder), teacher_setup=teacher_setup)).state_dict()
        )
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_distill_train_takes_fitted_objects(
    tmp_path: Path, forests: dict[str, Any], ray_cluster: None
) -> None:
    raw = settings(tmp_path)
    raw["trainer"] |= {"epochs": 10, "checkpoint_every": 1000}
    outcome = distill.train(raw, teachers=forests)
    table = {row.name: row for row in outcome.table}
    assert list(table) == ["forest", "extra", "uniform mean", "alone", "student"]
    points, label, split = rows()
    tested = points[split == "test"].astype(np.float32)
    for name, model in forests.items():
        want = float((model.predict(tested) == label[split == "test"]).mean())
        assert table[name].accuracy == pytest.approx(want)
        assert table[name].params is None and (table[name].latency_ms or 0) > 0
    student = table["student"]
    assert student.accuracy is not None and student.accuracy > 0.85
    assert "compression" not in outcome.metrics and "test.retention" in outcome.metrics
    again = measured(outcome.paths.student, tmp_path / "rings.parquet", split_column="")
    assert again["test.rows"] == NUM_ROWS and again["student.params"] == student.params
    pickled = tmp_path / "forest.pkl"
    pickled.write_bytes(pickle.dumps(forests["forest"]))
    request = EvaluationRequest(
        outcome.paths.student,
        EvaluationSource(str(tmp_path / "rings.parquet"), split_column=""),
        (str(pickled),),
        allow_pickle=True,
        settings=parse_settings(["intervals.num_draws=0"]),
    )
    beside = evaluate(request, Progress()).metrics
    assert beside["test.accuracy"] == again["test.accuracy"]
    assert (beside["teacher.test.accuracy"] or 0) > 0.9
    assert beside["fidelity.transformed.noise.any"] is not None
    # By two copies of each on Ray: the same.
    plain = ["attack.methods=[]", "transform.names=[]", "intervals.num_draws=0", "num_workers=2"]
    shared = evaluate(replace(request, settings=parse_settings(plain)), Progress()).metrics
    compared = [n for n in shared if n.startswith(("test.", "teacher.test.", "fidelity."))]
    assert {"test.accuracy", "test.ece", "teacher.test.accuracy", "fidelity.any"} <= {*compared}
    assert {n: shared[n] for n in compared} == pytest.approx({n: beside[n] for n in compared})
    with pytest.raises(ConfigError, match="reads features: leave it out"):
        measured(outcome.paths.student, tmp_path / "rings.parquet", text_column="width")
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    logged = {file.path for file in client.list_artifacts(runs["run"].info.run_id, "student")}
    assert "student/model.safetensors" in logged
    assert runs["run"].data.metrics["teacher.forest.clamped"] >= 0
    # The finished run only reports again.
    best = tmp_path / "run/fit/best.safetensors"
    before = best.stat().st_mtime_ns
    repeated = distill.train(raw, teachers=forests)
    assert [row.accuracy for row in repeated.table] == [row.accuracy for row in outcome.table]
    assert best.stat().st_mtime_ns == before


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"experts": {"base": "x", "partition": {"type": "kmeans"}}},
        "experts are fine-tuned from a text",
    ),
    ({"baselines": [{"type": "tfidf"}]}, "baselines: tfidf reads text"),
    ({"student": {"family": "cnn"}}, r"family is cnn: set data\.image"),
    (
        {"student": {"vocab_size": 100}},
        r"student\.vocab_size applies only to students that read text",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[next(iter(c)) for c, _ in BAD])
def test_what_features_cannot_have(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DistillError, match=message):
        check(parse(settings(tmp_path) | change))


def test_teachers_must_fit_labels_and_columns(tmp_path: Path, forests: dict[str, Any]) -> None:
    points, label, _ = rows()
    raw = settings(tmp_path)
    other = RandomForestClassifier(2).fit(points, np.where(label == "in", "inside", "outside"))
    with pytest.raises(ModelError, match=r"'other' .*inside, outside, those of teacher 'forest'"):
        check(experiment_of(raw, {"forest": forests["forest"], "other": other}))
    swapped = raw | {"data": raw["data"] | {"labels": ["out", "in"]}}
    columns = check(experiment_of(swapped, forests)).columns
    assert set(columns.values()) == {(1, 0)} and columns.keys() == forests.keys()
    wide = RandomForestClassifier(2).fit(np.hstack([points, points]), label)
    with pytest.raises(ModelError, match=r"teachers\.wide: .*fitted on 4 features.*gives 2"):
        check(experiment_of(raw, {"wide": wide}))
    with pytest.raises(ModelError, match="the teacher 'raw' is a RandomForestClassifier without"):
        experiment_of(raw, {"raw": RandomForestClassifier()})
    with pytest.raises(ConfigError, match=r"teachers are given and .* a section experts"):
        experiment_of(raw | {"experts": {"base": "x", "partition": {"type": "kmeans"}}}, forests)


def test_a_pipeline_over_strings_teaches_a_student_of_text(tmp_path: Path) -> None:
    raw = toy_experiment(tmp_path, aggregation={"type": "mean"})
    del raw["experts"]
    raw["student"] = raw["student"] | {"tokenizer": str(tmp_path / "encoder")}
    table = pq.read_table(tmp_path / "data.parquet").to_pylist()
    texts, labels = [r["text"] for r in table], [r["label"] for r in table]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    plan = check(experiment_of(raw, {"bag-of-words": model}))
    assert plan.features is None and plan.corpus.label_names == label_names(model, "m")
    del raw["student"]["tokenizer"]
    with pytest.raises(ConfigError, match=r"student\.tokenizer is missing"):
        check(experiment_of(raw, {"bag-of-words": model}))


def test_run_folders_from_before_features_resume(tmp_path: Path) -> None:
    experiment = parse(toy_experiment(tmp_path))
    known = identity(experiment, "data")
    new = ("data.columns.features", "data.image", "student.family")
    assert all(known[key] == "null" for key in new)
    (tmp_path / "run").mkdir()
    old = {key: value for key, value in known.items() if key not in new}
    (tmp_path / "run/experiment.json").write_text(json.dumps(old))
    assert RunFolder(tmp_path / "run").check(known)
