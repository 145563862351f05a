"""``warm_start`` of ``distill train``: past runs in a real MLflow, brief fits in this process."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.config import Cache, Experiment, Stream, parse
from distill.config.search import Goal
from distill.driver.checks.check import check
from distill.driver.context import Driver
from distill.driver.pipeline import record_inputs
from distill.driver.run_jobs import own_job
from distill.driver.serve import teacher_specs
from distill.driver.warm_start import (
    brief_of,
    check_warm_start,
    decide,
    numbers_of,
    quality,
    undecided,
    warm_started,
    with_numbers,
)
from distill.errors import ConfigError, Interrupted, TrainingError
from distill.report.progress import Progress
from distill.run_folder import RunFolder, identity
from distill.teachers.backends import open_backends
from distill.teachers.local import LocalTeachers
from distill.teachers.setup import TeacherSetup
from distill.tracking import Tracker
from distill.tracking.store import import_mlflow
from distill.training.fit import fit_and_save, is_done
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from tests.toys import toy_experiment, write_encoder

NUM_ROWS = {100: 3.0, 200: 3.0, 400: 3.0, 10_000: 7.0, 20_000: 7.0, 40_000: 7.0}
"""Rows of past tasks, and the temperature that was best on each."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("warm")
    toy_experiment(root)
    write_encoder(root / "one", num_labels=2)
    return root


@pytest.fixture(scope="module")
def uri(root: Path, empty_store: Path) -> str:
    """A store with 54 trials of an older version, which recorded two meta-features."""
    from mlflow.entities import Metric, Param

    shutil.copy(empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root}/mlflow.db"
    client = import_mlflow().MlflowClient(uri)
    experiment = client.create_experiment("past")
    for num_rows, best in NUM_ROWS.items():
        for temperature in (best, *(2.0, 4.0, 5.0, 6.0, 8.0) * 2)[:9]:
            tags = {
                "distill.task": f"task of {num_rows} rows",
                "distill.kind": "trial",
                "distill.status": "finished",
            }
            run_id = client.create_run(experiment, tags=tags).info.run_id
            metrics = {"meta.n": num_rows, "meta.d": 6.0, "eval.accuracy": temperature == best}
            params = {
                "kd.temperature": temperature,
                "kd.alpha": 0.3,
                "optimizer.lr": 5e-3,
                "optimizer.weight_decay": 1e-5,
            }
            client.log_batch(
                run_id,
                metrics=[Metric(name, float(value), 0, 0) for name, value in metrics.items()],
                params=[Param(name, str(value)) for name, value in params.items()],
            )
            client.set_terminated(run_id, "FINISHED")
    return uri


def experiment_of(root: Path, output: Path, **changes: Any) -> Experiment:
    """Too short to learn anything: of equals, the proposal is used."""
    raw = toy_experiment(root, output=str(output), warm_start=True, baselines=[])
    del raw["experts"]
    raw |= {
        "teachers": [{"name": "one", "path": str(root / "one"), "num_cpus": 0.1}],
        "aggregation": {"type": "mean"},
        "optimizer": {"lr": 1e-9},
    }
    raw["trainer"] |= {"epochs": 1, "engine": "torch"}
    return parse(raw | changes)


class Started:
    """A driver and what it runs on, without Ray."""

    def __init__(self, experiment: Experiment) -> None:
        plan = check(experiment)
        run = RunFolder(experiment.output)
        run.claim(plan.experiment, plan.identity)
        run.close()
        self.printed = io.StringIO()
        tracker = Tracker(experiment.tracking, experiment.output)
        interrupt = StopOnSignal(run.request_stop)
        self.driver = Driver(plan, run, Progress(self.printed), tracker, interrupt)
        self.student = own_job(self.driver)
        teachers, _ = teacher_specs(self.driver, [])
        self.teacher_setup = TeacherSetup(
            LocalTeachers(open_backends(teachers)),
            tuple(teachers),
            None,
            experiment.aggregation,
            Stream(),
            Cache(),
            str(run.root / "cache"),
        )
        self.trained: list[str] = []

    def warm_started(self, stop_at: int | None = None) -> tuple[Driver, Job]:
        def run(jobs: Sequence[Job]) -> None:
            for job in jobs:
                if len(self.trained) == stop_at:
                    raise Interrupted("Ctrl-C")
                if not is_done(job):
                    self.trained.append(job.name)
                fit_and_save(job)

        return warm_started(self.driver, self.student, lambda: self.teacher_setup, run)


@pytest.fixture(scope="module")
def started(root: Path, uri: str) -> Iterator[tuple[Started, Driver, Job]]:
    """A run that was stopped after its first brief fit, and resumed."""
    it = Started(experiment_of(root, root / "run"))
    with it.driver.tracker:
        record_inputs(it.driver, without=undecided(it.driver.experiment))
        with pytest.raises(Interrupted):
            it.warm_started(stop_at=1)
        assert it.trained == ["brief-proposal"]
        assert not (root / "run/warm_start.json").exists()
        (kept,) = it.driver.run.kept()
        assert kept.startswith("brief/proposal-") and kept.endswith("(trained)")
        yield it, *it.warm_started()


def record_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "run/warm_start.json").read_text())


def test_past_runs_choose_the_values_of_the_student(started: Any, root: Path) -> None:
    it, driver, job = started
    record = record_of(root)
    assert record["model"] == "boosting" and "6 past tasks (54 runs)" in record["why"]
    # The rule is in the number of rows, of which this task has 324; a mean does not know it.
    assert record["proposed"]["kd.temperature"] == pytest.approx(3, abs=0.2)
    assert record["mean_of_all"]["kd.temperature"] == pytest.approx(5)
    assert record["proposed"]["optimizer.lr"] == pytest.approx(5e-3)
    assert record["chosen"] == "proposal" and record["values"] == record["proposed"]
    assert [run["name"] for run in record["runs"]] == ["proposal", "configuration"]
    assert all(0 < run["quality"] < 1 for run in record["runs"])
    assert numbers_of(driver.experiment) == record["values"]
    assert job.optimizer == driver.experiment.optimizer
    assert job.optimizer.betas == it.driver.experiment.optimizer.betas
    assert driver.plan.identity == it.driver.plan.identity


def test_a_resumed_run_finds_brief_fits_and_the_decision(started: Any, root: Path) -> None:
    it, driver, job = started
    assert it.trained == ["brief-proposal", "brief-configuration"]  # each once
    assert not (root / "run/brief").exists()
    again, same_job = it.warm_started(stop_at=2)  # which stops any further fit
    assert again.experiment == driver.experiment and same_job == job


def test_mlflow_has_the_values_that_were_used(started: Any, root: Path, uri: str) -> None:
    client = import_mlflow().MlflowClient(uri)
    run = client.get_run((root / "run/mlflow_run_id").read_text())
    used = record_of(root)["values"]
    assert {key: float(run.data.params[key]) for key in used} == used
    assert run.data.params["warm_start"] == "true" and run.data.params["seed"] == "0"
    assert not [tag for tag in run.data.tags if tag.startswith("resumed.")]
    assert run.data.tags["distill.warm_start"].startswith("proposal: kd.temperature=")
    assert "warm_start.json" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_the_decision_is_printed_with_its_control(started: Any) -> None:
    lines = started[0].printed.getvalue()
    assert "configuration memory: 54 past runs of 6 tasks" in lines
    assert "the mean of all past tasks (6 tasks) is kd.temperature=5, " in lines
    assert "the proposal is no worse than the configuration: " in lines
    assert "warm start: the student trains with kd.temperature=" in lines


def test_without_past_runs_the_configuration_is_used(tmp_path: Path, root: Path) -> None:
    experiment = experiment_of(root, tmp_path)
    lines: list[str] = []
    d: Any = SimpleNamespace(
        tracker=SimpleNamespace(uri=f"sqlite:///{tmp_path}/none.db"),
        progress=SimpleNamespace(say=lines.append),
        experiment=experiment,
    )

    def never(*args: Any) -> Any:
        raise AssertionError("nothing is measured")

    own = numbers_of(experiment)
    decision = decide(d, own, Goal("eval.accuracy", "max"), never, never)
    assert decision.values == decision.mean == own
    assert decision.record() | {"neighbours": []} == {
        "values": own,
        "chosen": "configuration",
        "configuration": own,
        "proposed": own,
        "model": "defaults",
        "why": "no past run has values of these keys",
        "neighbours": [],
        "mean_of_all": own,
        "brief": None,
        "runs": [],
    }
    assert lines == ["configuration memory: 0 past runs of 0 tasks"]


def test_a_proposal_that_is_worse_is_refined(root: Path, uri: str, tmp_path: Path) -> None:
    """Best at temperature 4 and α 0.4, one step up from the proposal; placed on a grid."""
    d: Any = SimpleNamespace(
        tracker=SimpleNamespace(uri=uri),
        progress=SimpleNamespace(say=lambda message: None),
        experiment=experiment_of(root, tmp_path),
    )
    own = numbers_of(d.experiment)
    measured: list[str] = []

    def measure(name: str, values: dict[str, float]) -> float:
        measured.append(name)
        distance = abs(values["kd.temperature"] - 4) + abs(values["kd.alpha"] - 0.4)
        return 0.8 if name == "configuration" else 0.9 - distance

    def placed(values: dict[str, float]) -> dict[str, float]:
        return values | {"kd.temperature": float(round(values["kd.temperature"]))}

    goal = Goal("eval.accuracy", "max")
    meta = {"meta.n": 150.0, "meta.d": 6.0}
    decision = decide(d, own, goal, lambda: meta, measure, placed)
    assert decision.proposal.values["kd.temperature"] == pytest.approx(3, abs=0.2)
    assert decision.values["kd.temperature"] == 4.0
    assert decision.values["kd.alpha"] == pytest.approx(0.4)
    assert decision.choice is not None and decision.choice.best.name == "kd.alpha-up"
    axes = ("kd.temperature", "kd.alpha", "optimizer.lr", "optimizer.weight_decay")
    refinements = [f"{axis}-{direction}" for axis in axes for direction in ("up", "down")]
    assert set(measured) <= {"proposal", "configuration", *refinements} and len(measured) >= 8
    record = decision.record()
    assert record["chosen"] == "kd.alpha-up" and record["values"] == decision.values
    assert [run["name"] for run in record["runs"]] == measured


def test_a_brief_fit_that_fails_has_no_quality(started: Any, tmp_path: Path) -> None:
    it, driver, job = started
    rate = driver.experiment.optimizer.model_copy(update={"lr": 1e30})
    diverging = replace(job, optimizer=rate, folder=str(tmp_path / "fit"))
    brief = brief_of(diverging, tmp_path, "proposal", {"optimizer.lr": 1e30})

    def run(jobs: Sequence[Job]) -> None:
        for each in jobs:
            fit_and_save(each)

    assert quality(it.driver, brief, run) == -math.inf
    assert "brief-proposal failed: " in it.printed.getvalue()
    assert "lower optimizer.lr" in it.printed.getvalue()
    with pytest.raises(TrainingError):  # the student's own fit ends the run
        fit_and_save(diverging)


def test_a_brief_fit_is_a_quarter_in_one_process(started: Any, tmp_path: Path) -> None:
    job = started[2]
    trainer = job.trainer.model_copy(
        update={"engine": "deepspeed", "num_workers": 3, "batch_size": 16}
    )
    job = replace(job, trainer=trainer, num_steps=41)
    brief = brief_of(job, tmp_path, "proposal", {"kd.alpha": 0.5})
    assert (brief.total_steps, brief.trainer.engine, brief.trainer.num_workers) == (10, "torch", 1)
    assert (brief.trainer.batch_size, brief.trainer.micro_batch_size) == (16, 6)  # of a rank
    same = brief_of(job, tmp_path, "proposal", {"kd.alpha": 0.5})
    other = brief_of(job, tmp_path, "proposal", {"kd.alpha": 0.6})
    assert brief.folder == same.folder != other.folder


def test_the_experiment_takes_the_values_it_has_keys_for(root: Path, tmp_path: Path) -> None:
    experiment = experiment_of(root, tmp_path)
    own = {
        "kd.temperature": 2.0,
        "kd.alpha": 0.7,
        "optimizer.lr": 1e-9,
        "optimizer.weight_decay": 0.01,
    }
    assert numbers_of(experiment) == own and undecided(experiment) == tuple(own)
    changed = with_numbers(experiment, own | {"kd.alpha": 0.1})
    assert numbers_of(changed) == own | {"kd.alpha": 0.1}
    assert with_numbers(changed, {"kd.alpha": 0.7}) == experiment


def test_warm_start_is_a_part_of_what_a_folder_holds(root: Path, tmp_path: Path) -> None:
    warm = experiment_of(root, tmp_path)
    cold = warm.model_copy(update={"warm_start": False})
    assert "warm_start" not in identity(cold, "data")  # as in older versions
    assert identity(warm, "data")["warm_start"] == "true"
    assert undecided(cold) == ()


def test_what_the_memory_cannot_serve_is_refused(root: Path, tmp_path: Path) -> None:
    experiment = experiment_of(root, tmp_path)
    check_warm_start(experiment)
    language = experiment.model_copy(update={"task": "language_model"})
    with pytest.raises(ConfigError, match="warm_start true applies only to classifiers"):
        check(language)
    alone = experiment.model_copy(update={"teachers": ()})
    with pytest.raises(ConfigError, match="there are no teachers: give teachers or experts, or"):
        check(alone)
    check_warm_start(alone.model_copy(update={"warm_start": False}))
    kd = SimpleNamespace(schedule=SimpleNamespace(low=None, high=9.0))
    with pytest.raises(ConfigError, match=r"kd\.schedule\.high is fixed at 9: set it to null"):
        check_warm_start(experiment.model_copy(update={"kd": kd}))


def test_the_plan_names_the_warm_start(root: Path, tmp_path: Path) -> None:
    (line,) = [p for p in check(experiment_of(root, tmp_path)).lines if p.part == "warm start"]
    keys = "kd.temperature, kd.alpha, optimizer.lr, optimizer.weight_decay"
    assert (line.what, line.size) == (keys, "from past runs; up to 10 brief runs")
