"""What commands print on a terminal of 80 columns, where nothing has to be started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result as Ended
from typer.testing import CliRunner

from distill.cli import app
from distill.config import parse
from distill.driver.finished import Result, keep
from distill.driver.pipeline import opened
from distill.driver.run_jobs import jobs_of_teachers
from distill.driver.sweep.outcome import SweepOutcome
from distill.evaluation.relations import RATES
from distill.metrics import LANGUAGE_MODEL, LATENCY, SIZE
from distill.report.progress import Progress
from distill.report.table import to_json
from distill.run_folder import RunFolder
from distill.search.trials import Trial
from distill.tracking.store import resolve_uri, sqlite_path
from distill.training.job import Job
from tests.driver.test_finished import plan_of
from tests.report.rows import a_row
from tests.report.test_terminal import lines_of
from tests.toys import DOMAINS, toy_experiment

NAME = "student-without-teachers"
ROWS = [
    a_row("films", "expert", 4160.0, 0.02, 1.5, 0.9, 0.9, in_domain=0.75, out_of_domain=0.5),
    a_row(NAME, "baseline", 96.0, 0.1, 0.3, 0.25, 0.3, retention=0.27),
    a_row("student", "student", 96.0, 0.1, 0.3, 0.5, 0.3, retention=0.37),
]
METRICS = {"test.accuracy": 0.5, **{f"fidelity.{name}": 0.125 for name in RATES}}


def command(*arguments: str) -> Ended:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_experiment(tmp_path)))
    return path


def raw_of(config: Path) -> dict[str, Any]:
    return yaml.safe_load(config.read_text())


def test_the_plan_fits_80_columns(config: Path) -> None:
    ended = command("check", str(config))
    assert ended.exit_code == 0, ended.output
    assert max(map(len, ended.stdout.splitlines())) <= 80
    words = ended.stdout.split()
    assert "films," in words and "validation" in words


def test_a_finished_run_prints_its_tables_and_one_object_last(config: Path) -> None:
    plan = plan_of(raw_of(config))
    run = RunFolder(plan.experiment.output)
    run.claim(plan.experiment, plan.identity)
    run.close()
    run.student.mkdir()
    run.report.mkdir()
    (run.report / "table.json").write_text(to_json(ROWS))
    database = sqlite_path(resolve_uri(plan.experiment.tracking))
    assert database is not None
    database.touch()
    keep(run, plan, "train", Result(ROWS, METRICS, "mlflow ui"))

    ended = command("train", str(config), "--json")
    assert ended.exit_code == 0, ended.output
    assert ended.stderr.splitlines()[-1].endswith("run is finished; nothing to do")
    *lines, last = ended.stdout.splitlines()
    assert json.loads(last) == METRICS | {"student": str(run.student), "report": str(run.report)}
    tables = lines[: next(i for i, line in enumerate(lines) if line.startswith("student  "))]
    assert max(map(len, tables)) <= 80
    assert sum(line.startswith(f"{NAME} ") for line in tables) == 2, "two blocks, names whole"
    assert sum(line.startswith("★ student ") for line in tables) == 2
    for name in RATES:
        (line,) = (x for x in tables if x.startswith(f"{name} "))
        assert line.endswith(" 12.5 %")


def finish(job: Job) -> None:
    job.model_folder.mkdir(parents=True)
    folder = Path(job.folder)
    (folder / "done.json").write_text('{"step": 9, "best_step": 6, "best": 0.75}')
    lines = [{"step": 6, "metrics": {"eval.accuracy": 0.75}}, {"step": 9, "metrics": {}}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_trained_experts_are_listed_and_nothing_starts(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    with opened(parse(raw_of(config)), Progress()) as work:
        jobs = jobs_of_teachers(work)
        assert jobs.router is not None
        for job in jobs.teachers:
            finish(job)
    ended = command("experts", str(config), "--json")
    assert ended.exit_code == 0, ended.output
    assert "are trained; nothing to do" in ended.stderr
    *lines, last = ended.stdout.splitlines()
    assert list(json.loads(last)) == [*DOMAINS, "router"]
    rows = [" ".join(line.split()) for line in lines]
    for name in (*DOMAINS, "router"):
        assert f"{name} validation accuracy 75.0 % run/experts/{name}/model" in rows


def test_the_frontier_of_a_sweep_fits_80_columns() -> None:
    values = {"student.hidden": 128, "kd.temperature": 2.5, "objective.type": "forward_kl"}
    metrics = dict.fromkeys((*LANGUAGE_MODEL.summary, SIZE, LATENCY), 0.5) | {
        "student.params": 310_000.0
    }
    trials = [Trial(f"trial-{n:03d}", "finished", values, metrics) for n in range(3)]
    outcome = SweepOutcome(trials, trials[:2], trials[1], [], {}, Path("report"), title="toy")
    lines = lines_of(outcome.table(80), 80)
    assert lines[0] == "toy: frontier, 2 of 3 trials"
    assert max(map(len, lines)) <= 80
    heads = [head for line in lines for head in line.split()]
    assert heads.count("student.hidden") == 1, "keys are whole"
    assert {line.split()[1] for line in lines if "★" in line} == {"trial-001"}
