"""Progress of fits as the driver shows it: where they resume, and the evaluation they end with."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.config import Stream, parse
from distill.driver.checks.check import check
from distill.driver.context import Work
from distill.driver.fit_progress import FitWatch, Waiting
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.jobs import student_job, write_tokenizer
from distill.teachers.waiting import note_away, outage
from distill.training.job import Job
from tests.toys import toy_experiment, write_encoder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    root = tmp_path_factory.mktemp("watch")
    teacher = write_encoder(root / "one", num_labels=2)
    raw = toy_experiment(root) | {"teachers": [{"name": "one", "path": str(teacher)}]}
    del raw["experts"]
    plan = check(parse(raw | {"aggregation": {"type": "mean"}}))
    return Work(plan, RunFolder(plan.experiment.output), Progress(io.StringIO()))


@pytest.fixture
def job(work: Work, tmp_path: Path) -> Job:
    experiment, plan = work.experiment, work.plan
    tokenizer = write_tokenizer(experiment.student, plan.tokenizer, plan.corpus, work.run.tokenizer)
    job = student_job(experiment, plan.corpus, tokenizer, tmp_path, tmp_path / "stop")
    return replace(job, num_steps=540)


def shown(work: Work, stream: io.StringIO) -> Work:
    return replace(work, progress=Progress(stream, every_s=0.0))


def log(job: Job, step: int, **metrics: float) -> None:
    named = {name.replace("_", ".", 1): value for name, value in metrics.items()}
    with (Path(job.folder) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "metrics": named}) + "\n")


def test_the_last_line_is_the_evaluation_after_the_last_step(work: Work, job: Job) -> None:
    stream = io.StringIO()
    watch = FitWatch(shown(work, stream), [job])
    log(job, 500, loss=0.4)
    log(job, 500, eval_accuracy=0.75)
    log(job, 540, loss=0.3)
    watch.poll()
    log(job, 540, eval_accuracy=0.8125)
    watch.end(job.name)
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if "540/540" in line] == [lines[-1]]
    assert lines[-1].startswith("student 540/540 (100%) · validation accuracy 81.2 % · ")


def test_resuming_says_from_which_step_and_shows_nothing_of_later_ones(
    work: Work, job: Job
) -> None:
    (Path(job.folder) / "checkpoints/step-00000120").mkdir(parents=True)
    for step in (110, 120, 130):
        log(job, step, loss=step / 1000)
    stream = io.StringIO()
    watch = FitWatch(shown(work, stream), [job])
    watch.poll()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "student: resuming at step 120 of 540"
    assert lines[1].startswith("student 120/540")
    assert lines[-1].startswith("student 120/540 (22%) · loss 0.120")
    assert "130" not in stream.getvalue()


def test_a_fit_that_is_trained_is_one_line(work: Work, job: Job) -> None:
    log(job, 300, eval_accuracy=0.9)
    log(job, 540, eval_accuracy=0.8)
    (Path(job.folder) / "done.json").write_text('{"step": 540, "best_step": 300, "best": 0.9}')
    stream = io.StringIO()
    watch = FitWatch(shown(work, stream), [job])
    watch.end(job.name)
    assert stream.getvalue() == "student is trained: validation accuracy 90.0 %\n"


def test_a_fit_that_waits_for_a_teacher_says_so_once_and_when_it_continues(
    job: Job,
) -> None:
    folder = Path(job.folder)
    teacher_setup: Any = SimpleNamespace(
        stream=Stream(deadline_s=100, recovery_s=1000), teachers=(), aggregation=None
    )
    note_away(folder, "left by an earlier run")
    waiting = Waiting(replace(job, teacher_setup=teacher_setup))
    assert waiting.poll() is None
    (folder / "checkpoints" / "step-00000120").mkdir(parents=True)
    note_away(folder, "teacher 'films': its node is lost")
    found = outage(folder)
    assert found is not None
    line = waiting.poll()
    assert line is not None and "(teacher 'films': its node is lost)" in line
    assert "checkpoint of step 120 written" in line and "(stream.recovery_s 1000)" in line
    since, until = (
        time.strftime("%H:%M:%S", time.localtime(found.noticed + s)) for s in (-100, 900)
    )
    assert f"has been up since {since} (" in line and f"until {until}" in line
    assert waiting.poll() is None
    note_away(folder, None)
    assert waiting.poll() == f"{job.name}: all teachers respond; continuing"
    assert waiting.poll() is None
