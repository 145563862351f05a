"""A task that is registered here goes through a run, a sweep's trial and their reports."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distill.config import Cache, Stream, parse
from distill.config.search import Goal, default_goals
from distill.config.tasks import TASKS, register
from distill.data.batches import Batches
from distill.driver.checks.check import check
from distill.driver.pipeline import Driver
from distill.driver.serve import teacher_specs
from distill.driver.sweep import tested as kept
from distill.driver.sweep.trial import Sweep, run_trial
from distill.errors import ConfigError
from distill.report.frontier import write_frontier
from distill.run_folder import RunFolder
from distill.search.plan import raw_of
from distill.search.trials import frontier
from distill.tasks.chained import Chained
from distill.tasks.jobs import student_job
from distill.tasks.outcome import evaluate
from distill.tasks.plan import Plan
from distill.teachers.backends import open_backends
from distill.teachers.local import LocalTeachers
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, load_best
from tests.tasks.ratings import RatingModule, Ratings
from tests.toys import BAD, GOOD, write_encoder

NEVER: Any = SimpleNamespace(is_set=lambda: False, check=lambda: None)
SPLITS = ("train", "train", "train", "validation", "test")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register("ratings", "tests.tasks.ratings:Ratings")
    yield
    del TASKS["ratings"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of three words, rated by how many of them praise, and a teacher that counts words."""
    root = tmp_path_factory.mktemp("ratings")
    rng = np.random.default_rng(0)
    ratings = rng.integers(0, 4, 400)
    texts = [
        " ".join(rng.permutation([*rng.choice(GOOD, n), *rng.choice(BAD, 3 - n)])) for n in ratings
    ]
    split = [SPLITS[i % 5] for i in range(400)]
    labels = [str(n) for n in ratings]
    pq.write_table(
        pa.table({"text": texts, "label": labels, "split": split}), root / "rows.parquet"
    )
    teacher = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels)
    (root / "counts.pkl").write_bytes(pickle.dumps(teacher))
    write_encoder(root / "encoder")
    return root


def settings(root: Path, folder: Path) -> dict[str, Any]:
    return {
        "task": "ratings",
        "data": {
            "path": str(root / "rows.parquet"),
            "columns": {"split": "split"},
            "max_length": 16,
            "cache_dir": str(root / "data-cache"),
        },
        "output": str(folder),
        "teachers": [
            {
                "name": "counts",
                "path": str(root / "counts.pkl"),
                "allow_pickle": True,
                "num_cpus": 0.1,
            }
        ],
        "student": {
            "layers": 1,
            "hidden": 16,
            "heads": 2,
            "dropout": 0.0,
            "tokenizer": str(root / "encoder"),
        },
        "optimizer": {"lr": 1e-2},
        "trainer": {"engine": "torch", "epochs": 4, "batch_size": 16},
        "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "system_metrics": False},
    }


def guidance_of(plan: Plan) -> TeacherSetup:
    """The teachers in this process."""
    driver: Any = Driver(plan, *[None] * 4)  # type: ignore[arg-type]
    teachers, _ = teacher_specs(driver, [])
    client, cache = LocalTeachers(open_backends(teachers)), f"{plan.experiment.output}/cache"
    aggregation = plan.experiment.aggregation
    return TeacherSetup(client, tuple(teachers), None, aggregation, Stream(), Cache(), cache)


def test_a_run_of_a_third_task(root: Path, tmp_path: Path) -> None:
    plan = check(parse(settings(root, tmp_path)))
    run, experiment = RunFolder(tmp_path), plan.experiment
    job = student_job(experiment, plan.corpus, plan.tokenizer, run.fit, run.stop)
    assert isinstance(job.task, Ratings) and isinstance(plan.task, Ratings)
    assert (job.selection.metric, job.selection.prefers_low) == ("eval.mae", True)
    alone = replace(job, name="alone", folder=str(run.baselines / "alone"))
    plan.task.fit_baseline(alone)
    assert plan.task.is_baseline_done(alone)
    teacher_setup = guidance_of(plan)
    job = replace(
        job, teacher_setup=teacher_setup, objective=experiment.objective, kd=experiment.kd
    )
    fit(job)
    assert isinstance(load_best(job), RatingModule)
    outcome = evaluate(plan, run, Chained(job), [alone], None, NEVER, lambda line: None)

    assert [(row.role, row.name) for row in outcome.rows] == [
        ("expert", "counts"),
        ("baseline", "alone"),
        ("student", "student"),
    ]
    rows = plan.rows.rows("test")
    (batch,) = Batches(job.data.open(), rows, 1000, 0, shuffle=False).at(0)
    student = load_best(job).student
    predicted_R = student(**batch.inputs()).logits.argmax(-1).numpy()
    off = float(np.abs(predicted_R - plan.rows.labels_of(rows)).mean())
    assert outcome.metrics["test.mae"] == pytest.approx(off)
    assert off < 0.75, "one that always predicts the same is 1 off, or more"
    assert json.loads((run.report / "metrics.json").read_text()) == outcome.metrics
    assert "counts" in (run.report / "table.md").read_text()
    assert (run.student / "model.safetensors").exists()


def test_a_trial_of_a_third_task(root: Path, tmp_path: Path) -> None:
    raw = settings(root, tmp_path)
    plan = check(parse(raw))
    assert plan.task.goal == Goal("eval.mae", "min")
    teacher_setup = guidance_of(plan)
    sweep = Sweep(
        raw_of(plan.experiment),
        tmp_path,
        plan.corpus.folder,
        plan.tokenizer,
        teacher_setup,
        None,
        tmp_path / "stop",
    )
    reported: list[Any] = []
    values = {"optimizer.lr": 5e-3}
    sweep.ledger.begin(values)
    run_trial(sweep, values, lambda metrics, folder: reported.append(metrics))
    assert all("eval.mae" in metrics for metrics in reported)
    (entry,) = sweep.ledger.entries()
    assert entry.metrics["eval.mae"] == min(m["eval.mae"] for m in reported)

    d: Any = SimpleNamespace(plan=plan, experiment=plan.experiment, interrupt=NEVER)
    entry = kept.tested(d, sweep, kept.timed_alone(d, sweep, entry))
    assert 0 <= entry.metrics["test.mae"] < 1
    goals = list(default_goals(plan.task.goal))
    assert [t.name for t in frontier([entry.trial()], goals)] == [entry.name]
    write_frontier(tmp_path / "report", [entry.trial()], goals, list(values), [], None)
    assert "eval.mae" in (tmp_path / "report/frontier.csv").read_text()


def test_a_name_that_is_not_registered_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task must be one of classification, language_model, "):
        parse(settings(root, tmp_path) | {"task": "rating"})
