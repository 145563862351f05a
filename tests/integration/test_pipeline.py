"""The main job, whole, with real Ray, DeepSpeed and MLflow on tiny models."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.aggregation import Routed
from distill.config import KD, Cache, Optimizer, Serving, Stream, Trainer, parse
from distill.config import Student as StudentConfig
from distill.data.corpus import Corpus
from distill.driver import pipeline
from distill.driver.evaluate.standalone import EvaluationSource, evaluate
from distill.errors import CacheError, TeacherAnswerError
from distill.evaluation.evaluated import EvaluationRequest
from distill.evaluation.relations import RATES
from distill.evaluation.settings import parse_settings
from distill.objectives import ForwardKL
from distill.records import Cursor
from distill.report.progress import Progress
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.tasks.outcome import Outcome
from distill.teachers.cache import TeacherKey
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, is_done
from distill.training.job import Job
from tests.toys import DOMAINS, toy_experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def outcome(root: Path, ray_cluster: None) -> Outcome:
    """`distill train` on the toy data: 3 experts, router, two baselines, DeepSpeed student."""
    with Progress() as progress:
        return pipeline.train(parse(toy_experiment(root)), progress)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.e2e
def test_the_table_has_every_model(outcome: Outcome) -> None:
    assert [(row.name, row.role) for row in outcome.rows] == [
        *((name, "expert") for name in DOMAINS),
        ("uniform mean", "mix"),
        ("oracle domain", "mix"),
        ("routed ensemble, k=2", "mix"),
        ("alone", "baseline"),
        ("tf-idf", "baseline"),
        ("student", "student"),
    ]
    student = outcome.rows[-1]
    assert student.accuracy is not None and student.accuracy > 0.8
    mix = outcome.rows[5]
    assert student.retention == pytest.approx(student.accuracy / mix.accuracy)  # type: ignore[operator]
    for expert in outcome.rows[:3]:
        assert expert.in_domain is not None and expert.out_of_domain is not None
        # Every domain is a third of the test split.
        assert (expert.in_domain + 2 * expert.out_of_domain) / 3 == pytest.approx(expert.accuracy)


@pytest.mark.e2e
def test_the_router_is_told_by_load_and_confidence(outcome: Outcome) -> None:
    assert 0 <= outcome.metrics["test.ece"] < 0.5
    rates = [outcome.metrics[f"fidelity.{name}"] for name in RATES]
    assert 0 <= max(rates) == outcome.metrics["fidelity.any"] < 1
    loads = [outcome.metrics[f"router.load.{name}"] for name in DOMAINS]
    assert sum(loads) == pytest.approx(1) and min(loads) > 0
    assert outcome.metrics["router.accuracy"] > 0.8  # the domain is in the text
    assert 1 / 3 <= outcome.metrics["router.confidence"] <= 1
    assert (outcome.report / "router.png").stat().st_size > 10_000


@pytest.mark.e2e
def test_an_evaluation_of_the_run_finds_what_the_run_found(outcome: Outcome, root: Path) -> None:
    """Beside its own routed teachers."""
    source = EvaluationSource(
        str(root / "data.parquet"), domain_column="domain", split_column="split"
    )
    plain = ["attack.methods=[]", "transform.names=[]"]
    with Progress() as progress:
        found = evaluate(
            EvaluationRequest(root / "run", source, settings=parse_settings(plain)), progress
        )
    names = [f"test.accuracy.{domain}" for domain in DOMAINS]
    for name in ("test.accuracy", "test.teacher_accuracy", "test.ece", *names):
        assert found.metrics[name] == pytest.approx(outcome.metrics[name], abs=1e-5)
    for name in RATES:
        assert found.metrics[f"fidelity.{name}"] == outcome.metrics[f"fidelity.{name}"]


@pytest.mark.e2e
def test_the_export_loads_without_distill(outcome: Outcome, root: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(outcome.student)
    tokenizer = AutoTokenizer.from_pretrained(outcome.student)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    assert classify("the soup was lovely")[0]["label"] == "yes"
    best = load_file(root / "run/fit/best.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(best[f"student.{name}"], tensor), name
    card = (outcome.student / "README.md").read_text()
    assert all(name in card for name in (*DOMAINS, "routed", "forward_kl", "test.accuracy"))


@pytest.mark.e2e
def test_the_second_epoch_asks_the_teachers_nothing(outcome: Outcome, root: Path) -> None:
    asked: dict[bool, float] = {True: 0, False: 0}
    cached = 0.0
    steps_per_epoch = -(-324 // 16)
    for line in lines_of(root / "run/fit"):
        for name, value in line["metrics"].items():
            if name.startswith("teacher.") and name.endswith(".rows"):
                # Lines are written every 10 steps: 20 is before the epoch's end, 30 after it.
                asked[line["step"] <= steps_per_epoch + 9] += value
            cached += value if name.endswith(".cached_rows") else 0
    assert asked[True] == 324 * 3  # the router once and two experts, for train and transfer
    assert asked[False] == 0
    assert cached == 7 * 324 * 3


def test_a_router_of_the_lowest_loss_is_trained_after_its_experts(
    tmp_path: Path, ray_cluster: None
) -> None:
    raw = toy_experiment(tmp_path)
    raw["experts"] = raw["experts"] | {"epochs": 2}
    raw["experts"]["router"] = raw["experts"]["router"] | {"targets": "lowest_loss", "epochs": 2}
    with Progress() as progress:
        folders = pipeline.train_experts(parse(raw), progress)
        losses = [tmp_path / "run/experts" / name / "losses.npz" for name in DOMAINS]
        written = [path.stat().st_mtime_ns for path in losses]
        assert pipeline.train_experts(parse(raw), progress) == folders  # nothing is asked again
    assert [path.stat().st_mtime_ns for path in losses] == written
    with np.load(losses[0]) as of_films:
        num_rows = {split: len(of_films[split]) for split in ("train", "validation")}
    assert num_rows == {"train": 162, "validation": 78}  # every expert about every labelled row
    text = json.loads((folders["router"] / "config.json").read_text())
    assert list(text["id2label"].values()) == list(DOMAINS)


@pytest.mark.e2e
def test_mlflow_compares_at_a_glance(outcome: Outcome, root: Path) -> None:
    import mlflow

    runs = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db").search_runs(["1"])
    by_name = {run.info.run_name: run for run in runs}
    assert set(by_name) == {row.name for row in outcome.rows} - {"student"} | {"run"}
    main = by_name["run"]
    assert main.info.status == "FINISHED"
    stable = {
        "student.params",
        "student.size_mb",
        "student.latency_ms",
        "student.gflops",
        "eval.accuracy",
        "eval.f1",
        "eval.retention",
        "test.accuracy",
        "compression",
        "kd.temperature",
        "kd.alpha",
        "teacher.films.wait_s",
        "teacher.films.rows",
        "loss",
    }
    assert stable <= set(main.data.metrics)
    assert main.data.params["kd.temperature"] == "2.0"
    assert {i.dataset.name.split(".")[-1] for i in main.inputs.dataset_inputs} == {
        "train",
        "transfer",
        "validation",
        "test",
    }
    assert by_name["alone"].data.tags["mlflow.parentRunId"] == main.info.run_id


# ---- one rank in this process, so that teachers can be harmed under it ------------------------


def specs_of(root: Path, folders: dict[str, Path], corpus: Corpus) -> list[ServedTeacher]:
    def spec(name: str, folder: Path, num_labels: int) -> ServedTeacher:
        key = TeacherKey(str(folder), corpus.fingerprint, "same", "dense/float32", 16)
        return ServedTeacher(name, str(folder), Serving(num_cpus=0.1), num_labels, key)

    return [spec(n, f, 3 if n == "router" else 2) for n, f in folders.items()]


def job_of(
    root: Path, folder: Path, client: Any, specs: list[ServedTeacher], corpus: Corpus
) -> Job:
    *teachers, router = specs
    tokenizer = str(root / "encoder")
    teacher_setup = TeacherSetup(
        client, tuple(teachers), router, Routed(k=2), Stream(), Cache(), str(folder / "cache")
    )
    return Job(
        name="student",
        folder=str(folder),
        seed=0,
        model=StudentSpec(
            StudentConfig(layers=1, hidden=16, heads=2), tokenizer, corpus.label_names, 16
        ),
        data=DataSpec(str(corpus.folder), tokenizer, 16),
        train_rows=range(0, 324),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=5e-3),
        trainer=Trainer(engine="torch", epochs=3, batch_size=16, log_every=1, checkpoint_every=5),
        objective=ForwardKL(),
        kd=KD(alpha=0.7),
        teacher_setup=teacher_setup,
    )


@pytest.fixture(scope="module")
def experts(outcome: Outcome, root: Path) -> dict[str, Path]:
    return {name: root / "run/experts" / name / "model" for name in (*DOMAINS, "router")}


@pytest.fixture(scope="module")
def corpus(outcome: Outcome, root: Path) -> Corpus:
    corpora = map(Corpus, (root / "data-cache/corpora").iterdir())
    (found,) = (corpus for corpus in corpora if len(corpus.rows("train")))  # others: evaluations
    return found


@pytest.mark.e2e
def test_a_teacher_killed_mid_run_changes_nothing(
    root: Path, experts: dict[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    from distill.teachers.replica_pool import RayTeacherPool

    specs = specs_of(root, experts, corpus)

    def run(pool: RayTeacherPool, folder: Path, is_harmed: bool) -> dict[str, torch.Tensor]:
        stream = Stream(in_flight=1, retries=8, deadline_s=1500)
        job = job_of(root, folder, pool.client(stream), specs, corpus)
        job = replace(job, trainer=job.trainer.model_copy(update={"eval_every": 5}))
        killed: list[int] = []

        def kill(cursor: Cursor) -> None:
            if is_harmed and cursor.step == 5:  # of the 21 of the epoch in which all are asked
                for name in ("meals", "router"):
                    (pid,) = pool.pids(name)
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        fit(job, report=kill)
        if is_harmed:
            new = {name: pool.pids(name)[0] for name in ("meals", "router")}
            assert len(killed) == 2 and not set(killed) & set(new.values())
            retries = sum(
                value
                for line in lines_of(folder)
                for name, value in line["metrics"].items()
                if name.endswith(".retries")
            )
            assert retries > 0
        (last,) = sorted((folder / "checkpoints").iterdir())[-1:]
        return torch.load(last / "engine.pt", weights_only=True)["module"]

    with RayTeacherPool(specs) as pool:
        calm, harmed = run(pool, tmp_path / "calm", False), run(pool, tmp_path / "harmed", True)
    for name, tensor in calm.items():
        assert torch.equal(tensor, harmed[name]), name


@pytest.mark.e2e
def test_a_teacher_that_answers_nan_stops_the_run(
    root: Path, experts: dict[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    import shutil

    from distill.teachers.local import LocalTeachers
    from tests.toys_teachers import backend_of

    sick = tmp_path / "sick"
    shutil.copytree(experts["meals"], sick)
    weights = load_file(sick / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, sick / "model.safetensors", metadata={"format": "pt"})
    specs = specs_of(root, experts | {"meals": sick}, corpus)
    engines = {
        s.name: backend_of(s.folder, num_labels=s.width, wire=s.serving.wire, max_batch_tokens=4096)
        for s in specs
    }
    job = job_of(root, tmp_path / "run", LocalTeachers(engines), specs, corpus)
    with pytest.raises(TeacherAnswerError, match="meals"):
        fit(job)
    assert not is_done(job)


@pytest.mark.e2e
def test_a_corrupt_cache_says_how_to_go_on(
    root: Path, experts: dict[str, Path], corpus: Corpus, tmp_path: Path
) -> None:
    from distill.teachers.local import LocalTeachers
    from tests.toys_teachers import backend_of

    specs = specs_of(root, experts, corpus)
    engines = {
        s.name: backend_of(s.folder, num_labels=s.width, wire=s.serving.wire, max_batch_tokens=4096)
        for s in specs
    }
    job = job_of(root, tmp_path / "run", LocalTeachers(engines), specs, corpus)
    job = replace(job, num_steps=10)
    fit(job)
    segment = next((tmp_path / "run/cache").glob("films-*/*.arrow"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(bytes(data))
    again = replace(job, folder=str(tmp_path / "again"))
    with pytest.raises(CacheError, match=r"delete"):
        fit(again)
    segment.unlink()
    fit(again)
    assert is_done(again)
