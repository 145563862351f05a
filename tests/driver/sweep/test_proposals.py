"""The first trial of a sweep: proposed by past runs, refined in brief runs, placed in the space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.config import Experiment
from distill.config.search import Search
from distill.driver.sweep.proposals import warm_start
from distill.search.values import with_values
from distill.tracking.store import import_mlflow
from distill.training.job import Job
from tests.driver.test_warm_start import Started, experiment_of
from tests.toys import toy_experiment, write_encoder

GOALS = {"eval.accuracy": "max", "student.size_mb": "min"}
SPACE: dict[str, Any] = {
    "kd.temperature": {"type": "quantised", "low": 1.0, "high": 6.0, "step": 1.0},
    "kd.alpha": {"type": "choice", "values": [0.1, 0.2, 0.3, 0.9]},
    "trainer.epochs": {"type": "choice", "values": [1, 2, 4]},
}


class ScriptedFits:
    """Brief fits that end at once, best at temperature 4 and α 0.3; the configuration's own values
    (2 and 0.7, in the space 2 and 0.9) reach 0.8."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, float, float]] = []

    def __call__(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            assert job.kd is not None
            temperature, alpha = job.kd.temperature, job.kd.alpha
            self.tried.append((job.name, temperature, alpha))
            quality = 0.95 - 0.1 * abs(temperature - 4) - abs(alpha - 0.3)
            best = 0.8 if job.name == "brief-configuration" else quality
            folder = Path(job.folder)
            folder.mkdir(parents=True)
            (folder / "done.json").write_text(json.dumps({"best": best}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("warm-sweep")
    toy_experiment(root)
    write_encoder(root / "one", num_labels=2)
    return root


def past_trial(root: Path, empty_store: Path, temperature: float, alpha: float) -> None:
    from mlflow.entities import Metric, Param

    shutil.copy(empty_store, root / "mlflow.db")
    client = import_mlflow().MlflowClient(f"sqlite:///{root}/mlflow.db")
    tags = {
        "distill.task": "past",
        "distill.kind": "trial",
        "distill.status": "finished",
    }
    run_id = client.create_run(client.create_experiment("past"), tags=tags).info.run_id
    client.log_batch(
        run_id,
        metrics=[Metric("meta.n", 324.0, 0, 0), Metric("eval.accuracy", 0.9, 0, 0)],
        params=[Param("kd.temperature", str(temperature)), Param("kd.alpha", str(alpha))],
    )
    client.set_terminated(run_id, "FINISHED")


def test_a_worse_proposal_is_refined_within_the_space(root: Path, empty_store: Path) -> None:
    past_trial(root, empty_store, temperature=2.7, alpha=0.22)
    it = Started(experiment_of(root, root / "run", kd={"temperature": 2.0, "alpha": 0.7}))
    fits, driver = ScriptedFits(), it.driver
    raw = json.loads(it.driver.experiment.model_dump_json())

    def job(entry: Any) -> Job:
        experiment: Experiment = with_values(raw, entry.values)
        assert set(entry.values) == set(SPACE)
        assert experiment.trainer.epochs == 1  # the experiment's own value, which no memory has
        return replace(
            it.student,
            teacher_setup=it.teacher_setup,
            objective=experiment.objective,
            kd=experiment.kd,
        )

    sweep: Any = SimpleNamespace(folder=root / "run", raw=raw, teacher_params=1e4, job=job)
    search = Search.model_validate({"space": SPACE, "warm_start": True, "goals": GOALS})
    with driver.tracker:
        first = warm_start(driver, fits, search, sweep)
        # 2.7 and 0.22 placed in the space are 3 and 0.2, which reach 0.75.
        assert fits.tried[0] == ("brief-proposal", 3.0, 0.2)
        assert fits.tried[1] == ("brief-configuration", 2.0, 0.9)
        assert first == [{"kd.temperature": 4.0, "kd.alpha": 0.3, "trainer.epochs": 1}]
        assert warm_start(driver, fits, search, sweep) == first  # decided once
    names = [name for name, _, _ in fits.tried]
    assert "brief-kd.temperature-up" in names and "brief-kd.alpha-up" in names
    assert {alpha for _, _, alpha in fits.tried} <= set(SPACE["kd.alpha"]["values"])
    record = json.loads((root / "run/warm_start.json").read_text())
    assert record["chosen"] == "kd.alpha-up" and record["first"] == first
