"""A run with attention, in this process: resume, report, export, and runs of the old network."""

from __future__ import annotations

import io
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
from safetensors.torch import load_file, save_file
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from distill.aggregation import Attention, Uncertainty, UniformMean
from distill.aggregation.saved import PARAMETERS, SETTINGS, read_weights
from distill.config import Cache, Stream, parse
from distill.data.batches import Batches
from distill.driver.checks.check import check
from distill.driver.context import Driver, Work
from distill.driver.fit_progress import FitWatch
from distill.driver.serve import teacher_specs
from distill.errors import CheckpointError, ConfigError, ModelError
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained
from distill.tasks.classification.predict import predict
from distill.tasks.jobs import student_job
from distill.tasks.outcome import evaluate
from distill.tasks.plan import Plan
from distill.teachers.backends import open_backends
from distill.teachers.local import LocalTeachers
from distill.teachers.setup import TeacherSetup
from distill.training.class_module import pooled
from distill.training.fit import build_module, fit, load_best
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job

TEACHERS = ("good", "flat", "wild")
SPLITS = ("train", "train", "train", "transfer", "validation", "test")


def settings(root: Path, folder: str = "run", **aggregation: Any) -> dict[str, Any]:
    teachers = [{"name": n, "path": str(root / f"{n}.pkl"), "allow_pickle": True} for n in TEACHERS]
    return {
        "data": {
            "path": str(root / "rows.parquet"),
            "columns": {"features": ["a", "b", "c"], "domain": "domain", "split": "split"},
            "cache_dir": str(root / "data-cache"),
        },
        "output": str(root / folder),
        "teachers": [teacher | {"num_cpus": 0.1} for teacher in teachers],
        "aggregation": {"type": "attention", **aggregation},
        "kd": {"temperature": 2.0, "alpha": 0.7},
        "student": {"layers": 1, "hidden": 8, "dropout": 0.0},
        "optimizer": {"lr": 1e-2},
        "trainer": {"engine": "torch", "epochs": 4, "batch_size": 16, "checkpoint_every": 20},
        "tracking": {"uri": f"sqlite:///{root}/mlflow.db", "system_metrics": False},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of two domains, one named like a teacher; teachers that know, know nothing, and draw
    one class at random."""
    root = tmp_path_factory.mktemp("attention")
    rng = np.random.default_rng(0)
    features_RD = rng.normal(size=(480, 3))
    label_R = np.where(features_RD @ [2, -1, 1] + 0.3 * rng.normal(size=480) > 0, "yes", "no")
    table = dict(zip("abc", features_RD.T, strict=True))
    table |= {
        "label": label_R,
        "domain": np.where(np.arange(480) % 2 == 0, "good", "other"),
        "split": [SPLITS[(i // 2) % 6] for i in range(480)],
    }
    pq.write_table(pa.table(table), root / "rows.parquet")
    models = (
        LogisticRegression(),
        DummyClassifier(strategy="uniform"),
        DummyClassifier(strategy="stratified", random_state=0),
    )
    for name, model in zip(TEACHERS, models, strict=True):
        fitted: Any = model
        fitted.fit(features_RD.astype(np.float32), label_R)
        (root / f"{name}.pkl").write_bytes(pickle.dumps(fitted))
    return root


def planned(root: Path, folder: str = "run", **aggregation: Any) -> tuple[Plan, Job]:
    """The checked experiment, and its student's job with the teachers in this process."""
    plan = check(parse(settings(root, folder, **aggregation)))
    run = RunFolder(plan.experiment.output)
    driver: Any = Driver(plan, *[None] * 4)  # type: ignore[arg-type]
    teachers, _ = teacher_specs(driver, [])
    given = plan.experiment.aggregation
    teacher_setup = TeacherSetup(
        LocalTeachers(open_backends(teachers)),
        tuple(teachers),
        None,
        given,
        Stream(),
        Cache(),
        str(run.root / "cache"),
    )
    job = student_job(plan.experiment, plan.corpus, "", run.fit, run.stop)
    job = replace(
        job, teacher_setup=teacher_setup, objective=plan.experiment.objective, kd=plan.experiment.kd
    )
    return plan, job


def features_of(job: Job, split: str) -> torch.Tensor:
    """What the exported network takes, of every row of a split."""
    rows: Any = job.data.open()
    (batch,) = Batches(rows, rows.corpus.rows(split), 1000, 0, shuffle=False).at(0)
    with torch.no_grad():
        student = load_best(job).student
        output = student(**batch.inputs(), output_hidden_states=True)
    return pooled(output.hidden_states[-1], batch)


def test_a_run_reports_and_exports_its_weights(root: Path) -> None:
    plan, job = planned(root)
    fit(job)
    run = RunFolder(plan.experiment.output)
    interrupt = StopOnSignal(lambda: None)
    payloads: list[str] = []
    outcome = evaluate(plan, run, Chained(job), [], None, interrupt, payloads.append)

    saved = read_weights(outcome.report / "aggregation")
    assert saved.aggregation == plan.experiment.aggregation and saved.teachers == TEACHERS
    weights_KR = saved.weights(features_of(job, "test"))
    test = plan.corpus.rows("test")
    assert job.teacher_setup is not None
    with job.teacher_setup.open(job.data, "test") as stream:
        batches = Batches(job.data.open(), test, 64, 0, shuffle=False)
        used = predict(load_best(job), batches, stream).weights_RK
    torch.testing.assert_close(weights_KR, torch.from_numpy(used).T, rtol=1e-4, atol=1e-5)

    metrics, domains_R = outcome.metrics, plan.corpus.domains_of(test)
    for d, domain in enumerate(plan.corpus.domain_names):
        for k, name in enumerate(TEACHERS):
            mean = float(weights_KR[k][torch.from_numpy(domains_R == d)].mean())
            assert metrics[f"router.load.{name}.{domain}"] == pytest.approx(mean, abs=1e-4)
    assert metrics["router.load.good"] > 0.6
    shown = ", ".join(f"{name} {metrics[f'router.load.{name}']:.2f}" for name in TEACHERS)
    assert f"attention: mean weights on the test split: {shown}" in payloads
    # Of the rows whose domain a teacher is named like, this teacher has the largest weight for all.
    assert metrics["router.accuracy"] == 1
    table = (outcome.report / "weights.md").read_text()
    assert table.splitlines()[0] == "| domain | good | flat | wild |"
    cells = table.splitlines()[2].replace(" ", "").split("|")
    assert cells[1] == "all" and float(cells[2]) == pytest.approx(
        metrics["router.load.good"], abs=6e-4
    )
    assert (outcome.report / "weights.png").stat().st_size > 10_000
    names = [(row.name, row.role) for row in outcome.rows]
    assert ("attention ensemble", "mix") in names and ("uniform mean", "mix") in names
    lines = [json.loads(line)["metrics"] for line in (run.fit / "metrics.jsonl").open()]
    losses = [line["router.loss"] for line in lines if "router.loss" in line]
    assert losses[-1] < losses[0]


def test_a_folder_without_trained_weights_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no trained weights.*report/aggregation of a run"):
        read_weights(tmp_path)
    source = root / "run/report/aggregation"
    about = json.loads((source / SETTINGS).read_text())
    (tmp_path / SETTINGS).write_text(json.dumps(about | {"version": 1}))
    (tmp_path / PARAMETERS).write_bytes((source / PARAMETERS).read_bytes())
    with pytest.raises(ModelError, match=r"holds version 1 of aggregation.type attention.*is ver"):
        read_weights(tmp_path)


# ---- runs that were started by the network before this one ------------------------------------


class Stopped(Exception):
    pass


def stop(cursor: Any) -> None:
    raise Stopped


def made_old(fit_folder: Path) -> None:
    """As the old network's code left it: no version, and other parameters."""
    for cursor in fit_folder.glob("checkpoints/*/cursor.json"):
        content = json.loads(cursor.read_text())
        assert content.pop("aggregation_version") == 2
        cursor.write_text(json.dumps(content))
        manifest = cursor.parent / "manifest.json"
        sums = json.loads(manifest.read_text())
        del sums["cursor.json"]
        manifest.write_text(json.dumps(sums))
    best = fit_folder / "best.safetensors"
    state = {n: t for n, t in load_file(best).items() if n.startswith("student.")}
    old = {"attention.0.weight": torch.zeros(4, 14), "attention.0.bias": torch.zeros(4)}
    save_file(state | old, best, metadata={"step": "20", "value": "0.5"})


def test_a_fit_of_the_old_network_is_refused_before_it_resumes(root: Path) -> None:
    plan, job = planned(root, "begun")
    with pytest.raises(Stopped):
        fit(replace(job, trainer=job.trainer.model_copy(update={"eval_every": 25})), report=stop)
    run = RunFolder(root / "begun")
    (run.root / "experiment.json").write_text(json.dumps(plan.identity))
    assert check(parse(settings(root, "begun"))).is_resuming, "one of this network goes on"
    made_old(run.fit)
    way_out = rf"step-00000020 was written by .* another output, or delete {run.fit} to train the"
    with pytest.raises(CheckpointError, match=way_out):
        check(parse(settings(root, "begun")))
    with pytest.raises(CheckpointError, match=way_out):
        fit(job)


def test_old_weights_of_a_finished_fit_are_refused_and_its_result_is_kept(root: Path) -> None:
    plan, job = planned(root, "finished")
    fit(job)
    run = RunFolder(root / "finished")
    made_old(run.fit)
    with pytest.raises(
        CheckpointError,
        match=r"best.safetensors was written by .*delete .*finished/fit to .*exported",
    ):
        load_best(job)
    # Of a run that has its result nothing is trained: the result is shown.
    (run.root / "experiment.json").write_text(json.dumps(plan.identity))
    run.finished.write_text("{}")
    assert check(parse(settings(root, "finished"))).is_resuming


def test_a_later_link_without_attention_goes_on(root: Path) -> None:
    """A fit of the same experiment whose own teachers need no attention is not an old one."""
    plan, job = planned(root, "link")
    (root / "link").mkdir()
    (root / "link/experiment.json").write_text(json.dumps(plan.identity))
    assert job.teacher_setup is not None
    mean = replace(job, teacher_setup=replace(job.teacher_setup, aggregation=UniformMean()))
    with pytest.raises(Stopped):
        fit(replace(mean, trainer=job.trainer.model_copy(update={"eval_every": 25})), report=stop)
    assert check(parse(settings(root, "link"))).is_resuming
    fit(mean)


def test_the_run_folder_of_an_old_attention_is_still_its_own(root: Path) -> None:
    """The new key at its default is no part of the identity."""
    identity = check(parse(settings(root, "identity"))).identity
    assert not any(key.startswith("aggregation.per") for key in identity)
    given = check(parse(settings(root, "identity", per="sample"))).identity
    assert given["aggregation.per"] == "sample"


# ---- without labels, and what is refused ------------------------------------------------------


def test_without_a_labelled_row_uncertainty_is_used_and_said(root: Path, tmp_path: Path) -> None:
    plan, job = planned(root, "unlabelled", mix="logits")
    assert job.aggregation is plan.experiment.aggregation and job.replaced_aggregation is None
    unlabelled = replace(job, train_rows=plan.corpus.rows("transfer"), folder=str(tmp_path))
    assert unlabelled.aggregation == Uncertainty(mix="logits")
    module: Any = build_module(unlabelled)
    assert module.aggregation == Uncertainty(mix="logits") and module.router is None
    stream = io.StringIO()
    FitWatch(Work(plan, RunFolder(tmp_path), Progress(stream)), [unlabelled])
    assert (
        "student: no row that it is trained on has a label, which aggregation.type attention "
        "needs: aggregation.type uncertainty is used"
    ) in " ".join(stream.getvalue().split())
    # Some labelled rows are enough.
    some = np.concatenate([plan.corpus.rows("transfer"), plan.corpus.rows("train")[:1]])
    assert replace(unlabelled, train_rows=some).aggregation == Attention(mix="logits")


def test_weights_of_tokens_are_refused_for_classifiers(root: Path) -> None:
    check(parse(settings(root, "per", per="sample")))
    with pytest.raises(ConfigError, match=r"aggregation.per token applies only to language models"):
        check(parse(settings(root, "per", per="token")))
