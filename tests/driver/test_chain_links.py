"""The driver of a chain without Ray: who is served when, who is distilled from whom, resuming, and
the comparison at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.aggregation.saved import read_weights
from distill.config import Experiment, parse
from distill.driver.checks.check import check
from distill.driver.context import Driver
from distill.driver.memory.store import Memory, NoMemory
from distill.driver.run_jobs import jobs_of
from distill.driver.serve import ServedTeachers, teacher_setup_of_link, teachers_of
from distill.driver.stages import stages_of
from distill.driver.student_stages import StudentStages, distilled
from distill.driver.task_stages import TaskStages
from distill.errors import RunFolderError, TrainingError
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained, value_of_teachers
from distill.tasks.jobs import student_job
from distill.tasks.outcome import evaluate
from distill.tasks.plan import Plan
from distill.teachers.local import LocalTeachers
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, fit_and_save
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from tests.integration.test_features_runs import settings
from tests.toys_tasks import Scripted
from tests.toys_teachers import backend_of

NEVER: Any = SimpleNamespace(is_set=lambda: False)
NO_TRACKER: Any = SimpleNamespace(lines=lambda lines: None)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported student of features, 2 layers of 32."""
    root = tmp_path_factory.mktemp("teacher")
    experiment = parse(settings(root) | {"student": {"layers": 2, "hidden": 32, "dropout": 0.0}})
    job = student_job(experiment, check(experiment).corpus, "", root / "fit", root / "stop")
    fit_and_save(job)
    return job.model_folder


@dataclass
class Local:
    """The links and the student of a run in this process; ``log``: what was done."""

    experiment: Experiment
    plan: Plan
    value: float | None = None
    """Of the teachers; None: measured."""
    memory: Memory | NoMemory = field(default_factory=NoMemory)
    launcher: Scripted | None = None
    """Of the baselines; None: they are left out."""
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        run, progress = RunFolder(self.experiment.output), Progress(StringIO())
        interrupt = StopOnSignal(run.request_stop)
        self.d = Driver(self.plan, run, progress, NO_TRACKER, interrupt, self.memory)

    def guide(self, source: Job | None) -> TeacherSetup:
        return teachers_of(self.d, []) if source is None else teacher_setup_of_link(self.d, source)

    @contextmanager
    def serve(self, teacher_setup: TeacherSetup) -> Iterator[TeacherSetup]:
        names = [spec.name for spec in teacher_setup.teachers]
        self.log.append(f"serve {', '.join(names)}")
        engines = {s.name: backend_of(s.folder, num_labels=2) for s in teacher_setup.teachers}
        yield replace(teacher_setup, client=LocalTeachers(engines))
        self.log.append(f"let {', '.join(names)} go")

    def start(self, job: Job, /) -> str:
        """As a launcher of worker groups: trained when this returns."""
        assert job.teacher_setup is not None and job.objective == self.experiment.objective
        self.log.append(f"{job.name} from {', '.join(t.name for t in job.teacher_setup.teachers)}")
        fit(job)
        self.polls = 0
        return job.name

    def wait(self, handles: list[str], timeout_s: float) -> list[str]:
        """Ended at the second poll."""
        self.polls += 1
        return handles if self.polls > 1 else []

    def check(self, handle: str, name: str) -> None: ...

    def measure(self, plan: Plan, job: Job, is_stopped: Callable[[], bool]) -> float | None:
        self.log.append(f"measure with {job.name}")
        return self.value or value_of_teachers(plan, job, is_stopped)

    def run(self) -> Chained:
        run, plan = self.d.run, self.plan
        jobs = jobs_of(self.d, student_job(self.experiment, plan.corpus, "", run.fit, run.stop))
        stages = stages_of(plan, jobs)
        with (
            TaskStages(self.d, self.launcher or Scripted(num_cpus=4)) as tasks,
            ServedTeachers(self.serve) as serve,
        ):
            if self.launcher is not None:
                tasks.run(stages, goes_on=True)
            students = StudentStages(self.d, jobs.teachers, tasks, self, serve, self.measure)
            for stage in stages:
                if stage.kind in ("link", "student"):
                    students.run(stage)
            return students.trained


def local(
    root: Path,
    teacher: Path,
    value: float | None = None,
    aggregation: dict[str, Any] | None = None,
    **chain: Any,
) -> Local:
    raw = settings(root, aggregation=aggregation or {"type": "mean"})
    raw["teachers"] = [{"name": "big", "path": str(teacher)}]
    raw["student"] = {"layers": 1, "hidden": 8, "dropout": 0.0}
    raw["trainer"] |= {"epochs": 4, "checkpoint_every": 1000}
    raw["chain"] = {"links": 3, "epsilon": 0.9} | chain
    experiment = parse(raw)
    return Local(experiment, check(experiment), value)


def done(log: list[str]) -> list[str]:
    """Without the lines that are printed."""
    return [line for line in log if ": " not in line]


def test_each_link_is_distilled_from_the_one_before_and_is_served_alone(
    tmp_path: Path, teacher: Path
) -> None:
    # Attention has weights of its own, which are in the module of link 1 alone.
    first = local(tmp_path, teacher, aggregation={"type": "attention"})
    chained = first.run()
    assert done(first.log) == [
        *("serve big", "link 1 from big", "measure with link 1"),
        *("let big go", "serve link 1", "link 2 from link 1"),
        *("let link 1 go", "serve link 2", "student from link 2", "let link 2 go"),
    ]
    assert chained.num_kept == 3 and chained.first.name == "link 1"
    record = json.loads((tmp_path / "run/links/chain.json").read_text())
    assert [link["is_kept"] for link in record["links"]] == [True, True]
    before = [record["teachers"], record["links"][0]["value"]]
    for value, link in zip(before, record["links"], strict=True):
        assert link["change"] == pytest.approx((link["value"] - value) / value)
    assert (tmp_path / "run/links/2/model/config.json").exists()

    first.log.clear()
    resumed = first.run()
    assert done(first.log) == []  # nothing is served, trained or measured twice
    assert [link.decision for link in resumed.links] == [link.decision for link in chained.links]

    # The table compares with the teachers, not with the link that the student is distilled from.
    assert resumed.student.teacher_setup is not None
    assert [t.name for t in resumed.student.teacher_setup.teachers] == ["link 2"]
    with first.serve(first.guide(None)) as teacher_setup:
        run = RunFolder(tmp_path / "run")
        whole = resumed.with_teachers(teacher_setup)
        outcome = evaluate(first.plan, run, whole, [], None, NEVER, first.log.append)
    found = [(row.role, row.name) for row in outcome.rows]
    assert found == [
        *(("expert", "big"), ("mix", "uniform mean"), ("mix", "attention ensemble")),
        *(("link", "link 1"), ("link", "link 2"), ("student", "student")),
    ]
    assert read_weights(outcome.report / "aggregation").teachers == ("big",)
    assert outcome.metrics["router.load.big"] == 1
    big, _, _, *links, student = outcome.rows
    assert outcome.metrics["eval.teacher_accuracy"] == record["teachers"]
    for row in (*links, student):
        assert big.accuracy and big.params and row.accuracy and row.params
        assert row.retention == pytest.approx(row.accuracy / big.accuracy)
        assert row.compression == big.params / row.params
    assert outcome.histories.keys() == {"student", "link 1", "link 2"}


def test_a_dropped_link_ends_the_chain_and_its_teachers_stay(tmp_path: Path, teacher: Path) -> None:
    one = local(tmp_path, teacher, value=100.0)  # any link is worse than these teachers
    chained = one.run()
    assert done(one.log) == [
        *("serve big", "link 1 from big", "measure with link 1"),
        *("student from big", "let big go"),
    ]
    assert chained.num_kept == 1 and chained.first is chained.student
    assert [link.note.partition(":")[0] for link in chained.links] == ["dropped from the chain"]
    assert "worse than the teachers (100)" in chained.links[0].note


def test_an_error_of_a_baseline_ends_the_run_after_the_stage_that_is_trained(
    tmp_path: Path, teacher: Path
) -> None:
    one = local(tmp_path, teacher)
    lost = TrainingError("training 'alone' was lost")
    one.launcher = Scripted(num_cpus=8, errors={"fit:alone": lost})
    with pytest.raises(TrainingError, match="training 'alone' was lost"):
        one.run()
    assert done(one.log) == ["serve big", "link 1 from big", "let big go"]
    assert not (tmp_path / "run/links/chain.json").exists()
    one.launcher, one.log = Scripted(num_cpus=8), []
    one.run()
    assert done(one.log)[:2] == ["serve big", "measure with link 1"], "link 1 is trained"


def test_a_trained_link_without_a_decision_is_measured_and_not_trained_again(
    tmp_path: Path, teacher: Path
) -> None:
    one = local(tmp_path, teacher, value=0.5, links=2)
    one.run()
    file = tmp_path / "run/links/chain.json"
    before = file.read_text()
    file.unlink()
    one.log.clear()
    one.run()
    assert done(one.log) == ["serve big", "measure with link 1", "let big go"]
    assert file.read_text() == before
    file.write_text("[")
    with pytest.raises(RunFolderError, match=r"chain\.json is unreadable .*: delete it"):
        one.run()


def test_a_link_that_is_the_only_teacher_verifies_and_generates_text(
    tmp_path: Path, teacher: Path
) -> None:
    """``sampling.teacher`` names one of the experiment's teachers."""
    one = local(tmp_path, teacher)
    raw = {"type": "skd", "teacher": "big"}
    experiment = one.experiment.model_copy(
        update={"sampling": parse(_language(tmp_path, raw)).sampling}
    )
    run = RunFolder(tmp_path / "run")
    job = student_job(one.experiment, one.plan.corpus, "", run.fit, run.stop)
    link = replace(job, name="link 1", folder=str(teacher.parent))
    assert distilled(job, experiment, one.guide(None)).sampling.teacher == "big"  # type: ignore[union-attr]
    assert distilled(job, experiment, one.guide(link)).sampling.teacher is None  # type: ignore[union-attr]


def _language(root: Path, sampling: dict[str, Any]) -> dict[str, Any]:
    raw = settings(root) | {"task": "language_model", "sampling": sampling}
    raw["data"] = {"path": "rows.jsonl", "columns": {"prompt": "p", "completion": "c"}}
    return raw | {"baselines": []}
