"""Temperature schedules in whole fits: metrics, the driver's message, the plot, the model card."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from distill.config import KD, parse
from distill.config.temperature import Cosine, LossRatio
from distill.driver.checks.check import check
from distill.driver.context import Work
from distill.driver.fit_progress import FitWatch
from distill.report import plots
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.jobs import student_job, write_tokenizer
from distill.tasks.outcome import card
from distill.tasks.plan import Plan
from distill.training.fit import fit
from distill.training.job import Job
from tests.toys import toy_experiment, write_encoder
from tests.training.test_language_fit import job_of


def test_a_language_model_with_alpha_1_follows_its_loss_too(tmp_path: Path) -> None:
    intervals = {"epochs": 1, "batch_size": 4, "log_every": 1, "eval_every": 100}
    kd = {"temperature": 2.0, "alpha": 1.0, "schedule": {"type": "loss_ratio"}}
    cursor = fit(job_of(tmp_path, kd=kd, trainer=intervals))
    lines = [json.loads(line) for line in (tmp_path / "run/fit/metrics.jsonl").open()]
    found = [line["metrics"]["kd.temperature"] for line in lines if "lr" in line["metrics"]]
    last = cursor.step - 1
    expected = [LossRatio().at(last, 99, 2.0, cursor.losses[:i]) for i in range(len(found))]
    assert found == expected and len(set(found)) > 1


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("shown")
    teacher = write_encoder(root / "one", num_labels=2)
    raw: dict[str, Any] = toy_experiment(root) | {
        "teachers": [{"name": "one", "path": str(teacher)}],
        "aggregation": {"type": "mean"},
        "kd": {"temperature": 4.0, "schedule": {"type": "auto"}},
    }
    del raw["experts"]
    return check(parse(raw))


def watched(plan: Plan, job: Job, tracker: Any = None) -> str:
    stream = io.StringIO()
    work = Work(plan, RunFolder(plan.experiment.output), Progress(stream, every_s=1e9))
    FitWatch(work, [job], tracker).poll()
    return stream.getvalue()


class Tags:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def tags(self, values: dict[str, str]) -> None:
        self.values |= values

    def lines(self, lines: Any) -> None:
        pass


def test_the_driver_reports_what_auto_chose_once(plan: Plan, tmp_path: Path) -> None:
    experiment = plan.experiment
    tokenizer = write_tokenizer(
        experiment.student, plan.tokenizer, plan.corpus, tmp_path / "tokenizer"
    )
    job = student_job(experiment, plan.corpus, tokenizer, tmp_path, tmp_path / "stop")
    job = replace(job, num_steps=300, kd=experiment.kd)
    (tmp_path / "checkpoints/step-00000050").mkdir(parents=True)
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step, loss in ((10, 1.0), (20, 0.9), (30, 0.8), (40, 0.2), (50, 0.3)):
            metrics = {"loss": loss, "ce.loss": loss}
            file.write(json.dumps({"step": step, "metrics": metrics}) + "\n")
    tags = Tags()
    message = (
        "student: kd.schedule auto chose loss_ratio at step 30: ce.loss falls by 22.2% along a "
        "line with R² 1.00\n"
    )
    assert watched(plan, job, tags).count(message) == 1
    assert tags.values == {"distill.schedule": "loss_ratio"}
    assert "auto" not in watched(plan, replace(job, kd=KD(schedule=Cosine())))
    (tmp_path / "done.json").write_text(json.dumps({"best_step": 300}))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 300, "metrics": {"eval.accuracy": 0.5}}) + "\n")
    assert "auto" not in watched(plan, job), "a fit that is trained says nothing more"


def test_the_card_names_a_schedule_that_varies(plan: Plan) -> None:
    assert card(plan, None, {}).schedule == "auto, 2 to 6"
    constant = plan.experiment.model_copy(update={"kd": KD()})
    assert card(replace(plan, experiment=constant), None, {}).schedule == ""


def lines_of(temperatures: list[float]) -> list[dict[str, Any]]:
    return [
        {"step": 10 * (i + 1), "metrics": {"loss": 1.0 / (i + 1), "kd.temperature": temperature}}
        for i, temperature in enumerate(temperatures)
    ]


def test_the_temperature_is_drawn_where_it_varies(tmp_path: Path) -> None:
    constant, varying = lines_of([2.0, 2.0, 2.0]), lines_of([3.0, 2.5, 1.0])
    baseline = [{"step": 10, "metrics": {"loss": 1.0, "kd.temperature": 1.0}}]
    histories = {"a": constant, "b": varying, "c": baseline}
    assert plots._temperatures(histories) == {1: [(10, 3.0), (20, 2.5), (30, 1.0)]}

    def drawn(**histories: Any) -> Any:
        return matplotlib.image.imread(plots.learning_curves(histories, tmp_path / "a.png"))

    assert drawn(a=constant, c=baseline).shape[0] == 7 * plots.DPI
    pixels = drawn(**histories)
    assert pixels.shape[0] == 9 * plots.DPI
    for colour, is_there in ((plots.PALETTE[0], False), (plots.PALETTE[1], True)):
        rgb = matplotlib.colors.to_rgb(colour)
        below = pixels[2 * len(pixels) // 3 :, :, :3]
        assert np.isclose(below, rgb, atol=0.01).all(-1).any() == is_there
