"""Past runs in a real MLflow store, read as experiences."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from distill.config.search import Goal
from distill.errors import UnreachableError
from distill.search.configuration_memory import KEYS, ConfigurationMemory, Experience
from distill.tracking.past_runs import experiences
from distill.tracking.store import import_mlflow

META = {"meta.n": 120.0, "meta.d": 4.0}
VALUES = dict(zip(KEYS[:4], (4.0, 0.25, 3e-4, 1e-5), strict=True))


class Store:
    """Writes runs as the tracker and the sweep do."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.client = import_mlflow().MlflowClient(self.uri)
        self.num_runs = 0

    def experiment(self, name: str) -> str:
        return self.client.create_experiment(name)

    def run(
        self,
        experiment: str,
        tags: dict[str, str],
        params: dict[str, Any],
        metrics: dict[str, float],
        status: str | None = "FINISHED",
        parent: str | None = None,
    ) -> str:
        from mlflow.entities import Metric, Param, RunTag

        if parent is not None:
            tags = tags | {"mlflow.parentRunId": parent}
        run_id = self.client.create_run(experiment).info.run_id
        self.client.log_batch(
            run_id,
            metrics=[Metric(k, v, 0, 0) for k, v in metrics.items()],
            params=[Param(k, str(v)) for k, v in params.items()],
            tags=[RunTag(k, v) for k, v in tags.items()],
        )
        if status is not None:
            self.client.set_terminated(run_id, status)
        return run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Store:
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_store, folder / "mlflow.db")
    return Store(folder)


TRAIN = {"distill.task": "reviews"}
TRIAL = {
    "distill.task": "reviews",
    "distill.kind": "trial",
    "distill.status": "finished",
}


def of_task(found: list[Experience], task: str) -> list[Experience]:
    return sorted((e for e in found if e.task == task), key=lambda e: e.quality)


def test_train_runs_and_trials_of_all_experiments_are_read(store: Store) -> None:
    one, two = store.experiment("one"), store.experiment("two")
    config = VALUES | {"data.path": "x.parquet"}
    store.run(one, TRAIN, config, META | {"eval.accuracy": 0.7, "loss": 1.0})
    sweep = store.run(
        two,
        {"distill.task": "reviews", "distill.kind": "sweep"},
        config | {"search.type": "random"},
        META | {"eval.accuracy": 0.99},
        status=None,  # still going on
    )
    searched = {"kd.temperature": 6.0, "optimizer.lr": 0.002}
    store.run(
        two, TRIAL, searched, META | {"eval.accuracy": 0.8, "student.size_mb": 1}, parent=sweep
    )
    logged = {"kd.temperature": 3.0, "kd.alpha": 0.5}  # by the loop, as metrics
    store.run(two, TRIAL, {}, META | logged | {"eval.accuracy": 0.9}, parent=sweep)

    assert of_task(experiences(store.uri), "reviews") == [
        Experience("reviews", META, VALUES, 0.7),
        Experience("reviews", META, VALUES | searched, 0.8),
        Experience("reviews", META, VALUES | logged, 0.9),
    ]
    by_size = experiences(store.uri, goal=Goal("student.size_mb", "min"))
    assert [e.quality for e in of_task(by_size, "reviews")] == [-1.0]
    proposal = ConfigurationMemory(experiences(store.uri)).propose(META, VALUES)
    assert proposal.values == pytest.approx(VALUES | logged)


def test_what_cannot_be_trusted_is_left_out_and_counted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    here = store.experiment("doubtful")
    tags, metrics = (
        {"distill.task": "doubtful"},
        META | {"eval.accuracy": 0.5},
    )
    parent = store.run(here, {}, VALUES | {"optimizer.lr": "null"}, {})
    store.run(here, tags, VALUES, metrics, status="FAILED")
    store.run(here, tags, VALUES, metrics, status="KILLED")
    store.run(here, tags, VALUES, metrics, status=None)
    store.run(here, tags | {"distill.kind": "trial", "distill.status": "stopped"}, VALUES, metrics)
    store.run(here, {}, VALUES, metrics)
    store.run(here, tags, VALUES, {"eval.accuracy": 0.5})
    store.run(here, tags, VALUES, META)
    store.run(here, tags, VALUES, metrics | {"meta.n": math.nan})
    store.run(here, tags, VALUES, metrics | {"eval.accuracy": math.nan})
    store.run(here, tags, VALUES | {"kd.alpha": "nan"}, metrics)
    store.run(
        here, tags, {k: v for k, v in VALUES.items() if k != "optimizer.lr"}, metrics, parent=parent
    )
    store.run(here, tags, {}, metrics, parent="f" * 32)
    gone = store.run(here, tags, VALUES, metrics)
    store.client.delete_run(gone)
    buried = store.experiment("buried")
    store.run(buried, tags, VALUES, metrics)
    store.client.delete_experiment(buried)

    with caplog.at_level(logging.INFO, "distill"):
        assert of_task(experiences(store.uri), "doubtful") == []
    assert "1 left out: not finished" in caplog.text
    assert "2 left out: without meta-features" in caplog.text
    assert "2 left out: without a finite eval.accuracy" in caplog.text
    assert "1 left out: without a finite optimizer.lr" in caplog.text
    assert "1 left out: without a finite kd.alpha" in caplog.text
    assert "1 left out: without a finite kd.temperature" in caplog.text


def test_every_page_is_read(store: Store) -> None:
    for i in range(5):
        here = store.experiment(f"paged {i}")
        for j in range(2):
            metrics = META | {"eval.accuracy": (2 * i + j) / 10}
            store.run(here, {"distill.task": "paged"}, VALUES, metrics)
    found = of_task(experiences(store.uri, page=3), "paged")
    assert [e.quality for e in found] == [i / 10 for i in range(10)]


def test_only_the_keys_asked_for_must_be_known(store: Store) -> None:
    here = store.experiment("one key")
    store.run(
        here,
        {"distill.task": "alpha"},
        {"kd.alpha": 1},
        META | {"eval.accuracy": 1.0},
    )
    found = experiences(store.uri, keys=["kd.alpha"])
    assert of_task(found, "alpha") == [Experience("alpha", META, {"kd.alpha": 1.0}, 1.0)]
    assert of_task(experiences(store.uri), "alpha") == []


def test_epsilon_may_be_missing_and_the_capacity_gap_is_computed(store: Store) -> None:
    here = store.experiment("chains")
    metrics = META | {"meta.compression": 10.0, "eval.accuracy": 0.5}
    store.run(
        here,
        {"distill.task": "chain"},
        VALUES | {"chain": "null"},
        metrics,
    )
    with_chain = VALUES | {"chain.epsilon": 0.02}
    store.run(
        here,
        {"distill.task": "chain"},
        with_chain,
        metrics | {"eval.accuracy": 0.6},
    )
    meta = META | {"meta.compression": 10.0, "meta.log_capacity_gap": math.log(10)}
    assert of_task(experiences(store.uri), "chain") == [
        Experience("chain", meta, VALUES, 0.5),
        Experience("chain", meta, with_chain, 0.6),
    ]


def test_a_store_that_is_not_there_holds_no_memory_and_is_not_made(tmp_path: Path) -> None:
    assert experiences(f"sqlite:///{tmp_path}/mlflow.db") == []
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database, but long enough to be one: " * 100)
    with pytest.raises(UnreachableError, match=r"tracking.uri sqlite:.*search.warm_start"):
        experiences(f"sqlite:///{tmp_path}/mlflow.db")
