"""A run that is finished is recognised, and anything left to do is done."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver import pipeline
from distill.driver.checks.check import check
from distill.driver.finished import Result, finished, keep
from distill.errors import Interrupted, RunFolderError
from distill.report.progress import Progress
from distill.report.table import to_json
from distill.run_folder import RunFolder
from distill.tasks.plan import Plan
from tests.report.rows import a_row
from tests.toys import toy_experiment, write_data, write_encoder
from tests.toys_adapters import write_adapter
from tests.toys_language import language_experiment

RESULT = Result(
    [
        a_row("one", "expert", 4160.0, accuracy=0.9, per_domain={"films": 0.875}, in_domain=0.75),
        a_row("student", "student", 96.0, 0.1, 0.3, 1 / 3, 0.3, retention=0.37, note="tiny"),
    ],
    {"test.accuracy": 1 / 3, "test.f1": 0.3},
    "mlflow ui --backend-store-uri sqlite:////mlflow.db",
)


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    teacher = write_encoder(tmp_path / "one", num_labels=2)
    raw = toy_experiment(tmp_path) | {"teachers": [{"name": "one", "path": str(teacher)}]}
    del raw["experts"]
    return raw | {"aggregation": {"type": "mean"}}


def plan_of(raw: dict[str, Any]) -> Plan:
    return check(parse(raw))


def run_of(raw: dict[str, Any]) -> RunFolder:
    """The folder of a run that has ended."""
    plan = plan_of(raw)
    run = RunFolder(plan.experiment.output)
    run.claim(plan.experiment, plan.identity)
    run.close()
    run.student.mkdir()
    run.report.mkdir()
    (run.report / "table.json").write_text(to_json(RESULT.rows), "utf-8")
    (run.root.parent / "mlflow.db").touch()
    keep(run, plan, "train", RESULT)
    return run


def test_the_same_run_gives_its_result_bit_by_bit(raw: dict[str, Any]) -> None:
    run = run_of(raw)
    assert finished(run, plan_of(raw), "train") == RESULT
    faster = raw | {"trainer": raw["trainer"] | {"log_every": 3}, "cluster": {"num_cpus": 2}}
    assert finished(run, plan_of(faster), "train") == RESULT


def test_a_finished_run_starts_nothing(raw: dict[str, Any]) -> None:
    run = run_of(raw)
    stream = io.StringIO()
    outcome = pipeline.train(parse(raw), Progress(stream))
    assert outcome.rows == RESULT.rows and outcome.metrics == RESULT.metrics
    assert (outcome.student, outcome.report) == (run.student, run.report)
    assert outcome.open_command == RESULT.open_command
    assert stream.getvalue().splitlines()[-1] == f"{raw['output']} is finished; nothing to do"
    assert not (run.root / "mlflow_run_id").exists()


@pytest.mark.parametrize(
    ("error", "how"),
    [(Interrupted("stopped between two phases"), "stopped"), (KeyboardInterrupt(), "stopped at")],
)
def test_a_run_that_is_stopped_says_what_its_folder_keeps(
    raw: dict[str, Any], error: BaseException, how: str
) -> None:
    with (
        pytest.raises(Interrupted, match=rf"^{how}.* keeps student \(step 7\)$"),
        pipeline.opened(parse(raw), Progress(io.StringIO())) as work,
    ):
        (work.run.fit / "checkpoints/step-00000007").mkdir(parents=True)
        raise error
    with pipeline.opened(parse(raw), Progress(io.StringIO())) as work:  # the lock is free again
        assert work.plan.is_resuming


def touch_teacher(raw: dict[str, Any]) -> None:
    os.utime(Path(raw["teachers"][0]["path"]) / "model.safetensors", ns=(1, 1))


def add_baseline(raw: dict[str, Any]) -> None:
    raw["baselines"] = [*raw["baselines"], {"type": "labels_only", "name": "longer", "epochs": 9}]


def name_store(raw: dict[str, Any]) -> None:
    raw["tracking"] = raw["tracking"] | {"uri": f"{raw['tracking']['uri']}-other"}


def name_run(raw: dict[str, Any]) -> None:
    raw["tracking"] = raw["tracking"] | {"run_name": "another"}


def generate_more(raw: dict[str, Any]) -> None:
    raw["generation"] = {"num_prompts": 7}


@pytest.mark.parametrize(
    "change", [touch_teacher, add_baseline, name_store, name_run, generate_more]
)
def test_what_was_added_or_changed_since_is_done(
    raw: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    run = run_of(raw)
    change(raw)
    assert finished(run, plan_of(raw), "train") is None


def test_files_of_the_router_and_of_the_experts_base_count(tmp_path: Path) -> None:
    raw = toy_experiment(tmp_path)
    router = write_encoder(tmp_path / "router", num_labels=3)
    config = (router / "config.json").read_text("utf-8")
    for label, name in (("no", "films"), ("yes", "meals"), ("maybe", "tools")):
        config = config.replace(f'"{label}"', f'"{name}"')
    (router / "config.json").write_text(config, "utf-8")
    raw["aggregation"] = {"type": "routed", "k": 1, "router": str(router)}
    run = run_of(raw)
    for folder in (router, Path(raw["experts"]["base"])):
        assert finished(run, plan_of(raw), "train") == RESULT
        os.utime(folder / "model.safetensors", ns=(1, 1))
        assert finished(run, plan_of(raw), "train") is None
        keep(run, plan_of(raw), "train", RESULT)


def test_files_of_an_adapter_count(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path) | {"aggregation": {"type": "mean"}}
    base = tmp_path / "films"
    adapter = write_adapter(tmp_path / "adapter", base, 0)
    raw["teachers"] = [{"name": "one", "path": str(base), "adapter": str(adapter)}]
    run = run_of(raw)
    assert finished(run, plan_of(raw), "train") == RESULT
    os.utime(adapter / "adapter_model.safetensors", ns=(1, 1))
    assert finished(run, plan_of(raw), "train") is None


@pytest.mark.parametrize("lost", ["student", "report/table.json", "finished.json", "../mlflow.db"])
def test_what_was_deleted_is_made_again(raw: dict[str, Any], lost: str) -> None:
    run = run_of(raw)
    path = run.root / lost
    path.rmdir() if path.is_dir() else path.unlink()
    assert finished(run, plan_of(raw), "train") is None


def test_a_sweep_is_not_the_training_of_its_folder(raw: dict[str, Any]) -> None:
    run = run_of(raw)
    (run.report / "frontier.csv").touch()
    assert finished(run, plan_of(raw), "sweep") is None


def test_other_rows_at_the_same_path_are_another_experiment(raw: dict[str, Any]) -> None:
    run = run_of(raw)
    write_data(Path(raw["data"]["path"]), 54)
    with pytest.raises(RunFolderError, match="was started with different data"):
        plan_of(raw)
    assert run.finished.exists()


def test_a_password_of_the_store_is_not_written(raw: dict[str, Any]) -> None:
    raw["tracking"]["uri"] = "http://me:hunter2@localhost:5000"
    run = run_of(raw)
    assert "hunter2" not in run.finished.read_text("utf-8")
    assert finished(run, plan_of(raw), "train") == RESULT


def test_a_damaged_file_counts_as_not_finished(raw: dict[str, Any]) -> None:
    run = run_of(raw)
    for content in ("", "[]", '{"of": {}}'):
        run.finished.write_text(content)
        assert finished(run, plan_of(raw), "train") is None
